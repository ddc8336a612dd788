"""Pages of any source: the scores are those of `gotorb score`, the machine's files agree, flags mean what they say."""

import base64
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from gotorb import models, visualise
from gotorb.classifier import scores
from gotorb.classifier.sources import Detections, read_detections
from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.core.settings import Settings
from gotorb.errors import DataError
from gotorb.stamps.images import draw_strips, paint_stamps
from gotorb.training.inference import saliency_maps
from gotorb.visualise import Look, make_pages, write_block
from gotorb.visualise.flags import find_flags
from tests.browser.pages import THRESHOLD, make_judged
from tests.model.blobs import make_blobs
from tests.unit.apps.test_scoring import write_model_folder
from tests.unit.survey.synthetic import real_data, write_archive, write_packet

SIZE = 25


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(5)
    network = models.bayesian_vgg6((SIZE, SIZE, 3), dropout=0.1, block1=2, block2=2, dense=4)
    return write_model_folder(tmp_path_factory.mktemp("models") / "bayesian", network)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("data") / "data", n=20, size=SIZE)


def test_a_page_shows_the_scores_of_gotorb_score(model: Path, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 5)
    pages = make_pages([archive], model, tmp_path / "pages", Look(n_samples=4))
    assert [path.name for path in pages] == ["archive.html", "index.html"]
    rows = pd.read_csv(tmp_path / "pages" / "archive.csv", dtype={"id": str})
    out = tmp_path / "scores.csv"
    scores.score_source(scores.load_scorer(str(model)), archive, out, archive=ArchiveParams(), n_samples=4)
    expected = pd.read_csv(out, dtype={"id": str})
    for name in ("score", "mean", "std", "confidence", "called_real"):
        np.testing.assert_allclose(rows[name], expected[name], atol=2e-6)
    records = json.loads((tmp_path / "pages" / "archive.json").read_text())
    assert [one["id"] for one in records] == expected["id"].tolist()
    page = pages[0].read_text()
    assert "http:" not in page and "https:" not in page and all(one in page for one in expected["id"])


def test_a_data_set_with_neighbours_and_saliency(model: Path, data_dir: Path, tmp_path: Path) -> None:
    look = Look(n_samples=2, neighbours=data_dir, saliency=True)
    page = make_pages([data_dir], model, tmp_path, look)[0].read_text()
    assert page.count("<figure") == 20 * 3 and ">saliency<" in page


def test_pages_of_other_sources_or_options_are_not_replaced(model: Path, tmp_path: Path) -> None:
    source, pages, look = write_archive(tmp_path / "archive", 5), tmp_path / "pages", Look(n_samples=2)
    make_pages([source], model, pages, look)
    before = {path.name: path.read_bytes() for path in pages.iterdir()}
    assert layout.RECIPE_FILE in before and layout.UNFINISHED_FILE not in before
    for file in source.iterdir():
        os.utime(file, (1, 1))  # touched, as by a copy
    make_pages([source], model, pages, look)
    assert {path.name: path.read_bytes() for path in pages.iterdir()} == before
    with pytest.raises(DataError, match=r"made in another way \(options\)"):
        make_pages([source], model, pages, Look(n_samples=3))
    (source / "my_meta.csv").write_text((source / "my_meta.csv").read_text() + "\n")
    with pytest.raises(DataError, match=r"made in another way \(sources\)"):
        make_pages([source], model, pages, look)
    (pages / layout.UNFINISHED_FILE).touch()  # interrupted
    assert len(make_pages([source], model, pages, Look(n_samples=3))) == 2


def test_packets_are_shown_and_a_model_without_a_posterior_too(tmp_path: Path) -> None:
    network = models.vgg6((SIZE, SIZE, 3), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    plain = write_model_folder(tmp_path / "plain", network)
    write_packet(tmp_path / "1.avro", 1)
    page = make_pages([tmp_path / "1.avro"], plain, tmp_path / "pages")[0].read_text()
    assert "no posterior" in page and "18.50" in page


def test_real_packets_and_archives_are_shown_or_refused(model: Path, tmp_path: Path) -> None:
    assert len(make_pages([real_data("ztf_packets")], model, tmp_path / "a", Look(n_samples=2))) == 2
    with pytest.raises(DataError, match=r"takes stamps of 25 pixels, .* has 30"):
        make_pages([real_data("rubin") / "rubin_stamps.h5"], model, tmp_path / "b")


def test_what_cannot_be_shown_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*absent"):
        make_pages([tmp_path / "absent"], model, tmp_path / "pages")


def test_names_of_pages_are_harmless() -> None:
    found = Detections(
        name="../a b<script>.fits",
        table=pd.DataFrame(),
        stamps=np.empty(0),
        layers=(),
        exposures=np.empty(0),
        first=512,
    )
    assert visualise.page_name(found) == "a_b_script-512"


def test_a_strip_is_all_planes_side_by_side_the_first_row_at_the_bottom() -> None:
    planes = np.random.default_rng(1).normal(0, 1, (1, 9, 9, 2)).astype(np.float32)
    planes[0, 1, 2, 0], planes[0, 7, 8, 1] = 99, 99
    planes[0, 3:6, :4, 1] = 0
    address = draw_strips(planes, ("science", "difference"))[0]
    image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB")
    greys = paint_stamps(planes, ("science", "difference"))[0, :, ::-1].astype(int)
    pixels = np.array(image).astype(int)
    assert pixels.shape == (9, 19, 3) and (pixels[7, 2] == 255).all() and (pixels[1, 10 + 8] == 255).all()
    assert abs(pixels[:, :9] - greys[0]).max() <= 6 and abs(pixels[:, 10:] - greys[1]).max() <= 6


def test_flags_are_what_they_say() -> None:
    rng = np.random.default_rng(1)
    stamps = rng.normal(0, 1, (5, SIZE, SIZE, 3)).astype(np.float32)
    stamps[0, 12, 10, 2], stamps[0, 12, 14, 2] = 50, -40
    stamps[1, 2, 2, 1] = 5000
    table = pd.DataFrame(
        {"missing_fraction": [0, 0, 0.1, 0, 0], "n_seen": [3, 3, 3, 1, 3], "number": ["", "", "8", "", "7"],
         "metalabel": ["", "", "synvariable", "", ""],
         "ra": 0.0, "dec": 0.0}
    )  # fmt: skip
    found = Detections(
        name="x",
        table=table,
        stamps=stamps,
        layers=layout.LAYERS[:3],
        exposures=np.zeros((5, SIZE, SIZE, 3), np.float32),
    )
    flags, planets = find_flags(found, Settings())
    assert flags == [["dipole"], ["bright star"], ["edge"], ["cosmic ray"], ["minor planet"]]
    assert planets == ["", "", "", "", "7"]


def test_saliency_is_a_map_between_0_and_1(model: Path) -> None:
    scorer = scores.load_scorer(str(model))
    maps = saliency_maps(scorer.model, np.random.default_rng(2).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32))
    assert maps.shape == (3, SIZE, SIZE) and maps.min() >= 0 and 0 < maps.max() <= 1


def test_blocks_of_a_source_follow_each_other(data_dir: Path) -> None:
    blocks = list(read_detections(data_dir, ArchiveParams(), SIZE, block=8))
    assert [(block.first, len(block)) for block in blocks] == [(0, 8), (8, 8), (16, 4)]


def test_a_page_of_222_rows_with_ten_planes_has_at_most_three_megabytes(tmp_path: Path) -> None:
    """Of pure noise, which no picture format makes small."""
    scored = make_judged(222)
    planes = scored.found.exposures
    found = replace(scored.found, exposures=np.concatenate([planes, planes[..., :1]], axis=-1))
    scorer = SimpleNamespace(name="model", version="1", size=55)
    line = write_block(tmp_path, replace(scored, found=found), scorer, THRESHOLD, settings=Settings(), look=Look())
    page = tmp_path / line["file"]
    assert page.read_text().count("data:image/png") == 222 and page.stat().st_size <= 3e6
