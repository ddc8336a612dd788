"""A courier beside the run: the store hears the same, the run does without MLflow, and either may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from gotorb import layout
from gotorb.dataset.card import make_card
from gotorb.errors import TrackingError
from gotorb.tracking.carrier import Courier
from gotorb.tracking.journal import CARRIER, find_journals
from gotorb.tracking.runs import Run, sync_runs, track_stage, waiting_journals
from gotorb.tracking.store import journals_dir, tracking_uri
from tests.unit.tracking.tiny import make_params

PARAMS = make_params()
WITHOUT_MLFLOW = """
import sys
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("train", make_params(), beside=True) as run:
    run.log_epoch(0, {"loss": 1.0})
print(run.run_id, "mlflow" in sys.modules)
"""
WRITER = """
import time
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("train", make_params(), beside=True) as run:
    run.log_epoch(0, {"loss": 1.0})
    print("ready", flush=True)
    time.sleep(600)
"""


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


def told(run_id: str) -> dict[str, Any]:
    """What the store knows of a run, without names and times that differ from run to run."""
    client, run = MlflowClient(tracking_uri()), MlflowClient(tracking_uri()).get_run(run_id)
    tags = {name: value for name, value in run.data.tags.items() if name not in ("gotorb.run_key",)}
    return {
        "status": run.info.status, "params": run.data.params, "tags": tags, "loss": run.data.metrics["epoch/loss"],
        "files": [item.path for item in client.list_artifacts(run_id)],
        "data": [given.dataset.digest for given in run.inputs.dataset_inputs],
        "n_models": len(run.outputs.model_outputs),
    }  # fmt: skip


def test_store_hears_the_same_from_a_courier(project: Path, data_dir: Path, models_dir: Path) -> None:
    heard = []
    for beside in (False, True):
        with track_stage("train", PARAMS, beside=beside) as run:
            record(run, data_dir, models_dir / "vgg6")
        heard.append(told(run.run_id))
    assert heard[0] == heard[1]
    assert heard[1]["n_models"] == 1
    assert find_journals(journals_dir()) == []


def test_run_itself_does_without_mlflow(project: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", WITHOUT_MLFLOW], capture_output=True, text=True, check=True)
    (run,) = runs()
    assert ended.stdout.split() == [run.info.run_id, "False"]
    assert run.info.status == "FINISHED"


def test_killed_run_is_told_to_the_store_as_killed(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        assert waiting_journals() == []
        os.kill(writer.pid, signal.SIGKILL)
    wait_for(lambda: not find_journals(journals_dir()))
    (run,) = runs()
    assert (run.info.status, run.data.metrics["epoch/loss"]) == ("KILLED", 1.0)


def test_ctrl_c_at_the_terminal_reaches_the_run_and_its_end_the_store(project: Path) -> None:
    # the shell's Ctrl-C goes to run and courier alike
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{WRITER}"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        wait_for(lambda: [journal for journal in find_journals(journals_dir()) if journal.sent["n"]])
        os.killpg(writer.pid, signal.SIGINT)
        assert writer.wait(60) != 0
    (run,) = runs()
    assert run.info.status == "KILLED"
    assert find_journals(journals_dir()) == []


def test_courier_that_is_killed_costs_the_run_nothing_and_sync_brings_the_rest(
    project: Path, data_dir: Path, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with track_stage("train", PARAMS, beside=True) as run:
        wait_for(lambda: run.journal.sent["n"])
        kill_courier(run)
        record(run, data_dir, models_dir / "vgg6")
    assert run.run_id == ""
    assert "send it later with `gotorb sync`" in caplog.text
    assert sync_runs() == 1
    (seen,) = runs()
    assert told(seen.info.run_id)["status"] == "FINISHED"
    assert told(seen.info.run_id)["n_models"] == 1


def kill_courier(run: Run) -> None:
    assert isinstance(run._carrier, Courier)
    (run.journal.folder / CARRIER).stat()
    (process,) = psutil.Process().children()
    process.kill()
    wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE)


def test_server_that_is_down_does_not_hold_up_a_run_with_a_courier(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    started = time.monotonic()
    with track_stage("train", PARAMS, beside=True) as run:
        run.log_epoch(0, {"loss": 1.0})
    assert time.monotonic() - started < 10
    assert run.run_id == ""
    assert "send it later with `gotorb sync`" in capfd.readouterr().err
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
