"""`dvc exp run`, here and queued in a temporary folder: settings and store are the project's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from gotorb.core import layout
from tests.end_to_end.clones import ROOT
from tests.unit.tracking.repository import Repository

STAGE = """
from pathlib import Path
from gotorb.core.params import read_params
from gotorb.core.settings import read_settings
from gotorb.tracking.runs import in_experiment, track_stage
params = read_params()
with track_stage("train", params, used=params.train.model_dump(), name="train") as run:
    run.log_metrics({"lr": params.train.learning_rate})
Path("result.json").write_text(f'{{"lr": {params.train.learning_rate}, "in_experiment": {int(in_experiment())}}}\\n')
Path("place.txt").write_text(f"{read_settings().catshtm_dir}")
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[Repository]:
    """A project with one stage that tracks its run."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", os.pathsep.join([str(warm_python.parent), os.environ["PATH"]]))  # what stages call
    for name in ("DVC_ROOT", "GOTORB_MLRUNS", "MLFLOW_TRACKING_URI", "CATSHTM_DIR"):
        patch.delenv(name, raising=False)
    for name, value in {"NAME": "tester", "EMAIL": "tester@example.org"}.items():
        patch.setenv(f"GIT_COMMITTER_{name}", value)
        patch.setenv(f"GIT_AUTHOR_{name}", value)
    patch.setenv("PYTHONPATH", str(ROOT))
    repository = Repository(tmp_path_factory.mktemp("experiments") / "project", warm_python)
    root = repository.root
    root.mkdir()
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet")
    (root / "stage.py").write_text(STAGE)
    (root / layout.PARAMS_YAML).write_text(yaml.safe_dump({"seed": 1, "train": {"learning_rate": 0.001}}))
    stage = {"cmd": "python stage.py", "deps": ["stage.py"], "params": ["train"], "outs": ["place.txt"]}
    stage |= {"metrics": [{"result.json": {"cache": False}}]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    (root / ".gitignore").write_text(".env\n/mlruns\n/.gotorb\n__pycache__\n/place.txt\n")
    (root / ".env").write_text("CATSHTM_DIR=/from/env\n")
    repository.dvc("repro", "--quiet")
    repository.commit("v1")
    yield repository
    patch.undo()


def runs(root: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{root}/mlruns/mlflow.db")
    ids = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time ASC"]))


def test_plain_repro_is_no_experiment(repository: Repository) -> None:
    (run,) = runs(repository.root)
    assert "gotorb.dvc_experiment" not in run.data.tags
    assert '"in_experiment": 0' in (repository.root / "result.json").read_text()


def test_queued_experiments_use_the_projects_env_and_store(repository: Repository) -> None:
    root, before = repository.root, len(runs(repository.root))
    for rate in (0.002, 0.003):
        repository.dvc("exp", "run", "--queue", "--name", f"rate-{rate}", "-S", f"train.learning_rate={rate}")
    repository.dvc("exp", "run", "--run-all", "-j", "2")
    made = {run.data.tags["gotorb.dvc_experiment"]: run for run in runs(root)[before:]}
    assert {name: run.data.params["learning_rate"] for name, run in made.items()} == {
        "rate-0.002": "0.002", "rate-0.003": "0.003",
    }  # fmt: skip
    assert all(run.info.status == "FINISHED" for run in made.values())
    for name in made:
        told = repository.git("show", f"{name_of_ref(repository, name)}:result.json")
        assert '"in_experiment": 1' in told
    repository.dvc("exp", "apply", "rate-0.003")
    repository.dvc("checkout", "--quiet")
    assert (root / "place.txt").read_text() == "/from/env"
    assert '"lr": 0.003' in (root / "result.json").read_text()


def name_of_ref(repository: Repository, name: str) -> str:
    """Git's own name of an experiment."""
    refs = repository.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    return next(ref for ref in refs if ref.endswith(f"/{name}"))
