"""Fitting of a network to a stream of stamps, reproducible to the last bit for the same seed and threads."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from gotorb.errors import ConfigError
from gotorb.training.backend import all_layers, keras, tf
from gotorb.training.checkpoint import BestWeights, EpochReport, Identity, OnEpoch, Progress, describe_network
from gotorb.training.data import Rows, Stream
from gotorb.training.finetune import frozen
from gotorb.training.recipe import Recipe, compile_network, find_mode, make_schedule

LOG = logging.getLogger(__name__)


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
        If TensorFlow runs already with another number: that cannot be changed in a running process.
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


def check_strategy(strategy: tf.distribute.Strategy | None) -> None:
    """Refuse a strategy over several machines.

    Parameters
    ----------
    strategy : tf.distribute.Strategy or None

    Raises
    ------
    ConfigError
        If Keras cannot fit under it.
    """
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy | tf.distribute.ParameterServerStrategy):
        raise ConfigError(
            f"Keras 3 cannot fit under a strategy over several machines ({type(strategy).__name__}; keras issue "
            "20585); use MirroredStrategy over the GPUs of one machine, see docs/training.md"
        )


@dataclass(frozen=True)
class Fit:
    """Result of a training.

    Attributes
    ----------
    model : keras.Model
        With the weights of the best epoch.
    history : dict
        Name of a quantity -> its value after each epoch.
    best_epoch : int
        Epoch (from 0) whose weights were kept.
    interrupted : bool
        True when Ctrl-C ended the training.
    progress : Progress, optional
        The checkpoint on disk, to be removed when all is written.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    interrupted: bool
    progress: Progress | None = None

    def finish(self) -> None:
        """Remove the checkpoint, unless the training was interrupted and may resume."""
        if self.progress and not self.interrupted:
            self.progress.finish()


def fit_network(
    model: keras.Model,
    stream: Stream,
    rows: Rows,
    recipe: Recipe,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: OnEpoch | None = None,
    freeze: Sequence[keras.layers.Layer] = (),
    state: tuple[Path, Identity] | None = None,
) -> Fit:
    """Fit a network and keep the weights of its best epoch.

    Ctrl-C ends the training and keeps the best weights so far. Before the end of the first epoch there are none,
    and KeyboardInterrupt is passed on.

    Parameters
    ----------
    model : keras.Model
        The network; it is compiled here.
    stream : Stream
        Source of the stamps.
    rows : Rows
        Rows to learn from, and those that decide which epoch is best.
    recipe : Recipe
        Options.
    callbacks, on_epoch
        See `gotorb.classifier.train`.
    freeze : sequence of keras Layer
        Layers kept as they are.
    state : tuple of Path and dict, optional
        File of the checkpoint, and everything that decides the result. A training with a checkpoint of the same
        identity resumes.

    Returns
    -------
    Fit
        The network with its best weights, and how the training went.

    Raises
    ------
    ModelError
        If training diverges or `recipe.monitor` names nothing.
    """
    best, report = (
        BestWeights(recipe.monitor, recipe.patience, find_mode(recipe), averaged=bool(recipe.ema)),
        EpochReport(on_epoch),
    )
    started, interrupted = time.perf_counter(), False
    taught = np.concatenate([rows.train, rows.undecided])
    with frozen(freeze), _quick_dropout(model):
        compile_network(model, recipe)
        model.optimizer.build(model.trainable_variables)  # in the first step, that would be traced a second time
        progress = Progress(state[0], state[1] | describe_network(model), best, report) if state else None
        first = progress.resume(model) if progress else 0
        try:
            if first < recipe.epochs and not (progress and progress.stopped):
                model.fit(
                    stream.training(taught, seed=recipe.seed, augment=recipe.augment, first_epoch=first),
                    steps_per_epoch=stream.n_batches(taught),
                    validation_data=stream.validation(rows.validation),
                    initial_epoch=first,
                    epochs=recipe.epochs,
                    callbacks=[report, best, *make_schedule(recipe), *callbacks, *([progress] if progress else [])],
                    shuffle=False,  # the stream has done that
                    verbose=recipe.verbose,
                    **recipe.fit_kwargs,
                )
        except KeyboardInterrupt:
            if best.best_weights is None:
                raise
            interrupted = True
            LOG.warning("interrupted; the weights of epoch %d, the best so far, are kept", best.best_epoch)
        best.restore(model)
    _log_speed(len(taught), len(report.history.get("loss", [])) - first, time.perf_counter() - started)
    return Fit(model, report.history, best.best_epoch, interrupted, progress)


@contextmanager
def _quick_dropout(model: keras.Model) -> Iterator[None]:
    """Let dropouts of whole feature maps multiply by a row of the mask while a network is fitted.

    Keras selects with a mask that is broadcast over each map, forward and backward, which took a quarter of a training
    step. The masks and the products are the same.
    """
    drops = keras.layers.SpatialDropout2D
    chosen = [one for one in all_layers(model) if type(one) is drops and one.data_format == "channels_last"]
    for layer in chosen:
        layer.call = partial(_drop_maps, layer)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.call


def _drop_maps(layer: keras.layers.SpatialDropout2D, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
    if not training or not layer.rate:
        return maps
    (height, width, n_maps), n = maps.shape[1:], tf.shape(maps)[0]
    kept = keras.random.uniform((n, 1, n_maps), seed=layer.seed_generator) >= layer.rate
    mask = tf.cast(kept, maps.dtype) * (1 / (1 - layer.rate))
    row = tf.reshape(tf.tile(mask, (1, width, 1)), (n, 1, width * n_maps))
    return tf.reshape(tf.reshape(maps, (n, height, width * n_maps)) * row, (n, height, width, n_maps))


def _log_speed(n_train: int, n_epochs: int, seconds: float) -> None:
    LOG.info("%d epochs in %.1f s, %.0f training stamps per second", n_epochs, seconds, n_train * n_epochs / seconds)
