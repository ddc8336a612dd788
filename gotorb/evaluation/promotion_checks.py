"""Checks before a model replaces another: calibrated, and not worse on any declared slice of the same rows.

A check that passes also reports the smallest loss that it would have detected.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core.params import DecideParams
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.intervals import Z_95, wilson_interval
from gotorb.evaluation.metrics import (
    DETECTABLE_SNR,
    FAINT_SNR,
    NUCLEAR_ARCSEC,
    expect_calibration,
    is_faint,
    is_nuclear,
    measure_calibration,
    rounded,
)

DECIDE = DecideParams()
POWER, Z_POWER = 0.8, 0.8416212335729143
"""Power at which the detectable loss is quoted, and its normal quantile."""
N_DRAWS, N_LOSSES = 1000, 200
BRIGHT_RATIO = 30.0
"""Smallest ratio of a bright neighbour's peak to that of the source; it dominates the norm of a layer."""
CORE_PIXELS, FAR_PIXELS = 2.0, 9.0
HOLDER = "the holder"


@dataclass(frozen=True)
class Limits:
    """Limits of the promotion checks.

    Attributes
    ----------
    alpha : float
        Significance level of each slice.
    max_ece : float
        Calibration error that always passes; a larger one fails if it is significant.
    max_changed : float
        Fraction of clear calls changed by a disturbance far from the source that always passes; a larger one fails if
        it is significantly above that of the holder.
    min_rows : int
        Fewest rows of a slice that can fail.
    """

    alpha: float = DECIDE.alpha
    max_ece: float = DECIDE.max_ece
    max_changed: float = DECIDE.max_changed
    min_rows: int = DECIDE.min_rows


@dataclass(frozen=True)
class Check:
    """One promotion check: name, outcome, sentence, and numbers."""

    name: str
    passed: bool
    text: str
    numbers: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json.

        Returns
        -------
        dict
            name, passed, text and numbers.
        """
        return rounded(asdict(self))


def declared_slices(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Slices of the rows: all, faint, nuclear, bright neighbour, edge, each telescope, each metalabel.

    Parameters
    ----------
    rows : DataFrame
        Test rows: snr, host_offset_arcsec, neighbour_ratio (from `measure_neighbours`), missing_fraction, ut,
        metalabel; a missing column gives no slice.

    Returns
    -------
    dict of ndarray
        (n,) mask by name; empty slices are left out.

    Examples
    --------
    >>> list(declared_slices(pd.DataFrame({"snr": [6.0, 20.0], "metalabel": ["mp", "mp"]})))
    ['all rows', 'faint (S/N 5 to 10)', 'metalabel mp']
    """
    slices: dict[str, np.ndarray] = {"all rows": np.ones(len(rows), bool)}
    if "snr" in rows:
        slices[f"faint (S/N {DETECTABLE_SNR:g} to {FAINT_SNR:g})"] = is_faint(_numbers(rows, "snr"))
    if "host_offset_arcsec" in rows:
        nuclear = is_nuclear(_numbers(rows, "host_offset_arcsec"))
        slices[f"nuclear (within {NUCLEAR_ARCSEC:g} arcsec)"] = nuclear
    if "neighbour_ratio" in rows:
        bright = _numbers(rows, "neighbour_ratio") > BRIGHT_RATIO
        slices[f"bright neighbour ({BRIGHT_RATIO:g} times the source)"] = bright
    if "missing_fraction" in rows:
        slices["edge (pixels missing)"] = _numbers(rows, "missing_fraction") > 0
    for column, title in (("ut", "telescope"), ("metalabel", "metalabel")):
        if column in rows:
            values = rows[column].astype("string").fillna("").to_numpy(str)
            slices |= {f"{title} {value}": values == value for value in sorted(set(values)) if value}
    return {name: inside for name, inside in slices.items() if inside.any()}


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    return pd.to_numeric(rows[name], errors="coerce").to_numpy(float)


def measure_neighbours(stamps: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Ratio of the brightest pixel far from the source to the peak of the source.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers) stamps.
    layers : sequence of str
        Names of the layers; science is measured, or else the first.

    Returns
    -------
    ndarray
        (n,) ratios of values above the median of the stamp.

    Examples
    --------
    >>> stamp = np.zeros((1, 31, 31, 1))
    >>> stamp[0, 15, 15], stamp[0, 2, 2] = 2.0, 8.0
    >>> measure_neighbours(stamp, ("science",)).tolist()
    [4.0]
    """
    image = np.nan_to_num(stamps[..., list(layers).index("science") if "science" in layers else 0].astype(float))
    image = np.abs(image - np.median(image, axis=(1, 2), keepdims=True))
    y, x = np.mgrid[: image.shape[1], : image.shape[2]] - (image.shape[1] - 1) / 2
    radius = np.hypot(y, x)
    far = image[:, radius > min(FAR_PIXELS, image.shape[1] / 2 - 1)].max(axis=1)
    return np.asarray(far / np.maximum(image[:, radius <= CORE_PIXELS].max(axis=1), 1e-12))


def noticeable_loss(n: int, n_alone: int, alpha: float) -> float | None:
    """Smallest loss, as a fraction of the rows, that McNemar's one-sided exact test detects with the power `POWER`.

    Parameters
    ----------
    n : int
        Number of rows.
    n_alone : int
        Number of rows that only one of the two models gets wrong.
    alpha : float
        Significance level of the test.

    Returns
    -------
    float or None
        None if the test would not detect the loss of all rows.

    Examples
    --------
    >>> round(noticeable_loss(400, 4, 0.01), 3)
    0.034
    """
    losses = np.geomspace(0.5 / max(n, 1), 1.0, N_LOSSES).tolist()
    place = bisect_left(losses, POWER, key=lambda loss: _power(n, n_alone / max(n, 1) / 2, loss, alpha))
    return losses[place] if place < N_LOSSES else None


def _power(n: int, each: float, loss: float, alpha: float) -> float:
    """Power of the test for a loss, if each model alone is wrong on a fraction `each` of the rows by chance."""
    from scipy.stats import binom

    alone = min(2 * each + loss, 1.0)
    counts = np.arange(binom.ppf(1e-6, n, alone), binom.ppf(1 - 1e-6, n, alone) + 1)
    chance = binom.pmf(counts, n, alone)
    critical = binom.isf(alpha, counts, 0.5) + 1  # smallest count with a p-value of at most alpha
    return float((chance * binom.sf(critical - 1, counts, (each + loss) / alone)).sum())


def _tell_power(loss: float | None) -> str:
    return "no loss would be noticed" if loss is None else f"would notice a loss of {100 * loss:.1f} % with 80 %"


def check_slices(
    rows: pd.DataFrame, wrong: np.ndarray, wrong_before: np.ndarray, limits: Limits, *, against: str = HOLDER
) -> Iterator[Check]:
    """Compare the wrong calls of two models on the same rows, slice by slice.

    A slice fails if the new model alone is wrong on significantly more rows than the other model alone (McNemar's exact
    one-sided test at the level `alpha`).

    Parameters
    ----------
    rows : DataFrame
        (n,) test rows.
    wrong, wrong_before : ndarray of bool
        (n,) True where the new model, or the holder, is wrong, each at its own threshold.
    limits : Limits
        Significance level and fewest rows.
    against : str
        Name of the other model, for the text.

    Yields
    ------
    Check
        One check for each slice.

    Examples
    --------
    >>> rows, wrong = pd.DataFrame({"label": np.ones(400)}), np.arange(400) < 9
    >>> [check.passed for check in check_slices(rows, wrong, np.zeros(400, bool), Limits())]
    [False]
    """
    from scipy.stats import binomtest

    for name, inside in declared_slices(rows).items():
        n, new, old = int(inside.sum()), int(wrong[inside].sum()), int(wrong_before[inside].sum())
        only_new, only_old = (int((a & ~b & inside).sum()) for a, b in ((wrong, wrong_before), (wrong_before, wrong)))
        both = only_new + only_old
        chance = float(binomtest(only_new, both, alternative="greater").pvalue) if both else 1.0
        passed = n < limits.min_rows or chance > limits.alpha
        loss = noticeable_loss(n, both, limits.alpha) if n >= limits.min_rows else None
        text = (
            f"{name}: {new} of {n} wrong, {against} {old}; wrong alone {only_new} against {only_old} (p {chance:.4f}; "
            f"{_tell_power(loss) if n >= limits.min_rows else 'too few rows to decide'})"
        )
        numbers: dict[str, Any] = {"n": n, "wrong": new, "wrong_before": old}
        numbers |= {"only_new": only_new, "only_old": only_old, "p": chance}
        numbers |= {"noticeable_loss": loss, "against": against}
        yield Check(name, passed, text, numbers)


def check_auc(
    labels: np.ndarray, scores: np.ndarray, scores_before: np.ndarray, *, rows: pd.DataFrame | None = None,
    against: str = HOLDER,
) -> Check:  # fmt: skip
    """Compare areas under the ROC curves; fails if the 95 % interval of the difference is below zero.

    Parameters
    ----------
    labels, scores, scores_before : ndarray
        (n,) 1 real, 0 bogus; scores of the new and of the other model.
    rows : DataFrame, optional
        (n,) image_id and object_id: rows of the same image or object are not independent.
    against : str
        Name of the other model, for the text.

    Returns
    -------
    Check

    Examples
    --------
    >>> labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])
    >>> check_auc(labels, scores, scores).passed
    True
    """
    both = compare_auc(labels, scores, scores_before, rows=rows)
    loss = (Z_95 + Z_POWER) / Z_95 * (both.difference_high - both.difference_low) / 2
    text = (
        f"AUC {both.auc_a:.4f}, {against} {both.auc_b:.4f} (difference {both.difference:+.4f}, 95 % "
        f"{both.difference_low:+.4f} to {both.difference_high:+.4f}; would notice a loss of {loss:.4f} with 80 %)"
    )
    numbers = asdict(both) | {"noticeable_loss": loss, "against": against}
    return Check("AUC", not both.difference_high < 0, text, numbers)


def check_robustness(found: Mapping[str, Any], found_before: Mapping[str, Any], limits: Limits) -> Iterator[Check]:
    """Compare the fractions of clear detections whose call changes with a disturbance far from the source.

    Fails if more than `max_changed` of them change, and significantly more than for the holder (Fisher's exact test).

    Parameters
    ----------
    found, found_before : mapping
        real and bogus, each from `metrics.measure_robustness`, of the new model and of the holder.
    limits : Limits
        Significance level, fewest rows and largest fraction that always passes.

    Yields
    ------
    Check
        One check for real and one for bogus detections.

    Examples
    --------
    >>> found = {kind: {"changed": 0, "n": 100} for kind in ("real", "bogus")}
    >>> [check.passed for check in check_robustness(found, found, Limits())]
    [True, True]
    """
    from scipy.stats import fisher_exact

    for kind in ("real", "bogus"):
        (new, n), (old, n_old) = ((one[kind]["changed"], one[kind]["n"]) for one in (found, found_before))
        chance = float(fisher_exact([[new, n - new], [old, n_old - old]], alternative="greater").pvalue)
        passed = min(n, n_old) < limits.min_rows or chance > limits.alpha or new <= limits.max_changed * n
        low, high = wilson_interval(new, n) or (0.0, 1.0)
        text = (
            f"robustness: a hot pixel changes {new} of {n} clear {kind} calls ({100 * low:.1f} to {100 * high:.1f} %), "
            f"{HOLDER} {old} of {n_old} (p {chance:.4f})"
        )
        numbers = {"n": n, "changed": new, "n_before": n_old, "changed_before": old, "p": chance}
        yield Check(f"robustness of {kind}", passed, text, numbers)


def check_calibration(labels: np.ndarray, probability: np.ndarray, limits: Limits) -> Check:
    """Compare the calibration error with that of perfectly calibrated scores; fails above it and above `max_ece`.

    Parameters
    ----------
    labels, probability : ndarray
        (n,) 1 real, 0 bogus; calibrated scores.
    limits : Limits
        Significance level and largest error that always passes.

    Returns
    -------
    Check

    Examples
    --------
    >>> check_calibration(np.array([0, 1] * 50), np.full(100, 0.5), Limits()).passed
    True
    """
    ece = float(measure_calibration(labels, probability)["ece"])
    rng = np.random.default_rng(0)
    expected, limit = expect_calibration(probability, n_draws=N_DRAWS, rng=rng, chance=limits.alpha)
    allowed = max(limit or 0.0, limits.max_ece)
    text = f"calibration error {ece:.4f}, by chance {expected or 0.0:.4f} of {len(labels)} rows, allowed {allowed:.4f}"
    numbers = {"ece": ece, "expected": expected, "allowed": allowed, "max_ece": limits.max_ece}
    return Check("calibration", ece <= allowed, text, numbers)


def check_parity(scores: np.ndarray, expected: np.ndarray, *, against: str = "file", tolerance: float = 1e-6) -> Check:
    """Compare scores of the service with expected scores.

    Parameters
    ----------
    scores, expected : ndarray
        (n,) scores.
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
