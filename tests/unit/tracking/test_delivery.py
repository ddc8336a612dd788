"""Runs and a real tracking server that is down, dies, hangs or does not let us in: nothing is lost, nothing doubled."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from gotorb.core import layout
from gotorb.dataset.card import make_card
from gotorb.errors import TrackingError
from gotorb.tracking.journal import find_journals
from gotorb.tracking.runs import Run, sync_runs, track_stage
from gotorb.tracking.store import journals_dir
from tests.shared import point_to
from tests.unit.tracking.server import Process, mlflow_server
from tests.unit.tracking.test_recording import wait_for
from tests.unit.tracking.tiny import make_params

pytestmark = pytest.mark.slow
LOST_S = 10
EPOCHS = 5


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[str, Process]) -> Path:
    """A project whose .env names the server."""
    point_to(monkeypatch, tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server[0])
    return tmp_path


def train(name: str, data_dir: Path, model: Path, *, between: Any = lambda: None) -> Run:
    """All that a training records; `between` happens in its middle."""
    with track_stage("train", make_params(), name=name) as run:
        run.log_data(data_dir, make_card(data_dir), context="training")
        for epoch in range(EPOCHS):
            run.log_epoch(epoch, {"loss": 1.0 / (epoch + 1)})
            if epoch == EPOCHS // 2:
                between()
        Figure().savefig(picture := journals_dir().parent / "plot.png")
        run.log_plots([picture])
        run.log_json({"answer": 42}, "report.json")
        run.log_model(model / layout.MODEL_H5, tags={"network": "vgg6"})
    return run


def seen(address: str, name: str) -> Any:
    """The run of that name: there is one."""
    client = MlflowClient(address)
    ids = [found.experiment_id for found in client.search_experiments()]
    (run,) = (run for run in client.search_runs(ids) if run.info.run_name == name)
    return run


def has_run(address: str, name: str) -> bool:
    """The store has heard of the run, so that what comes is in its middle."""
    client = MlflowClient(address)
    ids = [found.experiment_id for found in client.search_experiments()]
    return any(run.info.run_name == name for run in client.search_runs(ids))


def assert_whole(address: str, name: str) -> None:
    """All that `train` records is there, once."""
    client, run = MlflowClient(address), seen(address, name)
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    history = client.get_metric_history(run.info.run_id, "epoch/loss")
    assert [(point.step, point.value) for point in history] == [(i, 1.0 / (i + 1)) for i in range(EPOCHS)]
    assert all(run.info.start_time <= point.timestamp <= run.info.end_time for point in history)
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {"data_card.json", "plots", "report.json"}
    assert [item.path for item in client.list_artifacts(run.info.run_id, "plots")] == ["plots/plot.png"]
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.source_type == "dvc"
    assert len(run.outputs.model_outputs) == 1
    assert "gotorb.refused.metrics" not in run.data.tags


def test_server_that_is_down_costs_seconds_and_sync_brings_all(
    project: Path, server: tuple[str, Process], data_dir: Path, models_dir: Path
) -> None:
    address, process = server
    process.kill()
    train("warm", data_dir, models_dir / "vgg6")  # imports are not what is measured
    started = time.monotonic()
    run = train("down", data_dir, models_dir / "vgg6")
    lost = time.monotonic() - started
    assert lost < LOST_S
    print(f"server down: {lost:.2f} s")
    assert run.run_id == ""
    with pytest.raises(TrackingError, match=r"2 not .*does not answer"):
        sync_runs()
    process.start()
    assert sync_runs() == 2
    assert_whole(address, "down")
    assert find_journals(journals_dir()) == []


def test_server_killed_in_the_middle_loses_and_doubles_nothing(
    project: Path, server: tuple[str, Process], data_dir: Path, models_dir: Path
) -> None:
    address, process = server
    process.start()
    lost: list[float] = []

    def kill() -> None:
        wait_for(lambda: has_run(address, "killed"))
        process.kill()
        lost.append(time.monotonic())

    train("killed", data_dir, models_dir / "vgg6", between=kill)
    took = time.monotonic() - lost[0]
    print(f"server killed: {took:.2f} s")
    assert took < LOST_S
    process.start()
    assert seen(address, "killed").info.status == "RUNNING"
    assert sync_runs() == 1
    assert_whole(address, "killed")


def test_server_that_hangs_costs_seconds(
    project: Path, server: tuple[str, Process], data_dir: Path, models_dir: Path
) -> None:
    address, process = server
    process.start()
    assert process.process is not None
    group = process.process.pid
    began: list[float] = []

    def stop() -> None:
        wait_for(lambda: has_run(address, "hung"))
        os.killpg(group, signal.SIGSTOP)
        began.append(time.monotonic())

    try:
        train("hung", data_dir, models_dir / "vgg6", between=stop)
        took = time.monotonic() - began[0]
    finally:
        os.killpg(group, signal.SIGCONT)
    print(f"server hangs: {took:.2f} s")
    assert took < LOST_S
    assert sync_runs() == 1
    assert_whole(address, "hung")


def test_server_that_shuts_us_out_does_not_stop_a_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path, models_dir: Path
) -> None:
    """Basic auth of MLflow, and the password of .env is wrong, then right."""
    (tmp_path / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = MANAGE\ndatabase_uri = sqlite:///{tmp_path}/auth.db\n"
        "admin_username = chief\nadmin_password = long-and-secret\n"
    )
    address, process = mlflow_server(
        tmp_path / "guarded", MLFLOW_AUTH_CONFIG_PATH=str(tmp_path / "auth.ini"),
        MLFLOW_FLASK_SERVER_SECRET_KEY="for-this-test-only",
    )  # fmt: skip
    process.command += ["--app-name", "basic-auth"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "chief")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    process.start()
    try:
        run = train("guarded", data_dir, models_dir / "vgg6")
        assert run.run_id == "" and len(find_journals(journals_dir())) == 1
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "long-and-secret")
        assert sync_runs() == 1
        assert_whole(address, "guarded")
    finally:
        process.kill()
