"""Real sky: scores, pages, labels and the map of ZTF's archive, of alert packets and of Rubin's stamps.

ZTF's stamps have 63 pixels, its model takes the 25 in the middle; Rubin's have 30, whose middle is no odd number.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from gotorb import classifier, cli, eyeball
from gotorb.core import layout
from gotorb.core.params import N_SAMPLES, ArchiveParams, DatasetParams
from gotorb.dataset.store import open_dataset
from gotorb.dataset.versions import make_version
from gotorb.eyeball.decisions import Journal
from gotorb.eyeball.inference import kept_path, run_model
from gotorb.import_data import import_stamps
from gotorb.survey.pixels import LARGEST
from tests.browser.conftest import LabelServer, wait_until
from tests.unit.cli.conftest import Said
from tests.unit.labels.test_archive import params_of
from tests.unit.survey.synthetic import real_data

SIZE = 25
TINY = {"block1": 4, "block2": 4, "dense": 16}
DIVISION = DatasetParams(test_fraction=0.45, validation_fraction=0.2)
"""Half of Rubin's bogus rows lie in one field and stay together: a smaller test part would hold no real one."""
KINDS = ("real", "bogus", "unsure", "flag")
SOURCES = ("ztf", "ztf_packets", "rubin")
RUBIN: dict[str, Any] = {
    "ids_key": "diaSourceId",
    "columns": {"candidate_id": "diaSourceId", "object_id": "diaObjectId", "image_id": ["visit", "detector"],
                "ra": "ra", "dec": "dec", "realbogus": "reliability"},
    "asteroid_columns": {"distance": "ephOffset", "name": "mpc_designation"},
    "old_score_column": "reliability",
}  # fmt: skip
"""What params.yaml has to say of Rubin's archive: no column is named like ZTF's."""


class Sky(NamedTuple):
    """By source: the data set made of it, a model for it, and the params.yaml that reads it."""

    data: dict[str, Path]
    models: dict[str, Path]
    params: dict[str, Path]


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    """Data sets as `make repro` makes them, packets whole; one epoch of a tiny network each on ZTF and Rubin.

    What Rubin's says of its own rows is asked here, which spares a process; of the other rows the server asks.
    """
    folder = tmp_path_factory.mktemp("sky")
    archives = {
        "ztf": params_of("archive").model_copy(update={"size": 25}),
        "ztf_packets": params_of("packets").model_copy(update={"size": None}),
    }
    archives["rubin"] = ArchiveParams.model_validate(RUBIN)
    data, params = {}, {}
    for source, archive in archives.items():
        labelled = import_stamps(real_data(source), archive, out_dir=folder, name=f"{source}_labelled")
        data[source] = folder / source if source != "ztf_packets" else labelled
        if source != "ztf_packets":
            make_version(labelled, data[source], DIVISION, seed=2)
        params[source] = folder / f"{source}.yaml"
        tree = {"seed": 1, "label": {"archive": archive.model_dump(mode="json")}}
        params[source].write_text(yaml.safe_dump(tree))
    models = {source: folder / f"{source}_model" for source in ("ztf", "rubin")}
    for source, path in models.items():
        layers = ("science", "template", "difference")
        classifier.train(
            data[source], layers=layers, epochs=1, model_kwargs=TINY, out_dir=folder, name=path.name, seed=3
        )
    kept = kept_path(data["rubin"], str(models["rubin"]), N_SAMPLES, 0)
    kept.parent.mkdir()
    run_model(str(models["rubin"]), data["rubin"], kept, n_samples=N_SAMPLES, seed=0)
    return Sky(data, models | {"ztf_packets": models["ztf"]}, params)


@pytest.fixture
def gotorb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call `gotorb WORDS...` in this process, in a folder without a project; its console ends with the test."""
    console = logging.getLogger("gotorb")
    monkeypatch.setattr(console, "handlers", [])
    monkeypatch.setattr(console, "propagate", True)
    monkeypatch.chdir(tmp_path)

    def call(*words: Path | str) -> Said:
        capsys.readouterr()
        return Said(cli.main(list(map(str, words))), *capsys.readouterr())

    return call


def source_ids(source: str) -> list[str]:
    """Ids as the survey gave them, in its order."""
    if source == "ztf_packets":
        return sorted(path.stem for path in real_data(source).glob("*.avro"))
    column = {"ztf": "candid", "rubin": "diaSourceId"}[source]
    return pd.read_csv(real_data(source) / f"{source}_meta.csv", dtype=str)[column].tolist()


def told(said: Said) -> str:
    """The one line of a refusal."""
    assert said.code == 1 and "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("gotorb: ")]
    assert len(lines) == 1 and said.err.endswith(f"{lines[0]}\n")
    return lines[0]


@pytest.mark.parametrize(("source", "n_rows"), [("ztf", 1412), ("ztf_packets", 20), ("rubin", 234)])
def test_every_stamp_has_a_score(sky: Sky, gotorb: Callable[..., Said], source: str, n_rows: int) -> None:
    words = ("--params", sky.params[source], "--n-samples", "4", "--out", "scores.csv")
    said = gotorb("score", sky.models[source], real_data(source), *words)
    assert (said.code, said.out) == (0, f"scores.csv: {n_rows} rows\n")
    assert ("stamps of 63 pixels" in said.err and "sees the 25 in the middle" in said.err) == (source != "rubin")
    table = pd.read_csv("scores.csv", dtype={"id": str})
    assert table["id"].tolist() == source_ids(source)
    assert table[["score", "mean", "std"]].notna().all(axis=None) and table["score"].between(0, 1).all()
    data = open_dataset(sky.data[source])
    stamps = data.read_stamps(range(len(data)))
    assert abs(stamps).max() < LARGEST, "ZTF masks pixels of twelve templates with -3.4e38"
    at = (data.size - table_size(sky, source)) // 2
    middle = stamps[:, at : data.size - at, at : data.size - at]
    np.testing.assert_allclose(table["score"], classifier.predict(sky.models[source], middle), atol=2e-6)


def table_size(sky: Sky, source: str) -> int:
    """Side of the stamps that a source's model takes."""
    return int(classifier.load(sky.models[source]).model.input_shape[1])


@pytest.mark.parametrize(("source", "shown", "n_pages", "side"), [
    ("ztf", 512, 3, 63), ("ztf_packets", 20, 1, 63), ("rubin", 234, 1, 30),
])  # fmt: skip
def test_pages_show_every_detection(
    page: Any, sky: Sky, gotorb: Callable[..., Said], source: str, shown: int, n_pages: int, side: int
) -> None:
    words = ("--params", sky.params[source], "--n-samples", "2", "--neighbours", sky.data[source], "--out", "pages")
    said = gotorb("visualise", real_data(source), "--model", sky.models[source], *words)
    assert (said.code, said.out) == (0, "pages/index.html\n") and "Warning" not in said.err
    ids, pages = source_ids(source), Path("pages").resolve()
    found = [pd.read_csv(path, dtype={"id": str}) for path in sorted(pages.glob("*.csv"))]
    assert len(found) == n_pages and sorted(pd.concat(found)["id"]) == sorted(ids)
    page.goto(pages.joinpath(f"{source}.html").as_uri())
    assert page.locator("#rows > .row").count() == shown
    strip = page.locator("#rows > .row .strip img").first
    assert strip.evaluate("(image) => [image.naturalWidth, image.naturalHeight]") == [3 * side + 2, side]
    assert page.locator("#rows > .row").first.locator("figure").count() == 3
    page.fill("#words", ids[7])
    row = page.locator("#rows > .row:not([hidden])")
    assert row.count() == 1 and ids[7] in row.text_content()


def decide(page: Any, server: LabelServer) -> list[str]:
    """Call the first four rows something each, taking back one by the way; the ids that the page showed."""
    page.goto(server.url)
    page.wait_for_selector("#tiles[data-row]")
    seen = []
    for row, key in enumerate("rbuf"):
        wait_until(page, f"document.getElementById('tiles').dataset.row === '{row}'")
        seen.append(page.locator("#panel .id").first.inner_text())
        page.keyboard.press(key)
    page.keyboard.press("z")
    wait_until(page, "document.getElementById('tiles').dataset.row === '3'")
    page.keyboard.press("f")
    wait_until(page, "document.getElementById('status').textContent === 'saved'")
    return seen


FIRST_POINT = """() => {
  const canvas = document.getElementById("points"), side = canvas.width;
  const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, side, canvas.height).data.buffer);
  const at = pixels.findIndex((pixel, i) => pixel !== pixels[0] && i % side > 150);
  return [at % side / devicePixelRatio, Math.floor(at / side) / devicePixelRatio];
}"""
"""Where the map's first point is drawn, right of the legend."""


def hover_a_point(page: Any) -> int:
    """Move the mouse over a point of the map; its row."""
    box, (x, y) = page.locator("#above").bounding_box(), page.evaluate(FIRST_POINT)
    page.mouse.move(box["x"] + x, box["y"] + y)
    wait_until(page, "Number(document.getElementById('above').dataset.hovered ?? -1) >= 0")
    return int(page.get_attribute("#above", "data-hovered"))


def lasso_all(page: Any) -> int:
    """Draw round the whole map; how many rows that holds."""
    box = page.locator("#above").bounding_box()
    corners = [(2, 2), (box["width"] - 2, 2), (box["width"] - 2, box["height"] - 2), (2, box["height"] - 2)]
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in corners[1:]:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    return int(page.get_attribute("#selection", "data-n"))


@pytest.mark.parametrize(("source", "counts"), [
    pytest.param("ztf", {"real": 868, "bogus": 155, "unknown": 389}, marks=pytest.mark.slow),
    ("ztf_packets", {"real": 6, "bogus": 5, "unknown": 9}),  # one of the bogus has no drb, and an rb of 0.26
    ("rubin", {"real": 21, "bogus": 53, "unknown": 160}),
])  # fmt: skip
def test_people_label_and_explore(
    page: Any,
    sky: Sky,
    serve: Callable[..., LabelServer],
    tmp_path: Path,
    source: str,
    counts: dict[str, int],
) -> None:
    data_dir, ids = sky.data[source], source_ids(source)
    server = serve(data_dir, "--labeller", "ann", "--model", str(sky.models[source]))
    assert decide(page, server) == ids[:4]
    assert page.locator(".tile").count() == 3
    explore(page, server, ids, counts)
    server.kill()
    current = Journal(data_dir / layout.EYEBALL_DB).current().set_index("id")
    assert current.loc[ids[:4], "label"].tolist() == list(KINDS) and len(current) == 4
    assert set(current["model"]) == {sky.models[source].name}
    new = open_dataset(eyeball.export(data_dir, flagged="remove", out_dir=tmp_path, name="looked_at"))
    before, after = (open_dataset(one).table.set_index("id")["label"] for one in (data_dir, new.data_dir))
    assert after[ids[:2]].tolist() == [layout.REAL, layout.BOGUS] and after[ids[2]] == before[ids[2]]
    assert new.ids.tolist() == [id_ for id_ in ids if id_ != ids[3]]
    pd.testing.assert_series_equal(after[ids[4:]], before[ids[4:]])


def explore(page: Any, server: LabelServer, ids: list[str], counts: dict[str, int]) -> None:
    """The map holds all rows; hovering, clicking, a lasso and the way back work."""
    page.goto(server.url + "explorer")
    page.wait_for_selector("body[data-ready]")
    assert f"{len(ids)} rows" in page.inner_text("#set")
    assert page.locator("#legend div").all_inner_texts() == ["bogus", "real", "unknown"]
    row = hover_a_point(page)
    wait_until(page, f"document.getElementById('row').textContent.includes('{ids[row]}')")
    assert page.locator("#row canvas").count() == 3
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#neighbours figure")
    near = page.locator("#neighbours figure").evaluate_all("(all) => all.map((one) => one.title)")
    assert len(set(near)) == 12 and set(near) <= set(ids) - {ids[row]}
    assert lasso_all(page) == len(ids)
    names = page.locator("#selection dt").all_inner_texts()
    numbers = map(int, page.locator("#selection dd").all_inner_texts())
    assert dict(list(zip(names, numbers, strict=True))[: len(counts)]) == counts
    with page.expect_download() as downloaded:
        page.click("text=export ids")
    assert Path(downloaded.value.path()).read_text().split() == ["id", *ids]
    page.click("text=look at them")
    page.wait_for_selector("#tiles[data-row]")
    assert page.inner_text("#place").startswith(f"1 of {len(ids)}")


def test_an_archive_whose_columns_nobody_named_is_told_so(sky: Sky, gotorb: Callable[..., Said]) -> None:
    words = ("score", sky.models["ztf"], real_data("rubin"), "--out", "scores.csv", "--params")
    line = told(gotorb(*words, sky.params["ztf"]))
    assert "no column 'candid' of row ids" in line and "rubin_meta.csv (has row, diaSourceId, " in line
    assert "set label.archive.columns.candidate_id in params.yaml, and ids_key" in line
    half = yaml.safe_load(sky.params["rubin"].read_text())
    del half["label"]["archive"]["ids_key"]
    Path("half.yaml").write_text(yaml.safe_dump(half))
    line = told(gotorb(*words, "half.yaml"))
    assert "no array 'candid' of row ids in the hdf5" in line and "set label.archive.ids_key" in line
    half["label"]["archive"] |= {"ids_key": "diaSourceId", "layers": ["min", "max", "ptp"]}
    Path("half.yaml").write_text(yaml.safe_dump(half))
    assert "takes layer 'science', which" in told(gotorb(*words, "half.yaml"))
    assert [path.name for path in Path().iterdir()] == ["half.yaml"], "nothing is left of what was refused"


def test_stamps_that_a_model_cannot_take_are_refused_everywhere(sky: Sky, gotorb: Callable[..., Said]) -> None:
    ours, theirs = ("--params", sky.params["rubin"], "--out", "out"), sky.models["ztf"]
    for where, words in (
        (real_data("rubin"), ("score", theirs, real_data("rubin"), *ours)),
        (sky.data["rubin"], ("score", theirs, sky.data["rubin"], *ours)),
        (real_data("rubin"), ("visualise", real_data("rubin"), "--model", theirs, *ours)),
        (sky.data["rubin"], ("eyeball", sky.data["rubin"], "--model", theirs, "--port", "0")),
    ):
        assert told(gotorb(*words)) == (
            f"gotorb: model ztf_model takes stamps of 25 pixels, {where} has 30, whose middle 25 would lie half a "
            "pixel off; use a model trained on stamps of at most 30 pixels, an even number"
        )
    neighbours = ("--neighbours", sky.data["rubin"], "--out", "out")
    packets = gotorb("visualise", real_data("ztf_packets"), "--model", theirs, *neighbours)
    assert "half a pixel off" in told(packets)
    assert told(gotorb("score", sky.models["rubin"], sky.data["ztf"], "--out", "out")) == (
        f"gotorb: model rubin_model takes stamps of 30 pixels, {sky.data['ztf']} has 25, too few; use a model trained "
        "on stamps of at most 25 pixels, an odd number"
    )
    assert list(Path().iterdir()) == [], "nothing is left of what was refused"
