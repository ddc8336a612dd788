"""Figures of scores and of a training: functions of data that return matplotlib Figures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gotorb.errors import ConfigError
from gotorb.evaluation.intervals import (
    Groups,
    area_under_roc,
    auc_interval,
    count_by_score,
    find_groups,
    wilson_interval,
)
from gotorb.evaluation.metrics import confidence_of, measure_calibration, reliability_table, retention_curve
from gotorb.evaluation.thresholds import ErrorRates, error_rates, measure_errors

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, distinct for colour-blind readers."""
REAL_COLOUR, BOGUS_COLOUR, GREY = COLOURS[0], COLOURS[1], "#666666"
HISTORY_PANELS = {"loss": "loss (cross-entropy + L2 penalty)", "auc": "area under the ROC curve"}
N_SCORE_BINS = 40
OLD_NAMES = {"realbogus": "old random forest", "cnn_realbogus": "old CNN"}
"""Column of an earlier classifier's scores -> its name in figures."""
STYLES = {"column": 3.4, "page": 7.1}
"""Widths of figures in a journal, inches."""
FONTS = {"column": 7.0, "page": 8.0}
"""Font sizes, points."""
LINES: dict[Any, Any] = {"lines.linewidth": 1.2, "svg.hashsalt": "gotorb", "pdf.fonttype": 42}
"""Line width, reproducible svg files, and text as text in pdf files."""
_style: ContextVar[str | None] = ContextVar("style of figures", default=None)


@contextmanager
def paper_style(style: str) -> Iterator[None]:
    """Draw the figures of a block in the width and font size of a journal.

    Parameters
    ----------
    style : {"column", "page"}
        Width of a column or of a page.

    Yields
    ------
    None

    Raises
    ------
    ConfigError
        If the style is unknown.

    Examples
    --------
    >>> with paper_style("column"):
    ...     new_figure(7, 4.5).get_size_inches().round(2).tolist()
    [3.4, 3.28]
    """
    import matplotlib

    if style not in STYLES:
        raise ConfigError(f"style {style!r}; choose {' or '.join(STYLES)}")
    size, token = FONTS[style], _style.set(style)
    small: dict[Any, Any] = dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), size - 1)
    even: dict[Any, Any] = dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize"), size)
    try:
        with matplotlib.rc_context(small | even | LINES):
            yield
    finally:
        _style.reset(token)


def text_size(size: float) -> float:
    """Font size in the current style.

    Parameters
    ----------
    size : float
        Font size outside a style, points.

    Returns
    -------
    float
        Points.

    Examples
    --------
    >>> with paper_style("column"):
    ...     text_size(12.0)
    6.0
    """
    style = _style.get()
    return size if style is None else min(size, FONTS[style] - 1)


def new_figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """Make an empty figure whose layout keeps labels inside.

    Parameters
    ----------
    width, height : float
        Inches. A `paper_style` sets the width and keeps the aspect ratio, except for wide figures in a column.

    Returns
    -------
    Figure
        Figure without axes.

    Examples
    --------
    >>> new_figure(6, 4).get_size_inches().tolist()
    [6.0, 4.0]
    """
    style = _style.get()
    if style is not None:
        shape = height / width
        higher = max(shape, min(1.5 * shape, 1.2)) if style == "column" else shape
        width, height = STYLES[style], STYLES[style] * higher
    return Figure(figsize=(width, height), layout="constrained")


def is_narrow() -> bool:
    """Test for the style of a journal's column.

    Returns
    -------
    bool

    Examples
    --------
    >>> with paper_style("column"):
    ...     is_narrow()
    True
    """
    return _style.get() == "column"


def new_panels(n: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Make a figure of n panels side by side, or below each other in a journal's column.

    Parameters
    ----------
    n : int
        Number of panels.
    width, height : float
        Size of the figure, inches.

    Returns
    -------
    figure : Figure
        The figure.
    axes : ndarray
        (n,) Axes.

    Examples
    --------
    >>> figure, axes = new_panels(3, width=9, height=3)
    >>> len(axes), figure.get_size_inches().tolist()
    (3, [9.0, 3.0])
    """
    if is_narrow():
        figure = new_figure(width / n, height * n)
        return figure, figure.subplots(n, 1, squeeze=False)[:, 0]
    figure = new_figure(width, height)
    return figure, figure.subplots(1, n, squeeze=False)[0]


def plot_history(history: Mapping[str, Sequence[float]], best_epoch: int) -> Figure:
    """Plot loss and AUC of training and validation rows after each epoch.

    Parameters
    ----------
    history : mapping
        Quantity -> values of the epochs; names for validation rows begin with ``val_``.
    best_epoch : int
        Epoch (from 0) whose weights were kept.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_history({"loss": [0.5, 0.3], "val_loss": [0.6, 0.5]}, best_epoch=1)
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.5, 0.3]
    """
    figure, panels = new_panels(2, 9, 4)
    for axes, (name, label) in zip(panels, HISTORY_PANELS.items(), strict=True):
        for key, part, colour in ((name, "training", GREY), (f"val_{name}", "validation", REAL_COLOUR)):
            values = history.get(key, [])
            axes.plot(range(1, len(values) + 1), values, marker=".", color=colour, label=part)
        axes.axvline(best_epoch + 1, color=BOGUS_COLOUR, ls=":", label=f"best epoch ({best_epoch + 1})")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    figure.suptitle("Training history")
    return figure


def _plot_confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Figure:
    """Plot counts and row percentages of right and wrong calls at a threshold."""
    figure = new_figure(5, 4.4)
    _draw_confusion(figure.subplots(), labels, scores, threshold)
    figure.suptitle(f"Calls at threshold {threshold:.3f}, {len(labels)} rows")
    return figure


def _draw_confusion(axes: Axes, labels: np.ndarray, scores: np.ndarray, threshold: float, *, size: float = 12) -> None:
    """Draw a confusion matrix, labels as rows and calls as columns."""
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
    """Confusion matrix as counts.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    ndarray
        (2, 2) by label (bogus, real) and call (bogus, real).

    Examples
    --------
    >>> confusion_counts(np.array([0, 0, 1]), np.array([0.1, 0.7, 0.9]), 0.5).tolist()
    [[1, 1], [0, 1]]
    """
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, scores >= threshold, labels=[0, 1])


def _plot_scores(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Figure:
    """Plot histograms of the scores of real and bogus rows with logarithmic counts."""
    figure = new_figure()
    axes = figure.subplots()
    bins = np.linspace(0, 1, N_SCORE_BINS + 1).tolist()
    for label, name, colour in ((0, "bogus", BOGUS_COLOUR), (1, "real", REAL_COLOUR)):
        part = scores[labels == label]
        axes.hist(part, bins, histtype="stepfilled", alpha=0.35, color=colour, label=f"{name} ({len(part)})")
        axes.hist(part, bins, histtype="step", color=colour)
    axes.axvline(threshold, color=GREY, ls="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="real/bogus score", ylabel=f"rows per bin of {1 / N_SCORE_BINS:g}", yscale="log", xlim=(0, 1))
    shares = [_percent(float(right.mean())) if len(right) else "–" for right in
              (scores[labels == 1] >= threshold, scores[labels == 0] < threshold)]  # fmt: skip
    axes.set_title(f"{shares[0]} of the real and {shares[1]} of the bogus rows are called right")
    axes.legend()
    return figure


def plot_reliability(labels: np.ndarray, scores: np.ndarray, probability: pd.Series | None = None) -> Figure:
    """Plot the real fraction against the score; calibrated scores lie on the diagonal.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1, scores.
    probability : Series, optional
        (n,) calibrated scores, shown for comparison.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_reliability(np.array([0, 1]), np.array([0.1, 0.9]))
    >>> figure.axes[0].get_ylabel()
    'fraction labelled real'
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
    upper.set(ylabel="fraction labelled real", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ece = measure_calibration(labels, scores)["ece"]
    upper.set_title(f"Scores differ from the real fraction by {ece:.3f} on average (ECE)")
    upper.legend(loc="lower right")
    lower.bar(table["mean_score"], table["n"], width=0.06, color=GREY)
    lower.set(xlabel="mean score in the bin", ylabel="rows", yscale="log")
    return figure


def recovery_table(values: np.ndarray, scores: np.ndarray, threshold: float, *, width: float = 0.5) -> pd.DataFrame:
    """Recovered fraction of real rows in bins of magnitude or another quantity.

    Parameters
    ----------
    values, scores : ndarray
        (n,) values and scores of real rows; rows without a value are left out.
    threshold : float
        Score at or above which a row is recovered.
    width : float
        Width of a bin, in the unit of `values`.

    Returns
    -------
    DataFrame
        middle (of the bin), recovered, low, high (95 % Wilson), n; a row for each bin with rows.

    Examples
    --------
    >>> table = recovery_table(np.array([17.1, 17.9, 18.5]), np.array([0.9, 0.2, 0.8]), 0.5, width=1.0)
    >>> len(table)
    2
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
    """Plot the recovered fraction and the number of real rows in bins of magnitude or another quantity.

    Parameters
    ----------
    values, scores : ndarray
        (n,) values and scores of real rows.
    threshold : float
        Score at or above which a row is recovered.
    width : float
        Width of a bin, in the unit of `values`.
    label : str
        Label of the axis.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_recovery(np.array([17.2, 18.1]), np.array([0.9, 0.2]), 0.5)
    >>> figure.axes[1].get_xlabel()
    'magnitude'
    """
    table = recovery_table(values, scores, threshold, width=width)
    figure = new_figure(7, 5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    errors = [table["recovered"] - table["low"], table["high"] - table["recovered"]]
    upper.errorbar(table["middle"], table["recovered"], yerr=errors, fmt="o-", capsize=3, color=REAL_COLOUR)
    upper.axhline(1, color=GREY, lw=0.8)
    upper.set(ylabel="fraction of real rows recovered", ylim=(min(0.5, table["low"].min()) - 0.02, 1.06))
    for _, row in table.iterrows():
        upper.annotate(f"{row['n']:.0f}", (row["middle"], 1.005), ha="center", va="bottom", fontsize=text_size(7))
    found = (table["recovered"] * table["n"]).sum() / table["n"].sum()
    upper.set_title(f"{_percent(found)} of {table['n'].sum()} real rows are found at {threshold:.3f} (bars: 95 %)")
    lower.bar(table["middle"], table["n"], width=0.9 * width, color=GREY)
    lower.set(xlabel=label, ylabel="real rows")
    return figure


def _plot_retention(rows: pd.DataFrame, threshold: float) -> Figure:
    """Plot the error rate of the rows that remain when the least confident ones go to annotators."""
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


FLOOR = 5e-4
"""Lowest error rate shown."""
POPULATIONS = {"all real": None, "minor planets": ("mp",), "transients": ("marshall", "syntransient")}
"""Populations of real rows, by metalabel, with a curve of their own."""
LINE_STYLES = ("-", "--", "-.")
OLD_COLOURS = (COLOURS[4], COLOURS[2])


def plot_error_rates(rows: pd.DataFrame, threshold: float) -> Figure:
    """Plot FNR and FPR against the threshold on a log axis, with the confusion matrix at the chosen threshold.

    Parameters
    ----------
    rows : DataFrame
        label, score and metalabel.
    threshold : float
        Chosen threshold.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.7, 0.9], "metalabel": ""})
    >>> plot_error_rates(rows, 0.5).axes[0].get_xlabel()
    'threshold on the score'
    """
    labels, scores = rows["label"].to_numpy(int), rows["score"].to_numpy(float)
    figure = new_figure(8, 6)
    axes = figure.subplots()
    for (name, part), style in zip(population_rates(rows).items(), LINE_STYLES, strict=False):
        _draw_rate(axes, part, part.fnr, color=REAL_COLOUR, ls=style, label=f"FNR, {name}")
    every, n_real, n_bogus = error_rates(labels, scores), int((labels == 1).sum()), int((labels == 0).sum())
    _draw_rate(axes, every, every.fpr, color=BOGUS_COLOUR, label=f"FPR, {n_bogus} bogus")
    for values, n, colour in ((every.fnr, n_real, REAL_COLOUR), (every.fpr, n_bogus, BOGUS_COLOUR)):
        _shade_interval(axes, every, values, n, colour)
    _draw_rate(axes, every, every.mme, color=GREY, lw=1, label="mean misclassification error")
    axes.axvline(threshold, color="black", ls=":", label=f"threshold {threshold:.3f}")
    bottom = max(FLOOR, 0.5 / max(n_real, n_bogus))
    axes.set(yscale="log", ylim=(bottom, 1.5), xlim=(0, 1), xlabel="threshold on the score", ylabel="error rate")
    at = measure_errors(labels, scores, threshold)
    axes.set_title(
        f"At {threshold:.3f} the model misses {_percent(at['fnr'])} of {n_real} real\n"
        f"and accepts {_percent(at['fpr'])} of {n_bogus} bogus (bands: 95 %)"
    )
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    ground = Rectangle((0.31, 0.55), 0.36, 0.44, transform=axes.transAxes, fc="white", ec="none", alpha=0.85, zorder=3)
    axes.add_patch(ground)
    matrix = axes.inset_axes((0.38, 0.66, 0.27, 0.32))
    _draw_confusion(matrix, labels, scores, threshold, size=text_size(9))
    return figure


def _percent(rate: float | None) -> str:
    """Rate in percent as text; a dash where it is unknown."""
    return "–" if rate is None or not np.isfinite(rate) else f"{100 * rate:.1f} %"


def _shade_interval(axes: Axes, rates: ErrorRates, values: np.ndarray, n: int, colour: str) -> None:
    """Shade Wilson's 95 % interval of a rate of n rows at each threshold."""
    if n == 0:
        return
    bounds = np.array([wilson_interval(round(float(value) * n), n) for value in values])
    x = np.concatenate([[0.0], np.minimum(rates.thresholds, 1.0)])
    low, high = np.concatenate([bounds[:1], bounds]).T
    axes.fill_between(x, np.maximum(low, FLOOR / 10), high, step="pre", color=colour, alpha=0.18, lw=0)


def population_rates(rows: pd.DataFrame) -> dict[str, ErrorRates]:
    """Error rates of each population of real rows against all bogus rows.

    Parameters
    ----------
    rows : DataFrame
        label (1 or 0), metalabel, score.

    Returns
    -------
    dict of ErrorRates
        Rates by number and name of the population; empty populations are left out.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 1, 1], "metalabel": ["randjunk", "mp", "mp"], "score": [0.1, 0.8, 0.9]})
    >>> list(population_rates(rows))
    ['2 all real', '2 minor planets']
    """
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
    """Draw a rate, which changes just above each threshold, from 0 to 1."""
    x = np.concatenate([[0.0], np.minimum(rates.thresholds, 1.0)])
    axes.step(x, np.concatenate([values[:1], values]), where="pre", **style)  # type: ignore[arg-type]


def plot_roc(
    labels: np.ndarray, scores: Mapping[str, np.ndarray], threshold: float | None = None, groups: Groups = ()
) -> Figure:
    """Plot ROC curves of one or more scores, with AUC and operating point: whole, and zoomed on a log axis.

    Parameters
    ----------
    labels : ndarray
        (n,) labels 0 and 1.
    scores : mapping
        Name -> (n,) scores, NaN where absent; the first is the model's.
    threshold : float, optional
        Threshold of the model, which is marked.
    groups : sequence of ndarray
        Groups of dependent rows, see `intervals.find_groups`.

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_roc(np.array([0, 1]), {"vgg6": np.array([0.1, 0.9])})
    >>> figure.get_suptitle()
    'vgg6 finds 100.0 % of the real rows at 1 % false positives'
    """
    figure, (whole, zoomed) = new_panels(2, 10, 4.8)
    curves = roc_curves(labels, scores)
    for (name, (fpr, tpr)), colour in zip(curves.items(), (REAL_COLOUR, *OLD_COLOURS), strict=False):
        known = np.isfinite(scores[name])
        told = describe_auc(labels[known], scores[name][known], [group[known] for group in groups])
        for axes in (whole, zoomed):
            axes.step(fpr, tpr, where="post", color=colour, label=f"{name}: {told}")
    first = next(iter(curves), None)
    if first is not None and threshold is not None:
        _mark_operating_point(zoomed, labels, scores[first], threshold)
    if first is not None:
        fpr, tpr = curves[first]
        found = float(tpr[fpr <= WANTED_FPR].max(initial=0.0))
        figure.suptitle(f"{first} finds {_percent(found)} of the real rows at 1 % false positives")
    whole.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1)
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="ROC curve")
    zoomed.set(xscale="log", xlim=(FLOOR, 1), ylim=(0.5, 1.01), title="the same, small false-positive rates")
    for axes in (whole, zoomed):
        axes.set(xlabel="false-positive rate", ylabel="fraction of real recovered")
        axes.grid(alpha=0.3)
    whole.legend(loc="lower right", fontsize=text_size(8))
    return figure


WANTED_FPR = 0.01


def describe_auc(labels: np.ndarray, scores: np.ndarray, groups: Groups = ()) -> str:
    """AUC with its 95 % interval as text.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 0 and 1 of both classes; scores.
    groups : sequence of ndarray
        Groups of dependent rows, see `intervals.find_groups`.

    Returns
    -------
    str
        Area and limits.

    Examples
    --------
    >>> describe_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    'AUC 1.0000 (0.1581 to 1.0000)'
    """
    n_bogus, n_real = count_by_score(labels, scores)[1:]
    low, high = auc_interval(labels, scores, groups)
    return f"AUC {float(area_under_roc(n_bogus, n_real)):.4f} ({low:.4f} to {high:.4f})"


def _mark_operating_point(axes: Axes, labels: np.ndarray, scores: np.ndarray, threshold: float) -> None:
    """Mark the rates at a threshold with their intervals."""
    at = measure_errors(labels, scores, threshold)
    x, y = max(at["fpr"], FLOOR), 1 - at["fnr"]
    xerr = [[x - max(at["fpr_low"], FLOOR)], [at["fpr_high"] - x]]
    yerr = [[at["fnr_high"] - at["fnr"]], [at["fnr"] - at["fnr_low"]]]
    told = f"threshold {threshold:.3f}"
    axes.errorbar([x], [y], xerr=np.abs(xerr), yerr=np.abs(yerr), fmt="o", color="black", capsize=3, label=told)
    axes.legend(loc="lower right")


def roc_curves(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """ROC curve of each score over the rows that have it.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus.
    scores : mapping of str to ndarray
        Name -> (n,) scores, not finite where unknown.

    Returns
    -------
    dict
        Name -> (FPR, TPR), FPR ascending; scores without both classes are left out.

    Examples
    --------
    >>> fpr, tpr = roc_curves(np.array([0, 1]), {"rb": np.array([0.1, 0.9])})["rb"]
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    """
    curves = {}
    for name, values in scores.items():
        known = np.isfinite(values)
        if len(set(labels[known].tolist())) == 2:
            rates = error_rates(labels[known], values[known])
            curves[name] = (rates.fpr[::-1], 1 - rates.fnr[::-1])
    return curves


def draw_figures(predictions: pd.DataFrame, metrics: dict[str, Any], meta: dict[str, Any]) -> dict[str, Figure]:
    """Draw the figures of scores, except those that need a missing class or missing magnitudes.

    Parameters
    ----------
    predictions : DataFrame
        Scored rows of one part; rows of unknown label are ignored.
    metrics : dict
        Metrics of these rows.
    meta : dict
        Record of the training, for its history.

    Returns
    -------
    dict of Figure
        Figures by name.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.7, 0.9], "metalabel": "", "mag": 18.0})
    >>> rows = rows.assign(mean=np.nan, std=np.nan, confidence=[0.9, 0.1, 0.5, 0.9], image_id="visit", object_id="")
    >>> meta = {"history": {"loss": [0.5, 0.4], "val_loss": [0.6, 0.5]}, "best_epoch": 1, "model": "vgg6"}
    >>> sorted(draw_figures(rows, {"threshold": 0.5}, meta))[:4]
    ['confusion', 'error_rates', 'history', 'recovery']
    """
    rows = predictions[predictions["label"].isin((0, 1))]
    labels, scores, threshold = rows["label"].to_numpy(int), rows["score"].to_numpy(float), metrics["threshold"]
    figures = {"history": plot_history(meta["history"], meta["best_epoch"])}
    if len(rows):
        figures["confusion"] = _plot_confusion(labels, scores, threshold)
        figures["scores"] = _plot_scores(labels, scores, threshold)
        figures["reliability"] = plot_reliability(labels, scores, rows.get("probability"))
        figures["retention"] = _plot_retention(rows, threshold)
    if len(set(labels.tolist())) == 2:
        figures["error_rates"] = plot_error_rates(rows, threshold)
        figures["roc"] = plot_roc(labels, _named_scores(rows, meta["model"]), threshold, find_groups(rows))
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
