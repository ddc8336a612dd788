"""Figures of several models, one colour for each in all of them, and of the trials of a tuning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from gotorb.evaluation.figures import BOGUS_COLOUR, COLOURS, FLOOR, GREY, new_figure, roc_curves
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import reliability_table
from gotorb.evaluation.thresholds import error_rates

MARKERS = ("o", "s", "^", "D", "v", "P")
SLICES = {"by_metalabel": "", "by_snr": "S/N ", "by_edge": "", "by_host_offset": "host offset [arcsec] "}
"""Breakdown of an evaluation in the forest plot -> prefix of the names of its groups."""
LEAST_ROWS = 8
"""Fewest rows of a group in the forest plot."""
Scored = Mapping[str, pd.DataFrame]
"""Model -> rows with label and score."""


def plot_model_rocs(scored: Scored) -> Figure:
    """Plot the ROC curve of each model on a logarithmic axis of false-positive rates.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        Model -> rows with label (1 or 0) and score.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 1], "score": [0.1, 0.9]})
    >>> plot_model_rocs({"vgg6": rows}).axes[0].get_xscale()
    'log'
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
    """Plot FNR and FPR against the threshold for each model.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        As for `plot_model_rocs`.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 1], "score": [0.1, 0.9]})
    >>> len(plot_model_errors({"vgg6": rows}).axes[0].lines)
    2
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
    """Plot the real fraction against the score for each model; calibrated scores lie on the diagonal.

    Parameters
    ----------
    scored : mapping of str to DataFrame
        As for `plot_model_rocs`.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.2, 0.8, 0.9]})
    >>> plot_model_reliability({"vgg6": rows}).axes[0].get_ylabel()
    'fraction real'
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

    Returns
    -------
    Figure

    Examples
    --------
    >>> figure = plot_model_recovery({"vgg6": [{"mag": 18.0, "n": 4, "n_found": 3}]})
    >>> figure.axes[0].get_ylabel()
    'fraction found'
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
    """Plot the error rates of each model in each group of rows with 95 % intervals (forest plot).

    Parameters
    ----------
    metrics : mapping of str to mapping
        Model -> its metrics (`gotorb.evaluation.metrics.measure_scores`).

    Returns
    -------
    Figure

    Examples
    --------
    >>> from gotorb.evaluation.metrics import measure_scores
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.7, 0.9], "mag": 18.0, "metalabel": "mp"})
    >>> metrics = measure_scores(rows, 0.5, n_bootstrap=10, rng=np.random.default_rng(1))
    >>> len(plot_model_slices({"vgg6": metrics}).axes)
    2
    """
    groups = slice_errors(metrics)
    figure = new_figure(10, 1.2 + 0.3 * max((len(part) for part in groups.values()), default=1))
    for axes, (rate, label) in zip(figure.subplots(1, 2), RATES.items(), strict=True):
        names = list(groups[rate])
        for number, (model, style) in enumerate(zip(metrics, _styles(), strict=False)):
            shift = 0.16 * (number - (len(metrics) - 1) / 2)
            known = [place for place, name in enumerate(names) if model in groups[rate][name]]
            value, low, high = np.array([groups[rate][names[place]][model] for place in known]).reshape(-1, 3).T
            places = np.array(known) + shift
            axes.errorbar(value, places, xerr=[value - low, high - value], lw=1, capsize=2, ms=4, label=model, **style)
        axes.set(yticks=range(len(names)), yticklabels=names, xlabel=label, xlim=(-0.01, None))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8)
    return figure


RATES = {"fnr": "missed real", "fpr": "accepted bogus"}


def slice_errors(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, tuple[float, ...]]]]:
    """Error rates of each model in each group of at least `LEAST_ROWS` rows.

    Parameters
    ----------
    metrics : mapping of str to mapping
        Model -> its metrics.

    Returns
    -------
    dict
        Rate (fnr, fpr) -> group with its number of rows -> model -> value, low, high.

    Examples
    --------
    >>> errors = {"n_real": 9, "n_bogus": 2, "fnr": 0.1, "fnr_low": 0.0, "fnr_high": 0.4}
    >>> slice_errors({"vgg6": {"by_snr": {"5-7": errors}}})["fnr"]
    {'S/N 5-7 (9)': {'vgg6': (0.1, 0.0, 0.4)}}
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
    """Lower edge of a group such as ``7-10``; -1 for groups without edges, which come first."""
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
    """Name, value and style of each model; styles repeat after six models."""
    styles = _styles()
    return [(name, value, styles[number % len(styles)]) for number, (name, value) in enumerate(models.items())]


TRIAL_AXES = {
    "block1": "filters in\nblock 1",
    "scale_up": "more filters\nin block 2",
    "dense": "dense\nunits",
    "initializer": "initial\nweights",
    "activation": "activation",
    "dropout": "dropout",
    "l2": "L2\npenalty",
    "learning_rate": "learning\nrate",
    "epochs": "epochs",
    "objective": "",
}
"""Columns from left to right, and their titles."""
LOGARITHMIC = ("dropout", "l2", "learning_rate")
WHOLE = ("block1", "scale_up", "dense", "epochs")
SPREAD = 0.035
"""Distance of lines through an equal value, as a fraction of the axis."""
MAX_SPREAD = 0.14


def plot_trials(trials: pd.DataFrame, objective: str, *, best: int, direction: str) -> Figure:
    """Plot completed trials as lines across parallel axes, better ones darker, and the best one in red.

    Parameters
    ----------
    trials : DataFrame
        trial, status, objective, epochs, and the hyperparameters.
    objective : str
        Name of the objective.
    best : int
        Number of the best trial.
    direction : {"min", "max"}
        Direction in which the objective improves, which points up on its axis.

    Returns
    -------
    Figure

    Examples
    --------
    >>> trial = {"block1": 16, "scale_up": True, "dense": 128, "initializer": "he_uniform", "activation": "relu"}
    >>> trial |= {"dropout": 0.1, "l2": 1e-4, "learning_rate": 1e-3, "objective": 0.1, "epochs": 5, "status": "done"}
    >>> trials = pd.DataFrame([trial | {"trial": 0}, trial | {"trial": 1, "dropout": 0.3, "objective": 0.2}])
    >>> figure = plot_trials(trials, "val_loss", best=0, direction="min")
    >>> figure._suptitle.get_text()[:8]
    '2 trials'
    """
    done = trials[trials["objective"].notna()].reset_index(drop=True)
    scales = {
        name: TrialAxis(done[name], name, upside_down=(name, direction) == ("objective", "min")) for name in TRIAL_AXES
    }
    lines = np.column_stack([scales[name]._place(done[name]) + spread_equal(done[name]) for name in TRIAL_AXES])
    goodness = scales["objective"]._place(done["objective"])
    colours = ScalarMappable(Normalize(-0.35, 1), "YlGnBu")
    figure = new_figure(13, 6)
    axes = figure.subplots()
    for row in np.argsort(goodness, kind="stable"):
        _draw_line(axes, lines[row], tuple(colours.to_rgba(goodness[row])), is_best=int(done["trial"][row]) == best)
    for x, name in enumerate(TRIAL_AXES):
        scales[name]._draw(axes, x)
        title = TRIAL_AXES[name] or objective.removeprefix("val_").replace("_", " ").replace(" ", "\n", 1)
        axes.text(x, 1.1, title, ha="center", va="bottom", fontsize=11)
    axes.set(xlim=(-0.5, len(TRIAL_AXES) - 0.2), ylim=(-0.1, 1.1))
    axes.axis("off")
    n_failed = len(trials) - len(done)
    failed = f", {n_failed} failed and not shown" if n_failed else ""
    figure.suptitle(
        f"{len(done)} trials{failed}: better ones are darker, the best (trial {best}) is red; "
        f"{objective} improves upwards", fontsize=12,
    )  # fmt: skip
    return figure


def _draw_line(axes: Axes, places: np.ndarray, colour: tuple[float, ...], *, is_best: bool) -> None:
    look = {"color": BOGUS_COLOUR, "lw": 3, "ms": 7} if is_best else {"color": colour, "lw": 1.8, "ms": 5}
    axes.plot(range(len(places)), places, marker="o", zorder=3 if is_best else 2, **look)  # type: ignore[arg-type]


class TrialAxis:
    """One of the parallel axes, from values to positions between 0 and 1, with its ticks.

    Parameters
    ----------
    values : Series
        Numbers or names.
    name : str
        Name of the column.
    upside_down : bool
        True for the smallest value at the top.
    """

    def __init__(self, values: pd.Series, name: str, *, upside_down: bool = False) -> None:
        self.names = [] if pd.api.types.is_numeric_dtype(values) else sorted(set(values))
        self.is_log, self.is_whole, self.upside_down = name in LOGARITHMIC, name in WHOLE, upside_down
        numbers = self._numbers(values)
        self.low, self.high = float(numbers.min()), float(numbers.max())
        if self.low == self.high:
            self.low, self.high = self.low - 1, self.high + 1

    def _numbers(self, values: pd.Series) -> np.ndarray:
        if self.names:
            return np.array([self.names.index(value) for value in values], float)
        return np.log10(values.to_numpy(float)) if self.is_log else values.to_numpy(float)

    def _place(self, values: pd.Series) -> np.ndarray:
        """Positions of values on the axis, 0 at the bottom and 1 at the top."""
        places = (self._numbers(values) - self.low) / (self.high - self.low)
        return 1 - places if self.upside_down else places

    def ticks(self) -> dict[str, float]:
        """Ticks of the axis.

        Returns
        -------
        dict of float
            Position by text.
        """
        if self.names:
            values = pd.Series(self.names)
        elif self.is_log:
            values = self._log_ticks()
        else:
            values = pd.Series(MaxNLocator(5, integer=self.is_whole).tick_values(self.low, self.high))
        places = self._place(values)
        texts = values if self.names else [f"{value:.4g}" for value in values]
        return {text: float(place) for text, place in zip(texts, places, strict=True) if -0.001 <= place <= 1.001}

    def _log_ticks(self) -> pd.Series:
        """Decades, and values between where there are few decades."""
        subs = (1.0,) if self.high - self.low > 2 else (1.0, 2.0, 5.0)
        return pd.Series(LogLocator(subs=subs, numticks=12).tick_values(10**self.low, 10**self.high))

    def _draw(self, axes: Axes, x: int) -> None:
        """Draw the axis and its ticks."""
        axes.plot([x, x], [-0.06, 1.06], color=GREY, lw=1, zorder=1)
        for text, place in self.ticks().items():
            axes.plot([x - 0.03, x + 0.03], [place, place], color=GREY, lw=1, zorder=1)
            axes.text(
                x + 0.06, place, text.replace("_", "\n"), va="center", fontsize=9, zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
            )  # fmt: skip


def spread_equal(values: pd.Series) -> np.ndarray:
    """Small shifts around 0 that separate equal values in a drawing.

    Parameters
    ----------
    values : Series
        (n,) values.

    Returns
    -------
    ndarray
        (n,) shifts, as fractions of the axis.

    Examples
    --------
    >>> spread_equal(pd.Series(["relu", "elu", "relu"])).round(4).tolist()
    [-0.0175, 0.0, 0.0175]
    """
    groups = values.groupby(values)
    rank, size = groups.cumcount().to_numpy(float), groups.transform("size").to_numpy(float)
    step = np.minimum(SPREAD, MAX_SPREAD / size)
    return (rank - (size - 1) / 2) * step
