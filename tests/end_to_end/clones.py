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
# settings of the machine that runs the tests must not reach the clone
FOREIGN = ("DVC_", "GOTORB_", "GOTOPHOTO_", "MLFLOW_", "CATSHTM_", "GIT_")


class Project(NamedTuple):
    """A clone with the environment in which a user works."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
        done = self.run("git", *who, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def repro(self) -> subprocess.CompletedProcess[str]:
        """What `make repro` runs once the environment is there."""
        return self.run(sys.executable, "-m", "pipelines.repro")

    def gotorb(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """What a command of ours prints; it must end with this exit code."""
        done = self.run(sys.executable, "-m", "gotorb", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def runs(self) -> list[Any]:
        """All tracked runs, oldest first."""
        from mlflow import MlflowClient

        self.gotorb("sync")  # couriers may be under way
        client = self.client(MlflowClient)
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return list(client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=1000))

    def client(self, make: Any) -> Any:
        return make(f"sqlite:///{self.root}/mlruns/mlflow.db")


def make_clone(root: Path, changes: dict[str, Any], *, drop: tuple[str, ...] = ()) -> Project:
    """A clone of this checkout with its uncommitted changes, other parameters, without some stages, and no results."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
    copy_changes(root)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(merge(params, changes)))
    stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
    kept = {name: stage for name, stage in stages.items() if name not in drop}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False))
    for product in (
        "dvc.lock",
        *(str(path.relative_to(root)) for path in (root / "reports").rglob("*") if path.is_file()),
    ):
        (root / product).unlink(missing_ok=True)  # a clone of a finished project would restore instead of run
    clone = Project(root, clean_environment(root))
    clone.commit("a small survey")
    return clone


def clean_environment(root: Path) -> dict[str, str]:
    """What a user's shell holds who works in a checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "tester", f"GIT_{role}_EMAIL": "tester@example.org"}
    return environment | {"PYTHONPATH": str(root)}


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
