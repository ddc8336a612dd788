"""Train a classifier on a data set, load it, score stamps with it, and judge it.

>>> from gotorb import classifier
>>> model, meta = classifier.train("data_20200304-050607")  # doctest: +SKIP
>>> evaluation = classifier.evaluate(model, meta)  # doctest: +SKIP
>>> samples = classifier.dropout_pred(model, stamps)  # doctest: +SKIP
>>> scores = samples.mean(axis=1)  # doctest: +SKIP

TensorFlow is imported when a function needs it, so importing this module is quick.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb import layout
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.logs import run_log
from gotorb.models import find_network
from gotorb.params import DatasetParams, EvaluateParams, TrainParams

if TYPE_CHECKING:
    import keras

    from gotorb.evaluation.report import Evaluation
    from gotorb.training.record import Loaded

LOG = logging.getLogger(__name__)
TRAIN, DATASET, EVALUATE = TrainParams(), DatasetParams(), EvaluateParams()
Meta = dict[str, Any]
Source = Any
"""A model in memory, its folder, or its ``model.h5``."""


def train(
    data_dir: str | Path,
    model: "str | Callable[..., keras.Model]" = "bayesian_vgg6",
    *,
    layers: Sequence[str] = TRAIN.layers,
    epochs: int = TRAIN.epochs,
    batch_size: int = TRAIN.batch_size,
    learning_rate: float = TRAIN.learning_rate,
    schedule: str = TRAIN.schedule,
    optimizer: "str | Callable[[], keras.optimizers.Optimizer]" = "adam",
    monitor: str = "val_loss",
    patience: int = TRAIN.patience,
    dropout: float | None = TRAIN.dropout,
    model_kwargs: dict[str, Any] | None = None,
    augment: bool = True,
    class_weights: str | dict[int, float] | None = "balanced",
    test_fraction: float = DATASET.test_fraction,
    validation_fraction: float = DATASET.validation_fraction,
    link_radius_arcsec: float = DATASET.link_radius_arcsec,
    threshold_fpr: float | None = EVALUATE.threshold_fpr,
    seed: int = 0,
    threads: int | None = None,
    out_dir: str | Path | None = None,
    name: str | None = None,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    verbose: int = 0,
) -> tuple["keras.Model", Meta]:
    """Train a model on a data set and write it to a folder of its own.

    Makes ``<data_dir>/model_YYMMDD-HHMMSS/`` with a log file, ``meta.hkl`` and ``model.h5``. Stamps are read
    from disk a batch at a time. The same data, parameters, seed and threads give the same bytes. Ctrl-C ends
    the training and keeps the best weights so far.

    Parameters
    ----------
    data_dir : path
        Folder made by ``label_data.make()``.
    model : str or callable
        ``vgg6``, ``bayesian_vgg6``, or a function of the input shape (size, size, n_layers) that returns a
        Keras model with one sigmoid output.
    layers : sequence of str
        Layers of the stamps to learn from.
    epochs, patience : int
        Epochs at most, and epochs without improvement after which training stops. The best epoch's weights
        are kept.
    monitor : str
        Quantity that decides which epoch is best.
    batch_size : int
        Stamps of a training step.
    learning_rate : float
        Of the optimizer given by name. 3e-5 suits data sets of 10^5 rows and more.
    schedule : {"constant", "cosine"}
        Cosine lowers the learning rate to nothing over the epochs.
    optimizer : str or callable
        Keras name, or a function of no arguments that returns an optimizer.
    dropout : float, optional
        Rate handed to networks that take ``dropout``; their own default when None.
    model_kwargs : dict, optional
        More options of the network.
    augment : bool
        Flip and turn the training stamps; validation stamps never are.
    class_weights : "balanced", dict or None
        Weight of each class's loss.
    test_fraction, validation_fraction, link_radius_arcsec : float
        How rows are divided when the data set has no ``split`` column (see `gotorb.dataset.split`).
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the operating threshold is chosen; the smallest
        mean misclassification error when None.
    seed : int
        Of everything random.
    threads : int, optional
        CPU threads inside an operation; part of the result's identity. None takes what the process has.
    out_dir, name : path, str, optional
        The folder is ``out_dir/name``; ``data_dir/model_YYMMDD-HHMMSS`` when left out.
    callbacks : sequence of keras Callback
        Passed to Keras.
    on_epoch : callable, optional
        Called after each epoch with its number (from 0) and its quantities.
    verbose : int
        Keras' own progress: 0 none, 1 bar, 2 a line per epoch.

    Returns
    -------
    model : keras.Model
        With the best epoch's weights.
    meta : dict
        What ``meta.hkl`` holds, and under ``run_dir`` the folder.

    Raises
    ------
    DataError
        If the data set cannot be trained on: one class only, odd labels, NaN, an absent layer.
    ModelError
        If no network has that name, or training diverges.
    ConfigError
        If an option is impossible, or `threads` cannot be had in this process.
    """
    options = {name: value for name, value in locals().items() if name not in NOT_SETTINGS}
    builder, layers = find_network(model), tuple(layers)
    data = open_dataset(data_dir)
    data.layer_indices(layers)

    from gotorb.evaluation.thresholds import choose_threshold
    from gotorb.training import fit, record, rows, stream

    division = {name: options[name] for name in ("test_fraction", "validation_fraction", "link_radius_arcsec", "seed")}
    parts = rows.select_rows(data.table, rows.find_splits(data.table, **division), where=data.data_dir)
    weights = rows.weigh_classes(data.labels[parts.train], class_weights)
    stream.check_finite(data, parts.all, layers)
    settings = {name: record.describe_option(value) for name, value in options.items()}
    settings["threads"] = fit.prepare_process(seed, threads)
    network = fit.build_network(builder, (data.size, data.size, len(layers)), dropout=dropout, options=model_kwargs)
    recipe = fit.Recipe(epochs, patience, monitor, learning_rate, optimizer, augment, seed, verbose, schedule)
    source = stream.Stream(data, layers, batch_size, weights)
    run_dir = record.make_run_dir(Path(data_dir if out_dir is None else out_dir), name)
    with run_log(run_dir):
        LOG.info("training %s on %s with %s", network.name, data_dir, settings)
        fitted = fit.fit_network(network, source, parts, recipe, callbacks=callbacks, on_epoch=on_epoch)
        meta = record.describe_training(fitted, data, parts, settings=settings, run_dir=run_dir)
        found = predict(fitted.model, (stamps for _, stamps in data.batches(parts.validation, layers=layers)))
        meta["threshold"] = choose_threshold(data.labels[parts.validation], found, max_fpr=threshold_fpr)
        loaded = record.write_training(run_dir, fitted.model, meta)
        LOG.info("wrote %s and %s to %s", layout.MODEL_H5, layout.META_HKL, run_dir)
        return loaded.model, loaded.meta or {}


NOT_SETTINGS = ("data_dir", "out_dir", "name", "callbacks", "on_epoch", "verbose", "threads")
"""Arguments of `train` that do not decide the result, or are recorded otherwise."""


def load(model: Source, meta: Meta | str | Path | None = None) -> "Loaded":
    """Load a model and its meta.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or a model in memory, which is returned as it is.
    meta : dict or path, optional
        The meta, ``meta.hkl``, or its folder; the file beside `model` when left out.

    Returns
    -------
    model : keras.Model
        The network.
    meta : dict or None
        What its meta file holds, and under ``run_dir`` its folder; None when there is none.

    Raises
    ------
    ModelError
        If a file is missing, broken, holds code, or the two do not belong together.
    """
    from gotorb.training.record import load_training

    return load_training(model, meta)


def predict(model: Source, stamps: np.ndarray | Iterable[np.ndarray] | Dataset, *, batch_size: int = 64) -> np.ndarray:
    """Score stamps deterministically, dropout off.

    Parameters
    ----------
    model : path or keras.Model
        The model.
    stamps : ndarray, iterable of ndarray, or Dataset
        (n, size, size, n_layers) in the layers that the model was trained on, or batches of these. Of a
        Dataset all rows are scored, in the layers that the model's meta names.
    batch_size : int
        Stamps scored at a time; memory does not grow with n.

    Returns
    -------
    ndarray
        (n,) float32: 1 real, 0 bogus.
    """
    from gotorb.training.scoring import score_stamps

    network, meta = load(model)
    if isinstance(stamps, Dataset):
        stamps = (block for _, block in stamps.batches(layers=(meta or {}).get("layers"), batch=batch_size))
    return score_stamps(network, stamps, batch_size=batch_size)


def score_rows(
    model: Source,
    meta: Meta | str | Path | None,
    data: Dataset,
    rows: Sequence[int] | np.ndarray | None = None,
    *,
    n_samples: int = EVALUATE.n_samples,
    seed: int = 0,
) -> np.ndarray:
    """Score rows of a data set as GOTO publishes scores: the mean of the posterior samples.

    Networks without dropout give their plain score.

    Parameters
    ----------
    model : path or keras.Model
        The model.
    meta : dict or path
        Its meta, which names the layers; found beside the model when None.
    data : Dataset
        From `gotorb.dataset.store.open_dataset`.
    rows : sequence of int, optional
        Row numbers; all when left out.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.

    Returns
    -------
    ndarray
        (len(rows),) float.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    wanted = np.arange(len(data)) if rows is None else np.asarray(rows, int)
    how = judge.Judging(n_samples, 0, None, seed, 256)
    plain, samples = judge.score_model(loaded.model, judge.require_meta(loaded.meta), data, wanted, how)
    return plain if samples is None else samples.mean(axis=1)


def dropout_pred(
    model: Source,
    stamps: np.ndarray | Iterable[np.ndarray],
    nsamples: int = 20,
    *,
    seed: int | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Sample the posterior of the scores by Monte-Carlo dropout; see `gotorb.training.scoring.sample_scores`.

    Parameters
    ----------
    model : path or keras.Model
        A Bayesian model: one with dropout layers.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    nsamples : int
        Samples per stamp.
    seed : int, optional
        Same seed, stamps and batch size: same samples. Fresh randomness when left out.
    batch_size : int
        Stamps held at a time, which share networks.

    Returns
    -------
    ndarray
        (n, nsamples) float32; the mean along axis 1 is a real/bogus score.

    Raises
    ------
    ModelError
        If the model has no dropout to sample from.
    """
    from gotorb.training.scoring import sample_scores

    return sample_scores(load(model).model, stamps, nsamples, seed=seed, batch_size=batch_size)


def evaluate(
    model: Source,
    meta: Meta | str | Path | None = None,
    data_dir: str | Path | None = None,
    n_samples: int = EVALUATE.n_samples,
    *,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    threshold_fpr: float | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> "Evaluation":
    """Judge a model on the validation and test rows of the data set that it was trained on.

    Writes ``metrics.json``, ``predictions.csv`` and a series of plots into the model's folder.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or the model returned by `train`.
    meta : dict or path, optional
        The meta returned by `train`, or ``meta.hkl``; the file beside `model` when left out.
    data_dir : path, optional
        The data set; found from the model's folder when left out.
    n_samples : int
        Posterior samples per stamp, for models with dropout.
    out_dir : path, optional
        Folder of the files; the model's folder when left out.
    n_bootstrap : int
        Resamples for the intervals.
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the threshold is chosen anew; the one in the meta
        when left out.
    seed : int
        Of posterior samples and resamples.
    batch_size : int
        Stamps sampled at a time.

    Returns
    -------
    Evaluation
        Metrics, predictions, Figures and the folder.

    Raises
    ------
    ModelError
        If there is no meta, or model, meta and data do not fit together.
    DataError
        If the data set lacks rows that the meta names.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    known = judge.require_meta(loaded.meta)
    data = open_dataset(judge.find_data_dir(known, data_dir))
    how = judge.Judging(n_samples, n_bootstrap, threshold_fpr, seed, batch_size)
    target = judge.find_out_dir(known, out_dir)
    return judge.judge_model(loaded.model, known, data, judge.held_out_rows(data, known), how=how, out_dir=target)


def benchmark(
    model: Source,
    data_dir: str | Path,
    n_samples: int = EVALUATE.n_samples,
    *,
    meta: Meta | str | Path | None = None,
    out_dir: str | Path | None = None,
    n_bootstrap: int = EVALUATE.n_bootstrap,
    seed: int = 0,
    batch_size: int = 256,
) -> "Evaluation":
    """Judge a model on all rows of any data set, in the layers that the model's meta names.

    Writes the same files as `evaluate`, into ``benchmark_<data set>/`` inside the model's folder.

    Parameters
    ----------
    model : path or keras.Model
        Model folder, ``model.h5``, or the model returned by `train`.
    data_dir : path
        Folder in the format of ``label_data.make()``.
    n_samples, meta, n_bootstrap, seed, batch_size
        As in `evaluate`.
    out_dir : path, optional
        Folder of the files.

    Returns
    -------
    Evaluation
        As `evaluate`; the metrics are of all labelled rows, and ``n_trained_on`` counts those among them
        that the model was trained on.
    """
    from gotorb.evaluation import judge

    loaded = load(model, meta)
    known = judge.require_meta(loaded.meta)
    data = open_dataset(data_dir)
    how = judge.Judging(n_samples, n_bootstrap, None, seed, batch_size)
    target = judge.find_out_dir(known, out_dir, f"benchmark_{data.data_dir.resolve().name}")
    return judge.judge_model(loaded.model, known, data, judge.all_rows(data), how=how, out_dir=target)
