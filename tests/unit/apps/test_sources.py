"""Several sources in one csv, a killed call that resumes, and a folder that is watched."""

import logging
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb import models
from gotorb.classifier import jobs, sources
from gotorb.classifier.jobs import Options, score_sources, watch_folder
from gotorb.classifier.scores import NICENESS, fetch_ahead
from gotorb.core.params import ArchiveParams
from gotorb.errors import DataError
from tests.unit.apps.test_scoring import write_model_folder
from tests.unit.survey.images import NX, NY, write_image
from tests.unit.survey.synthetic import write_archive, write_packet

OPTIONS = Options(n_samples=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    keras.utils.set_random_seed(5)
    network = models.bayesian_vgg6((63, 63, 3), dropout=0.1, block1=2, block2=2, dense=4)
    return str(write_model_folder(tmp_path_factory.mktemp("models") / "bayesian", network))


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [write_archive(tmp_path / name, n) for name, n in (("a", 3), ("b", 4), ("c", 5))]


def test_rows_follow_the_sources(model: str, three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    assert score_sources(model, three, out, OPTIONS) == 12
    table = pd.read_csv(out)
    assert table.groupby("data_sha256", sort=False).size().tolist() == [3, 4, 5]
    assert not Path(f"{out}.parts").exists()


def test_a_killed_call_goes_on_and_ends_with_the_same_bytes(
    model: str, three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out, done = tmp_path / "whole.csv", tmp_path / "scores.csv", []
    score_sources(model, three, whole, OPTIONS)
    own = jobs.score_source

    def dying(scorer: Any, source: Path, *rest: Any, **options: Any) -> int:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(source)
        return own(scorer, source, *rest, **options)

    monkeypatch.setattr(jobs, "score_source", dying)
    with pytest.raises(KeyboardInterrupt):
        score_sources(model, three, out, OPTIONS)
    assert not out.exists()
    done[:] = []
    score_sources(model, three, out, OPTIONS)
    assert done == three[2:] and out.read_bytes() == whole.read_bytes()


def test_the_call_goes_by_the_threshold(model: str, three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    for threshold, called in ((0.0, 1), (1.0, 0)):
        score_sources(model, three[:1], out, Options(n_samples=0, threshold=threshold))
        table = pd.read_csv(out)
        assert (table["threshold"] == threshold).all() and (table["called_real"] == called).all()
        assert table["std"].isna().all()


def test_nothing_to_score_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*absent"):
        score_sources(model, [tmp_path / "absent"], tmp_path / "scores.csv", OPTIONS)
    small = write_archive(tmp_path / "small", 3, size=30)
    with pytest.raises(DataError, match="at most 30 pixels, an even number"):
        score_sources(model, [small], tmp_path / "scores.csv", OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["small"], "no empty folder of parts is left"


def test_a_watched_folder_scores_each_file_once(model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_packet(folder / "a.avro", 1)
    (folder / "bad.avro").write_bytes(b"no")
    (folder / "note.txt").write_text("no")
    looks = iter([True, True, False])

    def next_look() -> bool:
        write_packet(folder / "b.avro", 2) if not (folder / "b.avro").exists() else None
        return next(looks)

    with caplog.at_level(logging.WARNING):
        assert watch_folder(model, folder, out, OPTIONS, poll_s=0, goes_on=next_look) == 2
    assert sorted(path.name for path in out.iterdir()) == ["a.avro.csv", "b.avro.csv"]
    assert sum("not scored" in record.message for record in caplog.records) == 1
    stamp = (out / "a.avro.csv").stat().st_mtime_ns
    looks = iter([True, False])
    assert watch_folder(model, folder, out, OPTIONS, poll_s=0, goes_on=lambda: next(looks)) == 0
    assert (out / "a.avro.csv").stat().st_mtime_ns == stamp


def test_reading_ahead_keeps_order_errors_and_ends_with_its_caller() -> None:
    def failing() -> Any:
        yield 1
        raise OSError("disk")

    ahead = fetch_ahead(failing())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="disk"):
        next(ahead)
    read: list[int] = []
    endless = fetch_ahead((read.append(n) or n for n in range(1000)), ahead=2)
    assert next(endless) == 0
    endless.close()
    assert len(read) < 10


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_reader_gives_way_to_the_network_and_nobody_else_does() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    (reader,) = fetch_ahead(niceness() for _ in range(1))
    assert reader == min(before + NICENESS, 19) and niceness() == before


def write_detections(folder: Path, n: int) -> Path:
    """Difference image with a single exposure and detections anywhere on it."""
    folder.mkdir()
    rng = np.random.default_rng(n)
    table = {"x": rng.uniform(0, NX - 1, n), "y": rng.uniform(0, NY - 1, n)}
    path = write_image(folder / "image.fits", names=("IMAGE", "TEMPLATE", "DIFFERENCE"), table=table)
    write_image(folder / "exposure.fits")
    with fits.open(path, mode="update") as file:
        file[0].header.update({"JD": 2459000.5, "NCOADD": 1, "COADD1": "exposure.fits"})
    return path


def test_an_image_in_blocks_is_the_same_as_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_detections(tmp_path / "night", 2_000)

    def read() -> tuple[pd.DataFrame, np.ndarray, list[tuple[int, int]]]:
        blocks = list(sources.read_detections(path, ArchiveParams(), 15, block=100))
        table = pd.concat([one.table for one in blocks], ignore_index=True)
        return table, np.concatenate([one.stamps for one in blocks]), [(one.first, len(one)) for one in blocks]

    whole = read()
    monkeypatch.setattr(sources, "PLANES_BYTES", 1)
    apart = read()
    pd.testing.assert_frame_equal(whole[0], apart[0])
    np.testing.assert_array_equal(whole[1], apart[1])
    assert [first for first, _ in apart[2]] == np.cumsum([0, *(n for _, n in apart[2])])[:-1].tolist()


def test_memory_does_not_grow_with_the_detections_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PLANES_BYTES", 1 << 22)
    peaks = []
    for n in (2_000, 20_000):
        path = write_detections(tmp_path / str(n), n)
        tracemalloc.start()
        assert sum(len(one) for one in sources.read_detections(path, ArchiveParams(), 15, block=256)) == n
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 40, peaks  # the table of 18,000 more; their stamps would take 190 MiB
