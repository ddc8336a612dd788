"""Confidence intervals of fractions and of areas under ROC curves, for independent and for clustered rows.

References
----------
DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837): variance of areas. Obuchowski 1997 (Biometrics 53, 567): the
same for clustered rows. Cameron, Gelbach & Miller 2011 (J. Bus. Econ. Stat. 29, 238): two-way clusters.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

Z_95 = 1.959963984540054
ALPHA = 0.05
MIN_GROUPS = 10
"""Fewest images or objects whose scatter can be measured; with fewer, rows count as independent."""
Groups = Sequence[np.ndarray]
"""Group number of each row, (n,) of int, for each kind of dependence (image, object)."""


def wilson_interval(n_hits: float, n: float, *, z: float = Z_95) -> tuple[float, float] | None:
    """Interval of a fraction by Wilson's score method.

    Parameters
    ----------
    n_hits, n : float
        Hits among n trials; need not be whole numbers (effective trials).
    z : float
        Normal quantile; default: 95 %.

    Returns
    -------
    (float, float) or None
        Lower and upper limit; None without trials.

    References
    ----------
    Wilson 1927, JASA 22, 209.

    Examples
    --------
    >>> low, high = wilson_interval(0, 10)
    >>> round(low, 4), round(high, 4)
    (0.0, 0.2775)
    """
    if n == 0:
        return None
    fraction = n_hits / n
    centre = (fraction + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(fraction * (1 - fraction) / n + z**2 / (4 * n**2))
    low = 0.0 if n_hits == 0 else float(centre - half)
    return low, 1.0 if n_hits == n else float(centre + half)


def area_under_roc(n_bogus: np.ndarray, n_real: np.ndarray) -> np.ndarray:
    """Area under the ROC curve from counts at each distinct score, ascending.

    Parameters
    ----------
    n_bogus, n_real : ndarray
        (..., m) bogus and real rows at each of m distinct scores.

    Returns
    -------
    ndarray
        (...) probability that a real row scores above a bogus row; ties count half.

    Examples
    --------
    >>> float(area_under_roc(np.array([1, 1, 0]), np.array([0, 0, 2])))
    1.0
    """
    below = np.cumsum(n_bogus, axis=-1) - n_bogus
    wins = (n_real * (below + 0.5 * n_bogus)).sum(axis=-1)
    return wins / (n_bogus.sum(axis=-1) * n_real.sum(axis=-1))


def count_by_score(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the rows of each class at each distinct score.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.

    Returns
    -------
    distinct, n_bogus, n_real : ndarray
        (m,) scores, ascending, and rows of each class.

    Examples
    --------
    >>> labels, scores = np.array([0, 1, 1]), np.array([0.2, 0.2, 0.9])
    >>> [part.tolist() for part in count_by_score(labels, scores)]
    [[0.2, 0.9], [1, 0], [1, 1]]
    """
    distinct, place = np.unique(scores, return_inverse=True)
    n_bogus, n_real = (np.bincount(place[labels == label], minlength=len(distinct)) for label in (0, 1))
    return distinct, n_bogus, n_real


def find_groups(rows: pd.DataFrame) -> Groups:
    """Groups of dependent rows: rows of the same image, and of the same object.

    Parameters
    ----------
    rows : DataFrame
        (n,) image_id and object_id, where known; a row without a value is a group of its own.

    Returns
    -------
    sequence of ndarray
        (n,) of int for each column with at least `MIN_GROUPS` groups and fewer groups than rows.

    Examples
    --------
    >>> groups = find_groups(pd.DataFrame({"image_id": [f"image {number // 2}" for number in range(20)]}))
    >>> [len(set(group.tolist())) for group in groups]
    [10]
    """
    found = []
    for name in ("image_id", "object_id"):
        if name in rows:
            values = rows[name].astype("string").fillna("").to_numpy(str)
            own = np.where(values == "", np.char.add("\0", np.arange(len(rows)).astype(str)), values)
            names, place = np.unique(own, return_inverse=True)
            if MIN_GROUPS <= len(names) < len(rows):
                found.append(place)
    return found


def _cluster_variance(influence: np.ndarray, group: np.ndarray) -> float:
    sums = np.bincount(group, influence)[np.unique(group)]
    return float((sums**2).sum() * len(sums) / max(len(sums) - 1, 1))


def variance_of_sum(influence: np.ndarray, groups: Groups = ()) -> tuple[float, int]:
    """Variance of an estimate from the influence of each row on it.

    Parameters
    ----------
    influence : ndarray
        (n,) influences, which sum to 0.
    groups : sequence of ndarray
        At most two kinds of groups, see `find_groups`; empty for independent rows.

    Returns
    -------
    variance : float
        Largest of the variances for each kind of group and for both together.
    n_groups : int
        Number of groups of the kind with the fewest.

    Examples
    --------
    >>> influence = np.array([0.1, 0.1, -0.1, -0.1])
    >>> [round(variance_of_sum(influence, groups)[0], 3) for groups in ((), (np.array([0, 0, 1, 1]),))]
    [0.053, 0.16]
    """
    rows = np.arange(len(influence))
    kinds = [*groups] or [rows]
    single = [_cluster_variance(influence, group) for group in kinds]
    both = 0.0
    if len(kinds) == 2:
        crossed = np.unique(np.stack(kinds, axis=1), axis=0, return_inverse=True)[1].ravel()
        both = sum(single) - _cluster_variance(influence, crossed)
    return max(*single, both), min(len(np.unique(group)) for group in kinds)


def quantile_95(n_groups: int) -> float:
    """Student's quantile of a two-sided 95 % interval.

    Parameters
    ----------
    n_groups : int
        Number of independent groups.

    Returns
    -------
    float
        Half width in standard deviations.

    Examples
    --------
    >>> round(quantile_95(11), 3)
    2.228
    """
    from scipy.stats import t

    return float(t.ppf(1 - ALPHA / 2, max(n_groups - 1, 1)))


def fraction_interval(hits: np.ndarray, groups: Groups = ()) -> tuple[float, float] | None:
    """Wilson interval of a fraction of clustered rows, with the effective number of independent trials.

    Parameters
    ----------
    hits : ndarray of bool
        (n,) hits.
    groups : sequence of ndarray
        Groups of these rows; a single group with all rows counts as one trial.

    Returns
    -------
    (float, float) or None
        Lower and upper limit; None without rows.

    Examples
    --------
    >>> [round(limit, 3) for limit in fraction_interval(np.array([True, False, True, False]))]
    [0.15, 0.85]
    """
    n, n_hits = len(hits), int(hits.sum())
    if n == 0 or not groups:
        return wilson_interval(n_hits, n)
    fraction, trials = n_hits / n, float(n)
    if min(len(np.unique(group)) for group in groups) == 1:
        trials = 1.0
    elif 0 < n_hits < n:
        variance, _ = variance_of_sum((hits - fraction) / n, groups)
        trials = min(max(fraction * (1 - fraction) / variance, 1.0), n) if variance > 0 else n
    return wilson_interval(fraction * trials, trials)


def area_influence(labels: np.ndarray, scores: np.ndarray) -> tuple[float, np.ndarray]:
    """Area under the ROC curve, and the influence of each row on it (DeLong's structural components).

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1, both present; scores.

    Returns
    -------
    area : float
        Area under the curve.
    influence : ndarray
        (n,) influences, which sum to 0.

    Examples
    --------
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.2, 0.9])
    >>> area_influence(labels, scores)[0]
    0.875
    """
    real, bogus = (np.sort(scores[labels == label]) for label in (1, 0))
    won = _fraction_below(bogus, scores)
    lost = 1 - _fraction_below(real, scores)
    area = float(won[labels == 1].mean())
    return area, np.where(labels == 1, (won - area) / len(real), (lost - area) / len(bogus))


def _fraction_below(ordered: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Fraction of ordered values below each score; equal ones count half."""
    below, up_to = np.searchsorted(ordered, scores), np.searchsorted(ordered, scores, side="right")
    return (below + up_to) / (2 * len(ordered))


def auc_interval(labels: np.ndarray, scores: np.ndarray, groups: Groups = ()) -> tuple[float, float]:
    """95 % interval of the area under the ROC curve: DeLong's variance on the logit scale.

    On the logit scale the interval is asymmetric and stays below 1. Its coverage is right for areas near 1, unlike that
    of bootstrap percentiles.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1, both present; scores.
    groups : sequence of ndarray
        Groups of dependent rows, see `find_groups`.

    Returns
    -------
    low, high : float
        Limits; for classes without overlap 0.025^(1 / n), n being the size of the smaller class, and 1.

    Examples
    --------
    >>> [round(limit, 3) for limit in auc_interval(np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.6, 0.5, 0.8, 0.9]))]
    [0.082, 0.996]
    """
    area, influence = area_influence(labels, scores)
    if area in (0.0, 1.0):
        edge = (ALPHA / 2) ** (1 / int(min((labels == 1).sum(), (labels == 0).sum())))
        return (edge, 1.0) if area == 1.0 else (0.0, 1 - edge)
    variance, n_groups = variance_of_sum(influence, groups)
    half = quantile_95(n_groups) * np.sqrt(variance) / (area * (1 - area))
    odds = area / (1 - area) * np.exp(np.array([-half, half]))
    low, high = odds / (1 + odds)
    return float(low), float(high)
