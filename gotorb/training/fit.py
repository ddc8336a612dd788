"""Fitting, reproducible to the last bit for the same seed and threads: networks to stamps, trees to features."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gotorb.dataset.split import assign_folds
from gotorb.dataset.store import Dataset
from gotorb.errors import ConfigError
from gotorb.features import FeatureSet
from gotorb.training.backend import all_layers, frozen, keras, tf
from gotorb.training.checkpoint import BestWeights, EpochReport, Identity, OnEpoch, Progress, describe_network
from gotorb.training.data import Rows, Stream, Targets, find_fwhm, measure_rows
from gotorb.training.measured import Measured, Sigmoid, tree_logits
from gotorb.training.recipe import Recipe, compile_network, find_mode, make_schedule
from gotorb.training.trees import Trees, fit_trees

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
        Checkpoint on disk, removed after all files are written.
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

    Keras broadcasts the mask over each map, forward and backward, which takes a quarter of a training step. The results
    are the same.
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


N_STAGES = 8
"""Number of evenly spaced numbers of trees in the history of a forest."""
N_FOLDS, N_FOLD_TREES = 5, 100
"""Folds of the out-of-fold scores, and trees of each."""
MIN_SPREAD = 1e-3
History = dict[str, list[float]]


class TreeOptions(NamedTuple):
    """Options of trees.

    Attributes
    ----------
    layers : tuple of str
        Layers to measure.
    targets : Targets
        Probability and weight of each row of the data set.
    n_trees, seed, threads : int
        Number of trees, their seed, and CPU threads.
    """

    layers: tuple[str, ...]
    targets: Targets
    n_trees: int
    seed: int
    threads: int


def fit_measured(
    data: Dataset, rows: Rows, how: TreeOptions, *, on_epoch: OnEpoch | None = None
) -> tuple[Measured, History]:
    """Fit trees on the training rows.

    Parameters
    ----------
    data : Dataset
        Data set with the stamps.
    rows : Rows
        Rows, of which training and validation rows are used.
    how : TreeOptions
        Layers, targets and options of the trees.
    on_epoch : callable, optional
        Called with the number and the quantities of each stage.

    Returns
    -------
    model : Measured
        Model without calibration.
    history : dict
        Loss, accuracy and AUC of training and validation rows at increasing numbers of trees.
    """
    features = FeatureSet(data.size, how.layers, find_fwhm(data, rows.train, how.layers))
    taught = np.concatenate([rows.train, rows.undecided])
    measured, labels = measure_rows(features, data, taught), data.labels[rows.train]
    trees = _fit_rows(measured, taught, how, how.n_trees)
    LOG.info("%d trees of %d nodes on %d features of %d rows", len(trees), len(trees.feature), *measured.T.shape)
    spread = np.maximum(measured.std(axis=0), MIN_SPREAD)
    model = Measured(
        features=features, trees=trees, calibration=Sigmoid(), mean=measured.mean(axis=0), spread=spread
    )  # fmt: skip
    parts = {
        "": (measured[: len(labels)], labels),
        "val_": (measure_rows(features, data, rows.validation), data.labels[rows.validation]),
    }
    return model, follow_growth(trees, parts, on_epoch)


def _fit_rows(measured: np.ndarray, rows: np.ndarray, how: TreeOptions, n_trees: int) -> Trees:
    real, weight = (part[rows].astype(float) for part in (how.targets.probability, how.targets.weight))
    used = weight > 0
    return fit_trees(
        measured[used], real[used], weight[used], n_trees=n_trees, seed=how.seed, threads=how.threads
    )  # fmt: skip


def score_folds(data: Dataset, rows: Rows, features: FeatureSet, groups: np.ndarray, how: TreeOptions) -> np.ndarray:
    """Out-of-fold logits of training and validation rows, by trees that saw neither them nor rows linked to them.

    Parameters
    ----------
    data : Dataset
        Data set with the stamps.
    rows : Rows
        Rows of each part.
    features : FeatureSet
        Features to measure.
    groups : ndarray of int
        (n,) group of each row of the data set (`gotorb.dataset.split.link_groups`).
    how : TreeOptions
        Targets and options of the trees.

    Returns
    -------
    ndarray
        (n,) logits of all rows of the data set; NaN for rows of other parts.
    """
    known = np.concatenate([rows.train, rows.validation])
    every = np.concatenate([known, rows.undecided])
    measured, found = measure_rows(features, data, every), np.full(len(data), np.nan)
    folds = assign_folds(data.labels[known], groups[known], n_folds=N_FOLDS, seed=how.seed)
    for fold in range(N_FOLDS):
        held = known[folds == fold]
        part = ~np.isin(groups[every], groups[held])
        trees = _fit_rows(measured[part], every[part], how, N_FOLD_TREES)
        found[held] = tree_logits(trees.leaves(measured[: len(known)][folds == fold]).mean(axis=1))
    return found


def follow_growth(
    trees: Trees, parts: dict[str, tuple[np.ndarray, np.ndarray]], on_epoch: OnEpoch | None = None
) -> History:
    """Measure loss, accuracy and AUC of increasing numbers of trees.

    Parameters
    ----------
    trees : Trees
        Fitted trees.
    parts : dict
        Prefix of the quantities' names -> features (n, n_features) and labels (n,).
    on_epoch : callable, optional
        As for `fit_measured`.

    Returns
    -------
    dict
        Values of each quantity, one for each stage.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    history: History = {}
    leaves = {name: trees.leaves(rows) for name, (rows, _) in parts.items()}
    for stage, n_trees in enumerate(np.linspace(0, len(trees), N_STAGES + 1).round().astype(int)[1:]):
        quantities: dict[str, float] = {}
        for name, (_, labels) in parts.items():
            score = Sigmoid()(tree_logits(leaves[name][:, : max(n_trees, 1)].mean(axis=1))).astype(float)
            quantities[f"{name}loss"] = float(log_loss(labels, score))
            quantities[f"{name}accuracy"] = float(((score >= 0.5) == labels).mean())
            quantities[f"{name}auc"] = float(roc_auc_score(labels, score))
        for key, value in quantities.items():
            history.setdefault(key, []).append(value)
        if on_epoch is not None:
            on_epoch(stage, quantities)
    return history
