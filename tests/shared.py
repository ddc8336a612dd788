"""Things that the whole session makes once, whichever of pytest's processes needs them first."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from gotorb.core import layout

CONTROLLER = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
"""Process that lives as long as the session."""


def share(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    """Return the session's folder of this name, filled by the first caller; others wait.

    Parameters
    ----------
    factory : pytest.TempPathFactory
        Of any process of the session.
    name : str
        Of the folder.
    make : callable
        Given the folder's path, makes and fills it.

    Returns
    -------
    Path
        The folder: read it, or copy it; never write into it.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / "shared" / name, root / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a caller that failed
            make(folder)
            done.touch()
    return folder


def point_to(patch: pytest.MonkeyPatch, root: Path) -> Path:
    """Let settings and tracking see only a project in `root`."""
    patch.setenv("DVC_ROOT", str(root))
    patch.setenv("GOTORB_MLRUNS", str(root / layout.MLRUNS_DIR))
    patch.setenv("MLFLOW_TRACKING_URI", "")
    return root


def read_here(job: Callable[..., Any], path: Path, *, memory: int, seconds: int = 60, **options: Any) -> Any:
    """Stand-in for `read_apart` that starts no process; options travel as json all the same."""
    assert memory > 0 and seconds > 0
    return job(path, **json.loads(json.dumps(options)))
