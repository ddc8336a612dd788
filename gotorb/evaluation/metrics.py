"""The numbers by which a model is judged. What is undefined is None, and a note says why."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from gotorb.evaluation.intervals import area_under_roc, bootstrap_auc, count_by_score, wilson_interval
from gotorb.evaluation.retention import retention_curve
from gotorb.evaluation.thresholds import fnr_at_fpr

SNR_EDGES = (0, 5, 7, 10, 20)
FPRS = (0.005, 0.01, 0.02, 0.05, 0.10)
N_CALIBRATION_BINS = 10
N_DIGITS = 6
Metrics = dict[str, Any]


def measure_scores(
    rows: pd.DataFrame, threshold: float, *, n_bootstrap: int = 500, rng: np.random.Generator
) -> Metrics:
    """Measure the scores of some rows.

    Parameters
    ----------
    rows : DataFrame
        Columns label (1 or 0), score, and for the breakdowns metalabel, mag, ut, missing_fraction, snr,
        host_offset_arcsec and confidence.
    threshold : float
        Score at or above which a row is called real, chosen elsewhere.
    n_bootstrap : int
        Resamples for the interval of the AUC.
    rng : Generator
        Source of the resamples.

    Returns
    -------
    dict
        Plain values for json: n_real, n_bogus, auc, auc_low, auc_high, average_precision, brier, ece,
        threshold, at_threshold and at_half (see `measure_errors`), fnr_at_fpr, by_metalabel and by_mag (at
        the threshold), by_metalabel_at_half and by_mag_at_half, by_telescope, by_edge, by_snr and by_host_offset
        (arcsec), retention (see `retention.retention_curve`), notes.
    """
    labels, scores = rows["label"].to_numpy(int), rows["score"].to_numpy(float)
    metrics: Metrics = {"n_real": int((labels == 1).sum()), "n_bogus": int((labels == 0).sum()), "threshold": threshold}
    metrics |= _ranking(labels, scores, n_bootstrap, rng)
    metrics |= measure_calibration(labels, scores)
    metrics |= {
        "at_threshold": measure_errors(labels, scores, threshold),
        "at_half": measure_errors(labels, scores, 0.5),
    }
    mags, offsets = (
        make_bins(rows[name], width) if name in rows else None
        for name, width in (("mag", 1), ("host_offset_arcsec", 2))
    )
    for name, groups in (("by_metalabel", rows.get("metalabel")), ("by_mag", mags)):
        metrics[name] = _by_group(labels, scores, groups, threshold)
        metrics[f"{name}_at_half"] = _by_group(labels, scores, groups, 0.5)
    for name, groups in (
        ("by_telescope", rows.get("ut")),
        ("by_edge", _edge_groups(rows.get("missing_fraction"))),
        ("by_snr", _snr_groups(rows.get("snr"))),
        ("by_host_offset", offsets),
    ):
        metrics[name] = _by_group(labels, scores, groups, threshold)
    metrics["retention"] = _retention(rows, labels, scores, threshold)
    return rounded(metrics)


def _retention(rows: pd.DataFrame, labels: np.ndarray, scores: np.ndarray, threshold: float) -> Metrics | None:
    """Area under the error rate against the fraction kept, by confidence; None without rows."""
    if len(labels) == 0:
        return None
    curve = retention_curve((scores >= threshold) != (labels == 1), confidence_of(rows, threshold))
    return {"aurc": curve.aurc, "random_aurc": curve.random_aurc, "gain": curve.gain, "n": len(labels)}


def confidence_of(rows: pd.DataFrame, threshold: float) -> np.ndarray:
    """(n,) confidence of the posterior; without one, how far the score is from the threshold."""
    known = rows.get("confidence")
    if known is not None and known.notna().all():
        return known.to_numpy(float)
    scores = rows["score"].to_numpy(float)
    return np.where(scores >= threshold, (scores - threshold) / (1 - threshold), (threshold - scores) / threshold)


def measure_errors(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Metrics:
    """Error rates at one threshold, with counts and 95 % Wilson intervals.

    Returns
    -------
    dict
        n_bogus, n_false_positive, fpr, fpr_low, fpr_high and n_real, n_false_negative, fnr, fnr_low, fnr_high,
        and mme, the mean of fpr and fnr.
    """
    called_real = scores >= threshold
    errors = _rate("fpr", int((called_real & (labels == 0)).sum()), int((labels == 0).sum()))
    errors |= _rate("fnr", int((~called_real & (labels == 1)).sum()), int((labels == 1).sum()))
    both = errors["fpr"] is not None and errors["fnr"] is not None
    return errors | {"mme": (errors["fpr"] + errors["fnr"]) / 2 if both else None}


def _rate(name: str, n_errors: int, n: int) -> Metrics:
    low, high = wilson_interval(n_errors, n) or (None, None)
    of, errors = {"fpr": ("n_bogus", "n_false_positive"), "fnr": ("n_real", "n_false_negative")}[name]
    return {of: n, errors: n_errors, name: n_errors / n if n else None, f"{name}_low": low, f"{name}_high": high}


def _ranking(labels: np.ndarray, scores: np.ndarray, n_bootstrap: int, rng: np.random.Generator) -> Metrics:
    names = ("auc", "auc_low", "auc_high", "average_precision")
    if len(set(labels.tolist())) < 2:
        absent = "no rows" if len(labels) == 0 else "bogus rows only" if labels[0] == 0 else "real rows only"
        note = f"{absent}: AUC, average precision and FNR at fixed FPR are undefined"
        return dict.fromkeys(names) | {"fnr_at_fpr": {fpr_name(fpr): None for fpr in FPRS}, "notes": [note]}
    _, n_bogus, n_real = count_by_score(labels, scores)
    low, high = bootstrap_auc(labels, scores, n_bootstrap=n_bootstrap, rng=rng)
    values = (float(area_under_roc(n_bogus, n_real)), low, high, average_precision(labels, scores))
    at_fpr = {fpr_name(fpr): fnr_at_fpr(labels, scores, fpr) for fpr in FPRS}
    return dict(zip(names, values, strict=True)) | {"fnr_at_fpr": at_fpr, "notes": []}


def fpr_name(fpr: float) -> str:
    """Name of a false-positive rate that tracking servers accept in the name of a metric.

    >>> fpr_name(0.005)
    '0_5_percent'
    """
    return f"{100 * fpr:g}_percent".replace(".", "_")


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the steps of precision against recall, real rows being sought."""
    _, n_bogus, n_real = count_by_score(labels, scores)
    found, called = np.cumsum(n_real[::-1]), np.cumsum((n_real + n_bogus)[::-1])
    return float((n_real[::-1] * found / called).sum() / n_real.sum())


def measure_calibration(labels: np.ndarray, scores: np.ndarray) -> Metrics:
    """Brier score, and expected calibration error: mean gap of score and real fraction over ten bins of score."""
    if len(labels) == 0:
        return {"brier": None, "ece": None}
    table = reliability_table(labels, scores)
    gaps = (table["n"] * (table["fraction_real"] - table["mean_score"]).abs()).sum() / len(labels)
    return {"brier": float(((scores - labels) ** 2).mean()), "ece": float(gaps)}


def reliability_table(labels: np.ndarray, scores: np.ndarray, *, n_bins: int = N_CALIBRATION_BINS) -> pd.DataFrame:
    """Real fraction against score, in equal bins of score; empty bins are left out.

    Returns
    -------
    DataFrame
        Columns mean_score, fraction_real, low, high (95 % Wilson), n.
    """
    place = np.minimum((scores * n_bins).astype(int), n_bins - 1)
    table = []
    for bin_ in np.unique(place):
        inside = place == bin_
        n_real, n = int(labels[inside].sum()), int(inside.sum())
        low, high = wilson_interval(n_real, n) or (np.nan, np.nan)
        table.append((float(scores[inside].mean()), n_real / n, low, high, n))
    return pd.DataFrame(table, columns=["mean_score", "fraction_real", "low", "high", "n"])


def make_bins(values: pd.Series, width: int) -> pd.Series:
    """Names of bins such as "18-19", None where the value is unknown."""
    floor = np.floor(pd.to_numeric(values, errors="coerce").to_numpy(float) / width) * width
    return pd.Series([f"{int(v)}-{int(v) + width}" if np.isfinite(v) else None for v in floor], dtype=object)


def _edge_groups(missing: pd.Series | None) -> pd.Series | None:
    """Whether a stamp lacks pixels: at an edge of the image, or behind a mask."""
    if missing is None:
        return None
    lacking = pd.to_numeric(missing, errors="coerce").to_numpy(float)
    names = np.select([lacking > 0, lacking == 0], ["pixels missing", "whole"], "")
    return pd.Series([str(name) or None for name in names], dtype=object)


def _snr_groups(snr: pd.Series | None) -> pd.Series | None:
    """Names of bins of signal to noise, None where it is unknown."""
    if snr is None:
        return None
    values = pd.to_numeric(snr, errors="coerce").to_numpy(float)
    names = [f"{low}-{high}" for low, high in pairwise(SNR_EDGES)] + [f"{SNR_EDGES[-1]}-"]
    place = np.clip(np.searchsorted(SNR_EDGES, np.nan_to_num(values), side="right") - 1, 0, len(names) - 1)
    return pd.Series([names[i] if np.isfinite(v) else None for i, v in zip(place, values, strict=True)], dtype=object)


def _by_group(labels: np.ndarray, scores: np.ndarray, groups: pd.Series | None, threshold: float) -> Metrics:
    if groups is None:
        return {}
    names = groups.to_numpy(object)
    known = sorted({name for name in names if isinstance(name, str) and name})
    return {name: measure_errors(labels[names == name], scores[names == name], threshold) for name in known}


def rounded(value: Any) -> Any:
    """Round every float in a tree to six digits and make numpy values plain, for equal bytes on disk."""
    if isinstance(value, dict):
        return {str(key): rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), N_DIGITS) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
