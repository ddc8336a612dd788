"""Checks before a model takes another's place: not worse on any declared slice of the same rows, and calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core.params import DecideParams
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.metrics import (
    DETECTABLE_SNR,
    FAINT_SNR,
    NUCLEAR_ARCSEC,
    is_faint,
    is_nuclear,
    measure_calibration,
    rounded,
)

DECIDE = DecideParams()


@dataclass(frozen=True)
class Limits:
    """Limits of the promotion checks.

    Attributes
    ----------
    alpha : float
        Chance at which a worse result counts as worse and not as bad luck; of each slice.
    max_ece : float
        Largest expected calibration error of the calibrated score.
    min_rows : int
        Slices with fewer rows are reported but decide nothing.
    """

    alpha: float = DECIDE.alpha
    max_ece: float = DECIDE.max_ece
    min_rows: int = DECIDE.min_rows


@dataclass(frozen=True)
class Check:
    """One promotion check: its name, its outcome, a sentence, and its numbers."""

    name: str
    passed: bool
    text: str
    numbers: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return rounded(asdict(self))


def declared_slices(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mask, (n,) of bool, of each slice: faint, nuclear, each telescope, each metalabel.

    Parameters
    ----------
    rows : DataFrame
        Test rows: snr, host_offset_arcsec, ut, metalabel; a column that is absent gives no slice.
    """
    slices: dict[str, np.ndarray] = {}
    if "snr" in rows:
        slices[f"faint (S/N {DETECTABLE_SNR:g} to {FAINT_SNR:g})"] = is_faint(_numbers(rows, "snr"))
    if "host_offset_arcsec" in rows:
        nuclear = is_nuclear(_numbers(rows, "host_offset_arcsec"))
        slices[f"nuclear (within {NUCLEAR_ARCSEC:g} arcsec)"] = nuclear
    for column, title in (("ut", "telescope"), ("metalabel", "metalabel")):
        if column in rows:
            values = rows[column].astype("string").fillna("").to_numpy(str)
            slices |= {f"{title} {value}": values == value for value in sorted(set(values)) if value}
    return slices


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    return pd.to_numeric(rows[name], errors="coerce").to_numpy(float)


def check_slices(rows: pd.DataFrame, wrong: np.ndarray, wrong_before: np.ndarray, limits: Limits) -> Iterator[Check]:
    """Compare wrong calls with the holder's, slice by slice, on the same rows.

    A slice fails where the new model is wrong alone so much more often than the holder is that chance gives it at most
    `alpha` (McNemar's exact test, one-sided).

    Parameters
    ----------
    rows : DataFrame
        (n,) test rows.
    wrong, wrong_before : ndarray of bool
        (n,) True where the new model, or the holder, is wrong, each at its own threshold.
    limits : Limits
        `alpha`, the largest chance of a false alarm.
    """
    from scipy.stats import binomtest

    for name, inside in declared_slices(rows).items():
        n, new, old = int(inside.sum()), int(wrong[inside].sum()), int(wrong_before[inside].sum())
        only_new, only_old = (int((a & ~b & inside).sum()) for a, b in ((wrong, wrong_before), (wrong_before, wrong)))
        both = only_new + only_old
        chance = float(binomtest(only_new, both, alternative="greater").pvalue) if both else 1.0
        passed = n < limits.min_rows or chance > limits.alpha
        text = (
            f"{name}: {new} of {n} wrong, the holder {old}; wrong alone {only_new} against {only_old} (p {chance:.4f})"
        )
        numbers = {"n": n, "wrong": new, "wrong_before": old, "only_new": only_new, "only_old": only_old, "p": chance}
        yield Check(name, passed, text, numbers)


def check_auc(
    labels: np.ndarray, scores: np.ndarray, scores_before: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator
) -> Check:
    """Compare areas under the ROC curves: fails where all of the 95 % interval of the difference is below zero.

    Parameters
    ----------
    labels, scores, scores_before : ndarray
        (n,) 1 real, 0 bogus; scores of the candidate and of the holder.
    n_bootstrap : int
    rng : numpy.random.Generator

    Returns
    -------
    Check
    """
    both = compare_auc(labels, scores, scores_before, n_bootstrap=n_bootstrap, rng=rng)
    passed = not both.difference_high < 0
    text = (
        f"AUC {both.auc_a:.4f}, the holder {both.auc_b:.4f} "
        f"(difference {both.difference:+.4f}, 95 % {both.difference_low:+.4f} to {both.difference_high:+.4f})"
    )
    return Check("AUC", passed, text, asdict(both))


def check_calibration(labels: np.ndarray, probability: np.ndarray, limits: Limits) -> Check:
    """Compare the expected calibration error with its bound.

    Parameters
    ----------
    labels, probability : ndarray
        (n,) 1 real, 0 bogus; calibrated scores.
    limits : Limits

    Returns
    -------
    Check
    """
    ece = float(measure_calibration(labels, probability)["ece"])
    text = f"calibration error {ece:.4f}, allowed {limits.max_ece:.4f}"
    return Check("calibration", ece <= limits.max_ece, text, {"ece": ece, "max_ece": limits.max_ece})


def check_parity(scores: np.ndarray, expected: np.ndarray, *, against: str = "file", tolerance: float = 1e-6) -> Check:
    """Compare scores of the service with expected ones.

    Parameters
    ----------
    scores, expected : ndarray
        (n,).
    against : str
        Origin of the expected scores, for the text.
    tolerance : float
        Largest allowed difference.

    Returns
    -------
    Check

    Examples
    --------
    >>> check_parity(np.array([0.1, 0.9]), np.array([0.1, 0.9]), against="the registered model", tolerance=1e-6).passed
    True
    """
    largest = float(np.abs(scores - expected).max())
    passed = bool(np.isfinite(scores).all() and largest <= tolerance)
    text = f"service differs from the model's {against} by {largest:.2e}, allowed {tolerance:.0e}"
    return Check("parity", passed, text, {"largest": largest, "n": len(scores), "against": against})
