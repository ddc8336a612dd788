"""The tiny survey as the label code sees it: served by a real PostgreSQL, named by the environment."""

import pytest

from gotorb import label_data
from gotorb.simulate.archive import survey_environment


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project folder of its own, so that no test touches the checkout's store or database."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="session")
def served(tiny_survey, project):
    """Settings of the served survey, in the environment while the tests run."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DVC_ROOT", str(project))
    with survey_environment("embedded", tiny_survey) as settings:
        yield settings
    patch.undo()


@pytest.fixture(scope="session")
def labelled(served, tmp_path_factory):
    """A data set of the tiny survey, made in one go."""
    return label_data.make(100, tmp_path_factory.mktemp("made"), name="whole", provider="pympc", seed=1)
