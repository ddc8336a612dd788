"""Templates that are made once and copied: a real sqlite store, a project under git and DVC, trained models."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotorb.core import layout
from gotorb.tracking import contents, versions
from tests.shared import point_to
from tests.unit.tracking.repository import Repository
from tests.unit.tracking.server import Process, mlflow_server
from tests.unit.tracking.tiny import make_data, make_params, write_model


@pytest.fixture(scope="package", autouse=True)
def dvc_forks(warm_python: Path) -> Iterator[None]:
    """DVC, as our code calls it, is a fork of the waiting python."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (contents, versions):
            patch.setattr(module, "DVC", (str(warm_python), "-m", "dvc"))
        yield


@pytest.fixture
def project(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder with an empty store of its own."""
    root = tmp_path / "project"
    shutil.copytree(fresh_store, root / layout.MLRUNS_DIR)
    yield point_to(monkeypatch, root)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A divided data set of 120 rows; read it, never write into it."""
    return make_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """Folders of a good and a middling model; read them, never write into them."""
    folder = tmp_path_factory.mktemp("models")
    for name in make_params("vgg6", "bayesian_vgg6").train.models:
        write_model(folder, name, data_dir)
    return folder


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory, fresh_store: Path, warm_python: Path) -> Repository:
    """A project with the tags v1 and v2 (checked out) and an empty store; copy it, never change it."""
    repository = Repository.new(tmp_path_factory.mktemp("versions") / "project", warm_python)
    repository.make(seed=6)
    repository.commit("v2")
    shutil.copytree(fresh_store, repository.root / layout.MLRUNS_DIR)
    return repository


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Process]]:
    """Address and true process of a tracking server, which a test may stop; it says whether it is up at its begin."""
    address, process = mlflow_server(tmp_path_factory.mktemp("server"))
    yield address, process
    process.kill()
