"""A project that was moved: noticed, mended, and its artifacts are found again."""

import shutil
from pathlib import Path

import mlflow
import pytest

from gotorb import cli, layout
from gotorb.errors import TrackingError
from gotorb.tracking.registry import load_registered, register
from gotorb.tracking.relocation import find_moved, relocate
from gotorb.tracking.runs import md5, track_stage
from tests.unit.tracking.conftest import point_to
from tests.unit.tracking.tiny import make_params


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
    assert f"places below {old} mended" in capsys.readouterr().out
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
