"""Training of the models on measured features: ``measured`` and ``fusion``."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import file_digest
from gotorb.core.logs import run_log
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ConfigError, ModelError
from gotorb.evaluation.comparison import SUSPECT_PROBABILITY

if TYPE_CHECKING:
    from gotorb.training.data import Rows
    from gotorb.training.measured import Fusion, Measured

LOG = logging.getLogger(__name__)
Meta = dict[str, Any]
Options = dict[str, Any]
NETWORK = "bayesian_vgg6"
"""Network that a fusion takes or trains."""
WEIGHT = 0.3
"""Weight of the network's logit in a fusion, unless the validation rows show another to be better."""
WEIGHTS = (0.15, 0.5, 0.7)
"""Other weights that are tried."""
N_RESAMPLES = 400
DIVISION = ("test_fraction", "validation_fraction", "link_radius_arcsec", "seed")
"""Options by which rows are divided."""


class Place(NamedTuple):
    """Folder of the data set, folder in which the model's folder is made, and its name (None: by the time)."""

    data_dir: Path
    out_dir: Path
    name: str | None


def train_measured(
    options: Options, how: Options, place: Place, train: Callable[..., tuple[Any, Meta]]
) -> tuple[Any, Meta]:
    """Train a model on measured features; see `gotorb.classifier.train`.

    The trees are fitted in seconds, so an interrupted training begins again; the network of a fusion resumes.

    Parameters
    ----------
    options : dict
        Options of `classifier.train` that decide a network's result.
    how : dict
        n_trees, network, threads and what concerns the process.
    place : Place
    train : callable
        `classifier.train`, for the network of a fusion.

    Returns
    -------
    model : Measured or Fusion
    meta : dict

    Raises
    ------
    ConfigError
        If an option is of networks alone.
    DataError, ModelError
        As for `classifier.train`.
    """
    kind, data = options["model"], open_dataset(place.data_dir)
    _check_options(kind, how)

    from gotorb.training import data as training_data
    from gotorb.training import fit, fit_measured, model_files

    taught = training_data.prepare_lesson(
        data, options["layers"], options["batch_size"], class_weights=options["class_weights"],
        division={name: options[name] for name in DIVISION},
    )  # fmt: skip
    threads = fit.prepare_process(options["seed"], how["threads"])
    settings = _describe(options, threads) | {"n_trees": how["n_trees"]}
    run_dir = model_files.make_run_dir(place.out_dir, place.name)
    network = None
    if kind == "fusion":
        network = _find_network(options, how, place, threads) or _train_network(options, how, place, run_dir, train)
        _check_network(network, data, taught.rows)
    with run_log(run_dir):
        LOG.info("training %s on %s with %s", kind, place.data_dir, settings)
        trees = fit_measured.FitOptions(
            options["layers"], taught.stream.class_weights, how["n_trees"], options["seed"], threads
        )
        forest, history = fit_measured.fit_measured(data, taught.rows, trees, on_epoch=how["on_epoch"])
        trusted = _find_trusted(forest, data, taught.rows.validation)
        model = _scale(forest, data, trusted, network)
        fitted = fit.Fit(model, history, len(history["loss"]) - 1, interrupted=False)
        digest = data_digest(data.data_dir)
        meta = model_files.describe_training(
            fitted, data, taught.rows, run_dir=run_dir, settings=settings, digest=digest, parent=None
        )
        meta |= calibrate(model, data, trusted, options) | _describe_network(network)
        meta["suspects"] = data.ids[np.setdiff1d(taught.rows.validation, trusted)]
        loaded = model_files.write_training(run_dir, model, meta)
    shutil.rmtree(run_dir / "network", ignore_errors=True)
    return loaded.model, loaded.meta or {}


def _check_options(kind: str, how: Options) -> None:
    refused = ["strategy"] if kind == "fusion" else ["init_from", "strategy", "callbacks", "tensorboard", "network"]
    given = [name for name in refused if how[name]]
    if given:
        raise ConfigError(f"{given[0]} does not go with {kind}; leave it out, or train a network")


def _describe(options: Options, threads: int) -> Options:
    from gotorb.training.model_files import describe_option

    return {name: describe_option(value) for name, value in options.items()} | {"threads": threads, "strategy": None}


def _find_network(options: Options, how: Options, place: Place, threads: int) -> Path | None:
    """The network that was named, else one of the same recipe and data next to this model."""
    if how["network"] is not None:
        return Path(how["network"])
    from gotorb.training.meta import read_meta

    sibling = place.out_dir / NETWORK
    if not all((sibling / name).exists() for name in (layout.MODEL_H5, layout.META_HKL)) or how["init_from"]:
        return None
    known, wanted = read_meta(sibling / layout.META_HKL), _describe(options | {"model": NETWORK}, threads)
    same = _as_text(known.get("parameters")) == _as_text(wanted) and not known.get("interrupted")
    if same and known.get("data_digest") == data_digest(place.data_dir) and known.get("code_version") == __version__:
        LOG.info("%s has the recipe and the data of this training and is not trained again", sibling)
        return sibling
    return None


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _train_network(
    options: Options, how: Options, place: Place, run_dir: Path, train: Callable[..., tuple[Any, Meta]]
) -> Path:
    wanted = {name: value for name, value in options.items() if name != "model"}
    wanted |= {name: how[name] for name in ("threads", "init_from", "callbacks", "tensorboard", "verbose")}
    train(place.data_dir, NETWORK, **wanted, out_dir=run_dir, name="network", on_epoch=how["on_epoch"])
    return run_dir / "network"


def _check_network(network: Path, data: Dataset, rows: "Rows") -> None:
    """Refuse a network that has learned from rows that evaluate this model, or that has no posterior."""
    from gotorb.training.inference import has_posterior
    from gotorb.training.measured import is_measured
    from gotorb.training.model_files import load_training

    model, meta = load_training(network)
    if meta is None:
        raise ModelError(
            f"network {network} has no {layout.META_HKL}, so its training rows are unknown; train it again"
        )
    if is_measured(model) or not has_posterior(model):
        raise ModelError(f"network {network} is no network with dropout; name a bayesian_vgg6")
    seen = np.isin(data.ids[np.concatenate([rows.validation, rows.test])], np.asarray(meta["split"]["train"], str))
    if seen.any():
        raise ModelError(
            f"network {network} was trained on {int(seen.sum())} validation and test rows of {data.data_dir}; train it "
            "on this data set, or leave network out"
        )


def _describe_network(network: Path | None) -> Meta:
    if network is None:
        return {}
    path = network / layout.MODEL_H5 if network.is_dir() else network
    return {"network": {"name": NETWORK, "digest": file_digest(path)}}


def _find_trusted(model: "Measured", data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Validation rows without suspects: bogus labels on rows that the trees, which never saw them, call clearly real.

    A few such rows (supernovae and unknown asteroids among the random bogus) would flatten the calibration.
    """
    from gotorb.training.fit_measured import measure_rows
    from gotorb.training.measured import tree_logits

    labels = data.labels[rows]
    logits = tree_logits(model.trees.leaves(measure_rows(model.features, data, rows)).mean(axis=1))
    suspect = (labels == layout.BOGUS) & (_fit_sigmoid(labels, logits)(logits) >= SUSPECT_PROBABILITY)
    if suspect.any():
        LOG.warning(
            "%d validation rows labelled bogus score at least %g and are left out of threshold and calibration: %s",
            suspect.sum(), SUSPECT_PROBABILITY, ", ".join(data.ids[rows[suspect]][:10]),
        )  # fmt: skip
    return rows[~suspect] if len(set(labels[~suspect])) == 2 else rows


def _scale(model: "Measured", data: Dataset, rows: np.ndarray, network: Path | None) -> "Measured | Fusion":
    """Fit the calibration, and the weight of a network, on the validation rows."""
    from dataclasses import replace

    from gotorb.training.fit_measured import measure_rows
    from gotorb.training.measured import Fusion, join_logits, score_logits, tree_logits
    from gotorb.training.model_files import open_network

    labels = data.labels[rows]
    trees = tree_logits(model.trees.leaves(measure_rows(model.features, data, rows)).mean(axis=1))
    model = replace(model, calibration=_fit_sigmoid(labels, trees))
    if network is None:
        return model
    content = (network / layout.MODEL_H5 if network.is_dir() else network).read_bytes()
    compiled = open_network(content)
    scores = compiled.score(stamps for _, stamps in data.batches(rows, layers=list(model.features.layers)))
    logits = score_logits(scores)
    weight = choose_weight(labels, logits, trees, data.table["image_id"].to_numpy(str)[rows])
    return Fusion(
        measured=model, network=compiled, network_file=content, weight=weight,
        calibration=_fit_sigmoid(labels, join_logits(logits, trees, weight)),
    )  # fmt: skip


def _fit_sigmoid(labels: np.ndarray, logits: np.ndarray) -> Any:
    from gotorb.evaluation.calibration import expit, fit_calibration
    from gotorb.training.measured import Sigmoid

    found = fit_calibration(labels, expit(logits))
    return Sigmoid(1 / found.temperature, found.offset)


def choose_weight(labels: np.ndarray, network: np.ndarray, trees: np.ndarray, images: np.ndarray) -> float:
    """Choose the network's weight: `WEIGHT`, unless another has a smaller Brier score beyond the noise of the rows.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, of rows that neither part was trained on.
    network, trees : ndarray
        (n,) logits.
    images : ndarray
        (n,) image of each row; images are resampled whole.

    Returns
    -------
    float
    """
    from gotorb.training.measured import join_logits

    def errors(weight: float) -> np.ndarray:
        joined = join_logits(network, trees, weight)
        return np.asarray((_fit_sigmoid(labels, joined)(joined) - labels) ** 2)

    names, place = np.unique(images, return_inverse=True)
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), N_RESAMPLES)
    usual, best, gain = errors(WEIGHT), WEIGHT, 0.0
    for weight in WEIGHTS:
        gains = np.bincount(place, usual - errors(weight), len(names))
        low = np.quantile(draws @ gains / (draws @ np.bincount(place)), 0.025)
        if low > 0 and gains.sum() > gain:
            best, gain = weight, float(gains.sum())
    LOG.info("weight of the network: %g", best)
    return best


def calibrate(model: Any, data: Dataset, rows: np.ndarray, options: Options) -> Meta:
    """Choose the operating threshold and fit the calibration of the scores, on the validation rows.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion
    data : Dataset
    rows : ndarray of int
        Validation rows.
    options : dict
        layers and threshold_fpr.

    Returns
    -------
    dict
        threshold and calibration.
    """
    from gotorb.evaluation.calibration import fit_calibration
    from gotorb.evaluation.thresholds import choose_threshold
    from gotorb.training.inference import score_stamps

    labels = data.labels[rows]
    scores = score_stamps(model, (stamps for _, stamps in data.batches(rows, layers=options["layers"])))
    threshold = choose_threshold(labels, scores, max_fpr=options["threshold_fpr"])
    return {"threshold": threshold, "calibration": fit_calibration(labels, scores).as_dict()}
