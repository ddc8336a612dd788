"""Tuning: trials, what comes of them, kills survived, and each trial once in MLflow."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import psutil
import pytest

from gotorb import classifier, hyperparameter_tuning
from gotorb.core import layout
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.hyperparameter_tuning import Tuning, read_best, run_model_tuning
from gotorb.training import checkpoint
from gotorb.training import tuning as space
from gotorb.training.data import find_splits
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH, run_eagerly

pytestmark = [pytest.mark.usefixtures("eager_module"), pytest.mark.filterwarnings(STAYS_GRAPH)]
QUICK: dict[str, Any] = {"method": "random", "max_trials": 2, "max_epochs": 1, "batch_size": 32, "seed": 3}
FILES = (layout.TRIALS_CSV, layout.BEST_JSON, layout.TRIALS_PNG)
N_TRIALS = 8
RUN = """
import os, signal, sys
from pathlib import Path
from gotorb.hyperparameter_tuning import run_model_tuning
from gotorb.core.params import Params
from gotorb.tracking import journal
from gotorb.tracking.runs import track_stage
from gotorb.training import checkpoint

data_dir, out_dir, death = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

write_state, log = checkpoint.Progress.on_epoch_end, journal._log_trial

def on_epoch_end(self, epoch, logs=None):
    write_state(self, epoch, logs)
    if death == f"training {self.identity['trial']}":
        die()

def log_half(client, run_id, event):
    log(client, run_id, event)
    if death == f"recording {event['number']}":
        die()

checkpoint.Progress.on_epoch_end, journal._log_trial = on_epoch_end, log_half
with track_stage("tune", Params(seed=1)) as run:
    def on_trial(trial):
        if death == f"before recording {trial.number}":
            die()
        run.log_trial(trial)
    run_model_tuning(
        data_dir, out_dir=out_dir, max_trials=8, max_epochs=3, batch_size=32, seed=3, threads=1, on_trial=on_trial
    )
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 rows whose division is written down."""
    made = make_blobs(tmp_path_factory.mktemp("small") / "made", n=160, size=21)
    table = open_dataset(made).table
    return with_split(made, made.with_name("data"), find_splits(table, seed=3))


def with_split(data_dir: Path, out_dir: Path, splits: np.ndarray) -> Path:
    data = open_dataset(data_dir)
    return write_dataset(out_dir, data.table.assign(split=splits), [data.read_stamps(range(len(data)))])


@pytest.fixture(scope="module")
def quick(small: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, list[Any]]:
    """Two trials of one epoch, and what `on_trial` was called with."""
    seen: list[Any] = []
    return run_model_tuning(small, out_dir=tmp_path_factory.mktemp("quick"), on_trial=seen.append, **QUICK), seen


def test_trials_and_best_are_written(quick: tuple[Tuning, list[Any]]) -> None:
    tuning, seen = quick
    table = pd.read_csv(tuning.out_dir / layout.TRIALS_CSV)
    assert list(table["trial"]) == [0, 1] == [trial.number for trial in seen]
    assert set(table["status"]) == {"completed"} and set(space.SPACE) <= set(table)
    best = json.loads((tuning.out_dir / layout.BEST_JSON).read_text())
    row = table.loc[table["objective"].idxmin()]
    assert best == tuning.best and best["trial"] == row["trial"] and best["objective"]["value"] == row["objective"]
    assert best["train"]["learning_rate"] == row["learning_rate"]
    assert best["train"]["model_kwargs"]["block2"] == row["block1"] + row["scale_up"]
    assert seen[0].history["val_binary_crossentropy"][0] == pytest.approx(table["objective"][0], abs=1e-6)
    assert {path.name for path in tuning.out_dir.iterdir()} >= set(FILES)
    assert list((tuning.out_dir / layout.UNFINISHED_DIR).iterdir()) == []


def test_test_rows_decide_nothing(quick: tuple[Tuning, list[Any]], small: Path, tmp_path: Path) -> None:
    data = open_dataset(small)
    held_out = (data.table[layout.SPLIT_COLUMN] == "test").to_numpy()
    other = shutil.copytree(small, tmp_path / "data")
    table = data.table.assign(label=np.where(held_out, 1 - data.labels, data.labels))
    table.to_csv(other / layout.LABELS_CSV, index=False)
    with h5py.File(other / layout.STAMPS_H5, "r+") as file:
        for row in np.flatnonzero(held_out):
            file[layout.STAMPS_KEY][row] = np.nan
    tuning = run_model_tuning(other, out_dir=tmp_path / "out", **QUICK)
    assert (tuning.out_dir / layout.TRIALS_CSV).read_bytes() == (quick[0].out_dir / layout.TRIALS_CSV).read_bytes()
    assert tuning.best["data_digest"] != quick[0].best["data_digest"]


def test_the_best_is_trained_with_its_own_shape(quick: tuple[Tuning, list[Any]], small: Path, tmp_path: Path) -> None:
    chosen = read_best(quick[0].out_dir)
    model, meta = classifier.train(small, out_dir=tmp_path, name="tuned", epochs=1, **chosen)
    default, _ = classifier.train(small, out_dir=tmp_path, name="default", epochs=1)
    assert model.count_params() == quick[0].best["parameters"] != default.count_params()
    assert meta["parameters"]["learning_rate"] == chosen["learning_rate"]
    assert classifier.dropout_pred(model, open_dataset(small).read_stamps([0, 1], meta["layers"]), 3).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective": "val_luck"}, "no objective 'val_luck'; choose val_binary_crossentropy"),
        ({"objective": "loss"}, "no objective 'loss'"),
        ({"method": "grid"}, "no tuning method 'grid'; choose hyperband, random, bayesian"),
        ({"max_trials": 0}, "max_trials is 0; give 1 or more"),
        ({"max_trials": None}, "without which random does not end"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"factor": 1.5}, "factor is 1.5; give 2 or more"),
        ({"n_workers": 0}, "n_workers is 0"),
        ({"max_parameters": 10}, "few enough parameters"),
        ({"normalise": "mean"}, "normalise is 'mean'"),
        ({"space": {"depth": 3}}, "no hyperparameter 'depth'"),
    ],
)
def test_impossible_options_are_told_before_any_trial(
    small: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run_model_tuning(small, out_dir=tmp_path / "out", **QUICK | options)
    assert not (tmp_path / "out" / layout.BEST_JSON).exists()


def test_data_that_cannot_be_trained_on_are_told(small: Path, tmp_path: Path) -> None:
    other = shutil.copytree(small, tmp_path / "data")
    row = int(np.flatnonzero(open_dataset(other).table[layout.SPLIT_COLUMN] == "validation")[0])
    with h5py.File(other / layout.STAMPS_H5, "r+") as file:
        file[layout.STAMPS_KEY][row, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match=f"stamp of row {row} "):
        run_model_tuning(other, **QUICK)
    with pytest.raises(DataError, match="no layer 'colour'"):
        run_model_tuning(small, layers=("colour",), **QUICK)


def test_a_tuning_of_which_all_trials_diverge_is_told(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(space.SPACE, "learning_rate", space.Range(1e30, 1e31))
    seen: list[Any] = []
    with pytest.raises(ModelError, match=r"all 1 trials failed \(the loss is .* training diverged"):
        run_model_tuning(small, out_dir=tmp_path, on_trial=seen.append, **QUICK | {"max_trials": 1})
    assert [(trial.status, trial.objective) for trial in seen] == [("failed", None)]


@pytest.mark.parametrize("text", ["", "[1]", '{"train": {"model": "vgg6"}}'])
def test_a_file_that_is_no_result_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="run `gotorb tune`"):
        read_best(tmp_path / layout.BEST_JSON)
    (tmp_path / layout.BEST_JSON).write_text(text)
    with pytest.raises(ModelError, match="is not the result of a tuning"):
        read_best(tmp_path)


def test_other_options_begin_anew_and_leave_the_unfinished_one(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    for options in ({}, {"max_trials": 1}):
        with pytest.raises(KeyboardInterrupt):
            run_model_tuning(small, out_dir=tmp_path, on_trial=stop, **QUICK | options)
    assert len(list((tmp_path / layout.UNFINISHED_DIR).iterdir())) == 2
    assert "is of another max_trials and is left" in caplog.text
    assert "is already finished" not in caplog.text
    run_model_tuning(small, out_dir=tmp_path, **QUICK)
    assert "trial 00 is already finished" in caplog.text and "trial 01 is already finished" not in caplog.text
    assert len(list((tmp_path / layout.UNFINISHED_DIR).iterdir())) == 1


class PowerCut(BaseException):
    """Ends a search without a word, as nothing in the code expects it."""


def test_an_interrupted_search_resumes_and_writes_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"max_trials": 4, "max_epochs": 2, "factor": 2, "batch_size": 128, "seed": 3}
    whole = run_model_tuning(small, out_dir=tmp_path / "whole", **options)
    assert pd.read_csv(whole.out_dir / layout.TRIALS_CSV)["continues"].dropna().tolist() == [1]
    write = checkpoint.Progress.on_epoch_end

    def cut(self: Any, epoch: int, logs: Any = None) -> None:
        write(self, epoch, logs)
        if self.identity.get("trial") == "3" and epoch == 0:
            raise PowerCut

    def cut_at(number: int) -> Any:
        def on_trial(trial: Any) -> None:
            if trial.number == number:
                raise PowerCut

        return on_trial

    for number in (1, 2):  # trial 2 continues trial 1
        with pytest.raises(PowerCut):
            run_model_tuning(small, out_dir=tmp_path / "cut", on_trial=cut_at(number), **options)
        assert not (tmp_path / "cut" / layout.BEST_JSON).exists()
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(checkpoint.Progress, "on_epoch_end", cut)
        run_model_tuning(small, out_dir=tmp_path / "cut", **options)
    run_model_tuning(small, out_dir=tmp_path / "cut", **options)
    assert "resuming after epoch 1" in caplog.text and "trial 02 is already finished" in caplog.text
    for name in FILES:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:  # of other tests, ended
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_find_the_same_trials_though_one_is_killed(small: Path, tmp_path: Path) -> None:
    options = QUICK | {"max_trials": 4, "threads": None}
    with run_eagerly(eagerly=False):  # as the workers do
        alone = run_model_tuning(small, out_dir=tmp_path / "alone", **options)
    killed: list[int] = []

    def kill_one(_: Any) -> None:
        workers = [one for one in psutil.Process().children() if is_worker(one)]
        if not killed:
            killed.append(workers[-1].pid)
            workers[-1].kill()

    both = run_model_tuning(small, out_dir=tmp_path / "both", n_workers=2, on_trial=kill_one, **options)
    assert killed
    assert (both.out_dir / layout.TRIALS_CSV).read_bytes() == (alone.out_dir / layout.TRIALS_CSV).read_bytes()


def run(small: Path, out_dir: Path, death: str) -> int:
    command = [sys.executable, "-c", RUN, str(small), str(out_dir), death]
    environment = os.environ | {"GOTORB_MLRUNS": str(out_dir / "mlruns")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_and_gone_on_gives_eight_nested_runs_and_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert run(small, whole, "never") == 0
    for death in ("training 1", "before recording 2", "recording 4"):
        assert run(small, killed, death) == -signal.SIGKILL
        assert not (killed / layout.BEST_JSON).exists()
    assert run(small, killed, "never") == 0
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    check_runs(killed, pd.read_csv(killed / layout.TRIALS_CSV), monkeypatch)


def check_runs(folder: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()], order_by=["start_time ASC"])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run not in parents]
    assert [run.info.run_name for run in parents] == ["tune"] * 4
    assert parents[-1].info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[-1].info.run_id}
    assert sorted(run.info.run_name for run in children) == [f"trial {number:02d}" for number in range(N_TRIALS)]
    assert {run.info.status for run in children} == {"FINISHED"}
    rows = table.set_index("trial")
    for run in children:
        row = rows.loc[int(run.data.tags["gotorb.trial"])]
        assert run.data.metrics["objective"] == pytest.approx(row["objective"], abs=1e-6)
        assert float(run.data.params["learning_rate"]) == row["learning_rate"]
        history = client.get_metric_history(run.info.run_id, "epoch/val_binary_crossentropy")
        assert len(history) == row["epochs"]
    going_on = rows[rows["continues"].notna()]
    assert len(going_on) == 2
    assert (going_on["objective"].to_numpy() <= rows.loc[going_on["continues"], "objective"].to_numpy()).all()


def test_only_one_process_tunes_in_a_folder(small: Path, tmp_path: Path) -> None:
    def again(_: Any) -> None:
        with pytest.raises(ConfigError, match="another process tunes in"):
            hyperparameter_tuning.run_model_tuning(small, out_dir=tmp_path, **QUICK | {"max_trials": 1})

    run_model_tuning(small, out_dir=tmp_path, on_trial=again, **QUICK | {"max_trials": 1})


def test_trials_see_the_crop(tmp_path: Path) -> None:
    """The limit of parameters admits the cropped network only."""
    from gotorb.training.tuning import count_parameters

    data_dir = make_blobs(tmp_path / "data", n=120, size=29)
    space = {"block1": 8, "scale_up": 0, "dense": 64}
    small, large = (count_parameters((size, size, 4), space) for size in (21, 29))
    options = QUICK | {"max_trials": 1, "space": space, "max_parameters": (small + large) // 2, "crop": 21}
    tuning = run_model_tuning(data_dir, out_dir=tmp_path / "out", **options)
    assert small < large and len(tuning.trials) == 1 and tuning.trials["status"].iloc[0] != "failed"
    with pytest.raises(ConfigError, match="crop is 31"):
        run_model_tuning(data_dir, out_dir=tmp_path / "out", **options | {"crop": 31})
