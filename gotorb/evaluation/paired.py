"""Two models on the same rows: is one worse than the other by more than chance?"""

from typing import NamedTuple

import numpy as np

from gotorb.errors import DataError
from gotorb.evaluation.intervals import area_under_roc, count_by_score


class PairedAuc(NamedTuple):
    """Areas under two ROC curves and their difference (a - b) with 95 % intervals from the same resamples."""

    auc_a: float
    auc_b: float
    difference: float
    auc_a_low: float
    auc_a_high: float
    difference_low: float
    difference_high: float


def compare_auc(
    labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator
) -> PairedAuc:
    """Compare two sets of scores of the same rows.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus.
    scores_a, scores_b : ndarray
        (n,) larger means more real.
    n_bootstrap : int
        Resamples; each draws the same rows for both, real and bogus apart.
    rng : Generator
        Source of the resamples.

    Raises
    ------
    DataError
        If a class is absent: the area is undefined.
    """
    real, bogus = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if len(real) == 0 or len(bogus) == 0:
        raise DataError(
            f"{len(real)} real and {len(bogus)} bogus rows; at least one of each is needed to compare models"
        )
    both = _auc(labels, scores_a), _auc(labels, scores_b)
    draws = np.empty((n_bootstrap, 2))
    for i in range(n_bootstrap):
        rows = np.concatenate([rng.choice(real, len(real)), rng.choice(bogus, len(bogus))])
        draws[i] = _auc(labels[rows], scores_a[rows]), _auc(labels[rows], scores_b[rows])
    low_a, high_a = np.percentile(draws[:, 0], [2.5, 97.5])
    low, high = np.percentile(draws[:, 0] - draws[:, 1], [2.5, 97.5])
    return PairedAuc(*both, both[0] - both[1], float(low_a), float(high_a), float(low), float(high))


def _auc(labels: np.ndarray, scores: np.ndarray) -> float:
    _, n_bogus, n_real = count_by_score(labels, scores)
    return float(area_under_roc(n_bogus, n_real))
