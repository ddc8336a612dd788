"""Networks are proved to survive saving before they are trained: else they are refused with the layer's name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gotorb import classifier
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError
from gotorb.training import saving
from gotorb.training.model_files import write_model
from gotorb.training.networks import build_network
from tests.model.blobs import make_blobs

SHAPE = (24, 24, 3)
L, ops = keras.layers, keras.ops


class Doubled(keras.layers.Layer):
    """A layer that is not registered."""

    def call(self, x: Any) -> Any:
        return x * 2


class Own(keras.Model):
    """A network that is a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.dense = L.Flatten(), L.Dense(1, activation="sigmoid")

    def call(self, x: Any) -> Any:
        return self.dense(self.flat(x))


def network(first: Callable[[Any], Any], *, end: Any = None) -> keras.Model:
    """A small network behind a first operation."""
    stamps = keras.Input(SHAPE)
    x = L.Flatten()(L.Conv2D(4, 3, activation="relu")(first(stamps)))
    return keras.Model(stamps, (end or L.Dense(1, activation="sigmoid"))(x))


LOST = {
    "softmax": lambda: L.Softmax(axis=(1, 2), name="culprit"),
    "norm": lambda: L.UnitNormalization(axis=(1, 2), name="culprit"),
    "norm 3": lambda: L.UnitNormalization(axis=(1, 2, 3), name="culprit"),
    "layer norm": lambda: L.LayerNormalization(axis=(1, 2, 3), name="culprit"),
    "lambda": lambda: L.Lambda(lambda x: x * 2, name="culprit"),
    "own": lambda: Doubled(name="culprit"),
    "nested": lambda: keras.Sequential([L.Conv2D(3, 3), L.UnitNormalization(axis=(1, 2), name="culprit")]),
}  # fmt: skip
OPERATIONS = {"ops": lambda x: ops.log1p(ops.abs(x)), "slice": lambda x: x[..., :2], "arithmetic": lambda x: x * 2 + 1}
KEPT = {
    "plain": lambda: L.Rescaling(0.1),
    "batch norm": L.BatchNormalization,
    "group norm": lambda: L.GroupNormalization(3),
    "norm of one axis": lambda: L.UnitNormalization(axis=-1),
    "nested": lambda: keras.Sequential([L.Conv2D(3, 3), L.LeakyReLU(0.1)]),
}


@pytest.mark.parametrize("kind", LOST)
def test_layers_that_are_lost_are_named(kind: str) -> None:
    with pytest.raises(ModelError, match="'culprit'"):
        saving.check_saving(network(LOST[kind]()))


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_that_are_no_layers_are_refused(kind: str) -> None:
    with pytest.raises(ModelError, match="an operation that is no layer"):
        saving.check_saving(network(OPERATIONS[kind]))


@pytest.mark.parametrize("kind", KEPT)
def test_layers_that_survive_are_let_through_and_chance_is_untouched(kind: str) -> None:
    model = network(KEPT[kind]())
    random.seed(5)
    expected = random.random()
    random.seed(5)
    saving.check_output(model)
    saving.check_saving(model)
    assert random.random() == expected


@pytest.mark.parametrize("activation", [None, "relu", "tanh", "softplus", "exponential"])
def test_outputs_that_are_no_scores_are_refused(activation: str | None) -> None:
    with pytest.raises(ModelError, match="no score"):
        saving.check_output(network(L.Rescaling(1.0), end=L.Dense(1, activation=activation)))


def test_a_class_of_its_own_is_refused() -> None:
    model = Own()
    model(np.zeros((1, *SHAPE), np.float32))
    with pytest.raises(ModelError, match="Own"):
        saving.check_saving(model)


def test_a_file_that_differs_does_not_replace_an_older_one(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.h5", network(L.Rescaling(0.5)))
    before = path.read_bytes()
    with pytest.raises(ModelError, match="'culprit'"):
        write_model(path, network(LOST["softmax"]()), check=saving.check_same)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.h5"]


@pytest.mark.parametrize("kind", ["softmax", "layer norm", "linear"])
def test_training_does_not_begin(kind: str, tmp_path: Path) -> None:
    data, seen = make_blobs(tmp_path / "data", n=120, size=24), []
    end = L.Dense(1) if kind == "linear" else None
    first = LOST.get(kind, lambda: L.Rescaling(1.0))
    with pytest.raises(ModelError):
        classifier.train(
            data, lambda shape: network(first(), end=end), layers=("science", "template", "difference"), epochs=1,
            on_epoch=lambda *_: seen.append(1),
        )  # fmt: skip
    assert seen == []
    assert not list(data.glob("model*"))


def two_classes(shape: tuple[int, int, int], activation: str | None = "softmax") -> keras.Model:
    stamps = keras.Input(shape)
    features = L.Flatten()(L.AveragePooling2D(4)(stamps))
    return keras.Model(stamps, L.Dense(2, activation=activation)(L.UnitNormalization()(features)), name="two")


@pytest.mark.parametrize("column", [0, 1])
def test_a_softmax_over_two_classes_is_declared(column: int, tmp_path: Path) -> None:
    data = make_blobs(tmp_path / "data", n=240, size=24)
    layers = ("science", "template", "difference")
    options = {"layers": layers, "epochs": 6, "learning_rate": 0.05, "name": f"two{column}"}
    with pytest.raises(ModelError, match="real_column"):
        classifier.train(data, two_classes, **options)
    model, meta = classifier.train(data, two_classes, real_column=column, **options)
    stamps = open_dataset(data).read_stamps(range(40), layers)
    again, _ = classifier.load(meta["run_dir"])
    scores = classifier.predict(again, stamps)
    assert meta["parameters"]["real_column"] == column and model.output_shape == (None, 1)
    np.testing.assert_allclose(scores, model.predict(stamps, verbose=0)[:, 0], atol=1e-6)
    assert scores[open_dataset(data).labels[:40] == 1].mean() > scores[open_dataset(data).labels[:40] == 0].mean()


def test_two_columns_without_a_softmax_are_no_scores() -> None:
    with pytest.raises(ModelError, match="no softmax"):
        build_network(lambda shape: two_classes(shape, "sigmoid"), (24, 24, 3), real_column=1)
