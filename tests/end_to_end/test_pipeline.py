"""`make repro` in a fresh clone, as a user runs it: from no data to a champion, twice the same bytes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.end_to_end.clones import MODEL, SMALL, Project, make_clone

pytestmark = pytest.mark.timeout(1800)  # the first test makes the small project

STAGE_RUNS = {
    "survey", "label", "synthetic", "clean", "dataset", f"train {MODEL}", "tune", "train tuned", f"evaluate {MODEL}",
    "evaluate tuned", "truth", "injections", "promote",
}  # fmt: skip
TRIALS = ["trial 00", "trial 01"]
AGAIN = ("label", "synthetic", "clean", "dataset", "truth", "promote")
REPORTS = {f"{MODEL}.json", "tuned.json", "promotion.json", "purity.json", "truth.json"}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project after its first run."""
    return finished.copy(tmp_path_factory.mktemp("clone") / "gotorb")


@pytest.fixture(scope="module")
def runs(project: Project) -> list[Any]:
    """Runs of the first `make repro`."""
    return project.runs()


def test_first_run_writes_the_reports(project: Project) -> None:
    assert {path.name for path in (project.root / "reports").glob("*.json")} >= REPORTS
    assert (project.root / "dvc.lock").exists()


def test_every_stage_has_one_finished_run_with_its_parameters(project: Project, runs: list[Any]) -> None:
    stages = [run for run in runs if run.info.run_name not in TRIALS]
    assert sorted(run.info.run_name for run in stages) == sorted(STAGE_RUNS)
    revision = project.git("rev-parse", "HEAD~1").strip()
    for run in stages:
        assert run.info.status == "FINISHED"
        assert ("n_fields" in run.data.params) is (run.info.run_name == "survey")  # its own stage's alone
        assert run.data.tags["gotorb.git_revision"].removesuffix("+changes") == revision
        assert run.data.metrics["wall_seconds"] > 0


def test_each_trial_of_the_tuning_is_one_nested_run(runs: list[Any]) -> None:
    (parent,) = (run for run in runs if run.info.run_name == "tune")
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in nested) == TRIALS


def test_registry_has_a_champion_with_the_bytes_of_the_model_on_disk(project: Project) -> None:
    champion = project.client(MlflowClient).get_model_version_by_alias("gotorb", "champion")
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())
    outs = [out for stage in (f"train@{MODEL}", "retrain") for out in lock["stages"][stage]["outs"]]
    models = {out["path"].split("/")[1]: out["md5"] for out in outs if out["path"].endswith("model.h5")}
    assert set(models) == {MODEL, "tuned"}
    assert champion.tags["gotorb.model_md5"] == models[champion.tags["network"]]


def test_second_run_does_no_work(project: Project, runs: list[Any]) -> None:
    done = project.repro()
    assert done.returncode == 0
    assert "Data and pipelines are up to date" in done.stdout
    assert len(project.runs()) == len(runs)


def test_wrong_parameter_is_one_line_and_exit_code_1(project: Project) -> None:
    path = project.root / "params.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("epochs: 2", "epochs: three"))
        done = project.repro()
    finally:
        path.write_text(before)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "'train.epochs' is 'three'" in line


@pytest.mark.long("six stages")
def test_stages_done_again_change_no_byte_and_register_no_second_version(project: Project) -> None:
    done = project.dvc("repro", "--force", "--single-item", *AGAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Running stage") == len(AGAIN)
    assert project.git("status", "--porcelain") == ""
    (version,) = project.client(MlflowClient).search_model_versions("name = 'gotorb'")
    assert version.version in (1, "1")


@pytest.mark.slow
def test_the_real_python_makes_the_same_bytes_twice(finished: Project, tmp_path: Path) -> None:
    """From an empty DVC cache, with a new process and its imports for every stage."""
    cold = make_clone(tmp_path / "gotorb", SMALL)
    done = cold.repro()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (cold.root / "dvc.lock").read_text() == (finished.root / "dvc.lock").read_text()
    cold.commit("products")
    n_runs = len(cold.runs())
    done = cold.dvc("repro", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cold.git("status", "--porcelain") == ""
    (version,) = cold.client(MlflowClient).search_model_versions("name = 'gotorb'")
    assert version.version in (1, "1")
    assert len(cold.runs()) == 2 * n_runs
