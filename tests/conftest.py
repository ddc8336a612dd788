"""Threads, order and time limit of the tests, and what several rooms share."""

import gc
import os
import tempfile
from hashlib import md5
from pathlib import Path

import pytest

import gotorb.tracking.store  # noqa: F401  # says what MLflow is to do, before any test imports it
from gotorb.core import layout
from gotorb.core.params import SurveyParams
from tests import warm
from tests.shared import CONTROLLER, point_to, share

# read when numpy is imported, which nothing above does
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # several processes run tests at the same time
# DVC starts a process that looks for a newer DVC, and one that reports its use, unless these say otherwise
os.environ |= {"CI": "true", "DVC_NO_ANALYTICS": "true"}
# Each session takes access to its root of temporary folders from others, PostgreSQL's own user among them: where the
# tests of several checkouts run as root, each needs a root of its own. Sockets allow only a short name.
_root = Path(tempfile.gettempdir(), f"tests-{md5(f'{os.getuid()} {__file__}'.encode()).hexdigest()[:4]}")
_root.mkdir(exist_ok=True)
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_root))
pytest_plugins = ["tests.cpu_limit"]
gc.set_threshold(*warm.GC_THRESHOLDS)
TINY_SEED = 3
N_THREADS = 2
NETWORK_ROOMS = {"model", "browser", "apps", "cli", "training", "tracking"}
"""Folders whose tests may run a network in this process."""
FIRST = ("end_to_end/test_pipeline", "model/", "end_to_end/", "browser/", "unit/streams/", "unit/tracking/")
"""Files that take longest, in the order in which they start, so that the processes end at the same time.

The second process begins with models: what else is long would wait with the first for `warm_python`.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of long tests first; with --no-loadscope-reorder they are dealt out in this order."""
    items.sort(key=lambda item: next((rank for rank, name in enumerate(FIRST) if name in item.nodeid), len(FIRST)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give TensorFlow its threads before the first test, and take what is imported out of garbage collection.

    TensorFlow keeps the threads it starts with, and trainings name theirs.
    """
    if any(NETWORK_ROOMS & set(item.path.parts) for item in session.items):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(N_THREADS)
    gc.collect()
    gc.freeze()  # half a million objects of libraries, which each full collection would visit


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A command that does what python does, in a process of its own, and has its slow imports done."""
    folder = share(tmp_path_factory, "python", lambda folder: warm.start(folder, owner=CONTROLLER))
    warm.SERVING.append(folder)
    return folder / "python"


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store to copy; making its tables takes seconds."""
    from gotorb.tracking.store import open_store

    def make(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            point_to(patch, root)
            open_store()

    return share(tmp_path_factory, "store", make) / layout.MLRUNS_DIR


@pytest.fixture(scope="session")
def tiny_survey_params() -> SurveyParams:
    """Two fields, two visits each, 320 pixels a side, more asteroids than on the sky; five seconds."""
    return SurveyParams(n_fields=2, n_visits=2, size=320, n_asteroids=150, n_training_fields=3, n_processes=1)


@pytest.fixture(scope="session")
def tiny_survey(tmp_path_factory: pytest.TempPathFactory, tiny_survey_params: SurveyParams) -> Path:
    """Folder of a small simulated survey; read it, never write into it."""
    from gotorb.simulate.survey import make_survey

    return share(
        tmp_path_factory, "tiny_survey", lambda folder: make_survey(folder, tiny_survey_params, seed=TINY_SEED)
    )
