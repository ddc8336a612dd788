"""Two-sample tests of changes in a model's inputs and scores.

References
----------
Kolmogorov 1933, Smirnov 1939: the two-sample test. Cliff 1993 (Psych. Bull. 114, 494): delta, the effect size.
"""

from typing import Any

import numpy as np
import pandas as pd

DRIFT_COLUMNS = ("mag", "fwhm", "snr", "best")
"""Inputs and score by which new detections are compared with the training set."""
FEWEST_VALUES = 8
"""Fewest values of each sample that are compared."""
ALPHA = 0.01
SMALL, LARGE = 0.147, 0.33
"""Largest negligible and largest small Cliff's delta (Romano et al. 2006)."""


def measure_drift(now: pd.DataFrame, before: pd.DataFrame, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Compare columns of two samples.

    Parameters
    ----------
    now, before : DataFrame
        Values, NaN where missing.
    columns : tuple of str
        Columns to compare; one that is missing in either sample is left out.

    Returns
    -------
    list of dict
        name, n_now, n_before, median_now, median_before, ks (largest distance of the distributions), p_value,
        delta (see `cliffs_delta`) and verdict: ``same``, ``shifted`` or ``shifted a little``. On a large night every
        difference is significant, so a shift also needs an effect.

    Examples
    --------
    >>> same = pd.DataFrame({"mag": np.linspace(15, 20, 50)})
    >>> [(one["name"], one["verdict"]) for one in measure_drift(same + 4, same, ("mag", "fwhm"))]
    [('mag', 'shifted')]
    """
    found = []
    for name in columns:
        if name not in now or name not in before:
            continue
        a, b = (np.sort(table[name].to_numpy(float)) for table in (now, before))
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        if min(len(a), len(b)) >= FEWEST_VALUES:
            found.append({"name": name, **_compare(a, b)})
    return found


def _compare(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    from scipy.stats import ks_2samp

    test = ks_2samp(a, b, method="asymp")
    delta = cliffs_delta(a, b)
    verdict = "same"
    if test.pvalue < ALPHA and max(abs(delta), float(test.statistic)) > SMALL:
        verdict = "shifted" if max(abs(delta), float(test.statistic)) > LARGE else "shifted a little"
    return {
        "n_now": len(a), "n_before": len(b), "median_now": float(np.median(a)), "median_before": float(np.median(b)),
        "ks": float(test.statistic), "p_value": float(test.pvalue), "delta": delta, "verdict": verdict,
    }  # fmt: skip


def cliffs_delta(a: np.ndarray, b: np.ndarray) -> float:
    """Cliff's delta: probability that a value of `a` exceeds one of `b`, minus the probability that it is below.

    Parameters
    ----------
    a, b : ndarray
        (n,) and (m,), neither empty.

    Returns
    -------
    float
        From -1 to 1.

    Examples
    --------
    >>> cliffs_delta(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.75
    """
    b = np.sort(b)
    below, up_to = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
    return float((below - (len(b) - up_to)).mean() / len(b))
