"""One small data set and one trained model for all tests of this folder."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gotorb import classifier
from tests.model.blobs import make_blobs

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
