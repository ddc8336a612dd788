"""`make repro` in a fresh clone, as a user runs it: from no data to a champion, twice the same bytes."""

import subprocess
from typing import Any, NamedTuple

import pytest
import yaml

from tests.end_to_end.clones import Project, make_clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = "bayesian_vgg6"
SMALL = {
    "survey": {"n_fields": 5, "n_visits": 2, "size": 448, "n_asteroids": 100, "n_training_fields": 2},
    "train": {"models": [MODEL], "epochs": 3},
    "tune": {"max_trials": 2, "max_epochs": 1},
    "evaluate": {"models": [MODEL, "tuned"], "n_samples": 5, "n_bootstrap": 50},
}
STAGE_RUNS = {
    "survey", "label", "synthetic", "clean", "dataset", f"train {MODEL}", "tune", "train tuned", f"evaluate {MODEL}",
    "evaluate tuned", "truth", "injections", "promote",
}  # fmt: skip
TRIALS = ["trial 00", "trial 01"]
REPORTS = {f"{MODEL}.json", "tuned.json", "promotion.json", "purity.json", "truth.json"}


class First(NamedTuple):
    """The clone after its first run, and what was seen then."""

    project: Project
    done: subprocess.CompletedProcess[str]
    runs: list[Any]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with a small survey."""
    return make_clone(tmp_path_factory.mktemp("clone") / "gotorb", SMALL)


@pytest.fixture(scope="module")
def first(project: Project) -> First:
    """The first run; its products are committed."""
    done = project.repro()
    runs = project.runs() if done.returncode == 0 else []
    project.commit("products")
    return First(project, done, runs)


def test_first_run_writes_the_reports(first: First) -> None:
    assert first.done.returncode == 0, first.done.stdout + first.done.stderr
    written = {path.name for path in (first.project.root / "reports").glob("*.json")}
    assert written >= REPORTS
    assert (first.project.root / "dvc.lock").exists()


def test_every_stage_has_one_finished_run_with_its_parameters(first: First) -> None:
    stages = [run for run in first.runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.info.run_name for run in stages) == sorted(STAGE_RUNS)
    revision = first.project.git("rev-parse", "HEAD~1").strip()
    for run in stages:
        assert run.info.status == "FINISHED"
        assert run.data.params["survey.n_fields"] == "5"
        assert run.data.tags["gotorb.git_revision"].removesuffix("+changes") == revision
        assert run.data.metrics["wall_seconds"] > 0


def test_each_trial_of_the_tuning_is_one_nested_run(first: First) -> None:
    (parent,) = (run for run in first.runs if run.info.run_name == "tune")
    nested = [run for run in first.runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in nested) == TRIALS


def test_registry_has_a_champion_with_the_bytes_of_the_model_on_disk(first: First) -> None:
    from mlflow import MlflowClient

    champion = first.project.client(MlflowClient).get_model_version_by_alias("gotorb", "champion")
    lock = yaml.safe_load((first.project.root / "dvc.lock").read_text())
    outs = [out for stage in (f"train@{MODEL}", "retrain") for out in lock["stages"][stage]["outs"]]
    models = {out["path"].split("/")[1]: out["md5"] for out in outs if out["path"].endswith("model.h5")}
    assert set(models) == {MODEL, "tuned"}
    assert champion.tags["gotorb.model_md5"] == models[champion.tags["network"]]


def test_second_run_does_no_work(first: First) -> None:
    before = len(first.project.runs())
    done = first.project.repro()
    assert done.returncode == 0
    assert "Data and pipelines are up to date" in done.stdout
    assert len(first.project.runs()) == before


def test_doing_everything_again_changes_no_byte_and_registers_nothing(first: First) -> None:
    from mlflow import MlflowClient

    done = first.project.run("dvc", "repro", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.project.git("status", "--porcelain") == ""
    (version,) = first.project.client(MlflowClient).search_model_versions("name = 'gotorb'")
    assert version.version in (1, "1")
    assert len(first.project.runs()) == 2 * len(first.runs)


def test_wrong_parameter_is_one_line_and_exit_code_1(project: Project) -> None:
    path = project.root / "params.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("epochs: 3", "epochs: three"))
        done = project.repro()
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "parameter 'train.epochs' is 'three'" in line
