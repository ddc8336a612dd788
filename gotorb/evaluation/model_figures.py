"""Figures that show several models together: one colour for each model in all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gotorb.evaluation.figures import COLOURS, FLOOR, GREY, new_figure, roc_curves
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import reliability_table
from gotorb.evaluation.thresholds import error_rates

MARKERS = ("o", "s", "^", "D", "v", "P")
SLICES = {"by_metalabel": "", "by_snr": "S/N ", "by_edge": "", "by_host_offset": "host offset [arcsec] "}
"""Breakdowns of an evaluation in the forest plot, and the word before the name of each group."""
LEAST_ROWS = 8
"""Groups with fewer rows are left out of the forest plot: their intervals span half of the axis."""
Scored = Mapping[str, pd.DataFrame]
"""Model -> rows with label and score."""


def plot_model_rocs(scored: Scored) -> Figure:
    """Plot the ROC curve of each model on a logarithmic axis of false-positive rates.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        Model -> rows with label (1 or 0) and score.
    """
    figure, axes = _new_axes()
    for name, rows, style in _styled(scored):
        curves = roc_curves(rows["label"].to_numpy(int), {name: rows["score"].to_numpy(float)})
        for fpr, tpr in curves.values():
            axes.step(fpr, tpr, where="post", label=name, color=style["color"])
    axes.axvline(0.01, color=GREY, ls=":", lw=1)
    axes.set(xscale="log", xlim=(FLOOR, 1), ylim=(0.5, 1.005), xlabel="false-positive rate", ylabel="real recovered")
    axes.legend(loc="lower right")
    return figure


def plot_model_errors(scored: Scored) -> Figure:
    """Plot missed real and accepted bogus against the threshold for each model.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        As for `plot_model_rocs`.
    """
    figure, axes = _new_axes()
    for name, rows, style in _styled(scored):
        rates = error_rates(rows["label"].to_numpy(int), rows["score"].to_numpy(float))
        edges = np.minimum(rates.thresholds, 1.0)
        axes.step(edges, rates.fnr, where="pre", color=style["color"], label=f"{name}: missed real")
        axes.step(edges, rates.fpr, where="pre", color=style["color"], ls="--", label=f"{name}: accepted bogus")
    axes.set(yscale="log", ylim=(FLOOR, 1.1), xlim=(0, 1), xlabel="threshold on the score", ylabel="error rate")
    axes.legend(fontsize=8, loc="lower center", ncols=2)
    return figure


def plot_model_reliability(scored: Scored) -> Figure:
    """Plot the fraction labelled real against the score for each model; a calibrated score lies on the diagonal.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        As for `plot_model_rocs`.
    """
    figure, axes = _new_axes()
    axes.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    for name, rows, style in _styled(scored):
        table = reliability_table(rows["label"].to_numpy(int), rows["score"].to_numpy(float))
        errors = [table["fraction_real"] - table["low"], table["high"] - table["fraction_real"]]
        axes.errorbar(table["mean_score"], table["fraction_real"], yerr=errors, capsize=2, lw=1, label=name, **style)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="mean score in a bin of 0.1", ylabel="fraction real")
    axes.legend(loc="upper left")
    return figure


def plot_model_recovery(cells: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Plot the fraction of injected transients found against magnitude for each model.

    Parameters
    ----------
    cells : mapping of str to sequence
        Model -> cells of its recovery (`gotorb.evaluation.injections.measure_recovery`).
    """
    figure, axes = _new_axes()
    for name, found, style in _styled(cells):
        sums = pd.DataFrame(found).groupby("mag")[["n", "n_found"]].sum()
        bounds = np.array([wilson_interval(int(hits), int(n)) for n, hits in sums.to_numpy()])
        fraction = (sums["n_found"] / sums["n"]).to_numpy()
        errors = np.abs(bounds.T - fraction)
        axes.errorbar(sums.index + 0.5, fraction, yerr=errors, capsize=2, lw=1, label=name, **style)
    axes.set(ylim=(0, 1.03), xlabel="magnitude of the injected transient", ylabel="fraction found")
    axes.legend(loc="lower left")
    return figure


def plot_model_slices(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plot the errors of each model in each group of rows with their 95 % intervals: a forest plot.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Model -> its metrics (`gotorb.evaluation.metrics.measure_scores`).
    """
    groups = slice_errors(metrics)
    figure = new_figure(10, 1.2 + 0.3 * max((len(part) for part in groups.values()), default=1))
    for axes, (rate, label) in zip(figure.subplots(1, 2), RATES.items(), strict=True):
        names = list(groups[rate])
        for number, (model, style) in enumerate(zip(metrics, _styles(), strict=False)):
            shift = 0.16 * (number - (len(metrics) - 1) / 2)
            known = [
                (place, groups[rate][name][model]) for place, name in enumerate(names) if model in groups[rate][name]
            ]
            value, low, high = np.array([numbers for _, numbers in known]).reshape(-1, 3).T
            places = np.array([place for place, _ in known]) + shift
            axes.errorbar(value, places, xerr=[value - low, high - value], lw=1, capsize=2, ms=4, label=model, **style)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel=label, xlim=(-0.01, None))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


RATES = {"fnr": "missed real", "fpr": "accepted bogus"}


def slice_errors(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Error rates of each model in each group of rows that is large enough.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Model -> its metrics.

    Returns
    -------
    dict
        Rate (fnr, fpr) -> group with its number of rows -> model -> value, low, high.
    """
    found: dict[str, dict[str, dict[str, tuple[float, ...]]]] = {rate: {} for rate in RATES}
    for model, known in metrics.items():
        for part, word in SLICES.items():
            for group, errors in sorted((known.get(part) or {}).items(), key=lambda one: _low_edge(one[0])):
                for rate, n in (("fnr", errors["n_real"]), ("fpr", errors["n_bogus"])):
                    if n >= LEAST_ROWS:
                        numbers = tuple(errors[f"{rate}{end}"] for end in ("", "_low", "_high"))
                        title = f"above {group[:-1]}" if group.endswith("-") else group
                        found[rate].setdefault(f"{word}{title} ({n})", {})[model] = numbers
    return found


def _low_edge(group: str) -> float:
    """Lower edge of a group such as ``7-10``; groups without edges come first, in their order."""
    edge = group.split("-")[0]
    return float(edge) if edge.isdecimal() else -1.0


def _new_axes() -> tuple[Figure, Axes]:
    figure = new_figure(6, 4.2)
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _styles() -> list[dict[str, Any]]:
    return [{"color": colour, "fmt": marker} for colour, marker in zip(COLOURS, MARKERS, strict=True)]


def _styled(models: Mapping[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """Name, value and style of each model; the styles repeat after six models."""
    styles = _styles()
    return [(name, value, styles[number % len(styles)]) for number, (name, value) in enumerate(models.items())]
