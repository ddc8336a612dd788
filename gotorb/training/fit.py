"""Fitting of a network to a stream of stamps, the same to the last bit for the same seed and threads."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from gotorb.training.callbacks import BestWeights, EpochReport, OnEpoch
from gotorb.training.parent import frozen
from gotorb.training.recipe import Recipe, compile_network, make_schedule
from gotorb.training.rows import Rows
from gotorb.training.state import Identity, Progress, describe_network
from gotorb.training.stream import Stream

LOG = logging.getLogger(__name__)


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
    progress : Progress, optional
        The state on disk, to be removed when all is written.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    interrupted: bool
    progress: Progress | None = None

    def finish(self) -> None:
        """Remove the state on disk, unless the training is to go on some time."""
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

    Ctrl-C ends the training and keeps the best weights so far; before the end of the first epoch there are
    none, and KeyboardInterrupt is passed on.

    Parameters
    ----------
    model : keras.Model
        The network; it is compiled here.
    stream : Stream
        Where the stamps come from.
    rows : Rows
        What is learned from and what decides.
    recipe : Recipe
        How.
    callbacks, on_epoch
        See `gotorb.classifier.train`.
    freeze : sequence of keras Layer
        Layers kept as they are.
    state : tuple of Path and dict, optional
        File in which the state is kept after each epoch, and what decides the result. A state of the same
        identity is gone on with.

    Raises
    ------
    ModelError
        If training diverges or `recipe.monitor` names nothing.
    """
    best, report = BestWeights(recipe.monitor, recipe.patience), EpochReport(on_epoch)
    started, interrupted = time.perf_counter(), False
    with frozen(freeze):
        compile_network(model, recipe)
        model.optimizer.build(model.trainable_variables)  # in the first step, that would be traced a second time
        progress = Progress(state[0], state[1] | describe_network(model), best, report) if state else None
        first = progress.resume(model) if progress else 0
        try:
            if first < recipe.epochs and not (progress and progress.stopped):
                model.fit(
                    stream.training(rows.train, seed=recipe.seed, augment=recipe.augment, first_epoch=first),
                    steps_per_epoch=stream.n_batches(rows.train),
                    validation_data=stream.validation(rows.validation),
                    initial_epoch=first,
                    epochs=recipe.epochs,
                    callbacks=[report, best, *make_schedule(recipe), *callbacks, *([progress] if progress else [])],
                    shuffle=False,  # the stream has done that
                    verbose=recipe.verbose,
                    **recipe.fit_kwargs,
                )
        except KeyboardInterrupt:
            if not best.weights:
                raise
            interrupted = True
            LOG.warning("interrupted; the weights of epoch %d, the best so far, are kept", best.best_epoch)
        best.restore(model)
    _log_speed(len(rows.train), len(report.history.get("loss", [])) - first, time.perf_counter() - started)
    return Fit(model, report.history, best.best_epoch, interrupted, progress)


def _log_speed(n_train: int, n_epochs: int, seconds: float) -> None:
    LOG.info("%d epochs in %.1f s, %.0f training stamps per second", n_epochs, seconds, n_train * n_epochs / seconds)
