"""Metrics of a classifier. Undefined numbers are None, with the reason in a note.

References
----------
Geifman & El-Yaniv 2017 (arXiv:1705.08500): risk against coverage and the area under it (AURC).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.params import EvaluateParams
from gotorb.evaluation.intervals import (
    Groups,
    area_under_roc,
    auc_interval,
    count_by_score,
    find_groups,
    wilson_interval,
)
from gotorb.evaluation.label_errors import correct_fpr
from gotorb.evaluation.thresholds import Metrics, Night, fnr_at_fpr, make_bins, measure_errors
from gotorb.stamps.batches import FULL_WELL, KINDS, USUAL_FWHM, disturb_stamps

EVALUATE = EvaluateParams()
SNR_EDGES = (0, 5, 7, 10, 20)
FPRS = (0.005, 0.01, 0.02, 0.05, 0.10)
DETECTABLE_SNR, FAINT_SNR, CLEAR_SNR = 5.0, 10.0, 7.0
"""Lowest S/N of a detection, highest of a faint one, and lowest of a clear one."""
NUCLEAR_ARCSEC = 1.5
"""Largest distance of a nuclear source from the centre of its host."""
N_CALIBRATION_BINS = 10
MOST_DRAWN = 2_000_000
"""Labels drawn at a time."""
Score = Callable[[np.ndarray], np.ndarray]
CLEAR_REAL_SNR = 10.0
"""Lowest S/N of real rows in the robustness test, whose call a pixel far away must not change."""
LEVELS = (100.0, 1000.0, FULL_WELL)
"""Brightness of the added hot pixel in units of the difference's noise."""
MOST_ROWS = 200
"""Most rows of each kind in the robustness test."""


def measure_scores(
    rows: pd.DataFrame, threshold: float, *, n_bootstrap: int = EVALUATE.n_bootstrap, rng: np.random.Generator
) -> Metrics:
    """Measure scored rows.

    Parameters
    ----------
    rows : DataFrame
        label (1 or 0), score; for the intervals image_id and object_id; for the breakdowns metalabel, mag, ut,
        missing_fraction, snr, host_offset_arcsec and confidence.
    threshold : float
        Score at or above which a row is called real, chosen on other rows.
    n_bootstrap : int
        Draws for the expected calibration error.
    rng : Generator
        Generator of the draws.

    Returns
    -------
    dict
        Plain values for json: n_real, n_bogus, n_groups (independent images, objects or rows in the intervals), auc,
        auc_low, auc_high, average_precision, brier, ece, ece_expected (of perfectly calibrated scores), threshold,
        corrected (see `label_errors.correct_fpr`), at_threshold and at_half (see `measure_errors`), night (see
        `Night.expect`; at the default real fraction), fnr_at_fpr, by_metalabel and by_mag (at the threshold),
        by_metalabel_at_half and by_mag_at_half, by_telescope, by_edge, by_snr, by_host_offset (arcsec), by_tag (tags of
        annotators), retention (see `retention_curve`), notes.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.7, 0.9]})
    >>> found = measure_scores(rows, 0.5, n_bootstrap=10, rng=np.random.default_rng(1))
    >>> found["auc"], found["at_threshold"]["fpr"]
    (1.0, 0.5)
    """
    labels, scores = rows["label"].to_numpy(int), rows["score"].to_numpy(float)
    metrics: Metrics = {"n_real": int((labels == 1).sum()), "n_bogus": int((labels == 0).sum()), "threshold": threshold}
    groups = find_groups(rows)
    metrics |= {"n_groups": min((int(group.max()) + 1 for group in groups), default=len(rows))}
    metrics |= _ranking(labels, scores, groups)
    metrics |= measure_calibration(labels, scores)
    metrics |= {"ece_expected": expect_calibration(scores, n_draws=n_bootstrap, rng=rng)[0]}
    metrics |= {
        "corrected": correct_fpr(labels, scores, threshold),
        "at_threshold": measure_errors(labels, scores, threshold, groups=groups),
        "at_half": measure_errors(labels, scores, 0.5, groups=groups),
    }
    metrics["night"] = {"real_fraction": Night().real_fraction} | Night().expect(metrics["at_threshold"])
    mags, offsets = (
        make_bins(rows[name], width) if name in rows else None
        for name, width in (("mag", 1), ("host_offset_arcsec", 2))
    )
    by_group = partial(_by_group, labels, scores, groups)
    for name, names in (("by_metalabel", rows.get("metalabel")), ("by_mag", mags)):
        metrics[name] = by_group(names, threshold)
        metrics[f"{name}_at_half"] = by_group(names, 0.5)
    for name, names in (
        ("by_telescope", rows.get("ut")),
        ("by_edge", _edge_groups(rows.get("missing_fraction"))),
        ("by_snr", _snr_groups(rows.get("snr"))),
        ("by_host_offset", offsets),
    ):
        metrics[name] = by_group(names, threshold)
    if "tag" in rows:
        metrics["by_tag"] = by_group(rows["tag"], threshold)
    metrics["retention"] = _retention(rows, labels, scores, threshold)
    return rounded(metrics)


def _retention(rows: pd.DataFrame, labels: np.ndarray, scores: np.ndarray, threshold: float) -> Metrics | None:
    """Area under the error rate against the fraction kept, by confidence; None without rows."""
    if len(labels) == 0:
        return None
    curve = retention_curve((scores >= threshold) != (labels == 1), confidence_of(rows, threshold))
    return {"aurc": curve.aurc, "random_aurc": curve.random_aurc, "gain": curve.gain, "n": len(labels)}


def confidence_of(rows: pd.DataFrame, threshold: float) -> np.ndarray:
    """Confidence of each row: that of the posterior, or else the distance of the score from the threshold.

    Parameters
    ----------
    rows : DataFrame
        score, and confidence if known.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    ndarray
        (n,) confidences from 0 to 1.

    Examples
    --------
    >>> confidence_of(pd.DataFrame({"score": [0.5, 1.0, 0.0]}), 0.5).tolist()
    [0.0, 1.0, 1.0]
    """
    known = rows.get("confidence")
    if known is not None and known.notna().all():
        return known.to_numpy(float)
    scores = rows["score"].to_numpy(float)
    return np.where(scores >= threshold, (scores - threshold) / (1 - threshold), (threshold - scores) / threshold)


def _ranking(labels: np.ndarray, scores: np.ndarray, groups: Groups) -> Metrics:
    names = ("auc", "auc_low", "auc_high", "average_precision")
    if len(set(labels.tolist())) < 2:
        absent = "no rows" if len(labels) == 0 else "bogus rows only" if labels[0] == 0 else "real rows only"
        note = f"{absent}: AUC, average precision and FNR at fixed FPR are undefined"
        return dict.fromkeys(names) | {"fnr_at_fpr": {fpr_name(fpr): None for fpr in FPRS}, "notes": [note]}
    _, n_bogus, n_real = count_by_score(labels, scores)
    low, high = auc_interval(labels, scores, groups)
    values = (float(area_under_roc(n_bogus, n_real)), low, high, average_precision(labels, scores))
    at_fpr = {fpr_name(fpr): fnr_at_fpr(labels, scores, fpr) for fpr in FPRS}
    return dict(zip(names, values, strict=True)) | {"fnr_at_fpr": at_fpr, "notes": []}


def is_faint(snr: np.ndarray) -> np.ndarray:
    """Mask of faint sources: S/N of at least 5 and below 10.

    Parameters
    ----------
    snr : ndarray
        (n,) signal to noise; NaN where unknown.

    Returns
    -------
    ndarray of bool
        (n,).

    Examples
    --------
    >>> is_faint(np.array([4.9, 5.0, 9.9, 10.0, np.nan])).tolist()
    [False, True, True, False, False]
    """
    return (snr >= DETECTABLE_SNR) & (snr < FAINT_SNR)


def is_nuclear(offset: np.ndarray) -> np.ndarray:
    """Mask of nuclear sources: within 1.5 arcsec of the centre of the host.

    Parameters
    ----------
    offset : ndarray
        (n,) distance from the host's centre [arcsec]; NaN without a host.

    Returns
    -------
    ndarray of bool
        (n,).

    Examples
    --------
    >>> is_nuclear(np.array([0.0, 1.5, np.nan])).tolist()
    [True, False, False]
    """
    return offset < NUCLEAR_ARCSEC


def fpr_name(fpr: float) -> str:
    """Name of a false-positive rate, valid as part of a metric's name in MLflow.

    Parameters
    ----------
    fpr : float
        False-positive rate.

    Returns
    -------
    str
        Name in percent.

    Examples
    --------
    >>> fpr_name(0.005)
    '0_5_percent'
    """
    return f"{100 * fpr:g}_percent".replace(".", "_")


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of real rows: area under the steps of precision against recall.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> average_precision(np.array([0, 1, 1]), np.array([0.1, 0.8, 0.9]))
    1.0
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores))


def measure_calibration(labels: np.ndarray, scores: np.ndarray) -> Metrics:
    """Brier score and expected calibration error (mean gap between score and real fraction over ten bins of score).

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores from 0 to 1.

    Returns
    -------
    dict
        brier and ece; None without rows.

    Examples
    --------
    >>> found = measure_calibration(np.array([0, 0, 1, 1]), np.array([0.0, 0.0, 1.0, 1.0]))
    >>> found
    {'brier': 0.0, 'ece': 0.0}
    """
    if len(labels) == 0:
        return {"brier": None, "ece": None}
    table = reliability_table(labels, scores)
    gaps = (table["n"] * (table["fraction_real"] - table["mean_score"]).abs()).sum() / len(labels)
    return {"brier": float(((scores - labels) ** 2).mean()), "ece": float(gaps)}


def expect_calibration(
    scores: np.ndarray, *, n_draws: int, rng: np.random.Generator, chance: float = 0.05
) -> tuple[float | None, float | None]:
    """Expected calibration error of perfectly calibrated scores, by drawing labels with the scores as probabilities.

    Parameters
    ----------
    scores : ndarray
        (n,) scores from 0 to 1.
    n_draws : int
        Number of draws.
    rng : numpy.random.Generator
        Generator of the draws.
    chance : float
        Fraction of the draws above the limit.

    Returns
    -------
    expected, limit : float or None
        Mean of the draws, and the value that `chance` of them exceed; None without rows or draws.

    References
    ----------
    Broecker & Smith 2007 (Weather and Forecasting 22, 651): consistency resampling.

    Examples
    --------
    >>> expected, limit = expect_calibration(np.full(100, 0.5), n_draws=1000, rng=np.random.default_rng(1))
    >>> round(expected, 2), round(limit, 1)
    (0.04, 0.1)
    """
    if len(scores) == 0 or n_draws == 0:
        return None, None
    place = np.minimum((scores * N_CALIBRATION_BINS).astype(int), N_CALIBRATION_BINS - 1)
    inside = (place[:, None] == np.arange(N_CALIBRATION_BINS)).astype(float)
    expected, block = scores @ inside, max(1, MOST_DRAWN // len(scores))
    sums = [
        (rng.random((min(block, n_draws - done), len(scores))) < scores) @ inside for done in range(0, n_draws, block)
    ]
    drawn = np.abs(np.concatenate(sums) - expected).sum(axis=1) / len(scores)
    return float(drawn.mean()), float(np.quantile(drawn, 1 - chance))


def reliability_table(labels: np.ndarray, scores: np.ndarray, *, n_bins: int = N_CALIBRATION_BINS) -> pd.DataFrame:
    """Real fraction against score in bins of equal width; empty bins are left out.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores from 0 to 1.
    n_bins : int
        Number of bins from 0 to 1.

    Returns
    -------
    DataFrame
        mean_score, fraction_real, low, high (95 % Wilson), n.

    Examples
    --------
    >>> table = reliability_table(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), n_bins=2)
    >>> len(table)
    2
    """
    place = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    table = []
    for bin_ in np.unique(place):
        inside = place == bin_
        n_real, n = int(labels[inside].sum()), int(inside.sum())
        low, high = wilson_interval(n_real, n) or (np.nan, np.nan)
        table.append((float(scores[inside].mean()), n_real / n, low, high, n))
    return pd.DataFrame(table, columns=["mean_score", "fraction_real", "low", "high", "n"])


def _edge_groups(missing: pd.Series | None) -> pd.Series | None:
    """Group of each stamp by missing pixels: at an edge of the image, or behind a mask."""
    if missing is None:
        return None
    fraction = pd.to_numeric(missing, errors="coerce").to_numpy(float)
    names = np.select([fraction > 0, fraction == 0], ["pixels missing", "whole"], "")
    return pd.Series([str(name) or None for name in names], dtype=object)


def _snr_groups(snr: pd.Series | None) -> pd.Series | None:
    """Names of bins of S/N, None where it is unknown."""
    if snr is None:
        return None
    values = pd.to_numeric(snr, errors="coerce").to_numpy(float)
    names = [f"{low}-{high}" for low, high in pairwise(SNR_EDGES)] + [f"{SNR_EDGES[-1]}-"]
    place = np.clip(np.searchsorted(SNR_EDGES, np.nan_to_num(values), side="right") - 1, 0, len(names) - 1)
    return pd.Series([names[i] if np.isfinite(v) else None for i, v in zip(place, values, strict=True)], dtype=object)


def _by_group(
    labels: np.ndarray, scores: np.ndarray, groups: Groups, names: pd.Series | None, threshold: float
) -> Metrics:
    """Errors of each part of the rows, by name; `groups` are groups of dependent rows."""
    if names is None:
        return {}
    values = names.to_numpy(object)
    masks = {name: values == name for name in sorted({one for one in values if isinstance(one, str) and one})}
    return {
        name: measure_errors(labels[part], scores[part], threshold, groups=[group[part] for group in groups])
        for name, part in masks.items()
    }


def rounded(value: Any) -> Any:
    """Round the floats of nested values to six digits and convert numpy scalars, so that equal values give equal json.

    Parameters
    ----------
    value : object
        Numbers, text, numpy scalars, and dicts, lists and tuples of these.

    Returns
    -------
    object
        Plain values; None for floats that are not finite, lists for tuples.

    Examples
    --------
    >>> rounded({"auc": 0.99123456789, "n": 12})
    {'auc': 0.991235, 'n': 12}
    """
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), SCORE_DIGITS) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Retention:
    """Error rate of the most confident rows against their fraction.

    Attributes
    ----------
    kept : ndarray
        (n,) fraction of rows kept, ascending to 1.
    error : ndarray
        (n,) fraction of wrong calls among them, averaged over rows of equal confidence.
    aurc : float
        Mean of `error`.
    random_aurc : float
        The same for rows in random order: the error rate of all rows.
    gain : float or None
        Ratio of `random_aurc` to `aurc`; None without a wrong call.
    """

    kept: np.ndarray
    error: np.ndarray
    aurc: float
    random_aurc: float
    gain: float | None


def retention_curve(wrong: np.ndarray, confidence: np.ndarray) -> Retention:
    """Error rate against the fraction of rows kept.

    Parameters
    ----------
    wrong : ndarray of bool
        (n,) True where the call is wrong; n at least 1.
    confidence : ndarray
        (n,) confidence of each call.

    Returns
    -------
    Retention

    Examples
    --------
    >>> curve = retention_curve(np.array([True, False, False, False]), np.array([0.1, 0.9, 0.8, 0.7]))
    >>> curve.error.tolist(), curve.gain
    ([0.0, 0.0, 0.0, 0.25], 4.0)
    """
    order = np.argsort(-confidence, kind="stable")
    hits, sure = np.asarray(wrong, float)[order], confidence[order]
    group = np.cumsum(np.concatenate([[True], sure[1:] != sure[:-1]])) - 1
    hits = (np.bincount(group, hits) / np.bincount(group))[group]  # the order within a tie has no meaning
    kept = np.arange(1, len(hits) + 1)
    error = np.cumsum(hits) / kept
    aurc, everything = float(error.mean()), float(hits.mean())
    return Retention(kept / len(hits), error, aurc, everything, everything / aurc if aurc > 0 else None)


def find_clear(rows: pd.DataFrame, scores: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Indices of clear detections with the right call.

    Parameters
    ----------
    rows : DataFrame
        label, and snr if known.
    scores : ndarray
        (n,) scores.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    dict of ndarray
        real: real rows of S/N at least `CLEAR_REAL_SNR`; bogus: bogus rows that score at most half the threshold.

    Examples
    --------
    >>> found = find_clear(pd.DataFrame({"label": [1, 1, 0], "snr": [20, 6, 6]}), np.array([0.9, 0.9, 0.1]), 0.5)
    >>> {name: rows.tolist() for name, rows in found.items()}
    {'real': [0], 'bogus': [2]}
    """
    labels = rows["label"].to_numpy(int)
    snr = pd.to_numeric(rows["snr"], errors="coerce").to_numpy(float) if "snr" in rows else np.full(len(rows), np.inf)
    real = (labels == 1) & (np.nan_to_num(snr, nan=np.inf) >= CLEAR_REAL_SNR) & (scores >= threshold)
    return {
        "real": np.flatnonzero(real)[:MOST_ROWS],
        "bogus": np.flatnonzero((labels == 0) & (scores <= threshold / 2))[:MOST_ROWS],
    }


def measure_robustness(
    score: Score, stamps: np.ndarray, layers: tuple[str, ...], *, threshold: float, fwhm: float = USUAL_FWHM, seed: int
) -> Metrics:
    """Fraction of stamps whose call changes with a hot pixel beyond three PSF widths, at any of `LEVELS`.

    Parameters
    ----------
    score : callable
        Function from stamps to scores (n,).
    stamps : ndarray
        (n, size, size, n_layers) stamps of clear detections.
    layers : tuple of str
        Layers of the stamps.
    threshold : float
        Score at or above which a stamp is called real.
    fwhm : float
        Width of the PSF, pixels.
    seed : int
        Seed of the positions.

    Returns
    -------
    dict
        n, changed, fraction, low, high (95 % Wilson) and by_level for hot pixels; by_kind, the number of changed calls
        for each kind of disturbance, with random brightness.

    Examples
    --------
    >>> stamps = np.zeros((4, 21, 21, 1), np.float32)
    >>> brightest = lambda stamps: (stamps.max(axis=(1, 2, 3)) > 50).astype(float)
    >>> measure_robustness(brightest, stamps, ("difference",), threshold=0.5, seed=1)["changed"]
    0
    """
    before = score(stamps) >= threshold if len(stamps) else np.empty(0, bool)

    def count(kind: str, level: float | None) -> np.ndarray:
        rng = np.random.default_rng([seed, KINDS.index(kind), int(level or 0)])
        disturbed = disturb_stamps(stamps, layers, kind, level=level, fwhm=fwhm, rng=rng)
        return np.asarray((score(disturbed) >= threshold) != before) if len(stamps) else before

    moved = {level: count("hot_pixel", level) for level in LEVELS}
    n, changed = len(stamps), int(np.any(list(moved.values()), axis=0).sum())
    low, high = wilson_interval(changed, n) or (None, None)
    return {
        "n": n, "changed": changed, "fraction": changed / n if n else None, "low": low, "high": high,
        "by_level": {f"{level:g}": int(part.sum()) for level, part in moved.items()},
        "by_kind": {kind: int(count(kind, None).sum()) for kind in KINDS},
    }  # fmt: skip
