"""A courier that outlives its run: the store hears the same, the run does without MLflow, and either may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from gotorb import layout
from gotorb.dataset.card import make_card
from gotorb.errors import TrackingError
from gotorb.tracking import carrier
from gotorb.tracking.carrier import COURIER_LOG, Courier
from gotorb.tracking.journal import find_journals
from gotorb.tracking.runs import Run, send_waiting, sync_runs, track_stage, wait_for_couriers, waiting_journals
from gotorb.tracking.store import journals_dir, tracking_uri
from tests.unit.tracking.tiny import make_params

PARAMS = make_params()
WITHOUT_MLFLOW = """
import sys
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("train", make_params(), beside=True) as run:
    run.log_epoch(0, {"loss": 1.0})
print("mlflow" in sys.modules, "sqlalchemy" in sys.modules)
"""
LIVE = """
import time
from gotorb.tracking import carrier
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
carrier.LIVE_AFTER_S = 0.0
with track_stage("train", make_params(), beside=True) as run:
    run.log_epoch(0, {"loss": 1.0})
    print("ready", flush=True)
    time.sleep(600)
"""
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def runs() -> list[Any]:
    client = MlflowClient(tracking_uri())
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until the condition holds; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def record(run: Run, data_dir: Path, model: Path) -> None:
    run.log_data(data_dir, make_card(data_dir), context="training")
    run.log_epoch(0, {"loss": 1.0})
    run.log_json({"answer": 42}, "report.json")
    run.log_model(model / layout.MODEL_H5, tags={"network": "vgg6"})


def told(run: Any) -> dict[str, Any]:
    """What the store knows of a run, without what differs from run to run."""
    tags = {name: value for name, value in run.data.tags.items() if name != "gotorb.run_key"}
    return {
        "status": run.info.status, "params": run.data.params, "tags": tags, "loss": run.data.metrics["epoch/loss"],
        "files": [item.path for item in MlflowClient(tracking_uri()).list_artifacts(run.info.run_id)],
        "data": [given.dataset.digest for given in run.inputs.dataset_inputs],
        "n_models": len(run.outputs.model_outputs),
    }  # fmt: skip


@pytest.mark.parametrize("live_after_s", [0.0, 600.0], ids=["live", "at the end"])
def test_store_hears_the_same_from_a_courier(
    project: Path, data_dir: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch, live_after_s: float
) -> None:
    monkeypatch.setattr(carrier, "LIVE_AFTER_S", live_after_s)
    for beside in (False, True):
        with track_stage("train", PARAMS, beside=beside) as run:
            record(run, data_dir, models_dir / "vgg6")
    wait_for_couriers()
    by_courier, by_itself = (told(run) for run in runs())
    assert by_courier == by_itself
    assert by_courier["n_models"] == 1
    assert find_journals(journals_dir()) == []


def test_run_itself_does_without_mlflow_and_does_not_wait(project: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_MLFLOW], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]
    assert waiting_journals() == []  # under way is not waiting
    send_waiting()
    (run,) = runs()
    assert (run.info.status, run.data.metrics["epoch/loss"]) == ("FINISHED", 1.0)
    assert find_journals(journals_dir()) == []


def test_long_run_is_seen_while_it_goes_on_and_told_as_killed_when_it_is(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LIVE], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        wait_for(lambda: [run for run in runs() if "epoch/loss" in run.data.metrics])
        assert [run.info.status for run in runs()] == ["RUNNING"]
        assert waiting_journals() == []
        os.kill(writer.pid, signal.SIGKILL)
    wait_for(lambda: not find_journals(journals_dir()))
    (run,) = runs()
    assert (run.info.status, run.data.metrics["epoch/loss"]) == ("KILLED", 1.0)


def test_ctrl_c_at_the_terminal_ends_the_run_and_not_its_courier(project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE + LIVE],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        os.killpg(writer.pid, signal.SIGINT)
        assert writer.wait(60) != 0
    send_waiting()
    (run,) = runs()
    assert run.info.status == "KILLED"
    assert find_journals(journals_dir()) == []


def test_courier_that_is_killed_costs_the_run_nothing_and_sync_brings_the_rest(
    project: Path, data_dir: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "LIVE_AFTER_S", 0.0)
    with track_stage("train", PARAMS, beside=True) as run:
        wait_for(lambda: run.journal.sent["n"])
        assert isinstance(run._carrier, Courier) and run._carrier._process is not None
        run._carrier._process.kill()
        run._carrier._process.wait()
        record(run, data_dir, models_dir / "vgg6")
    assert [journal.folder for journal in waiting_journals()] == [run.journal.folder]
    assert sync_runs() == 1
    (seen,) = runs()
    assert (told(seen)["status"], told(seen)["n_models"]) == ("FINISHED", 1)


def test_server_that_is_down_is_told_by_the_run_and_the_journal_waits(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with track_stage("train", PARAMS, beside=True) as run:
        run.log_epoch(0, {"loss": 1.0})
    assert "http://127.0.0.1:1 does not answer" in caplog.text
    assert "send it later with `gotorb sync`" in caplog.text
    wait_for_couriers()
    assert "does not answer" in (run.journal.folder / COURIER_LOG).read_text()
    assert [journal.folder for journal in waiting_journals()] == [run.journal.folder]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert sync_runs() == 1
    (seen,) = runs()
    assert seen.info.status == "FINISHED"


@pytest.mark.parametrize("beside", [False, True])
def test_store_file_that_is_no_database_stops_the_stage(project: Path, beside: bool) -> None:
    (project / "mlruns" / "mlflow.db").write_bytes(b"no database" * 100)
    with (
        pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: file is not a database; put it right"),
        track_stage("train", PARAMS, beside=beside),
    ):
        pytest.fail("the stage began")
    assert find_journals(journals_dir()) == []
