"""Which figures an evaluation has, and which rows are shown as examples."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gotorb.dataset.store import Dataset
from gotorb.evaluation.curves import plot_error_rates, plot_roc
from gotorb.evaluation.figures import (
    plot_confusion,
    plot_history,
    plot_recovery,
    plot_reliability,
    plot_retention,
    plot_scores,
)
from gotorb.evaluation.pictures import plot_posteriors, plot_stamps

N_EXAMPLES = 8
N_POSTERIORS = 2
OLD_NAMES = {"realbogus": "old random forest", "cnn_realbogus": "old CNN"}


def draw_figures(predictions: pd.DataFrame, metrics: dict[str, Any], meta: dict[str, Any]) -> dict[str, Figure]:
    """Draw the figures of scores; those that need a class or magnitudes that are absent are left out.

    Parameters
    ----------
    predictions : DataFrame
        Scored rows of one part; those of unknown label are ignored.
    metrics : dict
        Their metrics.
    meta : dict
        The model's record, for its history.
    """
    rows = predictions[predictions["label"].isin((0, 1))]
    labels, scores, threshold = rows["label"].to_numpy(int), rows["score"].to_numpy(float), metrics["threshold"]
    figures = {"history": plot_history(meta["history"], meta["best_epoch"])}
    if len(rows):
        figures["confusion"] = plot_confusion(labels, scores, threshold)
        figures["scores"] = plot_scores(labels, scores, threshold)
        figures["reliability"] = plot_reliability(labels, scores, rows.get("probability"))
        figures["retention"] = plot_retention(rows, threshold)
    if len(set(labels.tolist())) == 2:
        figures["error_rates"] = plot_error_rates(rows, threshold)
        figures["roc"] = plot_roc(labels, _named_scores(rows, meta["model"]))
    real = rows[rows["label"] == 1]
    mags = pd.to_numeric(real["mag"], errors="coerce").to_numpy(float)
    if np.isfinite(mags).any():
        figures["recovery"] = plot_recovery(mags, real["score"].to_numpy(float), threshold)
    offsets = pd.to_numeric(real.get("host_offset_arcsec"), errors="coerce") if "host_offset_arcsec" in real else None
    if offsets is not None and offsets.notna().any():
        figures["recovery_offset"] = plot_recovery(
            offsets.to_numpy(float), real["score"].to_numpy(float), threshold,
            width=1.0, label="distance from the host's centre [arcsec]",
        )  # fmt: skip
    return figures


def _named_scores(rows: pd.DataFrame, model: str) -> dict[str, np.ndarray]:
    named = {model: rows["score"].to_numpy(float)}
    for column, name in OLD_NAMES.items():
        if column in rows:
            named[name] = pd.to_numeric(rows[column], errors="coerce").to_numpy(float)
    return named


def draw_stamps(
    data: Dataset,
    numbers: np.ndarray,
    predictions: pd.DataFrame,
    samples: np.ndarray | None,
    *,
    threshold: float,
    seed: int,
) -> dict[str, Figure]:
    """Draw example stamps: random ones, wrongly called ones, and the least and most confident posteriors.

    Parameters
    ----------
    data : Dataset
        Where the stamps are; all their layers are shown.
    numbers : ndarray of int
        (n,) row numbers.
    predictions : DataFrame
        (n,) what was predicted for them.
    samples : ndarray, optional
        (n, n_samples) posterior samples.
    threshold : float
        Score at or above which a row is called real.
    seed : int
        Chooses the random examples.
    """
    figures = {}
    for name, chosen, title in (
        ("examples", random_rows(predictions, np.random.default_rng(seed)), "Randomly chosen stamps"),
        ("misclassified", misclassified_rows(predictions, threshold), f"Wrongly called at threshold {threshold:.3f}"),
    ):
        if len(chosen):
            stamps, captions = (
                data.read_stamps(numbers[chosen]),
                [describe_row(predictions.iloc[row]) for row in chosen],
            )
            figures[name] = plot_stamps(stamps, data.layers, captions, title=title)
    if samples is not None and len(predictions):
        chosen = confidence_extremes(predictions)
        captions = [describe_posterior(predictions.iloc[row]) for row in chosen]
        stamps = data.read_stamps(numbers[chosen])
        figures["posteriors"] = plot_posteriors(stamps, data.layers, samples[chosen], captions, threshold=threshold)
    return figures


def random_rows(predictions: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Places of up to eight rows, half of them real where there are enough, real ones first."""
    places = [rng.permutation(np.flatnonzero(predictions["label"] == label))[: N_EXAMPLES // 2] for label in (1, 0)]
    return np.concatenate(places)


def misclassified_rows(predictions: pd.DataFrame, threshold: float) -> np.ndarray:
    """Places of up to eight wrongly called rows: the worst missed real ones, then the worst accepted bogus ones."""
    labels, scores = predictions["label"].to_numpy(), predictions["score"].to_numpy(float)
    missed = np.flatnonzero((labels == 1) & (scores < threshold))
    accepted = np.flatnonzero((labels == 0) & (scores >= threshold))
    missed, accepted = missed[np.argsort(scores[missed])], accepted[np.argsort(-scores[accepted])]
    n_missed = min(len(missed), max(N_EXAMPLES // 2, N_EXAMPLES - len(accepted)))
    return np.concatenate([missed[:n_missed], accepted[: N_EXAMPLES - n_missed]])


def confidence_extremes(predictions: pd.DataFrame) -> np.ndarray:
    """Places of the two least confident rows, then the two most confident ones on each side of one half."""
    order = np.argsort(predictions["confidence"].to_numpy(float), kind="stable")
    least, rest = order[:N_POSTERIORS], order[N_POSTERIORS:]
    real = predictions["mean"].to_numpy(float)[rest] > 0.5
    return np.concatenate([least, rest[real][-N_POSTERIORS:], rest[~real][-N_POSTERIORS:]])


def describe_row(row: "pd.Series[Any]") -> str:
    """Label, score, confidence and magnitude of a row in words, a line each."""
    lines = [_label(row), f"score {row['score']:.3f}"]
    if np.isfinite(row["confidence"]):
        lines.append(f"confidence {row['confidence']:.2f}")
    if np.isfinite(pd.to_numeric(row["mag"], errors="coerce")):
        lines.append(f"mag {float(row['mag']):.1f}")
    return "\n".join(lines)


def describe_posterior(row: "pd.Series[Any]") -> str:
    """Label and posterior of a row in words, on one line."""
    return f"{_label(row)}: {row['mean']:.3f} ± {row['std']:.3f}, confidence {row['confidence']:.2f}"


def _label(row: "pd.Series[Any]") -> str:
    label = {1: "real", 0: "bogus"}.get(int(row["label"]), "unlabelled")
    return f"{label} ({row['metalabel']})" if row["metalabel"] else label
