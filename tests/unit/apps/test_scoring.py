"""Scores of any source with any model in one csv: equal to classifier.predict, complete, and whole or not there."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import classifier, models
from gotorb.classifier import scores, sources
from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ModelError
from gotorb.evaluation.posterior import Scale
from gotorb.survey.archives import open_archive
from gotorb.training.meta import write_meta
from gotorb.training.model_files import write_model
from tests.model.blobs import make_blobs
from tests.unit.survey.packets import other_packet, rubin_record, wire
from tests.unit.survey.synthetic import make_table, real_data, write_archive, write_packet

ARCHIVE = ArchiveParams()
LAYERS = ("science", "template", "difference")


def write_model_folder(folder: Path, network: keras.Model, layers: tuple[str, ...] = LAYERS) -> Path:
    folder.mkdir()
    write_model(folder / layout.MODEL_H5, network)
    write_meta(folder / layout.META_HKL, {"layers": list(layers)})
    return folder


@pytest.fixture(scope="module")
def bayesian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(5)
    network = models.bayesian_vgg6((63, 63, 3), dropout=0.1, block1=2, block2=2, dense=4)
    return write_model_folder(tmp_path_factory.mktemp("models") / "bayesian", network)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = models.vgg6((63, 63, 3), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    return write_model_folder(tmp_path_factory.mktemp("models") / "plain", network)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive"), 20)


def score(model: Path, source: Path, out: Path, **options: Any) -> pd.DataFrame:
    options = {"archive": ARCHIVE, "n_samples": 4} | options
    n_rows = scores.score_source(scores.load_scorer(str(model)), source, out, **options)
    table = pd.read_csv(out, dtype={"id": str}, keep_default_na=False, na_values={"ra": "", "dec": "", "std": ""})
    assert len(table) == n_rows and tuple(table) == scores.COLUMNS
    return table


def test_scores_are_those_of_predict_and_every_column_is_full(bayesian: Path, archive: Path, tmp_path: Path) -> None:
    table = score(bayesian, archive, tmp_path / "scores.csv")
    stamps = np.concatenate([block for block, _ in open_archive(archive, ARCHIVE).batches()])
    np.testing.assert_allclose(table["score"], classifier.predict(bayesian, stamps), atol=1e-6)  # six digits kept
    assert table["id"].tolist() == make_table(20)["candid"].tolist()
    np.testing.assert_allclose(table["ra"], make_table(20)["ra"], atol=1e-7)
    numbers = table[["ra", "dec", "score", "mean", "std", "confidence"]].to_numpy(float)
    assert np.isfinite(numbers).all() and (table["std"] > 0).all()
    assert set(table["model_name"]) == {"bayesian"} and table["model_version"].str.startswith("sha256:").all()
    assert table["data_sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_scores_do_not_depend_on_the_batches_and_repeat(
    bayesian: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score(bayesian, archive, tmp_path / "a.csv")
    score(bayesian, archive, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    monkeypatch.setattr(scores, "BATCH_SIZE", 7)
    np.testing.assert_allclose(score(bayesian, archive, tmp_path / "c.csv")["score"], whole["score"], atol=2e-6)


def test_one_compilation_serves_all_batches(
    bayesian: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gotorb.training import inference as sampling

    samplers: list[object] = []
    build = sampling.make_sampler
    monkeypatch.setattr(sampling, "make_sampler", lambda model: samplers.append(build(model)) or samplers[-1])
    monkeypatch.setattr(scores, "BATCH_SIZE", 5)
    scorer = scores.load_scorer(str(bayesian))
    scores.score_source(scorer, archive, tmp_path / "a.csv", archive=ARCHIVE, n_samples=3)
    assert scorer.compiled._score.experimental_get_tracing_count() == 1
    assert len(samplers) == 1


def test_a_plain_model_leaves_the_posterior_empty(plain: Path, archive: Path, tmp_path: Path) -> None:
    table = score(plain, archive, tmp_path / "scores.csv")
    assert table["score"].between(0, 1).all() and table["std"].isna().all()
    assert (table["mean"] == "").all() and (table["confidence"] == "").all()


def test_an_hdf5_alone_has_scores_but_no_places(plain: Path, archive: Path, tmp_path: Path) -> None:
    table = score(plain, archive / "my_stamps.h5", tmp_path / "scores.csv")
    assert table["id"].tolist() == make_table(20)["candid"].tolist() and table["ra"].isna().all()


def test_a_bad_packet_is_passed_over(plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "packets"
    folder.mkdir()
    for number in range(3):
        write_packet(folder / f"{number}.avro", number)
    (folder / "1.avro").write_bytes(b"broken")
    table = score(plain, folder, tmp_path / "scores.csv")
    assert table["id"].tolist() == ["0", "2"] and table["ra"].tolist() == [150.1, 150.1]
    assert len(score(plain, folder / "2.avro", tmp_path / "one.csv")) == 1


def test_a_data_set_is_scored_in_the_layers_of_the_model(tmp_path: Path) -> None:
    layers = ("difference", "science")
    model = write_model_folder(tmp_path / "two", models.vgg6((21, 21, 2), block1=2, block2=2, dense=4), layers)
    data_dir = make_blobs(tmp_path / "data", n=30, size=21)
    table = score(model, data_dir, tmp_path / "scores.csv")
    data = open_dataset(data_dir)
    expected = classifier.predict(model, data.read_stamps(range(30), layers))
    np.testing.assert_allclose(table["score"], expected, atol=1e-6)
    assert table["id"].tolist() == data.ids.tolist()


def test_hostile_text_in_ids_stays_text(plain: Path, tmp_path: Path) -> None:
    names = ['=HYPERLINK("http://x")', "a,b\nc", "<script>", "'; drop table"]
    archive = write_archive(tmp_path / "a", 4, table=make_table(4).assign(candid=names))
    with h5py.File(archive / "my_stamps.h5", "a") as file:
        del file["candid"]
        file["candid"] = [name.encode() for name in names]
    kept = [f"'{names[0]}", *names[1:]]  # a spreadsheet would run the first
    assert score(plain, archive, tmp_path / "scores.csv")["id"].tolist() == kept


@pytest.mark.parametrize("error", [DataError("half way"), OSError("disk full")])
def test_nothing_stands_under_the_final_name_when_scoring_fails(
    plain: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(*arguments: Any, **options: Any) -> Any:
        yield from list(sources.read_detections(*arguments, **options))
        raise error

    monkeypatch.setattr(scores, "read_detections", failing)
    out = tmp_path / "scores.csv"
    with pytest.raises(DataError, match=r"half way|disk full"):
        score(plain, archive, out)
    assert list(tmp_path.iterdir()) == []
    out.write_text("before")
    with pytest.raises(DataError):
        score(plain, archive, out)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_model_of_small_stamps_takes_the_middle(archive: Path, tmp_path: Path) -> None:
    model = write_model_folder(tmp_path / "small", models.vgg6((25, 25, 3), block1=2, block2=2, dense=4))
    table = score(model, archive, tmp_path / "scores.csv")
    small = score(model, archive, tmp_path / "small.csv", archive=ArchiveParams(size=21))
    np.testing.assert_allclose(table["score"], small["score"], atol=1e-6)


def test_stamps_that_do_not_fit_the_model_are_refused(plain: Path, tmp_path: Path) -> None:
    small = write_archive(tmp_path / "small", 3, size=30)
    with pytest.raises(DataError, match=r"takes stamps of 63 pixels, .* has 30"):
        score(plain, small, tmp_path / "scores.csv")
    with pytest.raises(DataError, match=r"takes layer 'science', which is missing in .*"):
        score(plain, write_archive(tmp_path / "other", 3), tmp_path / "scores.csv",
              archive=ArchiveParams(layers=("ptp", "min", "max")))  # fmt: skip
    assert not (tmp_path / "scores.csv").exists()


def test_other_surveys_are_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"takes stamps of 63 pixels, .* has 30"):
        score(plain, real_data("rubin") / "rubin_stamps.h5", tmp_path / "scores.csv")
    with pytest.raises(DataError, match="cannot be read as a stamp archive"):
        score(plain, real_data("other_surveys") / "other_stamps.h5", tmp_path / "scores.csv")


def test_sources_that_are_nothing_are_refused(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    for name in ("absent", "empty", "note.txt"):
        with pytest.raises(DataError, match=name) as caught:
            score(plain, tmp_path / name, tmp_path / "scores.csv")
        assert "\n" not in str(caught.value)


def test_a_model_whose_layers_nobody_names_is_refused(plain: Path, tmp_path: Path) -> None:
    alone = tmp_path / layout.MODEL_H5
    alone.write_bytes((plain / layout.MODEL_H5).read_bytes())
    with pytest.raises(ModelError, match="nothing names them"):
        scores.load_scorer(str(alone))


def test_the_real_packets_get_the_scores_of_the_archive(plain: Path, tmp_path: Path) -> None:
    packets = score(plain, real_data("ztf_packets"), tmp_path / "a.csv").set_index("id")["score"]
    archive = score(plain, real_data("ztf"), tmp_path / "b.csv").set_index("id")["score"]
    assert len(packets) == 20 and len(archive) == 1412
    np.testing.assert_allclose(packets, archive[packets.index], atol=0.02)  # pixels were rounded to noise / 10


def test_packets_of_rubin_are_scored_at_the_size_of_the_model(tmp_path: Path) -> None:
    network = models.vgg6((25, 25, 3), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    model, folder = write_model_folder(tmp_path / "model", network), tmp_path / "packets"
    folder.mkdir()
    record = rubin_record(alert_id=2**60 + 7)
    (folder / "a.bin").write_bytes(wire(record, "10.0"))
    table = score(model, folder, tmp_path / "a.csv")
    assert table["id"].tolist() == [str(2**60 + 7)] and table["ra"].tolist() == [10.5]
    (found,) = sources.read_detections(folder, ARCHIVE, 25)
    assert found.stamps.shape == (1, 25, 25, 3) and found.stamps[0, 12, 12].min() > 900
    assert found.table["realbogus"].tolist() == [0.875] and found.table["mag"].notna().all()


def test_packets_without_a_template_need_a_model_without(tmp_path: Path) -> None:
    network = models.vgg6((41, 41, 2), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    model = write_model_folder(tmp_path / "model", network, ("science", "difference"))
    names = {"science": "cutoutScience", "difference": "cutoutDifference"}
    candidate = {"mjd": 59521.5, "RA": 1.0, "Dec": 2.0, "Mag": 16.5, "X": 4.0, "Y": 5.0, "pid": 7}
    (tmp_path / "a.avro").write_bytes(other_packet(names, candidate, publisher="ATLAS-1", objectId="o", candid="c"))
    assert score(model, tmp_path / "a.avro", tmp_path / "a.csv")["id"].tolist() == ["c"]


@pytest.mark.parametrize("folder", ["alerts/rubin_wire_v10", "alerts/rubin_container_fink_v9", "alerts/rubin_wire_v11"])
def test_the_real_packets_of_rubin_get_scores(tmp_path: Path, folder: str) -> None:
    packets = real_data("alerts").parent / folder
    network = models.vgg6((29, 29, 3), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    table = score(write_model_folder(tmp_path / "model", network), packets, tmp_path / "a.csv")
    assert sorted(table["id"]) == sorted(path.stem for path in packets.iterdir())


def test_ids_that_a_spreadsheet_would_run_are_text() -> None:
    table = pd.DataFrame({"id": ["=1+1", "7"], "ra": 1.0, "dec": 2.0, "image_id": ["@SUM(A1)", "-5"]})
    rows = list(
        scores._rows(table, scores.Scores(np.array([0.1, 0.2]), None), ("model", "1", "digest", 0.5), Scale(0.5))
    )
    assert [(row[0], row[-1]) for row in rows] == [("'=1+1", "'@SUM(A1)"), ("7", "-5")]
