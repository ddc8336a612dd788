"""Error rates at thresholds, and the choice of one.

A row is called real when its score is at or above the threshold. FPR: bogus rows called real. FNR: real rows
called bogus (missed). MME: mean misclassification error, (FPR + FNR) / 2.
"""

from dataclasses import dataclass

import numpy as np

from gotorb.evaluation.intervals import count_by_score


@dataclass(frozen=True)
class ErrorRates:
    """Error rates at each of m thresholds, ascending.

    Attributes
    ----------
    thresholds, fpr, fnr : ndarray
        (m,); NaN rates where the class is absent.
    """

    thresholds: np.ndarray
    fpr: np.ndarray
    fnr: np.ndarray

    @property
    def mme(self) -> np.ndarray:
        """Mean misclassification error, (m,)."""
        return (self.fpr + self.fnr) / 2


def error_rates(labels: np.ndarray, scores: np.ndarray) -> ErrorRates:
    """Error rates at every threshold that changes them: each distinct score, and infinity.

    >>> rates = error_rates(np.array([0, 0, 1]), np.array([0.1, 0.6, 0.6]))
    >>> rates.fpr.tolist(), rates.fnr.tolist()
    ([1.0, 0.5, 0.0], [0.0, 0.0, 1.0])
    """
    distinct, n_bogus, n_real = count_by_score(labels, scores)
    thresholds = np.append(distinct, np.inf)
    bogus_below, real_below = (np.concatenate([[0], np.cumsum(counts)]) for counts in (n_bogus, n_real))
    with np.errstate(invalid="ignore"):
        fpr, fnr = (bogus_below[-1] - bogus_below) / bogus_below[-1], real_below / real_below[-1]
    return ErrorRates(thresholds, fpr, fnr)


def choose_threshold(labels: np.ndarray, scores: np.ndarray, *, max_fpr: float | None = None) -> float:
    """Choose the threshold for use.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) of rows that were not trained on, both classes present.
    max_fpr : float, optional
        The lowest threshold whose FPR is at most this; the smallest MME when left out.

    Returns
    -------
    float
        Halfway to the next lower score (there may be none), so that rounding moves no row across.

    Examples
    --------
    >>> round(choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9])), 3)
    0.5
    """
    rates = error_rates(labels, scores)
    chosen = int(np.argmin(rates.mme)) if max_fpr is None else first_within(rates.fpr, max_fpr)
    low, high = (rates.thresholds[place] for place in (max(chosen - 1, 0), chosen))
    if np.isinf(high):  # nothing may be called real
        return float(np.nextafter(low, np.inf))
    return float((low + high) / 2)


def find_balance(labels: np.ndarray, scores: np.ndarray) -> float:
    """Threshold at which the larger of FPR and FNR is smallest; 0.5 when a class is absent.

    >>> find_balance(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9]))
    0.6
    """
    if len(set(labels.tolist())) < 2:
        return 0.5
    rates = error_rates(labels, scores)
    return float(rates.thresholds[int(np.argmin(np.maximum(rates.fpr, rates.fnr)))])


def first_within(fpr: np.ndarray, max_fpr: float) -> int:
    """Place of the lowest threshold whose FPR is at most `max_fpr`."""
    return int(np.argmax(fpr <= max_fpr + 1e-12))


def fnr_at_fpr(labels: np.ndarray, scores: np.ndarray, max_fpr: float) -> float:
    """Missed fraction at the lowest threshold whose FPR is at most `max_fpr`."""
    rates = error_rates(labels, scores)
    return float(rates.fnr[first_within(rates.fpr, max_fpr)])
