"""Best epoch of a training: the direction of each monitored quantity, patience, and counters that resume."""

from typing import Any

import keras
import numpy as np
import pytest

from gotorb.errors import ConfigError, ModelError
from gotorb.training.checkpoint import BestWeights
from gotorb.training.recipe import Recipe, compile_network, find_mode

OPTIONS: dict[str, Any] = {
    "epochs": 5, "patience": 2, "learning_rate": 0.1, "optimizer": "sgd", "augment": False, "seed": 0,
}  # fmt: skip
VALUES = [0.5, 0.3, 0.4, 0.9, 0.6]
LOWEST, HIGHEST = 1, 3


def square(labels: Any, scores: Any) -> Any:
    return keras.ops.square(labels - scores)


def make_recipe(monitor: str, **options: Any) -> Recipe:
    brier = keras.metrics.MeanSquaredError(name="brier")
    metrics = ("mae", "mse", brier, keras.metrics.FalseNegatives(name="false_negatives"), "TruePositives", square)
    return Recipe(monitor=monitor, metrics=metrics, **OPTIONS | options)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """A compiled network of one weight whose metrics are built."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid", use_bias=False)])
    compile_network(model, make_recipe("val_loss"))
    model.train_on_batch(np.ones((2, 1), np.float32), np.array([[0], [1]], np.float32))
    return model


def follow(model: keras.Model, recipe: Recipe, values: list[float], *, patience: int = 9) -> BestWeights:
    """Tell a callback the monitored values of some epochs; the weight of an epoch is its number."""
    best = BestWeights(recipe.monitor, patience, find_mode(recipe))
    best.set_model(model)
    best.on_train_begin()
    continue_with(best, values)
    return best


def continue_with(best: BestWeights, values: list[float], first: int = 0) -> None:
    best.model.stop_training = False
    for epoch, value in enumerate(values, start=first):
        if not best.model.stop_training:
            best.model.set_weights([np.full((1, 1), epoch)])
            best.on_epoch_end(epoch, {"loss": 0.5, best.monitor: value})


@pytest.mark.parametrize("monitor", ["val_mae", "val_mse", "val_brier", "val_false_negatives", "val_loss", "loss"])
def test_smaller_is_better(model: keras.Model, monitor: str) -> None:
    best = follow(model, make_recipe(monitor), VALUES)
    best.restore(model)
    assert (best.best_epoch, model.get_weights()[0].item()) == (LOWEST, LOWEST)


@pytest.mark.parametrize("monitor", ["val_auc", "val_accuracy", "val_TruePositives"])
def test_larger_is_better(model: keras.Model, monitor: str) -> None:
    best = follow(model, make_recipe(monitor), VALUES)
    best.restore(model)
    assert (best.best_epoch, model.get_weights()[0].item()) == (HIGHEST, HIGHEST)


def test_the_direction_of_a_function_has_to_be_named(model: keras.Model) -> None:
    with pytest.raises(ConfigError, match=r"'val_square'.*monitor_mode"):
        follow(model, make_recipe("val_square"), VALUES)
    for mode, epoch in (("min", LOWEST), ("max", HIGHEST)):
        assert follow(model, make_recipe("val_square", monitor_mode=mode), VALUES).best_epoch == epoch
    with pytest.raises(ConfigError, match="monitor_mode is 'down'"):
        make_recipe("val_square", monitor_mode="down")


def test_training_stops_after_patience_and_counts_on_when_it_resumes(model: keras.Model) -> None:
    values = [0.5, 0.3, 0.4, 0.35, 0.1]
    whole = follow(model, make_recipe("val_loss"), values, patience=2)
    assert model.stop_training and whole.stopped_epoch == 3
    begun = follow(model, make_recipe("val_loss"), values[:3], patience=2)
    assert not model.stop_training
    resumed = BestWeights("val_loss", 2)
    assert set(resumed.state()) == set(begun.state())  # before any training
    resumed.set_model(model)
    resumed.resume(begun.state(), begun.best_weights)
    resumed.on_train_begin()
    continue_with(resumed, values[3:], first=3)
    assert model.stop_training and resumed.state() == whole.state()
    np.testing.assert_array_equal(resumed.best_weights[0], whole.best_weights[0])


def test_epochs_without_a_value_are_never_best(model: keras.Model) -> None:
    assert follow(model, make_recipe("val_loss"), [float("nan"), 0.7, 0.6]).best_epoch == 2
    nothing = follow(model, make_recipe("val_loss"), [float("nan")])
    with pytest.raises(ModelError, match="no epoch has a value of 'val_loss'"):
        nothing.restore(model)
    with pytest.raises(ModelError, match="the loss is inf"):
        nothing.on_epoch_end(1, {"loss": float("inf"), "val_loss": 0.5})
    with pytest.raises(ModelError, match="no quantity 'val_loss' to monitor"):
        nothing.on_epoch_end(1, {"loss": 0.5, "val_joy": 0.5})
