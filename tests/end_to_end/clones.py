"""A clone of this checkout in which a test works as a user does."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.repro import merge

ROOT = Path(__file__).parents[2]
MODEL = "bayesian_vgg6"
SMALL = {
    "survey": {"n_fields": 5, "n_visits": 2, "size": 448, "n_asteroids": 100, "n_training_fields": 2, "n_processes": 1},
    "label": {"n_processes": 1},
    "dataset": {"test_fraction": 0.4},
    "train": {"models": [MODEL], "epochs": 2, "threads": 1},
    "tune": {"max_trials": 2, "max_epochs": 1},
    "evaluate": {"models": [MODEL, "tuned"], "n_samples": 5, "n_bootstrap": 50},
    "recovery": {"n_per_image": 15},
}
"""Changes of params.yaml for the small project: every stage, in a minute."""
# settings of the machine that runs the tests must not reach the clone
FOREIGN = ("DVC_", "GOTORB_", "GOTOPHOTO_", "MLFLOW_", "CATSHTM_", "GIT_")


class Project(NamedTuple):
    """A clone with the environment in which a user works; ``python`` is the first one on its PATH."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        now = {"PYTEST_CURRENT_TEST": os.environ.get("PYTEST_CURRENT_TEST", "")}  # whose CPU time it is
        environment = self.environment | now
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        done = self.run("git", *who, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def dvc(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("python", "-m", "dvc", *words)

    def repro(self) -> subprocess.CompletedProcess[str]:
        """Run the same as `make repro` after the set-up."""
        return self.run("python", "-m", "pipelines.repro")

    def gotorb(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of gotorb, which must end with this exit code."""
        done = self.run("python", "-m", "gotorb", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def runs(self) -> list[Any]:
        """All tracked runs, oldest first."""
        from mlflow import MlflowClient

        client = self.client(MlflowClient)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=1000))

    def client(self, make: Any) -> Any:
        return make(f"sqlite:///{self.root}/mlruns/mlflow.db")

    def copy(self, root: Path) -> "Project":
        """The same project elsewhere, as if it had been made there."""
        shutil.copytree(self.root, root, symlinks=True, ignore=shutil.ignore_patterns(".gotorb"))
        copy = Project(root, self.environment | {"PYTHONPATH": str(root)})
        copy.gotorb("tracking", "relocate")
        return copy


def make_clone(root: Path, changes: dict[str, Any], *, python: Path = Path(sys.executable)) -> Project:
    """A clone of this checkout with its uncommitted changes, other parameters, and no results."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    copy_changes(root)
    change_params(root, changes)
    products = (str(path.relative_to(root)) for path in (root / "reports").rglob("*") if path.is_file())
    for product in ("dvc.lock", *products):
        (root / product).unlink(missing_ok=True)  # a clone of a finished project would restore instead of run
    clone = Project(root, clean_environment(root, python))
    clone.commit("a small survey")
    return clone


def change_params(root: Path, changes: dict[str, Any]) -> None:
    """Write other values into params.yaml."""
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), changes)))


def clean_environment(root: Path, python: Path) -> dict[str, str]:
    """Environment of a user's shell in a checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment["PATH"] = os.pathsep.join([str(python.parent), str(Path(sys.executable).parent), environment["PATH"]])
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "tester", f"GIT_{role}_EMAIL": "tester@example.org"}
    return environment | {"PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "true"}


def copy_changes(root: Path) -> None:
    """Copy what is changed or new in this checkout and not committed yet."""
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)
        else:
            target.unlink(missing_ok=True)
