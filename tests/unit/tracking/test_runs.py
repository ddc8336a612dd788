"""Records of a tracked stage, read with mlflow's own client."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

import gotorb
from gotorb.core import layout
from gotorb.dataset.card import make_card
from gotorb.evaluation.metrics import fpr_name
from gotorb.tracking.contents import md5
from gotorb.tracking.runs import find_run, headlines, track_stage
from gotorb.tracking.store import tracking_uri
from tests.unit.tracking.tiny import LAYERS, SIZE, make_params

PARAMS = make_params()


def client() -> MlflowClient:
    return MlflowClient(tracking_uri())


def read(run_id: str) -> Any:
    return client().get_run(run_id)


def artifacts(run_id: str, folder: str | None = None) -> list[str]:
    return [item.path for item in client().list_artifacts(run_id, folder)]


def test_run_has_its_own_parameters_tags_and_wall_time(project: Path) -> None:
    used = {"limits": {"low": 1, "high": None}, "layers": ("science", "ptp"), "builder": make_params}
    with track_stage("label", PARAMS, used=used, about="Labels.") as run:
        pass
    seen = read(run.run_id)
    assert seen.info.status == "FINISHED"
    assert seen.info.run_name == "label"
    assert client().get_experiment(seen.info.experiment_id).name == "gotorb"
    assert seen.data.params == {
        "seed": "1", "code_version": gotorb.__version__, "limits.low": "1", "layers": "['science', 'ptp']",
        "builder": "make_params",
    }  # fmt: skip
    where = f"#/experiments/{seen.info.experiment_id}/runs/{run.run_id}/artifacts"
    assert seen.data.tags["mlflow.note.content"] == f"Labels. [files]({where})"
    assert seen.data.tags["gotorb.stage"] == "label"
    assert seen.data.tags["gotorb.code_version"] == gotorb.__version__
    assert seen.data.tags["gotorb.source"] == "embedded"
    assert seen.data.metrics["wall_seconds"] >= 0


def test_revision_is_the_commit_and_tells_of_changes(project: Path) -> None:
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (project / ".gitignore").write_text("mlruns\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    with track_stage("label", PARAMS) as clean:
        pass
    (project / "new.txt").write_text("new")
    with track_stage("label", PARAMS) as changed:
        pass
    assert read(clean.run_id).data.tags["gotorb.git_revision"] == commit
    assert read(changed.run_id).data.tags["gotorb.git_revision"] == f"{commit}+changes"


def test_evaluations_live_in_their_own_experiment(project: Path) -> None:
    with track_stage("evaluate", PARAMS, name="evaluate vgg6", experiment="-evaluation") as run:
        pass
    seen = read(run.run_id)
    assert seen.info.run_name == "evaluate vgg6"
    assert client().get_experiment(seen.info.experiment_id).name == "gotorb-evaluation"


def test_exception_ends_the_run_as_failed_and_passes_on(project: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), track_stage("train", PARAMS) as run:
        raise RuntimeError("broken")
    seen = read(run.run_id)
    assert seen.info.status == "FAILED"
    assert seen.data.params["seed"] == "1"


def test_next_run_after_a_failed_one_is_a_run_of_its_own(project: Path) -> None:
    with pytest.raises(RuntimeError), track_stage("train", PARAMS) as broken:
        raise RuntimeError
    with track_stage("train", PARAMS) as run:
        pass
    assert run.run_id != broken.run_id
    assert "mlflow.parentRunId" not in read(run.run_id).data.tags


def test_epochs_are_a_series(project: Path) -> None:
    with track_stage("train", PARAMS) as run:
        for epoch in range(3):
            run.log_epoch(epoch, {"val_auc": 0.5 + 0.1 * epoch})
    history = client().get_metric_history(run.run_id, "epoch/val_auc")
    assert [(point.step, round(point.value, 3)) for point in history] == [(0, 0.5), (1, 0.6), (2, 0.7)]


def test_only_finite_numbers_become_metrics(project: Path) -> None:
    values = {"auc": 0.9, "n": 3, "none": None, "nan": float("nan"), "inf": float("inf"), "text": "x", "yes": True}
    with track_stage("evaluate", PARAMS) as run:
        run.log_metrics({"test": values})
    metrics = read(run.run_id).data.metrics
    assert {name for name in metrics if name != "wall_seconds"} == {"test/auc", "test/n"}


def test_headlines_are_few_and_named_by_their_report(project: Path) -> None:
    report = {"auc": 0.9, "auc_low": 0.8, "brier": None, "by_mag": {"16": {"fnr": 1}}, "at_threshold": {"fnr": 0.1}}
    report |= {"fnr_at_fpr": {"1 %": 0.2} | {fpr_name(0.01): 0.3}}
    with track_stage("evaluate", PARAMS) as run:
        run.log_metrics({"test": headlines(report)})
    metrics = {name: value for name, value in read(run.run_id).data.metrics.items() if name != "wall_seconds"}
    assert metrics == {"test/auc": 0.9, "test/fnr": 0.1, "test/missed": 0.3}


def test_plots_and_json_are_kept(project: Path) -> None:
    Figure().savefig(project / "roc.png")
    with track_stage("evaluate", PARAMS) as run:
        run.log_plots([project / "roc.png"])
        run.log_json({"auc": 1}, "metrics.json")
    assert artifacts(run.run_id) == ["metrics.json", "plots"]
    assert artifacts(run.run_id, "plots") == ["plots/roc.png"]
    (png,) = (project / layout.MLRUNS_DIR).rglob("roc.png")
    assert png.read_bytes() == (project / "roc.png").read_bytes()


def test_data_set_is_an_input_known_by_its_content(project: Path, data_dir: Path) -> None:
    card = make_card(data_dir)
    with track_stage("train", PARAMS) as run:
        run.log_data(data_dir, card, context="training")
    seen = read(run.run_id)
    (given,) = seen.inputs.dataset_inputs
    assert given.dataset.name == data_dir.name
    assert card["digest"].startswith(given.dataset.digest)
    assert [tag.value for tag in given.tags] == ["training"]
    assert seen.data.tags["gotorb.data_digest"] == card["digest"]
    assert "data_card.json" in artifacts(run.run_id)


def test_model_has_a_signature_and_is_found_by_its_bytes(project: Path, models_dir: Path) -> None:
    from mlflow.models import get_model_info

    path = models_dir / "vgg6" / layout.MODEL_H5
    assert find_run(md5(path), "gotorb") is None
    with track_stage("train", PARAMS) as run:
        for epoch, loss in enumerate((1.0, 0.5)):
            run.log_epoch(epoch, {"loss": loss})
        run.log_model(path, tags={"network": "vgg6"}, metrics={"val": {"loss": 0.5}}, params={"model": "vgg6"}, step=1)
    (output,) = read(run.run_id).outputs.model_outputs
    shown = client().get_logged_model(output.model_id)
    assert [(metric.key, metric.value, metric.step) for metric in shown.metrics] == [("val/loss", 0.5, 1)]
    assert (shown.name, shown.params, shown.tags["mlflow.source.name"]) == ("vgg6", {"model": "vgg6"}, "gotorb")
    assert read(run.run_id).data.metrics["val/loss"] == 0.5
    history = client().get_metric_history(run.run_id, "epoch/loss")
    assert [(point.value, point.step) for point in history] == [(1.0, 0), (0.5, 1)]
    info = get_model_info(f"models:/{output.model_id}")
    (column,) = info.signature.inputs
    assert (column.name, str(column.type), column.shape) == ("stamps", "float32", (-1, SIZE, SIZE, len(LAYERS)))
    assert info.metadata == {"network": "vgg6"}
    assert find_run(md5(path), "gotorb") == run.run_id


def test_failed_run_is_not_found_by_its_model(project: Path, models_dir: Path) -> None:
    path = models_dir / "vgg6" / layout.MODEL_H5
    with pytest.raises(RuntimeError), track_stage("train", PARAMS) as run:
        run.set_tags({"gotorb.model_md5": md5(path)})
        raise RuntimeError
    assert find_run(md5(path), "gotorb") is None
