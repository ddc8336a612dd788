"""Two scores of the same rows against each other, for instance a new network and the old random forest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gotorb.errors import DataError
from gotorb.evaluation.intervals import area_under_roc, count_by_score
from gotorb.evaluation.metrics import FPRS
from gotorb.evaluation.thresholds import error_rates, first_within


@dataclass(frozen=True)
class AucComparison:
    """Areas under the ROC curves of two scores of the same rows, with 95 % intervals (NaN without resamples).

    Attributes
    ----------
    auc_a, auc_a_low, auc_a_high : float
        Of the first score.
    auc_b : float
        Of the second score.
    difference, difference_low, difference_high : float
        First minus second; the interval is paired, so free of what both share.
    """

    auc_a: float
    auc_a_low: float
    auc_a_high: float
    auc_b: float
    difference: float
    difference_low: float
    difference_high: float


def compare_auc(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    n_bootstrap: int = 500,
    rng: np.random.Generator,
) -> AucComparison:
    """Compare the areas under the ROC curves of two scores of the same rows.

    Parameters
    ----------
    labels, scores_a, scores_b : ndarray
        As in `roc_comparison`.
    n_bootstrap : int
        Resamples; 0 for no intervals.
    rng : Generator
        Source of the resamples.

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.
    """
    labels, pair = _usable(labels, scores_a, scores_b)
    auc_a, auc_b = _areas(labels, pair)
    draws = (_resample(labels, rng) for _ in range(n_bootstrap))
    areas = np.array([_areas(labels[rows], pair[:, rows]) for rows in draws]).reshape(-1, 2)
    low, high = _interval(areas[:, 0])
    return AucComparison(auc_a, low, high, auc_b, auc_a - auc_b, *_interval(areas[:, 0] - areas[:, 1]))


def roc_comparison(
    labels: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    fprs: Sequence[float] = FPRS,
    *,
    n_bootstrap: int = 500,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Recovered fraction (TPR) of two scores at the same false-positive rates.

    Rows that lack a label or either score are left out. Resamples draw the same rows for both scores, real and bogus
    apart, so the interval of the difference is free of what both share.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus, others ignored.
    scores_a, scores_b : ndarray
        (n,) larger means more real; NaN where absent. Their scales need not agree.
    fprs : sequence of float
        False-positive rates.
    n_bootstrap : int
        Resamples.
    rng : Generator, optional
        Source of the resamples; a fixed one when left out.

    Returns
    -------
    DataFrame
        Columns fpr, tpr_a, tpr_b, difference (a - b), difference_low, difference_high (95 %), n_real, n_bogus.

    Raises
    ------
    DataError
        If no real or no bogus row has both scores.
    """
    labels, pair = _usable(labels, scores_a, scores_b)
    rng = rng or np.random.default_rng(0)
    tpr = _recovered(labels, pair, fprs)
    draws = [_resample(labels, rng) for _ in range(n_bootstrap)]
    resampled = np.array([_recovered(labels[rows], pair[:, rows], fprs) for rows in draws])
    low, high = np.percentile(resampled[:, 0] - resampled[:, 1], [2.5, 97.5], axis=0)
    return pd.DataFrame(
        {
            "fpr": list(fprs),
            "tpr_a": tpr[0],
            "tpr_b": tpr[1],
            "difference": tpr[0] - tpr[1],
            "difference_low": low,
            "difference_high": high,
            "n_real": int((labels == 1).sum()),
            "n_bogus": int((labels == 0).sum()),
        }
    )


def _usable(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (m,) and both scores (2, m) of the rows that have all three."""
    usable = np.isin(labels, (0, 1)) & np.isfinite(scores_a) & np.isfinite(scores_b)
    n_real, n_bogus = int((labels[usable] == 1).sum()), int((labels[usable] == 0).sum())
    if n_real == 0 or n_bogus == 0:
        raise DataError(f"{n_real} real and {n_bogus} bogus rows have both scores; one of each is needed to compare")
    return labels[usable], np.stack([scores_a[usable], scores_b[usable]])


def _resample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers drawn with replacement, as many of each class as there are."""
    return np.concatenate([rng.choice(rows, len(rows)) for rows in (np.flatnonzero(labels == k) for k in (1, 0))])


def _areas(labels: np.ndarray, pair: np.ndarray) -> tuple[float, float]:
    first, second = (float(area_under_roc(*count_by_score(labels, scores)[1:])) for scores in pair)
    return first, second


def _recovered(labels: np.ndarray, pair: np.ndarray, fprs: Sequence[float]) -> np.ndarray:
    """(2, n_fprs) recovered fraction of each score."""
    curves = [error_rates(labels, scores) for scores in pair]
    return np.array([[1 - rates.fnr[first_within(rates.fpr, fpr)] for fpr in fprs] for rates in curves])


def _interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
