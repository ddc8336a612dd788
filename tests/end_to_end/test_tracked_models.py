"""Entries of the tracking store for each model after `make repro`, compared with the files of the stages."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.models import Model

from gotorb.core.params import Params
from gotorb.evaluation.injections import equal_fpr
from gotorb.evaluation.metrics import fpr_name
from gotorb.tracking.contents import md5
from gotorb.training.meta import read_meta
from tests.end_to_end.clones import MODEL, SMALL, Project

pytestmark = pytest.mark.timeout(1800)  # the first to come makes the small project
NETWORKS = (MODEL, "tuned")


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project after its first run."""
    return finished.copy(tmp_path_factory.mktemp("tracked") / "gotorb")


@pytest.fixture(scope="module")
def store(project: Project) -> MlflowClient:
    return project.client(MlflowClient)


@pytest.fixture(scope="module")
def runs(project: Project) -> dict[str, Run]:
    """Runs by their names."""
    return {run.info.run_name: run for run in project.runs()}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def meta(project: Project, network: str) -> dict[str, Any]:
    return read_meta(project.root / "models" / network / "meta.hkl")


@pytest.fixture
def report(project: Project, network: str) -> dict[str, Any]:
    return json.loads((project.root / "reports" / f"{network}.json").read_text())


@pytest.fixture
def training(runs: dict[str, Run], network: str) -> Run:
    return runs[f"train {network}"]


@pytest.fixture
def model(store: MlflowClient, training: Run) -> LoggedModel:
    (output,) = training.outputs.model_outputs
    return store.get_logged_model(output.model_id)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Texts by dotted names, without None."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = str(value)
    return found


def test_parameters_are_those_of_the_training(training: Run, model: LoggedModel, meta: dict[str, Any]) -> None:
    expected = flat(meta["parameters"]) | {"data_digest": meta["data_digest"], "code_version": meta["code_version"]}
    assert training.data.params == expected
    assert model.params == expected
    assert training.data.params["model"] == meta["parameters"]["model"]


def test_models_differ_in_few_parameters(runs: dict[str, Run]) -> None:
    first, second = (runs[f"train {name}"].data.params for name in NETWORKS)
    differing = {name for name in first | second if first.get(name) != second.get(name)}
    assert "learning_rate" in differing
    assert {name.split(".")[0] for name in differing} <= {"model", "learning_rate", "dropout", "model_kwargs"}
    assert 3 <= len(differing) <= 10


def test_best_epochs_metrics_are_those_of_the_history(training: Run, meta: dict[str, Any], store: MlflowClient) -> None:
    best, history = meta["best_epoch"], meta["history"]
    expected = {f"val/{name[4:]}": series[best] for name, series in history.items() if name.startswith("val_")}
    found = {name: value for name, value in training.data.metrics.items() if name.startswith("val/")}
    assert found == pytest.approx(expected)
    for name, series in history.items():
        curve = store.get_metric_history(training.info.run_id, f"epoch/{name}")
        assert [point.value for point in curve] == pytest.approx(list(series))


def test_metrics_of_test_truth_and_injections_are_those_of_the_reports(
    project: Project, training: Run, runs: dict[str, Run], report: dict[str, Any], network: str
) -> None:
    metrics, reports = training.data.metrics, project.root / "reports"
    truth = json.loads((reports / "truth.json").read_text())["models"][network]
    for rows, known in (("test", report), ("truth", truth)):
        assert metrics[f"{rows}/auc"] == known["auc"]
        assert metrics[f"{rows}/brier"] == known["brier"]
        assert metrics[f"{rows}/fnr"] == known["at_threshold"]["fnr"]
        assert metrics[f"{rows}/missed"] == known["fnr_at_fpr"][fpr_name(0.01)]
    slices = equal_fpr(json.loads((reports / "injections.json").read_text())["models"][network])["slices"]
    assert metrics["injected/found"] == slices["detectable"]["fraction"]
    of_test = {name: value for name, value in metrics.items() if name.startswith("test/")}
    judging = runs[f"evaluate {network}"].data.metrics
    assert {name: value for name, value in judging.items() if name.startswith("test/")} == of_test


def test_model_has_its_name_metrics_by_data_set_signature_and_example(
    training: Run, model: LoggedModel, meta: dict[str, Any], network: str
) -> None:
    assert model.name == network
    assert model.tags["mlflow.source.name"] == "gotorb"
    sets = {metric.key.split("/")[0] for metric in model.metrics}
    assert sets == {"val", "test", "truth", "injected"}
    for metric in model.metrics:
        assert metric.value == training.data.metrics[metric.key]
        assert metric.dataset_name == "dataset" and meta["data_digest"].startswith(metric.dataset_digest)
    described = Model.load(model.artifact_location.removeprefix("file://"))
    assert described.signature.inputs.inputs[0].shape[1:3] == (meta["stamp_size"], meta["stamp_size"])
    assert described.saved_input_example_info is not None


def test_data_set_model_and_evaluation_are_linked(
    project: Project, store: MlflowClient, training: Run, model: LoggedModel, runs: dict[str, Run], network: str
) -> None:
    (given,) = training.inputs.dataset_inputs
    assert given.dataset.source_type == "dvc" and '"data/dataset"' in given.dataset.source
    judging = runs[f"evaluate {network}"]
    assert judging.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert training.data.tags["gotorb.run.evaluate"] == judging.info.run_id
    for name in ("evaluate " + network, "truth", "injections"):
        known = store.get_run(runs[name].info.run_id).inputs  # a search leaves models out
        assert model.model_id in {one.model_id for one in known.model_inputs}
        assert known.dataset_inputs
    champion = store.get_model_version_by_alias("gotorb", "champion")
    if champion.tags["network"] == network:
        assert champion.run_id == training.info.run_id
        assert champion.source == f"models:/{model.model_id}"
        assert champion.tags["gotorb.model_md5"] == md5(project.root / "models" / network / "model.h5")
        (version,) = json.loads(model.tags["mlflow.modelVersions"])
        assert (version["name"], str(version["version"])) == ("gotorb", str(champion.version))


def test_each_run_is_described(runs: dict[str, Run], training: Run, model: LoggedModel) -> None:
    for name, run in runs.items():
        if not name.startswith("trial"):
            note = run.data.tags["mlflow.note.content"]
            assert "{here}" not in note and run.info.run_id in note
    note = training.data.tags["mlflow.note.content"]
    assert model.tags["mlflow.note.content"] == note
    assert f"auc {training.data.metrics['test/auc']:.4f}" in note
    assert note.count("\n| ") == 6  # head, validation, test, truth, injected, figures


STAGE_OPTIONS = {
    "survey": "survey", "label": "label", "clean": "clean", "dataset": "dataset", "synthetic": "synthetic",
    "injections": "recovery", "promote": "promote",
}  # fmt: skip


@pytest.mark.parametrize("name", STAGE_OPTIONS)
def test_stage_records_its_own_options(project: Project, runs: dict[str, Run], name: str) -> None:
    params = Params.model_validate(yaml.safe_load((project.root / "params.yaml").read_text()))
    section = getattr(params, STAGE_OPTIONS[name]).model_dump()
    changed = flat(SMALL.get(STAGE_OPTIONS[name], {}))
    found = runs[name].data.params
    assert changed.items() <= found.items()
    known = {key.split(".")[0] for key in section} | {
        "seed", "code_version", "data_digest", "models", "n_bootstrap", "n_samples", "n_processes", "provider",
        "variables",
    }  # fmt: skip
    assert {key.split(".")[0] for key in found} <= known | ({"catalogue"} if name == "survey" else set())
    assert found["seed"].isdigit() and found["code_version"]


def test_best_trial_is_marked_and_trials_have_parameters_of_the_space_alone(
    project: Project, runs: dict[str, Run]
) -> None:
    best = json.loads((project.root / "tuning" / "best.json").read_text())
    trials = [run for name, run in runs.items() if name.startswith("trial")]
    marked = [run for run in trials if run.data.tags.get("gotorb.best") == "true"]
    assert [run.data.tags["gotorb.trial"] for run in marked] == [str(best["trial"])]
    assert runs["tune"].data.tags["gotorb.best_trial"] == marked[0].info.run_id
    space = {"block1", "scale_up", "dense", "initializer", "activation", "dropout", "l2", "learning_rate"}
    assert all(set(run.data.params) <= space for run in trials)


def test_promotions_run_is_where_a_report_can_be_attached(runs: dict[str, Run], project: Project) -> None:
    promoted = json.loads(Path(project.root / "reports" / "promotion.json").read_text())
    assert runs["promote"].data.tags["gotorb.network"] == promoted["model"]
    assert runs["promote"].data.metrics["test/auc"] == promoted["test_auc"]
