"""Figure of a tuning: each trial a line across one axis for each hyperparameter and one for the objective."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from gotorb.evaluation.figures import BOGUS_COLOUR, GREY, new_figure

AXES = {
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
"""Columns drawn, from left to right, and their titles."""
LOGARITHMIC = ("dropout", "l2", "learning_rate")
WHOLE = ("block1", "scale_up", "dense", "epochs")
SPREAD = 0.035
"""Lines through an equal value are drawn this fraction of an axis apart, so that they can be told apart."""
MAX_SPREAD = 0.14


def plot_trials(trials: pd.DataFrame, objective: str, *, best: int, direction: str) -> Figure:
    """Plot the completed trials as lines across parallel axes, the better ones darker, the best one in red.

    Parameters
    ----------
    trials : DataFrame
        Columns trial, status, objective, epochs, and the hyperparameters.
    objective : str
        What the trials were judged by.
    best : int
        Number of the best trial.
    direction : {"min", "max"}
        Which way is better: up on the objective's axis.
    """
    done = trials[trials["objective"].notna()].reset_index(drop=True)
    scales = {name: Scale(done[name], name, upside_down=(name, direction) == ("objective", "min")) for name in AXES}
    lines = np.column_stack([scales[name]._place(done[name]) + spread_equal(done[name]) for name in AXES])
    goodness = scales["objective"]._place(done["objective"])
    colours = ScalarMappable(Normalize(-0.35, 1), "YlGnBu")
    figure = new_figure(13, 6)
    axes = figure.subplots()
    for row in np.argsort(goodness, kind="stable"):
        _draw_line(axes, lines[row], tuple(colours.to_rgba(goodness[row])), is_best=int(done["trial"][row]) == best)
    for x, name in enumerate(AXES):
        scales[name]._draw(axes, x)
        title = AXES[name] or objective.removeprefix("val_").replace("_", " ").replace(" ", "\n", 1)
        axes.text(x, 1.1, title, ha="center", va="bottom", fontsize=11)
    axes.set(xlim=(-0.5, len(AXES) - 0.2), ylim=(-0.1, 1.1))
    axes.axis("off")
    n_failed = len(trials) - len(done)
    failed = f", {n_failed} failed and not shown" if n_failed else ""
    figure.suptitle(
        f"{len(done)} trials{failed}: better ones are darker, the best (trial {best}) is red; "
        f"{objective} is better upwards", fontsize=12,
    )  # fmt: skip
    return figure


def _draw_line(axes: Axes, places: np.ndarray, colour: tuple[float, ...], *, is_best: bool) -> None:
    look = {"color": BOGUS_COLOUR, "lw": 3, "ms": 7} if is_best else {"color": colour, "lw": 1.8, "ms": 5}
    axes.plot(range(len(places)), places, marker="o", zorder=3 if is_best else 2, **look)  # type: ignore[arg-type]


class Scale:
    """One of the parallel axes: values to places between 0 and 1, and its ticks.

    Parameters
    ----------
    values : Series
        What is to be shown, numbers or names.
    name : str
        Of the column.
    upside_down : bool
        True for the smallest value on top.
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
        """Places of values on the axis, 0 at its foot and 1 at its top."""
        places = (self._numbers(values) - self.low) / (self.high - self.low)
        return 1 - places if self.upside_down else places

    def ticks(self) -> dict[str, float]:
        """Text of each tick, and its place."""
        if self.names:
            values = pd.Series(self.names)
        elif self.is_log:
            values = self._log_ticks()
        else:
            ticks = MaxNLocator(5, integer=self.is_whole).tick_values(self.low, self.high)
            values = pd.Series(ticks)
        places = self._place(values)
        texts = values if self.names else [f"{value:.4g}" for value in values]
        return {text: float(place) for text, place in zip(texts, places, strict=True) if -0.001 <= place <= 1.001}

    def _log_ticks(self) -> pd.Series:
        """Decades, and more where there are few of them."""
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
        (n,).

    Returns
    -------
    ndarray
        (n,).

    Examples
    --------
    >>> spread_equal(pd.Series(["relu", "elu", "relu"])).round(4).tolist()
    [-0.0175, 0.0, 0.0175]
    """
    groups = values.groupby(values)
    rank, size = groups.cumcount().to_numpy(float), groups.transform("size").to_numpy(float)
    step = np.minimum(SPREAD, MAX_SPREAD / size)
    return (rank - (size - 1) / 2) * step
