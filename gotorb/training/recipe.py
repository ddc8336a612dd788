"""Recipe of a training: its options, checked, and the Keras objects made of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gotorb.errors import ConfigError
from gotorb.training.backend import keras

Loss = str | Callable[..., Any]
Metric = str | Callable[..., Any]
FIT_OPTIONS = ("validation_freq", "validation_steps")
"""Options of Keras' `fit` that may be passed on; all others belong to the stream or are options of their own."""
MODES = ("auto", "min", "max")

COUNTS = {
    keras.metrics.FalseNegatives: "min",
    keras.metrics.FalsePositives: "min",
    keras.metrics.TrueNegatives: "max",
    keras.metrics.TruePositives: "max",
}
"""Metrics that Keras does not know the direction of, and the direction."""


class _Decided:
    """A metric that takes a soft label as the class that is more likely."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        decided = keras.ops.cast(y_true >= 0.5, y_true.dtype)
        return super().update_state(decided, y_pred, sample_weight)  # type: ignore[misc]


class Accuracy(_Decided, keras.metrics.BinaryAccuracy):
    """Fraction of rows on the right side of 0.5."""


class Auc(_Decided, keras.metrics.AUC):
    """Area under the ROC curve."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options of a training.

    Attributes
    ----------
    epochs, patience : int
        Epochs at most, and epochs without improvement before stopping.
    monitor : str
        Quantity that decides which epoch is best.
    learning_rate : float
        Of the optimizer, when that is given by name.
    optimizer : str or callable
        Keras name, or a function of no arguments that returns an optimizer.
    augment : bool
        Flips and quarter turns of training rows.
    seed : int
        Of the weights, the dropout, the order and the orientations.
    verbose : int
        Keras' own progress on stdout: 0 none, 1 bar, 2 line per epoch.
    schedule : {"constant", "cosine", "one_cycle"}
        Learning rate over the epochs; see `make_schedule`.
    loss : str or callable
        Keras name, or a function of labels and scores.
    metrics : sequence of str or callable
        Quantities next to accuracy and AUC.
    fit_kwargs : dict
        Passed to Keras' `fit`; of `FIT_OPTIONS`.
    monitor_mode : {"auto", "min", "max"}
        Direction in which `monitor` improves; "auto" asks Keras' metric of that name.
    ema : float, optional
        Momentum of the moving average of the weights that is validated and kept; none when left out.
    """

    epochs: int
    patience: int
    monitor: str
    learning_rate: float
    optimizer: str | Callable[[], keras.optimizers.Optimizer]
    augment: bool
    seed: int
    verbose: int = 0
    schedule: str = "constant"
    loss: Loss = "binary_crossentropy"
    metrics: Sequence[Metric] = ()
    fit_kwargs: dict[str, Any] = field(default_factory=dict)
    monitor_mode: str = "auto"
    ema: float | None = None

    def __post_init__(self) -> None:
        """Refuse names that are unknown to Keras, before any file is written or any step trained."""
        wrong = sorted(set(self.fit_kwargs) - set(FIT_OPTIONS))
        if wrong:
            raise ConfigError(
                f"fit_kwargs holds {wrong[0]!r}, which the stream of stamps decides or train() has an option for; "
                f"only {' and '.join(FIT_OPTIONS)} are passed on"
            )
        for kind, name in [("loss", self.loss), *(("metric", metric) for metric in self.metrics)]:
            _check_name(kind, name)
        if self.monitor_mode not in MODES:
            raise ConfigError(f"monitor_mode is {self.monitor_mode!r}; give one of {', '.join(MODES)}")
        make_schedule(self)


def _check_name(kind: str, name: Any) -> None:
    known = keras.losses.get if kind == "loss" else keras.metrics.get
    try:
        if not callable(known(name)):
            raise ValueError
    except (ValueError, TypeError):
        raise ConfigError(f"no {kind} {name!r} in Keras; give a name of Keras' own, or a function") from None


def compile_network(model: keras.Model, recipe: Recipe) -> None:
    """Give a network its optimizer, loss and metrics.

    Parameters
    ----------
    model : keras.Model
    recipe : Recipe

    Raises
    ------
    ConfigError
        If Keras knows no optimizer of that name.
    """
    metrics = [Accuracy(name="accuracy"), Auc(name="auc"), *recipe.metrics]
    model.compile(_make_optimizer(recipe), recipe.loss, weighted_metrics=[], metrics=metrics)


def find_mode(recipe: Recipe) -> str:
    """Find the direction in which the monitored quantity improves.

    Parameters
    ----------
    recipe : Recipe
        Options of the training.

    Returns
    -------
    str
        "min", "max", or "auto" to ask Keras' metric once it is built.
    """
    if recipe.monitor_mode != "auto":
        return recipe.monitor_mode
    for given in recipe.metrics:
        metric = keras.metrics.get(given)
        name = given if isinstance(given, str) else getattr(metric, "name", "")
        if type(metric) in COUNTS and recipe.monitor.removeprefix("val_") == name:
            return COUNTS[type(metric)]
    return "auto"


def _make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Build the optimizer that a recipe names.

    Raises
    ------
    ConfigError
        If Keras knows none of that name.
    """
    if callable(recipe.optimizer):
        if recipe.ema:
            raise ConfigError("ema needs an optimizer that is named; give its name, or the average to your own one")
        return recipe.optimizer()
    try:
        optimizer = keras.optimizers.get(recipe.optimizer)
    except ValueError:
        raise ConfigError(f"no optimizer {recipe.optimizer!r} in Keras; give a name such as 'adam'") from None
    averaged = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    return type(optimizer).from_config(optimizer.get_config() | {"learning_rate": recipe.learning_rate} | averaged)


def make_schedule(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """Build the callback that changes the learning rate; the epoch and the step in it alone decide the rate.

    Parameters
    ----------
    recipe : Recipe

    Returns
    -------
    list of keras.callbacks.Callback
        Empty for a constant rate.

    Raises
    ------
    ConfigError
        If there is no such schedule.

    References
    ----------
    Loshchilov & Hutter 2017 (ICLR), equation 5, one period. Smith & Topin 2019 (Proc. SPIE 11006), one cycle.
    """
    if recipe.schedule == "constant":
        return []
    if recipe.schedule == "one_cycle":
        return [OneCycle(recipe.learning_rate, recipe.epochs)]
    if recipe.schedule != "cosine":
        raise ConfigError(f"no learning-rate schedule {recipe.schedule!r}; choose constant, cosine or one_cycle")
    half = recipe.learning_rate / 2
    return [keras.callbacks.LearningRateScheduler(lambda epoch: half * (1 + math.cos(math.pi * epoch / recipe.epochs)))]


RISE, START = 0.3, 0.04
"""Fraction of all steps in which one cycle raises the learning rate, and the first rate over the largest."""


class OneCycle(keras.callbacks.Callback):
    """Learning rate that rises linearly to its largest value and falls to 0 as half a cosine, step by step.

    Parameters
    ----------
    largest : float
        Largest learning rate.
    epochs : int
        Epochs of the training.
    """

    def __init__(self, largest: float, epochs: int) -> None:
        super().__init__()
        self.largest, self.epochs, self.epoch = largest, epochs, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the epoch.

        Parameters
        ----------
        epoch : int
            From 0.
        logs : dict, optional
            Not used.
        """
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Set the rate of a step.

        Parameters
        ----------
        batch : int
            Step of the epoch, from 0.
        logs : dict, optional
            Not used.
        """
        self.model.optimizer.learning_rate = self.rate(self.epoch + batch / self.params["steps"])

    def rate(self, time: float) -> float:
        """Learning rate at a time.

        Parameters
        ----------
        time : float
            Epochs, and parts of them, since the beginning of the training.

        Returns
        -------
        float
        """
        part = time / self.epochs
        if part < RISE:
            return self.largest * (START + (1 - START) * part / RISE)
        return self.largest / 2 * (1 + math.cos(math.pi * (part - RISE) / (1 - RISE)))
