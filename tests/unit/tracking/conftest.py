"""A real sqlite store for each test, copied from one that was set up once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotorb import layout
from tests.unit.tracking.tiny import make_data, make_params, write_model


def point_to(patch: pytest.MonkeyPatch, root: Path) -> Path:
    """Let settings and tracking see nothing but a project in `root`."""
    patch.setenv("DVC_ROOT", str(root))
    patch.setenv("GOTORB_MLRUNS", str(root / layout.MLRUNS_DIR))
    patch.setenv("MLFLOW_TRACKING_URI", "")
    return root


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store; making its tables takes seconds."""
    from gotorb.tracking.store import open_store

    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, root)
        open_store()
    return root / layout.MLRUNS_DIR


@pytest.fixture
def project(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder with an empty store of its own."""
    root = tmp_path / "project"
    shutil.copytree(fresh_store, root / layout.MLRUNS_DIR)
    yield point_to(monkeypatch, root)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A divided data set of 120 rows."""
    return make_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture
def models_dir(tmp_path: Path, data_dir: Path) -> Path:
    """Folders of a good and a middling model."""
    for name in make_params("vgg6", "bayesian_vgg6").train.models:
        write_model(tmp_path / "models", name, data_dir)
    return tmp_path / "models"
