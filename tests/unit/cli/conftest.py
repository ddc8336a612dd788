"""`gotorb` as it is called from a shell, in a project folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gotorb import cli
from gotorb.core import layout

FOREIGN = ("DVC_", "GOTORB_", "GOTOPHOTO_", "MLFLOW_TRACKING_", "CATSHTM_")


class Said(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project: only parameters; no setting of the machine is seen, and none set here stays."""
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    # mlflow and read_settings write into the environment
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (tmp_path / layout.PARAMS_YAML).write_text(yaml.safe_dump({"seed": 2, "train": {"epochs": 7}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def stored(project: Path, fresh_store: Path) -> Path:
    """The project with its tracking store, whose tables would take a command seconds to make."""
    return Path(shutil.copytree(fresh_store, project / layout.MLRUNS_DIR))


@pytest.fixture
def gotorb(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Call `gotorb WORDS...` in this process."""

    def call(*words: str) -> Said:
        capsys.readouterr()
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        return Said(code, *capsys.readouterr())

    return call


def shell(*words: str, cwd: Path, python: Path | str = sys.executable) -> Said:
    """Call `python -m gotorb WORDS...` as a process."""
    command = [str(python), "-m", "gotorb", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)
