"""One small data set and one trained model for all tests of this folder."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gotorb import classifier
from tests.model.blobs import make_blobs
from tests.shared import share

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
    """A data set of 400 rows, of this process."""
    made = share(tmp_path_factory, "blobs", make_blobs)
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("blobs") / "data"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """bayesian_vgg6 after six epochs: trained once in the session, in a folder of this process."""

    def make(folder: Path) -> None:
        seen: list[int] = []
        classifier.train(make_blobs(folder), on_epoch=lambda epoch, _: seen.append(epoch), **OPTIONS)
        folder.with_suffix(".seen").write_text(json.dumps(seen))

    made = share(tmp_path_factory, "trained", make)
    data_dir = Path(shutil.copytree(made, tmp_path_factory.mktemp("trained") / "data"))
    model, meta = classifier.load(data_dir / "model")
    assert meta is not None
    return Trained(model, meta, data_dir / "model", data_dir, json.loads(made.with_suffix(".seen").read_text()))


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes most of an evaluation's time; `test_evaluate` draws them."""
    monkeypatch.setattr("gotorb.evaluation.report._save_figure", lambda figure, path, *_: path.touch())


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
