"""One small data set and one trained model for all tests of this folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gotorb import classifier
from tests.model.blobs import make_blobs

STAYS_GRAPH = "ignore:Even though the `tf.config.experimental_run_functions_eagerly` option:UserWarning"
"""What TensorFlow says of its data functions when networks run eagerly."""
OPTIONS: dict[str, Any] = {"epochs": 6, "seed": 3, "name": "model"}


class Trained(NamedTuple):
    """A model, its meta and where all is."""

    model: Any
    meta: dict[str, Any]
    run_dir: Path
    data_dir: Path
    epochs_seen: list[int]


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 400 rows."""
    return make_blobs(tmp_path_factory.mktemp("blobs") / "data")


@pytest.fixture(scope="session")
def trained(blobs: Path) -> Trained:
    """bayesian_vgg6 after six epochs."""
    seen: list[int] = []
    model, meta = classifier.train(blobs, on_epoch=lambda epoch, _: seen.append(epoch), **OPTIONS)
    return Trained(model, meta, blobs / "model", blobs, seen)


@contextmanager
def run_eagerly(*, eagerly: bool = True) -> Iterator[None]:
    """Run networks operation by operation: for a few batches, tracing a graph costs far more than it saves."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eagerly)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture
def eager() -> Iterator[None]:
    """Networks of a test run eagerly; shared fixtures are made before, with graphs."""
    with run_eagerly():
        yield


@pytest.fixture(scope="module")
def eager_module(trained: Trained) -> Iterator[None]:
    """Networks of a whole module run eagerly, those of its fixtures too; the shared model is made before."""
    with run_eagerly():
        yield
