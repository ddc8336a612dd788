"""Figures of scores and of a training: data in, a matplotlib Figure out, nothing shown or saved."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import confidence_of, measure_errors, reliability_table
from gotorb.evaluation.retention import retention_curve

REAL_COLOUR, BOGUS_COLOUR, GREY = "#1f6fb4", "#d1495b", "#666666"
HISTORY_PANELS = {"loss": "loss (cross-entropy + L2 penalty)", "auc": "area under the ROC curve"}
N_SCORE_BINS = 40


def new_figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """Empty figure [inch] that keeps its labels inside."""
    return Figure(figsize=(width, height), layout="constrained")


def plot_history(history: Mapping[str, Sequence[float]], best_epoch: int) -> Figure:
    """Plot loss and AUC of training and validation rows after each epoch.

    Parameters
    ----------
    history : mapping
        Quantity -> its values; those of validation rows begin with ``val_``.
    best_epoch : int
        Epoch (from 0) whose weights were kept.
    """
    figure = new_figure(9, 4)
    for axes, (name, label) in zip(figure.subplots(1, 2), HISTORY_PANELS.items(), strict=True):
        for key, part, colour in ((name, "training", GREY), (f"val_{name}", "validation", REAL_COLOUR)):
            values = history.get(key, [])
            axes.plot(range(1, len(values) + 1), values, marker=".", color=colour, label=part)
        axes.axvline(best_epoch + 1, color=BOGUS_COLOUR, ls=":", label=f"best epoch ({best_epoch + 1})")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    figure.suptitle("Training history")
    return figure


def plot_confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Figure:
    """Plot counts and row percentages of right and wrong calls at a threshold.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1, scores.
    threshold : float
        Score at or above which a row is called real.
    """
    figure = new_figure(5, 4.4)
    draw_confusion(figure.subplots(), labels, scores, threshold)
    figure.suptitle(f"Calls at threshold {threshold:.3f}, {len(labels)} rows")
    return figure


def draw_confusion(axes: Axes, labels: np.ndarray, scores: np.ndarray, threshold: float, *, size: float = 12) -> None:
    """Draw a confusion matrix: label downwards, call across."""
    counts = confusion_counts(labels, scores, threshold)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.4)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count}\n{100 * shares[row, column]:.1f} %"
        axes.text(column, row, text, ha="center", va="center", fontsize=size)
    axes.set_xticks([0, 1], ["bogus", "real"], fontsize=size * 0.85)
    axes.set_yticks([0, 1], ["bogus", "real"], fontsize=size * 0.85, rotation=90, va="center")
    axes.set_xlabel("called", fontsize=size * 0.85)
    axes.set_ylabel("labelled", fontsize=size * 0.85)


def confusion_counts(labels: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """(2, 2) rows by label (bogus, real) and call (bogus, real)."""
    errors = measure_errors(labels, scores, threshold)
    n_false_positive, n_false_negative = errors["n_false_positive"], errors["n_false_negative"]
    return np.array(
        [
            [errors["n_bogus"] - n_false_positive, n_false_positive],
            [n_false_negative, errors["n_real"] - n_false_negative],
        ]
    )


def plot_scores(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Figure:
    """Plot histograms of the scores of real and bogus rows on a log axis."""
    figure = new_figure()
    axes = figure.subplots()
    bins = np.linspace(0, 1, N_SCORE_BINS + 1).tolist()
    for label, name, colour in ((0, "bogus", BOGUS_COLOUR), (1, "real", REAL_COLOUR)):
        part = scores[labels == label]
        axes.hist(part, bins, histtype="stepfilled", alpha=0.35, color=colour, label=f"{name} ({len(part)})")
        axes.hist(part, bins, histtype="step", color=colour)
    axes.axvline(threshold, color=GREY, ls="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="real/bogus score", ylabel=f"rows per bin of {1 / N_SCORE_BINS:g}", yscale="log", xlim=(0, 1))
    axes.set_title("Scores by label")
    axes.legend()
    return figure


def plot_reliability(labels: np.ndarray, scores: np.ndarray, probability: pd.Series | None = None) -> Figure:
    """Plot the real fraction against the score: a calibrated score lies on the diagonal.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1, scores.
    probability : Series, optional
        (n,) calibrated scores, shown beside.
    """
    table = reliability_table(labels, scores)
    figure = new_figure(6, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.5, 1])
    upper.plot([0, 1], [0, 1], color=GREY, ls="--", label="perfect")
    errors = [table["fraction_real"] - table["low"], table["high"] - table["fraction_real"]]
    upper.errorbar(
        table["mean_score"], table["fraction_real"], yerr=errors, fmt="o", capsize=3, color=REAL_COLOUR,
        label="rows in bins of 0.1 (bars: 95 %)",
    )  # fmt: skip
    if probability is not None:
        after = reliability_table(labels, probability.to_numpy(float))
        upper.plot(after["mean_score"], after["fraction_real"], "s", color=BOGUS_COLOUR, mfc="none", label="calibrated")
    upper.set(ylabel="fraction labelled real", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), title="Reliability of the score")
    upper.legend(loc="lower right")
    lower.bar(table["mean_score"], table["n"], width=0.06, color=GREY)
    lower.set(xlabel="mean score in the bin", ylabel="rows", yscale="log")
    return figure


def recovery_table(values: np.ndarray, scores: np.ndarray, threshold: float, *, width: float = 0.5) -> pd.DataFrame:
    """Recovered fraction of real rows in bins of magnitude, or of another quantity.

    Parameters
    ----------
    values, scores : ndarray
        (n,) of real rows; rows without a value are left out.
    threshold : float
        Score at or above which a row is recovered.
    width : float
        Width of a bin.

    Returns
    -------
    DataFrame
        Columns middle (of the bin), recovered, low, high (95 % Wilson), n; filled bins only.
    """
    known = np.isfinite(values)
    places = np.floor(values[known] / width)
    table = []
    for place in np.unique(places):
        inside = places == place
        hits, n = int((scores[known][inside] >= threshold).sum()), int(inside.sum())
        low, high = wilson_interval(hits, n) or (np.nan, np.nan)
        table.append(((place + 0.5) * width, hits / n, low, high, n))
    return pd.DataFrame(table, columns=["middle", "recovered", "low", "high", "n"])


def plot_recovery(
    values: np.ndarray, scores: np.ndarray, threshold: float, *, width: float = 0.5, label: str = "magnitude"
) -> Figure:
    """Plot the recovered fraction of real rows against magnitude or another quantity, and the number in each bin."""
    table = recovery_table(values, scores, threshold, width=width)
    figure = new_figure(7, 5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    errors = [table["recovered"] - table["low"], table["high"] - table["recovered"]]
    upper.errorbar(table["middle"], table["recovered"], yerr=errors, fmt="o-", capsize=3, color=REAL_COLOUR)
    upper.axhline(1, color=GREY, lw=0.8)
    upper.set(ylabel="fraction of real rows recovered", ylim=(min(0.5, table["low"].min()) - 0.02, 1.02))
    upper.set_title(f"Recovery at threshold {threshold:.3f} (bars: 95 %)")
    lower.bar(table["middle"], table["n"], width=0.9 * width, color=GREY)
    lower.set(xlabel=label, ylabel="real rows")
    return figure


def plot_retention(rows: pd.DataFrame, threshold: float) -> Figure:
    """Plot the error rate of the rows that are kept when the least confident ones go to people.

    Parameters
    ----------
    rows : DataFrame
        Labelled rows: label, score, and confidence where there is a posterior.
    threshold : float
        Score at or above which a row is called real.
    """
    wrong = ((rows["score"] >= threshold) != (rows["label"] == 1)).to_numpy(bool)
    curve = retention_curve(wrong, confidence_of(rows, threshold))
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(curve.kept, curve.error, color=REAL_COLOUR, label=f"by confidence (area {curve.aurc:.4f})")
    axes.axhline(curve.random_aurc, color=GREY, ls="--", label=f"random order (area {curve.random_aurc:.4f})")
    axes.set(xlabel="fraction of rows kept, the most confident first", ylabel="error rate among them", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.set_title(f"{int(wrong.sum())} wrong calls of {len(wrong)} at threshold {threshold:.3f}")
    axes.legend()
    return figure
