"""A run's own thread: the store hears of events while the stage works, and nothing that fails there stops the stage."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from gotorb.core import layout
from gotorb.dataset.card import make_card
from gotorb.errors import TrackingError
from gotorb.tracking.delivery import Delivery
from gotorb.tracking.journal import find_journals
from gotorb.tracking.runs import sync_runs, track_stage, waiting_journals
from gotorb.tracking.store import journals_dir, tracking_uri
from tests.unit.tracking.tiny import make_params

PARAMS = make_params()
TRAINING = """
import time
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("train", make_params()) as run:
    for epoch in range(3):
        run.log_epoch(epoch, {"loss": 1.0 / (epoch + 1)})
    time.sleep(600)
"""


def runs() -> list[Any]:
    client = MlflowClient(tracking_uri())
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Until the condition holds; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def steps_of(run_id: str) -> list[int]:
    return [point.step for point in MlflowClient(tracking_uri()).get_metric_history(run_id, "epoch/loss")]


def test_curve_grows_while_the_training_runs(project: Path) -> None:
    with track_stage("train", PARAMS) as run:
        for epoch in range(3):
            run.log_epoch(epoch, {"loss": 1.0})
            wait_for(lambda: run.run_id and steps_of(run.run_id) == list(range(epoch + 1)))  # noqa: B023
            assert [seen.info.status for seen in runs()] == ["RUNNING"]
    assert [seen.info.status for seen in runs()] == ["FINISHED"]
    assert find_journals(journals_dir()) == []


def test_stage_does_not_wait_for_the_store_before_its_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store hangs until all is recorded."""
    send, answered = Delivery.send, Event()
    monkeypatch.setattr(Delivery, "send", lambda self: answered.wait(60) and send(self))
    with track_stage("train", PARAMS) as run:
        for epoch in range(3):
            run.log_epoch(epoch, {"loss": 1.0})
        kinds = [event["kind"] for event in run.journal.unsent()]
        assert kinds == ["start", "params", "metrics", "metrics", "metrics"] and runs() == []
        answered.set()
    assert steps_of(run.run_id) == [0, 1, 2]


def test_killed_training_leaves_its_curve_and_a_journal_that_sync_ends(project: Path, warm_python: Path) -> None:
    with subprocess.Popen([warm_python, "-c", TRAINING]) as training:
        wait_for(lambda: [run for run in runs() if steps_of(run.info.run_id) == [0, 1, 2]])
        assert [run.info.status for run in runs()] == ["RUNNING"]
        assert waiting_journals() == []  # its owner lives
        training.terminate()  # the stand-in for python kills
    assert sync_runs() == 1
    (run,) = runs()
    assert (run.info.status, steps_of(run.info.run_id)) == ("KILLED", [0, 1, 2])
    assert find_journals(journals_dir()) == []


def test_next_stage_sends_what_an_earlier_one_left(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with track_stage("train", PARAMS, name="while the server was down"):
            pass
    assert len(waiting_journals()) == 1
    with track_stage("evaluate", PARAMS):
        pass
    assert sorted(run.info.run_name for run in runs()) == ["evaluate", "while the server was down"]
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert find_journals(journals_dir()) == []


def test_interrupted_stage_ends_as_killed(project: Path) -> None:
    with pytest.raises(KeyboardInterrupt), track_stage("train", PARAMS) as run:
        run.log_epoch(0, {"loss": 1.0})
        raise KeyboardInterrupt
    (seen,) = runs()
    assert (seen.info.status, seen.data.metrics["epoch/loss"]) == ("KILLED", 1.0)
    assert find_journals(journals_dir()) == []


def test_server_that_is_down_is_told_by_the_run_and_the_journal_waits(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with track_stage("train", PARAMS) as run:
        run.log_epoch(0, {"loss": 1.0})
    assert "http://127.0.0.1:1 does not answer" in caplog.text
    assert "send it later with `gotorb sync`" in caplog.text
    assert [journal.folder for journal in waiting_journals()] == [run.journal.folder]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert sync_runs() == 1
    (seen,) = runs()
    assert seen.info.status == "FINISHED"


def test_server_that_fails_is_left_alone_until_the_end(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bool] = []

    def fail(self: Delivery) -> None:
        tried.append(True)
        raise TrackingError("broken")

    monkeypatch.setattr(Delivery, "send", fail)
    with track_stage("train", PARAMS) as run:
        wait_for(lambda: tried)
        for epoch in range(20):
            run.log_epoch(epoch, {"loss": 1.0})
            time.sleep(0.01)
        assert len(tried) == 1
    assert len(tried) == 2


def test_unexpected_error_of_the_thread_does_not_stop_the_stage(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "send", lambda _: 1 / 0)
        with track_stage("train", PARAMS):
            pass
    assert "division by zero; the run is recorded in" in caplog.text
    assert sync_runs() == 1


def test_record_draws_no_random_numbers(project: Path, data_dir: Path, models_dir: Path) -> None:
    """A training with the same seed is the same to the bit, recorded or not."""
    states = [random.getstate(), str(np.random.get_state())]  # noqa: NPY002
    with track_stage("train", PARAMS) as run:
        run.log_data(data_dir, make_card(data_dir), context="training")
        run.log_epoch(0, {"loss": 1.0})
        run.log_json({"answer": 42}, "report.json")
        run.log_model(models_dir / "vgg6" / layout.MODEL_H5, tags={"network": "vgg6"})
    assert states == [random.getstate(), str(np.random.get_state())]  # noqa: NPY002


def test_store_file_that_is_no_database_stops_the_stage(project: Path) -> None:
    (project / "mlruns" / "mlflow.db").write_bytes(b"no database" * 100)
    with (
        pytest.raises(TrackingError, match=r"mlflow\.db cannot be used: file is not a database; put it right"),
        track_stage("train", PARAMS),
    ):
        pytest.fail("the stage began")
    assert find_journals(journals_dir()) == []
