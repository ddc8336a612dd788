"""Checks before a model takes another's place: not worse on any declared slice of the same rows, and calibrated.

A check that finds no loss tells how large a loss it would have noticed: without that, passing says nothing.
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
"""Chance with which a check is to notice a loss, and its normal quantile."""
N_DRAWS, N_LOSSES = 1000, 200
BRIGHT_RATIO = 30.0
"""A neighbour is bright from so many times the source's own peak: there the norm of a layer goes wrong."""
CORE_PIXELS, FAR_PIXELS = 2.0, 9.0
HOLDER = "the holder"


@dataclass(frozen=True)
class Limits:
    """Limits of the promotion checks.

    Attributes
    ----------
    alpha : float
        Chance at which a worse result counts as worse and not as bad luck; of each slice.
    max_ece : float
        Calibration error that is tolerated in any case; a larger one fails where chance does not explain it.
    max_changed : float
        Fraction of clear calls that a disturbance far from the source may change in any case; a larger one must not be
        worse than the holder's.
    min_rows : int
        Slices with fewer rows are reported but decide nothing.
    """

    alpha: float = DECIDE.alpha
    max_ece: float = DECIDE.max_ece
    max_changed: float = DECIDE.max_changed
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
    """Mask, (n,) of bool, of each slice: all, faint, nuclear, bright neighbour, edge, each telescope, each metalabel.

    Parameters
    ----------
    rows : DataFrame
        Test rows: snr, host_offset_arcsec, neighbour_ratio (from `measure_neighbours`), missing_fraction, ut,
        metalabel; a column that is absent gives no slice.
    """
    slices: dict[str, np.ndarray] = {"all rows": np.ones(len(rows), bool)}
    if "snr" in rows:
        slices[f"faint (S/N {DETECTABLE_SNR:g} to {FAINT_SNR:g})"] = is_faint(_numbers(rows, "snr"))
    if "host_offset_arcsec" in rows:
        nuclear = is_nuclear(_numbers(rows, "host_offset_arcsec"))
        slices[f"nuclear (within {NUCLEAR_ARCSEC:g} arcsec)"] = nuclear
    if "neighbour_ratio" in rows:
        slices[f"bright neighbour ({BRIGHT_RATIO:g} times the source)"] = (
            _numbers(rows, "neighbour_ratio") > BRIGHT_RATIO
        )
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
    """Brightest pixel far from the source, in units of the source's own peak.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    layers : sequence of str
        Names of the layers; science is measured, else the first.

    Returns
    -------
    ndarray
        (n,), both above the median of the stamp.
    """
    image = np.nan_to_num(stamps[..., list(layers).index("science") if "science" in layers else 0].astype(float))
    image = np.abs(image - np.median(image, axis=(1, 2), keepdims=True))
    y, x = np.mgrid[: image.shape[1], : image.shape[2]] - (image.shape[1] - 1) / 2
    radius = np.hypot(y, x)
    far = image[:, radius > min(FAR_PIXELS, image.shape[1] / 2 - 1)].max(axis=1)
    return np.asarray(far / np.maximum(image[:, radius <= CORE_PIXELS].max(axis=1), 1e-12))


def noticeable_loss(n: int, n_alone: int, alpha: float) -> float | None:
    """Smallest loss, as a fraction of the rows, that McNemar's one-sided exact test notices with a chance of `POWER`.

    Parameters
    ----------
    n : int
        Rows.
    n_alone : int
        Rows on which just one of two equal models is wrong: so many as were seen.
    alpha : float
        Of the test.

    Returns
    -------
    float or None
        None where the test would not even notice if all rows were lost.

    Examples
    --------
    >>> round(noticeable_loss(400, 4, 0.01), 3)
    0.034
    """
    losses = np.geomspace(0.5 / max(n, 1), 1.0, N_LOSSES).tolist()
    place = bisect_left(losses, POWER, key=lambda loss: _power(n, n_alone / max(n, 1) / 2, loss, alpha))
    return losses[place] if place < N_LOSSES else None


def _power(n: int, each: float, loss: float, alpha: float) -> float:
    """Chance that the test notices a loss, where both are wrong alone on a fraction `each` of the rows by chance."""
    from scipy.stats import binom

    alone = min(2 * each + loss, 1.0)
    counts = np.arange(binom.ppf(1e-6, n, alone), binom.ppf(1 - 1e-6, n, alone) + 1)
    chance = binom.pmf(counts, n, alone)
    critical = binom.isf(alpha, counts, 0.5) + 1  # fewest that have a p-value of at most alpha
    return float((chance * binom.sf(critical - 1, counts, (each + loss) / alone)).sum())


def _tell_power(loss: float | None) -> str:
    return "no loss would be noticed" if loss is None else f"would notice a loss of {100 * loss:.1f} % with 80 %"


def check_slices(
    rows: pd.DataFrame, wrong: np.ndarray, wrong_before: np.ndarray, limits: Limits, *, against: str = HOLDER
) -> Iterator[Check]:
    """Compare wrong calls with another model's, slice by slice, on the same rows.

    A slice fails where the new model is wrong alone so much more often than the other is that chance gives it at most
    `alpha` (McNemar's exact test, one-sided).

    Parameters
    ----------
    rows : DataFrame
        (n,) test rows.
    wrong, wrong_before : ndarray of bool
        (n,) True where the new model, or the holder, is wrong, each at its own threshold.
    limits : Limits
        `alpha`, the largest chance of a false alarm.
    against : str
        Name of the other model, for the text.
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
        numbers: dict[str, Any] = {
            "n": n,
            "wrong": new,
            "wrong_before": old,
            "only_new": only_new,
            "only_old": only_old,
            "p": chance,
        }
        numbers |= {"p": chance, "noticeable_loss": loss, "against": against}
        yield Check(name, passed, text, numbers)


def check_auc(
    labels: np.ndarray, scores: np.ndarray, scores_before: np.ndarray, *, rows: pd.DataFrame | None = None,
    against: str = HOLDER,
) -> Check:  # fmt: skip
    """Compare areas under the ROC curves: fails where all of the 95 % interval of the difference is below zero.

    Parameters
    ----------
    labels, scores, scores_before : ndarray
        (n,) 1 real, 0 bogus; scores of the candidate and of the other model.
    rows : DataFrame, optional
        (n,) image_id and object_id: rows of the same image or object are not independent.
    against : str
        Name of the other model, for the text.

    Returns
    -------
    Check
    """
    both = compare_auc(labels, scores, scores_before, rows=rows)
    loss = (Z_95 + Z_POWER) / Z_95 * (both.difference_high - both.difference_low) / 2
    text = (
        f"AUC {both.auc_a:.4f}, {against} {both.auc_b:.4f} (difference {both.difference:+.4f}, 95 % "
        f"{both.difference_low:+.4f} to {both.difference_high:+.4f}; would notice a loss of {loss:.4f} with 80 %)"
    )
    return Check(
        "AUC", not both.difference_high < 0, text, asdict(both) | {"noticeable_loss": loss, "against": against}
    )


def check_robustness(found: Mapping[str, Any], found_before: Mapping[str, Any], limits: Limits) -> Iterator[Check]:
    """Compare the fractions of clear detections whose call a disturbance far from the source changes.

    Fails where more than `max_changed` of them change, and more than the holder's by so much that chance gives it at
    most `alpha` (Fisher's exact test).

    Parameters
    ----------
    found, found_before : mapping
        real and bogus, each as `robustness.measure_robustness` returns them, of the new model and of the holder.
    limits : Limits
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
    """Compare the calibration error with that of perfectly calibrated scores of as many rows.

    It fails where it is above `max_ece` and chance gives so much at most in `alpha` of all cases.

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
    rng = np.random.default_rng(0)
    expected, limit = expect_calibration(probability, n_draws=N_DRAWS, rng=rng, chance=limits.alpha)
    allowed = max(limit or 0.0, limits.max_ece)
    text = f"calibration error {ece:.4f}, by chance {expected or 0.0:.4f} of {len(labels)} rows, allowed {allowed:.4f}"
    return Check(
        "calibration",
        ece <= allowed,
        text,
        {"ece": ece, "expected": expected, "allowed": allowed, "max_ece": limits.max_ece},
    )


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
