"""Fixtures that several rooms share."""

from pathlib import Path

import pytest

import gotorb.tracking.store  # noqa: F401  # says what MLflow is to do, before any test imports it
from gotorb.params import SurveyParams

TINY_SEED = 2
N_THREADS = 2
NETWORK_ROOMS = {"model", "browser", "apps", "cli", "training", "tracking"}
"""Folders whose tests may run a network in this process."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give TensorFlow its threads before the first test: it keeps those it starts with, and trainings name theirs."""
    if any(NETWORK_ROOMS & set(item.path.parts) for item in session.items):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(N_THREADS)


@pytest.fixture(scope="session")
def tiny_survey_params() -> SurveyParams:
    """Two fields, two visits each, 320 pixels a side, more asteroids than on the sky; five seconds."""
    return SurveyParams(n_fields=2, n_visits=2, size=320, n_asteroids=150, n_training_fields=3, n_processes=1)


@pytest.fixture(scope="session")
def tiny_survey(tmp_path_factory: pytest.TempPathFactory, tiny_survey_params: SurveyParams) -> Path:
    """Folder of a small simulated survey, made once; read it, never write into it."""
    from gotorb.simulate.survey import make_survey

    out_dir = tmp_path_factory.mktemp("tiny") / "survey"
    make_survey(out_dir, tiny_survey_params, seed=TINY_SEED)
    return out_dir
