"""The small project, finished; and the tiny survey as the label code sees it, served by a real PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gotorb import label_data
from gotorb.core.settings import Settings
from gotorb.simulate.archive import survey_environment
from tests.end_to_end.clones import SMALL, Project, clean_environment, make_clone
from tests.shared import share


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Project:
    """The small project after its first `make repro`, its products committed; copy it, change nothing in it."""

    def make(folder: Path) -> None:
        project = make_clone(folder, SMALL, python=warm_python)
        done = project.repro()
        folder.with_suffix(".said").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout + done.stderr
        project.gotorb("sync")
        project.commit("products")

    root = share(tmp_path_factory, "project", make)
    return Project(root, clean_environment(root, warm_python))


@pytest.fixture(scope="package")
def served(tiny_survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of the served survey, in the environment while the tests run; the project is a folder of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("project")))
    with survey_environment("embedded", tiny_survey) as settings:
        yield settings
    patch.undo()


@pytest.fixture(scope="package")
def labelled(served: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the tiny survey, made in one go."""

    def make(folder: Path) -> None:
        label_data.make(100, folder, name="whole", provider="pympc", seed=1)

    return share(tmp_path_factory, "labelled", make) / "whole"
