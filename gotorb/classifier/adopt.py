"""A first model of a survey with few labels: trees of another survey that learn these labels."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb.classifier.measured import Place, fit_sigmoid
from gotorb.core import layout
from gotorb.core.logs import run_log
from gotorb.core.params import SEED, AdoptParams, TrainParams
from gotorb.dataset.card import data_digest
from gotorb.dataset.split import assign_folds, link_groups
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.evaluation.thresholds import choose_threshold
from gotorb.features import FeatureSet

if TYPE_CHECKING:
    from gotorb.training.measured import Measured
    from gotorb.training.trees import Trees

LOG = logging.getLogger(__name__)
ADOPT, TRAIN = AdoptParams(), TrainParams()
MIN_ROWS = 3
"""Fewest labels of each class."""
N_FOLDS = 10
UNLIKE = ("noise_ratio", "gap", "gap_near")
"""Features that differ between cameras whatever the source is; trees that are fitted here do not ask for them."""
Meta = dict[str, Any]


def adopt(
    parent: str | Path,
    data_dir: str | Path,
    *,
    keep: float = ADOPT.keep,
    strength: float = ADOPT.strength,
    n_trees: int = TRAIN.n_trees,
    seed: int = SEED,
    out_dir: str | Path | None = None,
    name: str | None = None,
) -> "tuple[Measured, Meta]":
    """Start a survey's classifier from another survey, with some ten labels of its own.

    Parameters
    ----------
    parent : path
        Labelled data set of another survey, on which trees are fitted; or a model ``measured`` or ``fusion`` with the
        layers of this survey. A data set is better: its trees do not ask for what differs between cameras.
    data_dir : path
        Data set of this survey; 25 to 100 of its rows have a label.
    keep : float
        Fraction of each class that the conformal sets hold.
    strength : float
        Labels that the parent's opinion is worth at each node of a tree.
    n_trees : int
        Trees that are fitted on a data set.
    seed : int
        Of the trees and folds.
    out_dir, name : path, str, optional
        The folder is ``out_dir/name``; ``data_dir/model_YYMMDD-HHMMSS`` when left out.

    Returns
    -------
    model : Measured
    meta : dict
        As of `gotorb.classifier.train`. ``conformal`` holds the scores below and above which a row is not real, or
        not bogus; rows between them, and all rows where labels are too few (None), are for an annotator.

    Raises
    ------
    DataError
        If a class has fewer than three labels, or the parent is not a labelled data set or has no such layer.
    ModelError
        If the parent is a network, or has other features.
    ConfigError
        If `keep` or `strength` is impossible.
    """
    if not (0 < keep < 1 and strength > 0):
        raise ConfigError(f"keep is {keep} and strength {strength}; give a fraction and a number above 0")
    from gotorb.training.data import find_fwhm, measure_rows
    from gotorb.training.measured import tree_logits

    data = open_dataset(data_dir)
    known = _find_labelled(data)
    fwhm = find_fwhm(data, np.arange(len(data)), ("difference",), labelled=False)
    labels, start = data.labels[known], _open_parent(parent, data, fwhm, n_trees=n_trees, seed=seed)
    measured = measure_rows(start.features, data, known)
    before = tree_logits(start.trees.leaves(measured).mean(axis=1))
    logits = _score_folds(start.trees, measured, labels, link_groups(data.table)[known], strength=strength, seed=seed)
    calibration = fit_sigmoid(labels, logits)
    model = replace(start, trees=_teach(start.trees, measured, labels, strength), calibration=calibration)
    scores = calibration(logits)
    chosen = {"threshold": choose_threshold(labels, scores), "conformal": find_sets(labels, scores, keep=keep)}
    settings = {"model": model.name, "layers": start.features.layers, "seed": seed, "normalise": "none", "keep": keep,
                "strength": strength, "n_trees": len(model.trees), "parent": str(parent)}  # fmt: skip
    history = {"auc": [_auc(labels, before), _auc(labels, logits)]}
    place = Place(Path(data_dir), Path(data_dir if out_dir is None else out_dir), name)
    return _write(model, place, (settings, history, chosen))


def _write(
    model: "Measured", place: Place, record: tuple[Meta, dict[str, list[float]], Meta]
) -> "tuple[Measured, Meta]":
    """Write the model with its settings, the AUC before and after, and what was chosen."""
    from gotorb.training import fit, model_files
    from gotorb.training.data import Rows

    settings, history, chosen = record
    data = open_dataset(place.data_dir)
    known = _find_labelled(data)
    run_dir = model_files.make_run_dir(place.out_dir, place.name)
    with run_log(run_dir):
        LOG.info("%s taught by %d labels of %s", settings["parent"], len(known), data.data_dir)
        LOG.info("AUC of these labels: %.4f by the parent, %.4f out of fold", *history["auc"])
        LOG.info("conformal sets: %s", chosen["conformal"])
        meta = model_files.describe_training(
            fit.Fit(model, history, 0, interrupted=False), data,
            Rows(known, known[:0], known[:0], n_unknown=len(data) - len(known)), run_dir=run_dir, settings=settings,
            digest=data_digest(data.data_dir), parent=None,
        )  # fmt: skip
        loaded = model_files.write_training(run_dir, model, meta | chosen)
    return loaded.model, loaded.meta or {}


def _find_labelled(data: Dataset) -> np.ndarray:
    n_bogus, n_real = (int((data.labels == label).sum()) for label in (layout.BOGUS, layout.REAL))
    if min(n_bogus, n_real) < MIN_ROWS:
        raise DataError(
            f"{data.data_dir} has {n_real} real and {n_bogus} bogus labels; label at least {MIN_ROWS} of each"
        )
    return np.flatnonzero(data.labels != layout.UNKNOWN)


def find_sets(labels: np.ndarray, scores: np.ndarray, *, keep: float) -> dict[str, Any]:
    """Limits of class-conditional conformal sets.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) of rows that were scored without their label.
    keep : float
        Fraction of each class whose rows are in their own set.

    Returns
    -------
    dict
        low: rows below it are not real; high: rows above it are not bogus; None where the labels of a class are too
        few to say so. n_real, n_bogus, and needed, the labels of a class that are enough.

    References
    ----------
    Vovk 2013 (Machine Learning 92, 349): conditional validity of inductive conformal predictors.
    """
    real, bogus = (np.sort(scores[labels == label]) for label in (layout.REAL, layout.BOGUS))
    lost = [int(np.floor((len(part) + 1) * (1 - keep) + 1e-9)) for part in (real, bogus)]
    return {
        "keep": keep,
        "low": float(real[lost[0] - 1]) if lost[0] else None,
        "high": float(bogus[-lost[1]]) if lost[1] else None,
        "n_real": len(real), "n_bogus": len(bogus), "needed": int(np.ceil(1 / (1 - keep) - 1 - 1e-9)),
    }  # fmt: skip


def _open_parent(parent: str | Path, data: Dataset, fwhm: float, *, n_trees: int, seed: int) -> "Measured":
    """Trees of the parent for stamps like those of the data set, whose PSF has the width given."""
    from gotorb.training.measured import Fusion, Measured
    from gotorb.training.model_files import load_training

    if layout.labels_path(parent).exists():
        return _fit_parent(open_dataset(parent), data, fwhm, n_trees=n_trees, seed=seed)
    model = load_training(Path(parent)).model
    found = model.measured if isinstance(model, Fusion) else model
    if not isinstance(found, Measured):
        raise ModelError(f"{parent} is a network; name a model measured or fusion, or a labelled data set")
    absent = [layer for layer in found.features.layers if layer not in data.layers]
    features = replace(found.features, size=data.size, fwhm=fwhm)
    if absent or features.names != found.features.names:
        raise ModelError(
            f"{parent} measures stamps of {found.features.size} pixels in {', '.join(found.features.layers)}, "
            f"{data.data_dir} has {data.size} pixels in {', '.join(data.layers)}; name the parent's data set instead"
        )
    return replace(found, features=features)


def _fit_parent(source: Dataset, data: Dataset, fwhm: float, *, n_trees: int, seed: int) -> "Measured":
    from gotorb.training.data import find_fwhm, measure_rows, weigh_classes
    from gotorb.training.measured import Measured, Sigmoid
    from gotorb.training.trees import fit_trees

    layers = tuple(layer for layer in source.layers if layer in data.layers)
    rows = np.flatnonzero(source.labels != layout.UNKNOWN)
    labels = source.labels[rows]
    if len(set(labels)) < 2:
        raise DataError(f"{source.data_dir} has no labels of both classes; name a labelled data set or a model")
    own = FeatureSet(source.size, layers, find_fwhm(source, rows, layers))
    wanted = FeatureSet(data.size, layers, fwhm)
    absent = [name for name in wanted.names if name not in own.names]
    if absent:
        raise DataError(
            f"stamps of {source.size} pixels in {source.data_dir} have no {absent[0]}, which those of {data.size} "
            f"pixels in {data.data_dir} have; cut these smaller"
        )
    measured = measure_rows(own, source, rows)[:, [own.names.index(name) for name in wanted.names]]
    measured[:, [name.split(".")[0] in UNLIKE for name in wanted.names]] = 0
    weight = weigh_classes(labels, "balanced")
    weights = np.where(labels == layout.REAL, weight[layout.REAL], weight[layout.BOGUS])
    trees = fit_trees(measured, labels.astype(float), weights, n_trees=n_trees, seed=seed)
    mean, spread = measured.mean(axis=0), np.maximum(measured.std(axis=0), 1e-3)
    return Measured(features=wanted, trees=trees, calibration=Sigmoid(), mean=mean, spread=spread)


def _teach(trees: "Trees", measured: np.ndarray, labels: np.ndarray, strength: float) -> "Trees":
    from gotorb.training.data import weigh_classes
    from gotorb.training.trees import update_trees

    weight = weigh_classes(labels, "balanced") if len(set(labels)) == 2 else {0: 1.0, 1: 1.0}
    weights = np.where(labels == layout.REAL, weight[layout.REAL], weight[layout.BOGUS])
    return update_trees(trees, measured, labels.astype(float), weights, strength=strength)


def _score_folds(
    trees: "Trees", measured: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, strength: float, seed: int
) -> np.ndarray:
    """Logits of labelled rows by trees that learned from the others."""
    from gotorb.training.measured import tree_logits

    n_folds = min(N_FOLDS, int((labels == layout.REAL).sum()), int((labels == layout.BOGUS).sum()))
    folds, logits = assign_folds(labels, groups, n_folds=n_folds, seed=seed), np.empty(len(labels))
    for fold in range(n_folds):
        rest = folds != fold
        taught = _teach(trees, measured[rest], labels[rest], strength)
        logits[~rest] = tree_logits(taught.leaves(measured[~rest]).mean(axis=1))
    return logits


def _auc(labels: np.ndarray, logits: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, logits))
