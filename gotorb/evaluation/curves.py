"""Figures of error rates: against the threshold, and against each other."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotorb.evaluation.figures import BOGUS_COLOUR, GREY, REAL_COLOUR, draw_confusion, new_figure
from gotorb.evaluation.thresholds import ErrorRates, error_rates

FLOOR = 5e-4
"""Lowest error rate shown."""

POPULATIONS = {
    "all real": None,
    "minor planets": ("mp",),
    "transients": ("marshall", "syntransient"),
}
"""Groups of real rows, by metalabel, whose missed fraction is shown on its own."""
LINE_STYLES = ("-", "--", "-.")
OLD_COLOURS = ("#b8860b", "#3a7d44")


def plot_error_rates(rows: pd.DataFrame, threshold: float) -> Figure:
    """Plot FNR and FPR against the threshold on a log axis, with the confusion matrix at the chosen one.

    Parameters
    ----------
    rows : DataFrame
        Columns label, score and metalabel.
    threshold : float
        The chosen threshold.
    """
    labels, scores = rows["label"].to_numpy(int), rows["score"].to_numpy(float)
    figure = new_figure(10, 5.5)
    grid = figure.add_gridspec(2, 2, width_ratios=[2.6, 1], height_ratios=[1.1, 1])
    axes, words, matrix = (figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1]))
    for (name, part), style in zip(population_rates(rows).items(), LINE_STYLES, strict=False):
        _draw_rate(axes, part, part.fnr, color=REAL_COLOUR, ls=style, label=f"FNR, {name}")
    every = error_rates(labels, scores)
    _draw_rate(axes, every, every.fpr, color=BOGUS_COLOUR, label=f"FPR, {int((labels == 0).sum())} bogus")
    _draw_rate(axes, every, every.mme, color=GREY, lw=1, label="mean misclassification error")
    axes.axvline(threshold, color="black", ls=":", label=f"threshold {threshold:.3f}")
    axes.set(yscale="log", ylim=(FLOOR, 1.5), xlim=(0, 1), xlabel="threshold on the score", ylabel="error rate")
    axes.set_title("Missed real (FNR) and accepted bogus (FPR) against threshold")
    axes.grid(alpha=0.3)
    words.legend(*axes.get_legend_handles_labels(), loc="upper left", fontsize=9, frameon=False)
    words.set_axis_off()
    draw_confusion(matrix, labels, scores, threshold, size=10)
    matrix.set_title("calls at the threshold", fontsize=10)
    return figure


def population_rates(rows: pd.DataFrame) -> dict[str, ErrorRates]:
    """Error rates of each population of real rows against all bogus ones; named with its number of rows."""
    bogus = rows["label"] == 0
    found = {}
    for name, metalabels in POPULATIONS.items():
        members = ~bogus if metalabels is None else ~bogus & rows["metalabel"].isin(metalabels)
        if members.any():
            part = rows[bogus | members]
            rates = error_rates(part["label"].to_numpy(int), part["score"].to_numpy(float))
            found[f"{int(members.sum())} {name}"] = rates
    return found


def _draw_rate(axes: Axes, rates: ErrorRates, values: np.ndarray, **style: object) -> None:
    """Draw a rate that changes just above each threshold, from 0 to 1."""
    x = np.concatenate([[0.0], np.minimum(rates.thresholds, 1.0)])
    axes.step(x, np.concatenate([values[:1], values]), where="pre", **style)  # type: ignore[arg-type]


def plot_roc(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Figure:
    """Plot ROC curves of one or more scores: whole, and zoomed on a log axis.

    Parameters
    ----------
    labels : ndarray
        (n,) labels 0 and 1.
    scores : mapping
        Name -> (n,) scores, NaN where absent; the first is the model's.
    """
    figure = new_figure(10, 4.8)
    whole, zoomed = figure.subplots(1, 2)
    curves = roc_curves(labels, scores)
    for (name, (fpr, tpr)), colour in zip(curves.items(), (REAL_COLOUR, *OLD_COLOURS), strict=False):
        for axes in (whole, zoomed):
            axes.step(fpr, tpr, where="post", color=colour, label=name)
    whole.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="ROC curve")
    zoomed.set(xscale="log", xlim=(FLOOR, 1), ylim=(0.5, 1.01), title="the same, small false-positive rates")
    for axes in (whole, zoomed):
        axes.set(xlabel="false-positive rate", ylabel="fraction of real recovered")
        axes.grid(alpha=0.3)
    whole.legend(loc="lower right")
    return figure


def roc_curves(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(FPR, TPR) of each score over the rows that have it, FPR ascending; scores without both classes are left out."""
    curves = {}
    for name, values in scores.items():
        known = np.isfinite(values)
        if len(set(labels[known].tolist())) == 2:
            rates = error_rates(labels[known], values[known])
            curves[name] = (rates.fpr[::-1], 1 - rates.fnr[::-1])
    return curves
