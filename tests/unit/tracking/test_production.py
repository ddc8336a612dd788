"""Promotion to an alias: a model that is worse anywhere is refused with the numbers; every try is on record."""

import getpass
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb import cli
from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import write_dataset
from gotorb.errors import ModelError, TrackingError
from gotorb.evaluation.promotion_checks import Limits
from gotorb.tracking.promotion import promote, rollback
from gotorb.tracking.registry import Registered, find_alias, move_alias, register
from gotorb.tracking.runs import md5, track_stage
from tests.unit.tracking.tiny import LAYERS, SIZE, make_model, make_params

N, SIGNAL = 480, 1.5
HALVES = {"1": np.s_[: SIZE // 2], "2": np.s_[SIZE // 2 + 1 :]}
"""Telescope -> rows of its stamps that tell real from bogus."""
ANY = Limits(max_ece=1.0, max_changed=1.0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A divided data set of two telescopes, whose stamps tell in different places."""
    rng, numbers = np.random.default_rng(3), np.arange(N)
    labels, ut = numbers % 2, np.where(numbers // 2 % 2 == 0, "1", "2")
    stamps = rng.normal(0, 1, (N, SIZE, SIZE, len(layout.LAYERS)))
    for telescope, rows in HALVES.items():
        stamps[ut == telescope, rows] += SIGNAL * (2 * labels[ut == telescope, None, None, None] - 1)
    table = pd.DataFrame({"id": [f"row{i:03d}" for i in numbers], "image_id": "im1", "label": labels, "ut": ut})
    table = table.assign(metalabel=np.where(labels == 1, "mp", "randjunk"))
    table[layout.SPLIT_COLUMN] = np.where(numbers % 3 == 0, "train", "test")
    return write_dataset(tmp_path_factory.mktemp("two") / "data", table, [stamps.astype(np.float32)])


def add(folder: Path, *telescopes: str, name: str = "gotorb", **tags: str) -> Registered:
    """Register a model that looks only where these telescopes tell."""
    from gotorb.training.model_files import write_model

    model, weights = make_model(), np.zeros((SIZE, SIZE, len(LAYERS)))
    for telescope in telescopes:
        weights[HALVES[telescope]] = 20 / weights.size
    model.get_layer("score").set_weights([weights.reshape(-1, 1), np.zeros(1)])
    folder.mkdir(parents=True, exist_ok=True)
    path = write_model(folder / layout.MODEL_H5, model)
    with track_stage("train", make_params()) as run:
        run.log_model(path, tags={})
    return register(name, run.run_id, md5(path), {"layers": ",".join(LAYERS), "threshold": "0.5"} | tags)


def records() -> list[Any]:
    """Runs of the experiment of promotions, the oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient()
    where = client.get_experiment_by_name("gotorb-promotions")
    return list(client.search_runs([where.experiment_id], order_by=["attributes.start_time ASC"]))


def evidence(run: Any) -> dict[str, Any]:
    from mlflow.artifacts import load_dict

    return load_dict(f"runs:/{run.info.run_id}/evidence.json")


def test_model_that_is_worse_on_one_telescope_is_refused_with_the_slice_and_numbers(
    project: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = add(tmp_path / "good", "1", "2"), add(tmp_path / "bad", "1")
    assert not promote(good.uri, "production", reason="first", data_dir=data_dir, limits=ANY).failed
    words = ["promote", bad.uri, "--to", "production", "--reason", "try", "--data", str(data_dir), "--max-ece", "1"]
    assert cli.main(words) == 1
    told = capsys.readouterr()
    (line,) = [line for line in told.out.splitlines() if "telescope 2" in line]
    assert line.startswith("REFUSED telescope 2: ")
    assert " of 160 wrong, the holder 0; wrong alone " in line
    assert [line[:2] for line in told.out.splitlines() if "telescope 1" in line] == ["ok"]
    assert f"gotorb/{bad.version} is not promoted to production" in told.err and "telescope 2" in told.err
    holder = find_alias("gotorb", "production")
    assert holder is not None and holder.version == good.version
    (check,) = (c for c in evidence(records()[-1])["checks"] if c["name"] == "telescope 2")
    assert check["numbers"]["wrong"] > 40 and check["numbers"]["wrong_before"] == 0 and check["numbers"]["p"] < 1e-6


def test_better_and_equal_models_are_accepted(
    project: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = add(tmp_path / "bad", "1"), add(tmp_path / "good", "1", "2")
    promote(bad.uri, "production", reason="first", data_dir=data_dir, limits=ANY)
    words = ["promote", good.uri, "--to", "production", "--reason", "better", "--data", str(data_dir), "--max-ece", "1"]
    words += ["--max-changed", "1"]
    assert cli.main(words) == 0
    assert "is production now (before: gotorb/1)" in capsys.readouterr().err
    again = promote(good.uri, "production", reason="again", data_dir=data_dir, limits=ANY)
    assert not again.failed
    assert find_alias("gotorb", "production") == good


def test_every_try_is_a_run_that_tells_who_when_why_and_what(project: Path, data_dir: Path, tmp_path: Path) -> None:
    good, bad = add(tmp_path / "good", "1", "2"), add(tmp_path / "bad", "2")
    began = time.time() * 1000
    promote(good.uri, "production", reason="the first one", data_dir=data_dir, limits=ANY)
    promote(bad.uri, "production", reason="a try", data_dir=data_dir, limits=ANY)
    first, second = records()
    assert (first.info.run_name, second.info.run_name) == (
        "gotorb/1 to production", "gotorb/2 to production: refused",
    )  # fmt: skip
    assert began <= first.info.start_time <= second.info.start_time
    for run, reason, promoted in ((first, "the first one", "true"), (second, "a try", "false")):
        tags = run.data.tags
        assert run.info.status == "FINISHED"
        assert tags["mlflow.user"] == getpass.getuser()
        assert (tags["gotorb.promotion.reason"], tags["gotorb.promotion.promoted"]) == (reason, promoted)
        assert tags["gotorb.promotion.data_digest"] == data_digest(data_dir)
        assert evidence(run)["reason"] == reason
    assert second.data.tags["gotorb.promotion.before"] == "gotorb/1"


def test_uncalibrated_model_is_refused(project: Path, data_dir: Path, tmp_path: Path) -> None:
    model = add(tmp_path / "good", "1", "2")
    (check,) = promote(model.uri, "production", reason="", data_dir=data_dir, limits=Limits(max_ece=0.0)).failed
    assert check.name == "calibration" and check.numbers["max_ece"] == 0
    assert find_alias("gotorb", "production") is None


def test_calibration_of_the_version_is_what_counts(project: Path, data_dir: Path, tmp_path: Path) -> None:
    """The same scores with a bad temperature."""
    plain = add(tmp_path / "plain", "1", "2", name="plain")
    cold = add(tmp_path / "cold", "1", "2", name="cold", temperature="50", offset="0")
    errors = []
    for model in (plain, cold):
        checks = promote(model.uri, "production", reason="", data_dir=data_dir, limits=ANY).checks
        errors += [check.numbers["ece"] for check in checks if check.name == "calibration"]
    assert errors[1] > errors[0] + 0.1


def test_copy_that_differs_from_its_file_is_refused(project: Path, data_dir: Path, tmp_path: Path) -> None:
    """The registry holds another model than the file in models/ whose md5 the version names."""
    add(project / "models" / "vgg6", "1", "2")
    with track_stage("train", make_params()) as run:
        run.log_model(add_file(tmp_path / "other", "1"), tags={})
    wrong = register("swapped", run.run_id, md5(project / "models/vgg6/model.h5"), {"layers": ",".join(LAYERS)})
    with pytest.raises(ModelError, match=wrong.md5):
        promote(wrong.uri, "production", reason="", data_dir=data_dir, limits=ANY)
    assert find_alias("swapped", "production") is None


def add_file(folder: Path, *telescopes: str) -> Path:
    add(folder, *telescopes, name="unused")
    return folder / layout.MODEL_H5


def test_rollback_gives_the_alias_back_step_by_step(
    project: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [add(tmp_path / "bad", "1"), add(tmp_path / "good", "1", "2")]
    for model in models:
        promote(model.uri, "production", reason="", data_dir=data_dir, limits=ANY)
    assert cli.main(["rollback", "gotorb", "--reason", "it misses supernovae"]) == 0
    assert capsys.readouterr().out == "gotorb/1 is production now (before: gotorb/2)\n"
    assert find_alias("gotorb", "production") == models[0]
    assert records()[-1].data.tags["gotorb.promotion.reason"] == "rollback: it misses supernovae"
    with pytest.raises(TrackingError, match="no version held 'production' of 'gotorb' before"):
        rollback("gotorb", "production", reason="")


def test_kill_between_memory_and_move_leaves_a_rollback_that_changes_the_holder(
    project: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = add(tmp_path / "bad", "1"), add(tmp_path / "good", "1", "2")
    move_alias(first, "production")
    move_alias(second, "production")
    with monkeypatch.context() as patch:
        patch.setattr("gotorb.tracking.registry.set_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            move_alias(first, "production")
    assert find_alias("gotorb", "production") == second
    assert rollback("gotorb", "production", reason="").model == "gotorb/1"


def test_data_without_test_rows_are_refused(project: Path, data_dir: Path, tmp_path: Path) -> None:
    table = pd.read_csv(layout.labels_path(data_dir), keep_default_na=False).assign(split="train")
    stamps = np.zeros((len(table), SIZE, SIZE, len(layout.LAYERS)), np.float32)
    other = write_dataset(tmp_path / "other", table, [stamps])
    with pytest.raises(ModelError, match="no real or no bogus test rows"):
        promote(add(tmp_path / "good", "1").uri, "production", reason="", data_dir=other)
