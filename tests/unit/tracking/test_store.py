"""Where runs are kept: a sqlite file of the project's own, or a server."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gotorb.errors import TrackingError
from gotorb.tracking.store import open_experiment, open_store, tracking_uri
from tests.unit.tracking.conftest import point_to

N_WRITERS = 4
WRITER = """
import sys
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("label", make_params()) as run:
    run.log_metrics({"writer": int(sys.argv[1])})
"""
GIVE_UP_SECONDS = 10


def test_store_is_a_file_of_the_project(project: Path) -> None:
    assert tracking_uri() == f"sqlite:///{project}/mlruns/mlflow.db"
    open_store()
    experiment = MlflowClient(tracking_uri()).get_experiment(open_experiment("new"))
    assert experiment.artifact_location == (project / "mlruns/artifacts/new").as_uri()


def test_experiment_is_made_once(project: Path) -> None:
    assert open_experiment("new") == open_experiment("new")


def test_several_processes_meet_in_a_fresh_store_and_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to(monkeypatch, tmp_path)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(number)]) for number in range(N_WRITERS)]
    assert [writer.wait() for writer in writers] == [0] * N_WRITERS
    client = MlflowClient(tracking_uri())
    runs = client.search_runs([client.get_experiment_by_name("gotorb").experiment_id])
    assert sorted(run.data.metrics["writer"] for run in runs) == list(range(N_WRITERS))


def test_dead_server_is_told_in_one_line_within_seconds(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"http://127\.0\.0\.1:1 does not answer .*MLFLOW_TRACKING_URI") as caught:
        open_store()
    assert time.monotonic() - started < GIVE_UP_SECONDS
    assert "\n" not in str(caught.value)


def test_broken_store_file_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, tmp_path)
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(TrackingError, match="does not answer") as caught:
        open_store()
    assert "\n" not in str(caught.value)
