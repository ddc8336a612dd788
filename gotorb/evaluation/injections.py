"""Recovery of injected transients against magnitude and distance from the host, for one model or a pair.

All models score the same injected sources, so two models are compared source by source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core.params import N_SAMPLES, SEED, RecoveryParams
from gotorb.dataset.split import labelled_rows
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import DataError
from gotorb.evaluation.comparison import mcnemar
from gotorb.evaluation.evaluate import load_with_meta, score_plainly, score_rows
from gotorb.evaluation.intervals import Z_95, wilson_interval
from gotorb.evaluation.metrics import DETECTABLE_SNR, is_faint, is_nuclear, rounded
from gotorb.evaluation.report import round_headline
from gotorb.evaluation.thresholds import choose_threshold

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Colours = tuple[str, float, float]
"""Name of a colour map and the values at its ends."""
INJECTIONS = RecoveryParams()
MAG_WIDTH = 1.0
OFFSET_EDGES = (0.0, 1.0, 2.0, 4.0, 8.0)
FARTHER, NO_HOST = "more", "no host"
SLICES = ("all", "detectable", "faint", "bright", "nuclear", "off the nucleus", "no host")
"""All sources; those of S/N at least 5, and of these: faint (S/N below 10), brighter, nuclear (within 1.5 arcsec of the
centre of the host), farther out, without a host."""


def slice_rows(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mask, (n,) of bool, of each of `SLICES`.

    Parameters
    ----------
    rows : DataFrame
        Injected sources: snr, host_offset_arcsec (NaN without a host).

    Returns
    -------
    dict of ndarray
        (n,) mask by name of the slice.

    Examples
    --------
    >>> rows = pd.DataFrame({"snr": [4.0, 7.0, 20.0], "host_offset_arcsec": [np.nan, 0.5, np.nan]})
    >>> {name: int(mask.sum()) for name, mask in slice_rows(rows).items()}["nuclear"]
    1
    """
    snr, offset = rows["snr"].to_numpy(float), rows["host_offset_arcsec"].to_numpy(float)
    seen, hosted = snr >= DETECTABLE_SNR, np.isfinite(offset)
    masks = (
        np.ones(len(rows), bool), seen, is_faint(snr), seen & ~is_faint(snr),
        seen & is_nuclear(offset), seen & hosted & ~is_nuclear(offset), seen & ~hosted,
    )  # fmt: skip
    return dict(zip(SLICES, masks, strict=True))


HEADLINE_SLICES = {"found": "detectable", "found_faint": "faint", "found_nuclear": "nuclear"}
"""Headline number -> slice whose found fraction it is."""


def _bin_offsets(offset: np.ndarray) -> np.ndarray:
    """Names of bins of distance [arcsec], (n,) of str.

    >>> _bin_offsets(np.array([0.2, 3.0, 9.0, np.nan])).tolist()
    ['0-1', '2-4', 'more', 'no host']
    """
    edges = np.array(OFFSET_EDGES)
    names = np.array([f"{low:g}-{high:g}" for low, high in pairwise(OFFSET_EDGES)] + [FARTHER])
    place = np.clip(np.searchsorted(edges, np.nan_to_num(offset), side="right") - 1, 0, len(names) - 1)
    return np.where(np.isfinite(offset), names[place], NO_HOST)


def map_recovery(rows: pd.DataFrame, found: np.ndarray) -> pd.DataFrame:
    """Found fraction in cells of magnitude and distance from the host.

    Parameters
    ----------
    rows : DataFrame
        Injected sources: mag, host_offset_arcsec.
    found : ndarray of bool
        (n,) True where the model calls the source real.

    Returns
    -------
    DataFrame
        A row for each cell with sources: mag (lower edge of a bin of 1 mag), offset (name of the bin), n, n_found,
        fraction, low, high (95 % Wilson).

    Raises
    ------
    DataError
        If there is no row.

    Examples
    --------
    >>> rows = pd.DataFrame({"mag": [18.2, 18.9], "host_offset_arcsec": [0.5, np.nan]})
    >>> map_recovery(rows, np.array([True, False]))[["mag", "offset", "n_found"]].values.tolist()
    [[18.0, '0-1', 1], [18.0, 'no host', 0]]
    """
    if len(rows) == 0:
        raise DataError("no injected source to map; inject some into the held-out images first")
    floor = np.floor(rows["mag"].to_numpy(float) / MAG_WIDTH) * MAG_WIDTH
    cells = pd.DataFrame({"mag": floor, "offset": _bin_offsets(rows["host_offset_arcsec"].to_numpy(float))})
    counts = cells.assign(n=1, n_found=np.asarray(found, int)).groupby(["mag", "offset"], as_index=False).sum()
    bounds = [wilson_interval(int(hits), int(n)) or (np.nan, np.nan) for hits, n in counts[["n_found", "n"]].to_numpy()]
    low, high = np.array(bounds).T
    return counts.assign(fraction=counts["n_found"] / counts["n"], low=low, high=high)


def measure_recovery(rows: pd.DataFrame, found: np.ndarray) -> dict[str, Any]:
    """Found fraction of each slice and of each cell of the map, as plain values.

    Parameters
    ----------
    rows : DataFrame
        Injected sources, as for `map_recovery` and `slice_rows`.
    found : ndarray of bool
        (n,) True where the model calls the source real.

    Returns
    -------
    dict
        slices: name -> n, n_found, fraction, low, high (95 % Wilson); cells: rows of `map_recovery`.

    Examples
    --------
    >>> rows = pd.DataFrame({"mag": [18.0, 19.5], "snr": [20.0, 6.0], "host_offset_arcsec": [0.5, 5.0]})
    >>> measure_recovery(rows, np.array([True, False]))["slices"]["nuclear"]["fraction"]
    1.0
    """
    slices = {}
    for name, inside in slice_rows(rows).items():
        n, n_found = int(inside.sum()), int(found[inside].sum())
        low, high = wilson_interval(n_found, n) or (None, None)
        slices[name] = {"n": n, "n_found": n_found, "fraction": n_found / n if n else None, "low": low, "high": high}
    return rounded({"slices": slices, "cells": map_recovery(rows, found).to_dict("records")})


def compare_recovery(rows: pd.DataFrame, found_a: np.ndarray, found_b: np.ndarray) -> dict[str, Any]:
    """Difference between the found fractions of two models in each slice, on the same sources.

    Parameters
    ----------
    rows : DataFrame
        Injected sources, as for `slice_rows`.
    found_a, found_b : ndarray of bool
        (n,) True where the model calls the source real.

    Returns
    -------
    dict
        For each slice n, only_a, only_b (found by one model only), difference (a minus b) with a 95 % interval, and
        p_value of McNemar's exact test.

    References
    ----------
    McNemar 1947, Psychometrika 12, 153. Agresti & Min 2005, Stat. Med. 24, 729: Wald interval of a paired difference,
    with half a count added to each of the four pairs.

    Examples
    --------
    >>> rows = pd.DataFrame({"snr": [20.0, 6.0], "host_offset_arcsec": [0.5, 5.0]})
    >>> compare_recovery(rows, np.array([True, True]), np.array([True, False]))["all"]["only_a"]
    1
    """
    masks = slice_rows(rows)
    return rounded({name: _compare(found_a[inside], found_b[inside]) for name, inside in masks.items()})


def _compare(found_a: np.ndarray, found_b: np.ndarray) -> dict[str, Any]:
    n, only_a, only_b = len(found_a), int((found_a & ~found_b).sum()), int((found_b & ~found_a).sum())
    if n == 0:
        return {"n": 0, "only_a": 0, "only_b": 0, "difference": None, "low": None, "high": None, "p_value": None}
    a, b, total = only_a + 0.5, only_b + 0.5, n + 2
    middle, half = (a - b) / total, Z_95 * np.sqrt((a + b) - (a - b) ** 2 / total) / total
    found = {"n": n, "only_a": only_a, "only_b": only_b, "difference": (only_a - only_b) / n}
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return found | {"low": low, "high": high, "p_value": mcnemar(only_a, only_b)}


def plot_recovery_map(rows: pd.DataFrame, found: np.ndarray, *, title: str) -> Figure:
    """Draw the found fraction of each cell, with its interval and count.

    Parameters
    ----------
    rows : DataFrame
        Injected sources, as for `map_recovery`.
    found : ndarray of bool
        (n,) True where the model calls the source real.
    title : str
        Title of the figure.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"mag": [18.2, 18.9], "host_offset_arcsec": [0.5, np.nan]})
    >>> figure = plot_recovery_map(rows, np.array([True, False]), title="vgg6")
    >>> [text.get_text().split("\\n")[0] for text in figure.axes[0].texts]
    ['100 %', '0 %']
    """
    cells = map_recovery(rows, found)
    text = [f"{100 * c.fraction:.0f} %\n{100 * c.low:.0f}-{100 * c.high:.0f}\nn {c.n}" for c in cells.itertuples()]
    label = "fraction called real"
    return _draw_cells(cells, cells["fraction"], text, title=title, label=label, colours=("viridis", 0.0, 1.0))


def fit_completeness(cells: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Fit found fraction = 1 / (1 + exp((mag - m50) / width)) to the cells of each distance from the host.

    Parameters
    ----------
    cells : sequence of mapping
        Rows of `map_recovery`.

    Returns
    -------
    DataFrame
        offset, n, m50 with low and high (95 %, from the curvature of the likelihood) and width, in magnitudes; NaN with
        fewer than two bins of magnitude, or with all or no sources found.

    Examples
    --------
    >>> cells = [{"offset": "0-1", "mag": mag, "n": 9, "n_found": found} for mag, found in ((18, 9), (19, 5), (20, 0))]
    >>> fit_completeness(cells)["m50"].round(1).tolist()
    [19.5, 19.5]
    """
    table = pd.DataFrame(cells)
    fits = [_fit_bin(str(name), rows) for name, rows in table.groupby("offset", sort=True)]
    return pd.DataFrame([{"offset": "all", **_fit_bin("all", table)}, *fits])


def _fit_bin(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    from scipy.optimize import minimize

    sums = rows.groupby("mag")[["n", "n_found"]].sum()
    mag, (n, hits) = sums.index.to_numpy(float) + MAG_WIDTH / 2, sums.to_numpy(float).T
    told = {"offset": name, "n": int(n.sum()), "m50": np.nan, "low": np.nan, "high": np.nan, "width": np.nan}
    if len(mag) < 2 or hits.sum() in (0, n.sum()):
        return told

    def loss(values: np.ndarray) -> float:
        z = np.clip((values[0] - mag) / np.exp(values[1]), -30, 30)
        return float((hits * np.logaddexp(0, -z) + (n - hits) * np.logaddexp(0, z)).sum() + 0.5 * values[1] ** 2)

    fit = minimize(loss, np.array([mag.mean(), 0.0]))
    m50, error = float(fit.x[0]), Z_95 * float(np.sqrt(max(fit.hess_inv[0, 0], 0)))
    return told | {"m50": m50, "low": m50 - error, "high": m50 + error, "width": float(np.exp(fit.x[1]))}


def plot_completeness(cells: Sequence[Mapping[str, Any]], fits: pd.DataFrame, *, title: str) -> Figure:
    """Plot the found fraction of injected transients against magnitude for each distance from the host, with fits.

    Parameters
    ----------
    cells : sequence of mapping
        Rows of `map_recovery`.
    fits : DataFrame
        From `fit_completeness`.
    title : str
        Name of the model.

    Returns
    -------
    Figure
        Points with their numbers of sources and 95 % intervals.

    Examples
    --------
    >>> rows = pd.DataFrame({"mag": np.repeat([18.2, 19.2], 4), "host_offset_arcsec": 0.5})
    >>> cells = map_recovery(rows, np.array([True] * 4 + [False] * 4)).to_dict("records")
    >>> plot_completeness(cells, fit_completeness(cells), title="vgg6").axes[0].get_ylabel()
    'fraction found'
    """
    from gotorb.evaluation.figures import COLOURS, new_figure, text_size

    table, fits = pd.DataFrame(cells), fits.set_index("offset")
    names = [name for name in fits.index if name != "all"]
    figure = new_figure(8, 5.5)
    axes = figure.subplots()
    for number, name in enumerate(names):
        rows, fit = table[table["offset"] == name], fits.loc[name]
        x = rows["mag"] + MAG_WIDTH * (0.5 + 0.16 * (number - (len(names) - 1) / 2))
        errors = np.abs([rows["fraction"] - rows["low"], rows["high"] - rows["fraction"]])
        colour, unit = COLOURS[number % len(COLOURS)], "" if name == NO_HOST else " arcsec"
        half = f"m50 {fit['m50']:.1f} ({fit['low']:.1f} to {fit['high']:.1f})" if np.isfinite(fit["m50"]) else "no m50"
        axes.errorbar(
            x, rows["fraction"], yerr=errors, fmt="o", ms=3.5, lw=0.8, color=colour, label=f"{name}{unit}: {half}"
        )
        for place, value, n in zip(x, rows["fraction"], rows["n"], strict=True):
            axes.annotate(
                f"{n}", (place, value), xytext=(0, 4), textcoords="offset points", ha="center", color=colour,
                fontsize=text_size(6),
            )  # fmt: skip
        if np.isfinite(fit["m50"]):
            grid = np.linspace(table["mag"].min(), table["mag"].max() + MAG_WIDTH, 200)
            axes.plot(grid, 1 / (1 + np.exp(np.clip((grid - fit["m50"]) / fit["width"], -50, 50))), color=colour, lw=1)
    every = fits.loc["all"]
    axes.axhline(0.5, color="#666666", ls=":", lw=0.8)
    axes.set(ylim=(-0.03, 1.06), xlabel="magnitude of the injected transient", ylabel="fraction found")
    axes.set_title(f"{title} finds half of {every['n']:.0f} injected transients at mag {every['m50']:.1f}")
    axes.legend(loc="lower left", fontsize=text_size(8), title="distance from the host's centre")
    return figure


def plot_recovery_difference(rows: pd.DataFrame, found_a: np.ndarray, found_b: np.ndarray, *, title: str) -> Figure:
    """Draw the difference of two models' found fractions in each cell, with the sources that only one model finds.

    Parameters
    ----------
    rows : DataFrame
        Injected sources, as for `map_recovery`.
    found_a, found_b : ndarray of bool
        (n,) True where the model calls the source real.
    title : str
        Title of the figure.

    Returns
    -------
    Figure

    Examples
    --------
    >>> rows = pd.DataFrame({"mag": [18.2, 18.9], "host_offset_arcsec": [0.5, 0.5]})
    >>> figure = plot_recovery_difference(rows, np.array([True, True]), np.array([True, False]), title="a - b")
    >>> [text.get_text().split("\\n") for text in figure.axes[0].texts]
    [['+50 %', '+1 -0']]
    """
    cells, other = map_recovery(rows, found_a), map_recovery(rows, found_b)
    only_a, only_b = (map_recovery(rows, mask)["n_found"] for mask in (found_a & ~found_b, found_b & ~found_a))
    difference = cells["fraction"] - other["fraction"]
    text = [f"{100 * d:+.0f} %\n+{a} -{b}" for d, a, b in zip(difference, only_a, only_b, strict=True)]
    top = max(0.1, float(difference.abs().max()))
    return _draw_cells(
        cells, difference, text, title=title, label="difference of fractions", colours=("RdBu", -top, top)
    )


def _draw_cells(
    cells: pd.DataFrame, values: pd.Series, text: list[str], *, title: str, label: str, colours: Colours
) -> Figure:
    from gotorb.evaluation.figures import new_figure

    known = set(cells["offset"])
    edges = [*_bin_offsets(np.array(OFFSET_EDGES)).tolist(), NO_HOST]
    columns = [name for name in dict.fromkeys(edges) if name in known]
    grid = cells.assign(value=values).pivot(index="mag", columns="offset", values="value")[columns]
    mags = grid.index.tolist()
    figure = new_figure(1.6 + 1.25 * len(columns), 1.6 + 0.72 * len(mags))
    axes = figure.subplots()
    name, low, high = colours
    image = axes.imshow(grid.to_numpy(float), cmap=name, vmin=low, vmax=high, aspect="auto")
    for mag, offset, value, words in zip(cells["mag"], cells["offset"], values, text, strict=True):
        red, green, blue, _ = image.to_rgba(value)
        colour = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else "black"
        place = columns.index(offset), mags.index(mag)
        axes.text(*place, words, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(mags)), [f"{mag:g}-{mag + MAG_WIDTH:g}" for mag in mags])
    axes.set(xlabel="distance from the host's centre [arcsec]", ylabel="magnitude", title=title)
    figure.colorbar(image, label=label)
    return figure


SCORE_COLUMNS = ("id", "image_id", "mag", "snr", "host_id", "host_offset_arcsec")


class InjectionTest(NamedTuple):
    """Results of models on injected transients.

    Attributes
    ----------
    report : dict
        n, fpr; for each model its thresholds and its recovery (see `measure_recovery`) at its own threshold and at the
        common FPR; for each pair of models the comparison at that FPR.
    figures : dict
        ``recovery_<model>`` and ``recovery_<model>_minus_<model>``, at the common FPR.
    scores : DataFrame
        All injected sources: `SCORE_COLUMNS`, and for each model its score and ``<model>_found``, 1 for sources found
        at the common FPR.
    """

    report: dict[str, Any]
    figures: dict[str, Figure]
    scores: pd.DataFrame

    @property
    def slices(self) -> dict[str, dict[str, float | None]]:
        """Found fraction of each slice for each model at an equal FPR, the true FPR if known."""
        return {
            model: {name: part["fraction"] for name, part in equal_fpr(known)["slices"].items()}
            for model, known in self.report["models"].items()
        }

    @property
    def headline(self) -> dict[str, dict[str, float | None]]:
        """Found fraction of the headline slices for each model at an equal FPR, with four digits."""
        return {
            model: {title: round_headline(known[name]) for title, name in HEADLINE_SLICES.items()}
            for model, known in self.slices.items()
        }


def equal_fpr(known: Mapping[str, Any]) -> dict[str, Any]:
    """Recovery of a model at the common FPR: the true FPR if known, else that of the validation rows.

    Parameters
    ----------
    known : mapping
        Part of the report about the model.

    Returns
    -------
    dict
        As from `measure_recovery`.

    Examples
    --------
    >>> equal_fpr({"at_fpr": {"slices": {}}})
    {'slices': {}}
    """
    return known.get("at_true_fpr") or known["at_fpr"]


class Finds(NamedTuple):
    """Sources that a model calls real, at its own threshold and at the common FPR."""

    own_threshold: float
    threshold: float
    scores: np.ndarray
    at_own: np.ndarray
    at_fpr: np.ndarray


def evaluate_injections(
    model_dirs: Sequence[Path | str],
    injected_dir: Path | str,
    data_dir: Path | str,
    *,
    fpr: float = INJECTIONS.fpr,
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
    true_thresholds: Mapping[str, float] | None = None,
) -> InjectionTest:
    """Evaluate models on injected transients.

    Parameters
    ----------
    model_dirs : sequence of path
        Folders of trained models.
    injected_dir : path
        Data set of injected sources (`gotorb.simulate.transients.add_transients`).
    data_dir : path
        Data set of the models, with a split; its bogus validation rows define the common FPR.
    fpr : float
        Fraction of the bogus validation rows that each model may call real.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.
    true_thresholds : mapping of str to float, optional
        Model -> threshold at which the truth of a simulated survey gives this FPR. The recovery is then also measured
        there, as ``at_true_fpr``: some bogus labels are wrong, so the FPR of validation rows is not the true one.

    Returns
    -------
    InjectionTest

    Examples
    --------
    >>> test = evaluate_injections(["models/small"], "data/injected", "data/dataset", fpr=0.5, n_samples=2, seed=1)
    >>> test.report["n"], test.report["models"]["small"]["at_threshold"]["slices"]["nuclear"]["fraction"]
    (10, 1.0)
    """
    injected, data = open_dataset(injected_dir), open_dataset(data_dir)
    found = {Path(path).name: _find(path, injected, data, fpr, n_samples=n_samples, seed=seed) for path in model_dirs}
    rows = injected.table
    scores = rows[list(SCORE_COLUMNS)]
    report: dict[str, Any] = {"n": len(rows), "fpr": fpr, "models": {}, "differences": {}}
    figures: dict[str, Figure] = {}
    for name, finds in found.items():
        thresholds = {"threshold": round(finds.own_threshold, 6), "threshold_at_fpr": round(finds.threshold, 6)}
        report["models"][name] = thresholds | {
            "at_threshold": measure_recovery(rows, finds.at_own),
            "at_fpr": measure_recovery(rows, finds.at_fpr),
        }
        if name in (true_thresholds or {}):
            report["models"][name] |= _at_true_fpr(rows, finds.scores, true_thresholds[name])  # type: ignore[index]
        scores = scores.assign(**{name: finds.scores.round(6), f"{name}_found": finds.at_fpr.astype(int)})
        title = f"{name}: injected sources found, {100 * fpr:g} % of bogus accepted"
        figures[f"recovery_{name}"] = plot_recovery_map(rows, finds.at_fpr, title=title)
    for one, other in combinations(found, 2):
        both = found[one].at_fpr, found[other].at_fpr
        report["differences"][f"{one} minus {other}"] = compare_recovery(rows, *both)
        figures[f"recovery_{one}_minus_{other}"] = plot_recovery_difference(
            rows, *both, title=f"found by {one} minus found by {other} (below: by one of them alone)"
        )
    return InjectionTest(report, figures, scores)


def score_injected(model_dirs: Sequence[Path | str], injected_dir: Path | str) -> pd.DataFrame:
    """Score injected transients by several models, for the choice between them.

    Parameters
    ----------
    model_dirs : sequence of path
        Folders of trained models.
    injected_dir : path
        Data set of sources injected into images of validation rows.

    Returns
    -------
    DataFrame
        `SCORE_COLUMNS`, and a column of plain scores for each model.

    Examples
    --------
    >>> score_injected(["models/small"], "data/injected")["small"].round(1).tolist()[:3]
    [1.0, 1.0, 1.0]
    """
    injected = open_dataset(injected_dir)
    scores = injected.table[list(SCORE_COLUMNS)]
    for folder in map(Path, model_dirs):
        model, meta = load_with_meta(folder)
        scores = scores.assign(**{folder.name: score_plainly(model, meta["layers"], injected)})
    return scores


def _at_true_fpr(rows: pd.DataFrame, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    found = measure_recovery(rows, scores >= threshold)
    return {"threshold_at_true_fpr": round(threshold, 6), "at_true_fpr": found}


def _find(model_dir: Path | str, injected: Dataset, data: Dataset, fpr: float, *, n_samples: int, seed: int) -> Finds:
    model, meta = load_with_meta(model_dir)
    validation = labelled_rows(data.table, "validation")
    known = score_rows(model, meta, data, validation, n_samples=n_samples, seed=seed)
    threshold, own = choose_threshold(data.labels[validation], known, max_fpr=fpr), float(meta["threshold"])
    scores = score_rows(model, meta, injected, n_samples=n_samples, seed=seed)
    return Finds(own, threshold, scores, scores >= own, scores >= threshold)
