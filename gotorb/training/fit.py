"""Fitting of a network to a stream of stamps, the same to the last bit for the same seed and threads."""

import inspect
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from gotorb.errors import ConfigError, ModelError
from gotorb.training.callbacks import BestWeights, EpochReport, OnEpoch
from gotorb.training.rows import Rows
from gotorb.training.stream import Stream

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted.

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
    schedule : {"constant", "cosine"}
        Cosine lowers the learning rate to nothing over the epochs.
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


@dataclass(frozen=True)
class Fit:
    """What came of it.

    Attributes
    ----------
    model : keras.Model
        With the weights of the best epoch.
    history : dict
        Name of a quantity -> its value after each epoch.
    best_epoch : int
        Epoch (from 0) whose weights were kept.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    interrupted: bool


def prepare_process(seed: int, threads: int | None) -> int:
    """Make the process deterministic and pin its threads.

    Parameters
    ----------
    seed : int
        Seed of Python, numpy and TensorFlow.
    threads : int, optional
        CPU threads inside an operation; part of the result's identity. None takes what is set already,
        or one per core.

    Returns
    -------
    int
        The threads in force.

    Raises
    ------
    ConfigError
        If TensorFlow runs already with another number: it cannot be changed in a running process.
    """
    current = tf.config.threading.get_intra_op_parallelism_threads()
    wanted = threads or current or os.cpu_count() or 1
    if wanted != current:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(wanted)
        except RuntimeError:
            if threads is not None:
                raise ConfigError(
                    f"TensorFlow already runs in this process with {current or 'its own choice of'} threads, "
                    f"train.threads is {threads}; train first thing in a new Python, or leave threads out"
                ) from None
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return wanted


def build_network(
    builder: Callable[..., keras.Model],
    input_shape: tuple[int, int, int],
    *,
    dropout: float | None = None,
    options: dict[str, Any] | None = None,
) -> keras.Model:
    """Build a network; `dropout` goes only to builders that take it.

    Raises
    ------
    ModelError
        If the builder refuses the options.
    """
    options = dict(options or {})
    if dropout is not None and takes_dropout(builder):
        options.setdefault("dropout", dropout)
    try:
        return builder(input_shape, **options)
    except TypeError as error:
        raise ModelError(f"the network cannot be built with {options} ({error}); mend model_kwargs") from None


def takes_dropout(builder: Callable[..., keras.Model]) -> bool:
    """Whether a network's builder has a parameter named ``dropout``."""
    return "dropout" in inspect.signature(builder).parameters


def fit_network(
    model: keras.Model,
    stream: Stream,
    rows: Rows,
    recipe: Recipe,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: OnEpoch | None = None,
) -> Fit:
    """Fit a network and keep the weights of its best epoch.

    Ctrl-C ends the training and keeps the best weights so far; before the end of the first epoch there are
    none, and KeyboardInterrupt is passed on.

    Raises
    ------
    ModelError
        If training diverges or `recipe.monitor` names nothing.
    """
    best, report = BestWeights(recipe.monitor, recipe.patience), EpochReport(on_epoch)
    model.compile(make_optimizer(recipe), "binary_crossentropy", weighted_metrics=[], metrics=_metrics())
    started = time.perf_counter()
    interrupted = False
    try:
        model.fit(
            stream.training(rows.train, seed=recipe.seed, augment=recipe.augment),
            steps_per_epoch=stream.n_batches(rows.train),
            validation_data=stream.validation(rows.validation),
            epochs=recipe.epochs,
            callbacks=[report, best, *make_schedule(recipe), *callbacks],
            shuffle=False,  # the stream has done that
            verbose=recipe.verbose,
        )
    except KeyboardInterrupt:
        if not best.weights:
            raise
        interrupted = True
        LOG.warning("interrupted; the weights of epoch %d, the best so far, are kept", best.best_epoch)
    best.restore(model)
    _log_speed(len(rows.train), report.history, time.perf_counter() - started)
    return Fit(model, report.history, best.best_epoch, interrupted)


def make_schedule(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """Build the callback that lowers the learning rate, none for a constant one.

    The epoch alone decides the rate. Source: Loshchilov & Hutter 2017 (ICLR), equation 5, one period.

    Raises
    ------
    ConfigError
        If there is no such schedule.
    """
    if recipe.schedule == "constant":
        return []
    if recipe.schedule != "cosine":
        raise ConfigError(f"no learning-rate schedule {recipe.schedule!r}; choose constant or cosine")
    half = recipe.learning_rate / 2
    return [keras.callbacks.LearningRateScheduler(lambda epoch: half * (1 + math.cos(math.pi * epoch / recipe.epochs)))]


def make_optimizer(recipe: Recipe) -> keras.optimizers.Optimizer:
    """Build the optimizer that a recipe names.

    Raises
    ------
    ConfigError
        If Keras knows none of that name.
    """
    if callable(recipe.optimizer):
        return recipe.optimizer()
    try:
        optimizer = keras.optimizers.get(recipe.optimizer)
    except ValueError:
        raise ConfigError(f"no optimizer {recipe.optimizer!r} in Keras; give a name such as 'adam'") from None
    optimizer.learning_rate = recipe.learning_rate
    return optimizer


def _metrics() -> list[keras.metrics.Metric]:
    return [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")]


def _log_speed(n_train: int, history: dict[str, list[float]], seconds: float) -> None:
    n_epochs = len(history.get("loss", []))
    LOG.info("%d epochs in %.1f s, %.0f training stamps per second", n_epochs, seconds, n_train * n_epochs / seconds)
