"""Training of the models on measured features: ``measured`` and ``fusion``."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import file_digest, write_csv
from gotorb.core.logs import run_log
from gotorb.dataset.card import data_digest
from gotorb.dataset.folder import hold_folder
from gotorb.dataset.split import link_groups
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ConfigError, ModelError
from gotorb.evaluation.calibration import expit, fit_calibration
from gotorb.evaluation.comparison import SUSPECT_PROBABILITY
from gotorb.evaluation.thresholds import choose_threshold

if TYPE_CHECKING:
    from gotorb.training.data import Rows
    from gotorb.training.measured import Fusion, Measured, Sigmoid

LOG = logging.getLogger(__name__)
Meta = dict[str, Any]
Options = dict[str, Any]
Choice = TypeVar("Choice")
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
    from gotorb.training import fit, model_files

    taught = training_data.prepare_lesson(
        data, options["layers"], options["batch_size"], class_weights=options["class_weights"],
        division={name: options[name] for name in DIVISION},
    )  # fmt: skip
    threads = fit.prepare_process(options["seed"], how["threads"])
    settings = _describe(options, threads) | {name: how[name] for name in ("n_trees", "network_weight")}
    run_dir = model_files.make_run_dir(place.out_dir, place.name)
    with hold_folder(run_dir), run_log(run_dir):
        digest = model_files.check_recipe(run_dir, settings, data.data_dir)
        network = None
        if kind == "fusion":
            network = _find_network(options, how, place, threads) or _train_network(options, how, place, run_dir, train)
            _check_network(network, data, taught.rows)
        LOG.info("training %s on %s with %s", kind, place.data_dir, settings)
        trees = fit.TreeOptions(options["layers"], taught.stream.targets, how["n_trees"], options["seed"], threads)
        forest, history = fit.fit_measured(data, taught.rows, trees, on_epoch=how["on_epoch"])
        groups = link_groups(data.table, link_radius_arcsec=options["link_radius_arcsec"])
        logits = fit.score_folds(data, taught.rows, forest.features, groups, trees)
        suspects = list_suspects(data, logits)
        write_csv(run_dir / layout.SUSPECTS_CSV, suspects, inert=True, float_format="%.6f")
        trusted = _find_trusted(data, taught.rows.validation, suspects["id"].to_numpy(str))
        model = _scale(forest, data, trusted, network, how)
        fitted = fit.Fit(model, history, len(history["loss"]) - 1, interrupted=False)
        meta = model_files.describe_training(
            fitted, data, taught.rows, run_dir=run_dir, settings=settings, digest=digest, parent=None
        )
        meta |= calibrate(model, data, trusted, options) | _describe_network(network)
        meta["suspects"] = suspects["id"].to_numpy(str)
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
    if (run_dir / "network" / layout.MODEL_H5).exists():  # of an interrupted run, perhaps of another recipe
        shutil.rmtree(run_dir / "network")
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


def list_suspects(data: Dataset, logits: np.ndarray) -> pd.DataFrame:
    """Rows labelled bogus that trees which did not see them call clearly real, the clearest first.

    A few such rows (supernovae and unknown asteroids among the random bogus) would flatten the calibration. Rows
    labelled real with a low score are not suspects: most are real and hard.

    Parameters
    ----------
    data : Dataset
    logits : ndarray
        (n,) of all rows, NaN where a row was not scored.

    Returns
    -------
    DataFrame
        id, label, metalabel, score, as ``gotorb eyeball --rows`` reads them.
    """
    scored = np.flatnonzero(np.isfinite(logits))
    scores = np.full(len(logits), np.nan)
    scores[scored] = fit_sigmoid(data.labels[scored], logits[scored])(logits[scored])
    rows = np.flatnonzero((data.labels == layout.BOGUS) & (np.nan_to_num(scores) >= SUSPECT_PROBABILITY))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return data.table.iloc[rows][["id", "label", "metalabel"]].assign(score=scores[rows])


def _find_trusted(data: Dataset, rows: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """Validation rows without suspects."""
    labels, suspect = data.labels[rows], np.isin(data.ids[rows], suspects)
    if suspect.any():
        LOG.warning(
            "%d validation rows labelled bogus score at least %g out of fold and are left out of threshold and "
            "calibration: %s", suspect.sum(), SUSPECT_PROBABILITY, ", ".join(data.ids[rows[suspect]][:10]),
        )  # fmt: skip
    return rows[~suspect] if len(set(labels[~suspect])) == 2 else rows


def _scale(
    model: "Measured", data: Dataset, rows: np.ndarray, network: Path | None, how: Options
) -> "Measured | Fusion":
    """Fit the calibration, and the weight of a network, on the validation rows."""
    from gotorb.training.data import measure_rows
    from gotorb.training.measured import Fusion, Sigmoid, join_logits, tree_logits
    from gotorb.training.model_files import open_network

    labels = data.labels[rows]
    trees = tree_logits(model.trees.leaves(measure_rows(model.features, data, rows)).mean(axis=1))
    model = replace(model, calibration=fit_sigmoid(labels, trees))
    if network is None:
        return model
    content = (network / layout.MODEL_H5 if network.is_dir() else network).read_bytes()
    fusion = Fusion(
        measured=model, network=open_network(content), network_file=content, weight=WEIGHT, calibration=Sigmoid(),
        orientations=how["orientations"],
    )  # fmt: skip
    blocks = data.batches(rows, layers=list(model.features.layers))
    logits = np.concatenate([fusion.network_logits(stamps) for _, stamps in blocks])
    weight = how["network_weight"]
    if weight is None:
        weight = choose_weight(labels, logits, trees, data.table["image_id"].to_numpy(str)[rows])
    return replace(fusion, weight=weight, calibration=fit_sigmoid(labels, join_logits(logits, trees, weight)))


def fit_sigmoid(labels: np.ndarray, logits: np.ndarray) -> "Sigmoid":
    """Fit Platt scaling.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus; both present.
    logits : ndarray
        (n,).

    Returns
    -------
    Sigmoid
    """
    from gotorb.training.measured import Sigmoid

    found = fit_calibration(labels, expit(logits))
    return Sigmoid(1 / found.temperature, found.offset)


def drop_calibration(model: Any) -> Any:
    """Remove the calibration of a model on measured features.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion

    Returns
    -------
    keras.Model, Measured or Fusion
        Other models unchanged.
    """
    from gotorb.training.measured import Sigmoid, is_measured

    return replace(model, calibration=Sigmoid()) if is_measured(model) else model


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

    joined = {weight: join_logits(network, trees, weight) for weight in (WEIGHT, *WEIGHTS)}
    errors = {weight: (fit_sigmoid(labels, logits)(logits) - labels) ** 2 for weight, logits in joined.items()}
    best = choose_smallest(errors, images, usual=WEIGHT)
    LOG.info("weight of the network: %g", best)
    return best


def choose_smallest(errors: dict[Choice, np.ndarray], images: np.ndarray, *, usual: Choice) -> Choice:
    """Choose what has the smallest mean error; the usual one, unless another is better beyond the noise of the rows.

    Parameters
    ----------
    errors : dict
        Choice -> (n,) squared error of each row.
    images : ndarray
        (n,) image of each row; images are resampled whole.
    usual : object
        One of the choices.

    Returns
    -------
    object
        A choice.
    """
    names, place = np.unique(images, return_inverse=True)
    draws = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), N_RESAMPLES)
    best, gain = usual, 0.0
    for choice, found in errors.items():
        gains = np.bincount(place, errors[usual] - found, len(names))
        low = np.quantile(draws @ gains / (draws @ np.bincount(place)), 0.025)
        if low > 0 and gains.sum() > gain:
            best, gain = choice, float(gains.sum())
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
    from gotorb.training.inference import score_stamps

    labels = data.labels[rows]
    scores = score_stamps(model, (stamps for _, stamps in data.batches(rows, layers=options["layers"])))
    threshold = choose_threshold(labels, scores, max_fpr=options["threshold_fpr"])
    return {"threshold": threshold, "calibration": fit_calibration(labels, scores).as_dict()}
