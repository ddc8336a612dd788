"""Fitting of trees to measured features, and the history of a forest as it grows."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gotorb.core import layout
from gotorb.dataset.store import Dataset
from gotorb.features import FeatureSet
from gotorb.features.geometry import REFERENCE_FWHM
from gotorb.training.data import Rows
from gotorb.training.measured import Measured, Sigmoid, tree_logits
from gotorb.training.trees import Trees, fit_trees

LOG = logging.getLogger(__name__)
N_STAGES = 8
"""Numbers of trees at which the history is noted, evenly spaced."""
N_WIDTHS, MIN_WIDTHS, GOOD_FIT = 1000, 20, 0.8
"""Real rows that are fitted for the width of the PSF, the fewest good fits, and the smallest R2 of a good one."""
MIN_SPREAD = 1e-3
OnEpoch = Callable[[int, dict[str, float]], None]
History = dict[str, list[float]]


class FitOptions(NamedTuple):
    """Options of trees.

    Attributes
    ----------
    layers : tuple of str
        Layers to measure.
    weights : dict
        Weight of each label.
    n_trees, seed : int
    threads : int
    """

    layers: tuple[str, ...]
    weights: dict[int, float]
    n_trees: int
    seed: int
    threads: int


def find_fwhm(data: Dataset, rows: np.ndarray, layers: tuple[str, ...]) -> float:
    """Measure the width of a survey's PSF: the mean width of the Gaussians that fit its real training rows well.

    Parameters
    ----------
    data : Dataset
    rows : ndarray of int
        Training rows.
    layers : tuple of str
        Layers to measure.

    Returns
    -------
    float
        Full width at half maximum in pixels; the features' own reference where few rows are fitted well.
    """
    features = FeatureSet(data.size, layers)
    found = measure_rows(features, data, rows[data.labels[rows] == layout.REAL][:N_WIDTHS])
    good = found[:, features.names.index("fit_r2.difference")] > GOOD_FIT
    widths = found[good, features.names.index("fit_width.difference")]
    return round(float(widths.mean()), 2) if len(widths) >= MIN_WIDTHS else REFERENCE_FWHM


def measure_rows(features: FeatureSet, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Measure rows of a data set.

    Parameters
    ----------
    features : FeatureSet
    data : Dataset
    rows : ndarray of int
        (n,) row numbers.

    Returns
    -------
    ndarray
        (n, n_features) float32.
    """
    parts = [features.measure(stamps) for _, stamps in data.batches(rows, layers=list(features.layers))]
    return np.concatenate(parts) if parts else np.empty((0, len(features.names)), np.float32)


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
    measured, labels = measure_rows(features, data, rows.train), data.labels[rows.train]
    weights = np.where(labels == layout.REAL, how.weights[layout.REAL], how.weights[layout.BOGUS])
    trees = fit_trees(
        measured, labels.astype(float), weights, n_trees=how.n_trees, seed=how.seed, threads=how.threads
    )  # fmt: skip
    LOG.info("%d trees of %d nodes on %d features of %d rows", len(trees), len(trees.feature), *measured.T.shape)
    spread = np.maximum(measured.std(axis=0), MIN_SPREAD)
    model = Measured(
        features=features, trees=trees, calibration=Sigmoid(), mean=measured.mean(axis=0), spread=spread
    )  # fmt: skip
    parts = {
        "": (measured, labels),
        "val_": (measure_rows(features, data, rows.validation), data.labels[rows.validation]),
    }
    return model, follow_growth(trees, parts, on_epoch)


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
