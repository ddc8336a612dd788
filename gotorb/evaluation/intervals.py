"""Confidence intervals of fractions and of areas under a curve."""

import numpy as np

Z_95 = 1.959963984540054


def wilson_interval(n_hits: int, n: int, *, z: float = Z_95) -> tuple[float, float] | None:
    """Interval of a fraction by Wilson's score method; None without trials.

    Parameters
    ----------
    n_hits, n : int
        Hits among n trials.
    z : float
        Normal quantile; 95 % unless given.

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
        (..., m) bogus and real rows at each of m distinct scores; equal scores count half.

    Returns
    -------
    ndarray
        (...) the chance that a real row scores above a bogus one.

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


def bootstrap_auc(
    labels: np.ndarray, scores: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the area under the ROC curve; real and bogus rows are resampled apart.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) with both classes present.
    n_bootstrap : int
        Resamples.
    rng : Generator
        Source of the resamples.

    Examples
    --------
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    >>> low, high = bootstrap_auc(labels, scores, n_bootstrap=100, rng=np.random.default_rng(1))
    >>> float(low), float(high)
    (1.0, 1.0)
    """
    _, n_bogus, n_real = count_by_score(labels, scores)
    areas = [area_under_roc(_resample(n_bogus, rng), _resample(n_real, rng)) for _ in range(n_bootstrap)]
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


def _resample(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    total = int(counts.sum())
    return rng.multinomial(total, counts / total)
