"""Place of the runs: a sqlite file of the project, or a server; and a project that was moved."""

import shutil
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from gotorb import cli
from gotorb.core import layout
from gotorb.errors import TrackingError
from gotorb.tracking.contents import md5
from gotorb.tracking.registry import load_registered, register
from gotorb.tracking.runs import track_stage
from gotorb.tracking.store import find_moved, open_experiment, open_store, relocate, tracking_uri
from tests.shared import point_to
from tests.unit.tracking.tiny import make_params

N_WRITERS = 4
WRITER = """
import sys
from gotorb.tracking.runs import track_stage
from tests.unit.tracking.tiny import make_params
with track_stage("label", make_params()) as run:
    run.log_metrics({"writer": int(sys.argv[1])})
"""
GIVE_UP_SECONDS = 60  # of minutes for which MLflow would try


def test_store_is_a_file_of_the_project(project: Path) -> None:
    assert tracking_uri() == f"sqlite:///{project}/mlruns/mlflow.db"
    open_store()
    experiment = MlflowClient(tracking_uri()).get_experiment(open_experiment("new"))
    assert experiment.artifact_location == (project / "mlruns/artifacts/new").as_uri()


def test_experiment_is_made_once(project: Path) -> None:
    assert open_experiment("new") == open_experiment("new")


def test_several_processes_meet_in_a_fresh_store_and_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Path
) -> None:
    point_to(monkeypatch, tmp_path)
    writers = [subprocess.Popen([warm_python, "-c", WRITER, str(number)]) for number in range(N_WRITERS)]
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


def test_moved_project_is_noticed_and_mended(
    project: Path,
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = models_dir / "vgg6" / layout.MODEL_H5
    with track_stage("train", make_params()) as run:
        run.log_json({"answer": 42}, "report.json")
        run.log_model(path, tags={})
    version = register("gotorb", run.run_id, md5(path), {})
    assert find_moved() == []
    # a name that URIs spell otherwise, below a folder that is called like the artifacts' own
    moved = tmp_path / "artifacts" / "mlruns" / "new place"
    moved.parent.mkdir(parents=True)
    shutil.move(project, moved)
    point_to(monkeypatch, moved)
    (moved / layout.PARAMS_YAML).write_text("seed: 1\n")
    monkeypatch.chdir(moved)
    old = (project / "mlruns" / "artifacts").as_uri()
    assert find_moved() and all(place.startswith(old) for place in find_moved())
    assert cli.main(["doctor"]) == 1
    assert f"FAIL  artifacts: artifacts are looked for in {old}" in capsys.readouterr().out
    assert cli.main(["tracking", "relocate"]) == 0
    assert f"places below {old} repaired" in capsys.readouterr().out
    assert find_moved() == [] and relocate() == {}
    assert mlflow.artifacts.load_dict(f"runs:/{run.run_id}/report.json") == {"answer": 42}
    assert load_registered(version.uri)[0].input_shape == (None, 9, 9, 4)
    cli.main(["doctor"])
    assert "ok    artifacts: " in capsys.readouterr().out
    with track_stage("label", make_params()) as later:
        later.log_json({"answer": 43}, "report.json")
    assert (moved / "mlruns/artifacts/gotorb" / later.run_id / "artifacts" / "report.json").exists()


def test_artifacts_elsewhere_on_purpose_stay(project: Path) -> None:
    place = "s3://bucket/mlruns/artifacts"
    mlflow.MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db").create_experiment("shared", artifact_location=place)
    assert find_moved() == [] and relocate() == {}


def test_project_without_a_store_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, tmp_path)
    with pytest.raises(TrackingError, match=r"no tracking store .*mlflow\.db"):
        relocate()
