"""Fitting of trees to measured features, and the history of a forest as it grows."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gotorb.dataset.split import assign_folds
from gotorb.dataset.store import Dataset
from gotorb.features import FeatureSet
from gotorb.training.data import Rows, Targets, find_fwhm, measure_rows
from gotorb.training.measured import Measured, Sigmoid, tree_logits
from gotorb.training.trees import Trees, fit_trees

LOG = logging.getLogger(__name__)
N_STAGES = 8
"""Numbers of trees at which the history is noted, evenly spaced."""
N_FOLDS, N_FOLD_TREES = 5, 100
"""Folds in which rows are scored by trees that did not see them, and the trees of each."""
MIN_SPREAD = 1e-3
OnEpoch = Callable[[int, dict[str, float]], None]
History = dict[str, list[float]]


class FitOptions(NamedTuple):
    """Options of trees.

    Attributes
    ----------
    layers : tuple of str
        Layers to measure.
    targets : Targets
        Probability and weight of each row of the data set.
    n_trees, seed : int
    threads : int
    """

    layers: tuple[str, ...]
    targets: Targets
    n_trees: int
    seed: int
    threads: int


def fit_measured(
    data: Dataset, rows: Rows, how: FitOptions, *, on_epoch: OnEpoch | None = None
) -> tuple[Measured, History]:
    """Fit trees on the training rows.

    Parameters
    ----------
    data : Dataset
    rows : Rows
        Training and validation rows are used.
    how : FitOptions
    on_epoch : callable, optional
        Called with each stage's number and quantities.

    Returns
    -------
    model : Measured
        Not calibrated yet.
    history : dict
        Loss, accuracy and AUC of training and validation rows at growing numbers of trees.
    """
    features = FeatureSet(data.size, how.layers, find_fwhm(data, rows.train, how.layers))
    taught = np.concatenate([rows.train, rows.undecided])
    measured, labels = measure_rows(features, data, taught), data.labels[rows.train]
    trees = _fit(measured, taught, how, how.n_trees)
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


def _fit(measured: np.ndarray, rows: np.ndarray, how: FitOptions, n_trees: int) -> Trees:
    real, weight = (part[rows].astype(float) for part in (how.targets.probability, how.targets.weight))
    used = weight > 0
    return fit_trees(
        measured[used], real[used], weight[used], n_trees=n_trees, seed=how.seed, threads=how.threads
    )  # fmt: skip


def score_folds(data: Dataset, rows: Rows, features: FeatureSet, groups: np.ndarray, how: FitOptions) -> np.ndarray:
    """Logits of the training and validation rows by trees that saw neither them nor what is linked to them.

    Parameters
    ----------
    data : Dataset
    rows : Rows
    features : FeatureSet
    groups : ndarray of int
        (n,) group of each row of the data set (`gotorb.dataset.split.link_groups`).
    how : FitOptions

    Returns
    -------
    ndarray
        (n,) of all rows of the data set; NaN of the others.
    """
    known = np.concatenate([rows.train, rows.validation])
    every = np.concatenate([known, rows.undecided])
    measured, found = measure_rows(features, data, every), np.full(len(data), np.nan)
    folds = assign_folds(data.labels[known], groups[known], n_folds=N_FOLDS, seed=how.seed)
    for fold in range(N_FOLDS):
        held = known[folds == fold]
        part = ~np.isin(groups[every], groups[held])
        trees = _fit(measured[part], every[part], how, N_FOLD_TREES)
        found[held] = tree_logits(trees.leaves(measured[: len(known)][folds == fold]).mean(axis=1))
    return found


def follow_growth(
    trees: Trees, parts: dict[str, tuple[np.ndarray, np.ndarray]], on_epoch: OnEpoch | None = None
) -> History:
    """Loss, accuracy and AUC of the first trees, for growing numbers of them.

    Parameters
    ----------
    trees : Trees
    parts : dict
        Beginning of the quantities' names -> features (n, n_features) and labels (n,).
    on_epoch : callable, optional

    Returns
    -------
    dict
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
