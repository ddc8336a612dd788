"""Training: the front door's widest function, which `gotorb.classifier` offers as ``classifier.train``."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb import __version__, layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError
from gotorb.logs import run_log
from gotorb.models import Origin, find_model, find_network
from gotorb.params import SEED, DatasetParams, EvaluateParams, FitParams, TrainParams

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
TRAIN, FIT, DATASET, EVALUATE = TrainParams(), FitParams(), DatasetParams(), EvaluateParams()
Meta = dict[str, Any]


def train(
    data_dir: str | Path,
    model: "str | Callable[..., keras.Model]" = FIT.model,
    *,
    layers: Sequence[str] = TRAIN.layers,
    epochs: int = TRAIN.epochs,
    batch_size: int = TRAIN.batch_size,
    learning_rate: float = TRAIN.learning_rate,
    schedule: str = TRAIN.schedule,
    optimizer: "str | Callable[[], keras.optimizers.Optimizer]" = FIT.optimizer,
    loss: str | Callable[..., Any] = FIT.loss,
    metrics: Sequence[str | Callable[..., Any]] = FIT.metrics,
    monitor: str = FIT.monitor,
    patience: int = TRAIN.patience,
    dropout: float | None = TRAIN.dropout,
    model_kwargs: dict[str, Any] | None = FIT.model_kwargs,
    normalise: "str | keras.layers.Layer | Callable[..., Any]" = TRAIN.normalise,
    augment: bool = FIT.augment,
    class_weights: str | dict[int, float] | None = FIT.class_weights,
    init_from: str | Path | None = TRAIN.init_from,
    freeze: int | str | Sequence[str] | None = TRAIN.freeze,
    test_fraction: float = DATASET.test_fraction,
    validation_fraction: float = DATASET.validation_fraction,
    link_radius_arcsec: float = DATASET.link_radius_arcsec,
    threshold_fpr: float | None = EVALUATE.threshold_fpr,
    seed: int = SEED,
    threads: int | None = TRAIN.threads,
    mixed_precision: str = FIT.mixed_precision,
    strategy: Any = None,
    out_dir: str | Path | None = None,
    name: str | None = None,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    tensorboard: bool | str | Path = FIT.tensorboard,
    fit_kwargs: dict[str, Any] | None = None,
    verbose: int = FIT.verbose,
) -> tuple["keras.Model", Meta]:
    """Train a model on a data set and write it to a folder of its own.

    Makes ``<data_dir>/model_YYMMDD-HHMMSS/`` with a log file, ``meta.hkl`` and ``model.h5``. Stamps are read
    from disk a batch at a time. The same data, parameters, seed and threads give the same bytes. Ctrl-C ends
    the training and keeps the best weights so far.

    A training that was killed or ended by Ctrl-C goes on when `train` is called again with the same data,
    settings and folder, and ends with the same bytes as if nothing had happened. With other data or settings
    it begins anew, and the log says so. The state of your own `callbacks` is not kept.

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
    batch_size : int
        Stamps of a training step.
    learning_rate : float
        Of the optimizer given by name. 3e-5 suits data sets of 10^5 rows and more.
    schedule : {"constant", "cosine"}
        Cosine lowers the learning rate to nothing over the epochs.
    optimizer : str or callable
        Keras name, or a function of no arguments that returns an optimizer.
    loss : str or callable
        Keras name, or a function of labels and scores.
    metrics : sequence of str or callable
        Keras names or objects, measured beside accuracy and AUC.
    monitor : str
        Quantity that decides which epoch is best: the smallest when its name holds loss, error or entropy,
        else the largest.
    dropout : float, optional
        Rate handed to networks that take ``dropout``; their own default when None.
    model_kwargs : dict, optional
        More options of the network.
    normalise : "l2", "noise", "none", Keras layer, function that returns one, or function of stamps
        First layer of the network, saved with it. "l2" leaves networks as they are built: ours divide each layer
        of a stamp by its L2 norm. "noise" takes the logarithm in units of the difference's noise, which keeps how
        bright layers are beside each other (`gotorb.training.noise`). What would not survive saving is refused
        before training.
    augment : bool
        Flip and turn the training stamps; validation stamps never are.
    class_weights : "balanced", dict or None
        Weight of each class's loss.
    init_from : path or str, optional
        Fine-tuning: model folder, ``model.h5`` or ``models:/name@alias`` whose weights are the start. The network
        must have layers of the same shapes.
    freeze : int, str or sequence of str, optional
        Layers of `init_from` kept as they are: the first so many with weights, or names, or how these begin
        (``"conv"``).
    test_fraction, validation_fraction, link_radius_arcsec : float
        How rows are divided when the data set has no ``split`` column (see `gotorb.dataset.split`).
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the operating threshold is chosen; the smallest
        mean misclassification error when None.
    seed : int
        Of everything random; what scikit-learn calls random_state.
    threads : int, optional
        CPU threads inside an operation; part of the result's identity. None takes what the process has.
    mixed_precision : {"float32", "bfloat16"}
        Arithmetic while training. Weights, scores and the model written are float32 in any case.
    strategy : tf.distribute.Strategy, optional
        Under which the network is built and fitted; see docs/training.md. A GPU that TensorFlow finds is used
        without one.
    out_dir, name : path, str, optional
        The folder is ``out_dir/name``; ``data_dir/model_YYMMDD-HHMMSS`` when left out.
    callbacks : sequence of keras Callback
        Passed to Keras.
    on_epoch : callable, optional
        Called after each epoch with its number (from 0) and its quantities.
    tensorboard : bool or path
        Write TensorBoard's files, into ``tensorboard/`` of the model's folder or into the folder given.
    fit_kwargs : dict, optional
        ``validation_freq`` and ``validation_steps`` of Keras' `fit`; others are refused.
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
        If no network has that name, it or its first layer does not fit, `init_from` cannot be read or differs, or
        training diverges.
    ConfigError
        If an option is impossible, or `threads` cannot be had in this process.
    """
    options = {name: value for name, value in locals().items() if name not in NOT_SETTINGS}
    builder, layers = find_network(model), tuple(layers)
    data = open_dataset(data_dir)

    from gotorb.evaluation.calibration import fit_calibration
    from gotorb.evaluation.thresholds import choose_threshold
    from gotorb.training import building, fit, lesson, parent, process, recipe, record, rows, scoring

    process.check_strategy(strategy)
    plan = recipe.Recipe(
        epochs, patience, monitor, learning_rate, optimizer, augment, seed, verbose, schedule, loss, metrics,
        fit_kwargs or {}, mixed_precision,
    )  # fmt: skip
    division = {name: options[name] for name in ("test_fraction", "validation_fraction", "link_radius_arcsec", "seed")}
    taught = lesson.prepare_lesson(
        data, layers, batch_size, class_weights=class_weights, division=division,
        n_replicas=strategy.num_replicas_in_sync if strategy else 1,
    )  # fmt: skip
    parts = taught.rows
    settings = {name: record.describe_option(value) for name, value in options.items()}
    settings["threads"] = process.prepare_process(seed, threads)
    settings["strategy"] = strategy and type(strategy).__name__
    origin = None if init_from is None else _find_parent(init_from, layers, settings["normalise"])
    with strategy.scope() if strategy else nullcontext():
        shape = (data.size, data.size, len(layers))
        network = building.build_network(
            builder, shape, layers=layers, dropout=dropout, options=model_kwargs, normalise=normalise
        )
        if origin:
            parent.copy_weights(origin.model, network, name=origin.name)
    kept = parent.choose_layers(network, freeze, init_from)
    run_dir = record.make_run_dir(Path(data_dir if out_dir is None else out_dir), name)
    callbacks = [*record.make_tensorboard(tensorboard, run_dir), *callbacks]
    with run_log(run_dir):
        LOG.info("training %s on %s with %s", network.name, data_dir, settings)
        LOG.info("rows: %s", rows.count_rows(data.labels, parts))
        digest = data_digest(data.data_dir)
        ancestry = None
        if origin:
            ancestry = record.describe_parent(origin.name, origin.digest, origin.meta, data, parts)
        identity = {name: json.dumps(value, sort_keys=True, default=repr) for name, value in settings.items()}
        identity |= {"data set": digest, "code": __version__, "parent": origin.digest if origin else ""}
        with strategy.scope() if strategy else nullcontext():
            fitted = fit.fit_network(
                network, taught.stream, parts, plan, callbacks=callbacks, on_epoch=on_epoch, freeze=kept,
                state=(run_dir / layout.STATE_NPZ, identity),
            )  # fmt: skip
        meta = record.describe_training(
            fitted, data, parts, settings=settings, digest=digest, parent=ancestry, run_dir=run_dir
        )
        found = scoring.score_stamps(network, (stamps for _, stamps in data.batches(parts.validation, layers=layers)))
        meta["threshold"] = choose_threshold(data.labels[parts.validation], found, max_fpr=threshold_fpr)
        meta["calibration"] = fit_calibration(data.labels[parts.validation], found).as_dict()
        loaded = record.write_training(run_dir, network, meta)
        fitted.finish()
        LOG.info("wrote %s and %s to %s", layout.MODEL_H5, layout.META_HKL, run_dir)
        return loaded.model, loaded.meta or {}


NOT_SETTINGS = (
    "data_dir", "out_dir", "name", "callbacks", "on_epoch", "tensorboard", "verbose", "threads", "strategy",
    "init_from",
)  # fmt: skip
"""Arguments of `train` that do not decide the result, or are recorded otherwise."""


def _find_parent(init_from: str | Path, layers: tuple[str, ...], normalise: str) -> Origin:
    """The model to start from, which has learned from the same layers in the same order, behind the same first one."""
    origin = find_model(init_from)
    if origin.layers and origin.layers != layers and len(origin.layers) == len(layers):
        raise ModelError(
            f"init_from {origin.name} was trained on the layers {', '.join(origin.layers)}, this training has "
            f"{', '.join(layers)}; name the same layers in the same order (train.layers)"
        )
    known = (origin.meta or {}).get("preprocessing", {}).get("normalise", normalise)
    if known != normalise:
        raise ModelError(
            f"init_from {origin.name} was trained with normalise {known!r}, this training has {normalise!r}; its "
            "weights mean nothing behind another first layer: take the same (train.normalise)"
        )
    return origin
