"""Learning curves: how much better each way of choosing labels is than chance, and how many labels that saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gotorb import layout
from gotorb.evaluation.acquisition import RANDOM

QUANTITIES = {"auc": 1, "error": -1}
"""What is measured, and whether more or less of it is better."""
COLOURS = {"bald": "tab:blue", "margin": "tab:orange", RANDOM: "0.4"}


def summarise_curves(runs: pd.DataFrame) -> dict[str, Any]:
    """Compare methods with random choice, seed by seed.

    Parameters
    ----------
    runs : DataFrame
        Columns method, seed, round, n_labels, auc, error; each method, the random one among them, with the same seeds
        and rounds.

    Returns
    -------
    dict
        For each method and quantity: ``curve`` (n_labels, mean and its 95 % interval over seeds), and for methods
        other than random ``difference`` (the same of the paired difference to random, better being positive), ``gain``
        (mean difference over all rounds after the start, with interval) and ``labels_ratio`` (labels that random
        needs for the same performance, over those the method needs, with interval). An interval is null with one seed.
    """
    methods = list(dict.fromkeys(runs["method"]))
    n_labels = np.sort(runs["n_labels"].unique())
    found: dict[str, Any] = {"n_labels": n_labels.tolist(), "n_seeds": int(runs["seed"].nunique()), "methods": {}}
    for method in methods:
        found["methods"][method] = {
            quantity: _compare(_curves(runs, method, quantity), _curves(runs, RANDOM, quantity), n_labels, sign)
            if method != RANDOM
            else {"curve": _interval(_curves(runs, method, quantity))}
            for quantity, sign in QUANTITIES.items()
        }
    return found


def describe_choices(
    chosen: Mapping[str, Sequence[int]], n_wrong: Mapping[str, int], pool: np.ndarray, table: pd.DataFrame
) -> dict[str, Any]:
    """What each method chose, beside what there was: number of rows, fraction of real ones, and of each metalabel.

    Of the chosen ones also ``wrong``, the fraction whose label the network that chose them had wrong: those from
    which there was most to learn.

    Parameters
    ----------
    chosen : mapping of str to sequence of int
        Row numbers that a method chose, of all seeds and rounds.
    n_wrong : mapping of str to int
        How many of these the network had wrong.
    pool : ndarray of int
        (n,) row numbers that could be chosen.
    table : DataFrame
        The rows, with label and metalabel.
    """
    kinds = sorted(set(table["metalabel"].iloc[pool]))

    def describe(numbers: Sequence[int] | np.ndarray) -> dict[str, Any]:
        rows = table.iloc[list(numbers)]
        shares = {kind: round(float((rows["metalabel"] == kind).mean()), 4) for kind in kinds}
        return {"n": len(rows), "real": round(float((rows["label"] == layout.REAL).mean()), 4), "metalabels": shares}

    return {"pool": describe(pool)} | {
        method: describe(numbers) | {"wrong": round(n_wrong[method] / len(numbers), 4)}
        for method, numbers in chosen.items()
        if numbers
    }


def _curves(runs: pd.DataFrame, method: str, quantity: str) -> np.ndarray:
    """(n_seeds, n_rounds) values."""
    return runs[runs["method"] == method].pivot(index="seed", columns="round", values=quantity).to_numpy(float)


def _compare(curves: np.ndarray, control: np.ndarray, n_labels: np.ndarray, sign: int) -> dict[str, Any]:
    difference = sign * (curves - control)
    return {
        "curve": _interval(curves),
        "difference": _interval(difference),
        "gain": {key: value[0] for key, value in _interval(difference[:, 1:].mean(axis=1, keepdims=True)).items()},
        "labels_ratio": _labels_ratio(sign * curves, sign * control, n_labels),
    }


def _interval(values: np.ndarray) -> dict[str, list[float | None]]:
    """Mean over seeds of each column, with Student's 95 % interval."""
    from scipy.stats import t

    mean, n = values.mean(axis=0), len(values)
    if n < 2:
        return {"mean": _plain(mean), "low": [None] * len(mean), "high": [None] * len(mean)}
    half = t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / np.sqrt(n)
    return {"mean": _plain(mean), "low": _plain(mean - half), "high": _plain(mean + half)}


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 6) for value in values]


def _labels_ratio(curves: np.ndarray, control: np.ndarray, n_labels: np.ndarray) -> dict[str, float | None]:
    """Ratio of labels for equal performance of the mean curves; Student's interval of its logarithm by the jackknife.

    Resampling a handful of seeds would give too narrow an interval.
    """
    from scipy.stats import t

    def log_ratio(seeds: np.ndarray) -> float:
        return float(np.log(labels_ratio(curves[seeds].mean(axis=0), control[seeds].mean(axis=0), n_labels)))

    n = len(curves)
    every = np.arange(n)
    value = log_ratio(every)
    if n < 2:
        return {"value": round(float(np.exp(value)), 4), "low": None, "high": None}
    without = np.array([log_ratio(np.delete(every, seed)) for seed in every])
    half = t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    found = {"value": value, "low": value - half, "high": value + half}
    return {key: round(float(np.exp(one)), 4) for key, one in found.items()}


def labels_ratio(curve: np.ndarray, control: np.ndarray, n_labels: np.ndarray) -> float:
    """Labels that the control needs for the same performance over those that the curve needs; above 1 saves labels.

    Both at the best performance that both reach, between rounds by straight lines.

    Parameters
    ----------
    curve, control : ndarray
        (n_rounds,) performance, more being better.
    n_labels : ndarray
        (n_rounds,) labels, ascending.

    Examples
    --------
    >>> labels_ratio(np.array([0.5, 0.9, 0.95]), np.array([0.5, 0.7, 0.9]), np.array([100, 200, 300]))
    1.5
    """
    goal = min(curve.max(), control.max())
    needed = [_labels_for(goal, np.maximum.accumulate(values), n_labels) for values in (control, curve)]
    return needed[0] / needed[1]


def _labels_for(goal: float, rising: np.ndarray, n_labels: np.ndarray) -> float:
    place = int(np.argmax(rising >= goal))
    if place == 0:
        return float(n_labels[0])
    low, high = rising[place - 1 : place + 1]
    return float(n_labels[place - 1] + (goal - low) / (high - low) * (n_labels[place] - n_labels[place - 1]))


def plot_learning(summary: dict[str, Any]) -> Figure:
    """Curves of each method with bands of 95 % over seeds, one panel for each quantity.

    Parameters
    ----------
    summary : dict
        From `summarise_curves`.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(QUANTITIES))
    for axis, quantity in zip(axes, QUANTITIES, strict=True):
        for method, found in summary["methods"].items():
            curve, colour = found[quantity]["curve"], COLOURS.get(method)
            axis.plot(summary["n_labels"], curve["mean"], "o-", ms=3, label=method, color=colour)
            if None not in curve["low"]:
                band = np.clip([curve["low"], curve["high"]], 0, 1)  # few seeds give wider ones than can be
                axis.fill_between(summary["n_labels"], *band, alpha=0.15, color=colour, lw=0)
        axis.set_xlabel("labels")
    axes[0].set_ylabel("AUC of the test rows")
    axes[1].set_ylabel("mean of FPR and FNR at 0.5")
    axes[0].legend(frameon=False, title=f"{summary['n_seeds']} seeds")
    return figure
