"""Training: the front door's widest function, which `gotorb.classifier` offers as ``classifier.train``."""

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb import __version__
from gotorb.classifier.measured import DIVISION, Place, calibrate, choose_smallest, train_measured
from gotorb.core import layout
from gotorb.core.logs import list_values, run_log
from gotorb.core.params import SEED, DatasetParams, EvaluateParams, FitParams, TrainParams
from gotorb.dataset.folder import hold_folder
from gotorb.dataset.split import assign_folds, link_groups
from gotorb.dataset.store import Dataset, open_dataset, write_table
from gotorb.errors import ModelError
from gotorb.models import ON_FEATURES, Origin, find_model, find_network

if TYPE_CHECKING:
    import keras

    from gotorb.training.data import Rows
    from gotorb.training.recipe import Recipe


LOG = logging.getLogger(__name__)
SHOWN = ("layers", "epochs", "batch_size", "learning_rate", "schedule", "normalise", "dropout", "seed")
"""Options of a training that its first line in the log names; meta.hkl holds all."""
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
    monitor_mode: str = FIT.monitor_mode,
    patience: int = TRAIN.patience,
    dropout: float | None = TRAIN.dropout,
    model_kwargs: dict[str, Any] | None = FIT.model_kwargs,
    real_column: int | None = FIT.real_column,
    crop: int | None = TRAIN.crop,
    normalise: "str | keras.layers.Layer | Callable[..., Any]" = TRAIN.normalise,
    augment: bool = FIT.augment,
    disturbed: float = TRAIN.disturbed,
    ema: float | None = TRAIN.ema,
    orientations: int = TRAIN.orientations,
    network_weight: float | None = TRAIN.network_weight,
    class_weights: str | dict[int, float] | None = FIT.class_weights,
    init_from: str | Path | None = TRAIN.init_from,
    freeze: int | str | Sequence[str] | None = TRAIN.freeze,
    n_trees: int = TRAIN.n_trees,
    network: str | Path | None = FIT.network,
    test_fraction: float = DATASET.test_fraction,
    validation_fraction: float = DATASET.validation_fraction,
    link_radius_arcsec: float = DATASET.link_radius_arcsec,
    threshold_fpr: float | None = EVALUATE.threshold_fpr,
    seed: int = SEED,
    threads: int | None = TRAIN.threads,
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

    An interrupted training resumes when `train` is called again with the same data, settings and folder, and ends
    with the same bytes as one that was not interrupted. With other data or settings it starts again, and the log says
    so. The state of your own `callbacks` is not kept.

    Parameters
    ----------
    data_dir : path
        Folder made by ``label_data.make()``.
    model : str or callable
        ``vgg6``, ``bayesian_vgg6``, or a function of the input shape (size, size, n_layers) that returns a
        Keras model with one sigmoid output, or with a softmax over two classes (`real_column`). ``measured`` trains
        trees on measured features (`gotorb.features`), and ``fusion`` joins such trees with a Bayesian network.
    layers : sequence of str
        Layers of the stamps to learn from.
    epochs, patience : int
        Epochs at most, and epochs without improvement after which training stops. The best epoch's weights
        are kept.
    batch_size : int
        Stamps of a training step.
    learning_rate : float
        Of the optimizer given by name. 3e-5 suits data sets of 10^5 rows and more.
    schedule : {"constant", "cosine", "one_cycle"}
        Cosine lowers the learning rate to nothing over the epochs. One cycle raises it step by step from a small one in
        the first three tenths, then lowers it; it bears a larger rate, so that fewer epochs are enough.
    optimizer : str or callable
        Keras name, or a function of no arguments that returns an optimizer.
    loss : str or callable
        Keras name, or a function of labels and scores.
    metrics : sequence of str or callable
        Keras names or objects, measured in addition to accuracy and AUC.
    monitor : str
        Quantity that decides which epoch is best.
    monitor_mode : {"auto", "min", "max"}
        Direction in which `monitor` improves. "auto" asks Keras' metric of that name; a metric of your own needs one
        of the others.
    dropout : float, optional
        Rate handed to networks that take ``dropout``; their own default when None.
    model_kwargs : dict, optional
        More options of the network.
    real_column : int, optional
        Column of the real, 0 or 1, in the output of a network of your own that ends with a softmax over two classes.
        The model that is trained and written gives that column alone.
    crop : int, optional
        Side of the central part of a stamp that a network sees, pixels; the whole stamp when left out. The crop is the
        first layer of the saved network, which takes whole stamps. Trees on measured features use whole stamps.
    normalise : "l2", "clipped", "noise", "none", "auto", Keras layer, function that returns one, or function of stamps
        First layer of the network, saved with it. "l2" leaves networks as they are built: ours divide each layer
        of a stamp by its L2 norm. "clipped" does so too, after each layer is cut off at its brightest central pixel,
        so that a hot pixel far away does not rule the norm. "noise" takes the logarithm in units of the difference's
        noise, which keeps how bright layers are relative to each other (`gotorb.training.normalisation`). "auto"
        trains with each of the three out of fold on the training and validation rows, and takes another than "l2"
        when its Brier score is better beyond the noise of the images. A layer that would not survive saving is
        refused before training.
    augment : bool
        Flip and turn the training stamps; validation stamps never are.
    disturbed : float
        Fraction of the training stamps that get a hot pixel, a cosmic ray, a bright star or a masked area beyond
        three widths of the PSF, with `augment` (`gotorb.stamps.batches`).
    ema : float, optional
        Momentum of a moving average of the weights over the steps, such as 0.99. The average is validated and kept.
    orientations : {1, 8}
        Orientations of a stamp over which ``fusion`` averages the logits of its network; 8 take 8 times as long.
    network_weight : float, optional
        Weight of the network's logit in ``fusion``, the trees having the rest. When left out it is 0.3, unless the
        validation rows show another to be better beyond their noise.
    class_weights : "balanced", dict or None
        Weight of each class's loss.
    init_from : path or str, optional
        Fine-tuning: model folder, ``model.h5`` or ``models:/name@alias`` whose weights are the start. The network
        must have layers of the same shapes; of an imported model it is that model's own, whatever `model` names.
    freeze : int, str or sequence of str, optional
        Layers of `init_from` kept as they are: the first so many with weights, or names, or how these begin
        (``"conv"``).
    n_trees : int
        Trees of ``measured`` and ``fusion``.
    network : path, optional
        Trained Bayesian network that ``fusion`` joins with its trees: model folder or ``model.h5``. It must not have
        been trained on validation or test rows of this data set. When left out, ``bayesian_vgg6`` in the same folder
        is taken if its recipe and data are those of this call, else one is trained.
    test_fraction, validation_fraction, link_radius_arcsec : float
        How rows are divided when the data set has no ``split`` column (see `gotorb.dataset.split`).
    threshold_fpr : float, optional
        False-positive rate on the validation rows at which the operating threshold is chosen; the smallest
        mean misclassification error when None.
    seed : int
        Of everything random; what scikit-learn calls random_state.
    threads : int, optional
        CPU threads inside an operation; part of the result's identity. None takes what the process has.
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
        If no network has that name, it or its first layer does not fit, `init_from` cannot be read or differs,
        training diverges, or the folder holds a finished model of other settings or data.
    ConfigError
        If an option is impossible, or `threads` are not available in this process.

    Examples
    --------
    >>> model, meta = train("data/dataset", "bayesian_vgg6", epochs=20)  # doctest: +SKIP
    """
    options: dict[str, Any] = {
        "model": model, "layers": tuple(layers), "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "schedule": schedule, "optimizer": optimizer, "loss": loss,
        "metrics": metrics, "monitor": monitor, "monitor_mode": monitor_mode, "patience": patience,
        "dropout": dropout, "model_kwargs": model_kwargs, "normalise": normalise, "augment": augment,
        "class_weights": class_weights, "freeze": freeze, "test_fraction": test_fraction,
        "validation_fraction": validation_fraction, "link_radius_arcsec": link_radius_arcsec,
        "threshold_fpr": threshold_fpr, "seed": seed, "fit_kwargs": fit_kwargs, "disturbed": disturbed, "ema": ema,
        "crop": crop, **_given(real_column=real_column),
    }  # fmt: skip
    place = Path(data_dir if out_dir is None else out_dir)
    options["normalise"] = choose_normalise(data_dir, options, threads)
    if isinstance(model, str) and model in ON_FEATURES:
        how = {"n_trees": n_trees, "network": network, "threads": threads, "on_epoch": on_epoch, "verbose": verbose,
               "init_from": init_from, "strategy": strategy, "callbacks": callbacks, "tensorboard": tensorboard,
               "orientations": orientations, "network_weight": network_weight}  # fmt: skip
        return train_measured(options, how, Place(Path(data_dir), place, name), train)
    builder, data = find_network(model), open_dataset(data_dir)
    from gotorb.training import data as training_data
    from gotorb.training import finetune, fit, model_files, saving

    plan = _make_recipe(options, verbose, strategy)
    taught = training_data.prepare_lesson(
        data, options["layers"], batch_size, class_weights=class_weights, disturb=disturbed if augment else 0,
        division={key: options[key] for key in DIVISION}, n_replicas=strategy.num_replicas_in_sync if strategy else 1,
    )  # fmt: skip
    settings = {name: model_files.describe_option(value) for name, value in options.items()} | {
        "threads": fit.prepare_process(seed, threads), "strategy": strategy and type(strategy).__name__}  # fmt: skip
    origin = None if init_from is None else _find_parent(init_from, options["layers"], settings["normalise"])
    with strategy.scope() if strategy else nullcontext():
        trained = _build(builder, data, options, origin)
    kept = finetune.choose_layers(trained, freeze, init_from)
    run_dir = model_files.make_run_dir(place, name)
    with hold_folder(run_dir), run_log(run_dir):
        digest = model_files.check_recipe(run_dir, settings, data.data_dir)
        LOG.info("training %s on %s: %s", trained.name, data_dir, list_values(settings, *SHOWN))
        with strategy.scope() if strategy else nullcontext():
            fitted = fit.fit_network(
                trained, taught.stream, taught.rows, plan, on_epoch=on_epoch, freeze=kept,
                callbacks=[*model_files.make_tensorboard(tensorboard, run_dir), *callbacks],
                state=(run_dir / layout.STATE_NPZ, _identify(settings, digest, origin)),
            )  # fmt: skip
        meta = model_files.describe_training(
            fitted, data, taught.rows, run_dir=run_dir, settings=settings, digest=digest,
            parent=_describe_parent(origin, data, taught.rows),
        )  # fmt: skip
        meta |= _describe_import(origin) | calibrate(trained, data, taught.rows.validation, options)
        loaded = model_files.write_training(run_dir, trained, meta, check=saving.check_same)
        fitted.finish()
    return loaded.model, loaded.meta or {}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _describe_import(origin: Origin | None) -> dict[str, Any]:
    """Part of the meta that tells of a parent from outside."""
    return {"imported": (origin.meta or {}).get("imported", {})} if origin and origin.imported else {}


def _make_recipe(options: dict[str, Any], verbose: int, strategy: Any) -> "Recipe":
    from gotorb.training import fit, recipe

    fit.check_strategy(strategy)
    chosen = {name: options[name] for name in PLAN}
    return recipe.Recipe(**chosen, verbose=verbose, fit_kwargs=options["fit_kwargs"] or {})


PLAN = (
    "epochs", "patience", "monitor", "monitor_mode", "learning_rate", "optimizer", "augment", "seed", "schedule",
    "loss", "metrics", "ema",
)  # fmt: skip
"""Options of `train` that a recipe takes as they are."""
AUTO, OTHERS = "auto", ("clipped", "noise")
AUTO_FOLDS, VALIDATION_PARTS = 3, 6
"""Folds by which a first layer is chosen; one of so many parts of the other rows decides when a training stops."""


def choose_normalise(data_dir: str | Path, options: dict[str, Any], threads: int | None) -> Any:
    """First layer of a network; for "auto" chosen by out-of-fold scores of the training and validation rows.

    Parameters
    ----------
    data_dir : path
    options : dict
        Of `train`.
    threads : int, optional

    Returns
    -------
    str
        The option; for "auto" "l2", unless another has a smaller Brier score beyond the noise of whole images.
    """
    from gotorb.training.data import find_splits, select_rows

    if not isinstance(options["normalise"], str) or options["normalise"] != AUTO:
        return options["normalise"]
    if options["model"] == "measured":
        return TRAIN.normalise
    data = open_dataset(data_dir)
    division = {name: options[name] for name in DIVISION}
    rows = select_rows(data.table, find_splits(data.table, **division), where=data.data_dir)
    known = np.sort(np.concatenate([rows.train, rows.validation]))
    groups = link_groups(data.table, link_radius_arcsec=options["link_radius_arcsec"])[known]
    folds = assign_folds(data.labels[known], groups, n_folds=AUTO_FOLDS, seed=options["seed"])
    network = {"model": FIT.model} if options["model"] == "fusion" else {}
    errors = {}
    for name in (TRAIN.normalise, *OTHERS):
        how = options | network | {"normalise": name, "threads": threads}
        scores = [_score_fold(data, known, folds == fold, groups, how) for fold in range(AUTO_FOLDS)]
        errors[name] = (np.sum(scores, axis=0) - data.labels[known]) ** 2
        LOG.info("normalise %s: Brier score %.5f out of fold", name, errors[name].mean())
    images = data.table["image_id"].to_numpy(str)[known]
    return choose_smallest(errors, images, usual=TRAIN.normalise)


def _score_fold(data: Dataset, known: np.ndarray, held: np.ndarray, groups: np.ndarray, how: dict[str, Any]) -> Any:
    """Scores of the rows held out by a network trained on the others; 0 for these."""
    from gotorb.training.inference import score_stamps

    inner = assign_folds(data.labels[known[~held]], groups[~held], n_folds=VALIDATION_PARTS, seed=how["seed"])
    split, label = np.full(len(data), layout.SPLITS[2], dtype="U10"), np.full(len(data), layout.UNKNOWN)
    label[known] = data.labels[known]  # rows of the test part have none here, and take no part
    split[known[~held]] = np.where(inner == 0, layout.SPLITS[1], layout.SPLITS[0])
    with TemporaryDirectory() as folder:
        layout.stamps_path(folder).symlink_to(layout.stamps_path(data.data_dir).resolve())
        write_table(Path(folder), data.table.assign(**{layout.SPLIT_COLUMN: split, "label": label}))
        model, _ = train(folder, name="model", **how)
    scores = np.zeros(len(known))
    stamps = (block for _, block in data.batches(known[held], layers=list(how["layers"])))
    scores[held] = score_stamps(model, stamps)
    return scores


def _build(builder: Any, data: Dataset, options: dict[str, Any], origin: Origin | None) -> "keras.Model":
    """The network before its first step, with the weights of its parent when it has one."""
    from gotorb.training import finetune, networks, saving

    layers = options["layers"]
    shape = networks.seen_shape((data.size, data.size, len(layers)), options["crop"])
    if origin and origin.imported and isinstance(options["model"], str):
        network = finetune.copy_network(origin.model, shape, name=origin.name)
    else:
        network = networks.build_network(
            builder, shape, layers=layers, dropout=options["dropout"],
            options=options["model_kwargs"], normalise=options["normalise"], real_column=options.get("real_column"),
        )  # fmt: skip
    if origin:
        finetune.copy_weights(origin.model, network, name=origin.name)
    network = networks.crop_input(network, data.size)
    saving.check_output(network)
    saving.check_saving(network)
    return network


def _identify(settings: dict[str, Any], digest: str, origin: Origin | None) -> dict[str, str]:
    """Everything that decides the result of a training."""
    identity = {name: json.dumps(value, sort_keys=True, default=repr) for name, value in settings.items()}
    return identity | {"data set": digest, "code": __version__, "parent": origin.digest if origin else ""}


def _describe_parent(origin: Origin | None, data: Dataset, rows: "Rows") -> Meta | None:
    from gotorb.training import model_files

    if origin is None:
        return None
    return model_files.describe_parent(origin.name, origin.digest, origin.meta, data, rows)


def _find_parent(init_from: str | Path, layers: tuple[str, ...], normalise: str) -> Origin:
    """The model to start from, which has learned from the same layers in the same order, behind the same first one."""
    origin = find_model(init_from)
    if origin.layers and origin.layers != layers and len(origin.layers) == len(layers):
        raise ModelError(
            f"init_from {origin.name} was trained on the layers {', '.join(origin.layers)}, this training has "
            f"{', '.join(layers)}; name the same layers in the same order (train.layers)"
        )
    known = (origin.meta or {}).get("preprocessing", {}).get("normalise", normalise)
    if origin.imported:  # its normalisation is part of it, as a network of ours has "l2"
        known = TRAIN.normalise
    if known != normalise:
        raise ModelError(
            f"init_from {origin.name} was trained with normalise {known!r}, this training has {normalise!r}; its "
            "weights mean nothing behind another first layer: take the same (train.normalise)"
        )
    return origin
