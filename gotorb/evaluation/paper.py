"""Figures as a paper shows them, each with the numbers that it is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.curves import plot_error_rates, population_rates
from gotorb.evaluation.drawing import confidence_extremes, describe_posterior, describe_row, random_rows
from gotorb.evaluation.figures import plot_recovery, plot_reliability, recovery_table
from gotorb.evaluation.latent import map_latent, plot_latent
from gotorb.evaluation.metrics import reliability_table
from gotorb.evaluation.pictures import GRID, plot_posteriors, plot_stamps
from gotorb.evaluation.posterior import posterior_density

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_COLUMNS = ("id", "label", "metalabel", "mag", "score", "mean", "std", "confidence")


@dataclass(frozen=True)
class Material:
    """What figures are made of: the judged rows of one model.

    Attributes
    ----------
    rows : DataFrame
        (n,) predictions of labelled rows (`evaluation.report.make_predictions`).
    samples : ndarray or None
        (n, n_samples) posterior samples.
    layers : tuple of str
        Layers of the stamps.
    threshold : float
        Of the model.
    read_stamps : callable
        Gives the stamps (m, size, size, n_layers) of m places in `rows`.
    read_vectors : callable
        Gives the latent vectors (n, n_features).
    seed : int
        Of what is drawn at random.
    """

    rows: pd.DataFrame
    samples: np.ndarray | None
    layers: tuple[str, ...]
    threshold: float
    read_stamps: Callable[[np.ndarray], np.ndarray]
    read_vectors: Callable[[], np.ndarray]
    seed: int = 0

    @property
    def labels(self) -> np.ndarray:
        """(n,) of int."""
        return self.rows["label"].to_numpy(int)

    @property
    def scores(self) -> np.ndarray:
        """(n,) of float."""
        return self.rows["score"].to_numpy(float)


class Drawn(NamedTuple):
    """A figure and the numbers that it shows."""

    data: pd.DataFrame
    figure: Figure


def draw_paper_figure(name: str, material: Material) -> Drawn:
    """Draw one of `PAPER_FIGURES`.

    Raises
    ------
    ConfigError
        If there is no figure of that name.
    DataError
        If the rows do not hold what it shows.
    """
    if name not in PAPER_FIGURES:
        raise ConfigError(f"no figure {name!r}; choose one of {', '.join(PAPER_FIGURES)}")
    if len(material.rows) == 0:
        raise DataError(f"no labelled test row to draw {name!r} from; give a data set with a test part")
    return PAPER_FIGURES[name](material)


def _draw_fnr_fpr(material: Material) -> Drawn:
    parts = [
        pd.DataFrame({"rows": name, "threshold": rates.thresholds, "fpr": rates.fpr, "fnr": rates.fnr})
        for name, rates in population_rates(material.rows).items()
    ]
    if not parts:
        raise DataError("no real row, so no missed fraction; give a data set with both classes")
    return Drawn(pd.concat(parts, ignore_index=True), plot_error_rates(material.rows, material.threshold))


def _draw_posteriors(material: Material) -> Drawn:
    samples = _need_samples(material)
    chosen = confidence_extremes(material.rows)
    captions = [describe_posterior(material.rows.iloc[place]) for place in chosen]
    curves = {material.rows["id"].iloc[place]: posterior_density(samples[place], GRID) for place in chosen}
    figure = plot_posteriors(
        material.read_stamps(chosen), material.layers, samples[chosen], captions, threshold=material.threshold
    )
    return Drawn(pd.DataFrame({"score": GRID} | curves), figure)


def _draw_latent(material: Material) -> Drawn:
    places = map_latent(material.read_vectors(), seed=material.seed)
    rows = material.rows.reset_index(drop=True)
    return Drawn(rows[list(ROW_COLUMNS)].assign(x=places[:, 0], y=places[:, 1]), plot_latent(places, rows))


def _draw_recovery(material: Material) -> Drawn:
    real = material.labels == 1
    mags = pd.to_numeric(material.rows["mag"], errors="coerce").to_numpy(float)[real]
    if not np.isfinite(mags).any():
        raise DataError("no real row has a magnitude; there is no recovery to draw")
    scores = material.scores[real]
    return Drawn(recovery_table(mags, scores, material.threshold), plot_recovery(mags, scores, material.threshold))


def _draw_reliability(material: Material) -> Drawn:
    figure = plot_reliability(material.labels, material.scores, material.rows.get("probability"))
    return Drawn(reliability_table(material.labels, material.scores), figure)


def _draw_examples(material: Material) -> Drawn:
    chosen = random_rows(material.rows, np.random.default_rng(material.seed))
    rows = material.rows.iloc[chosen]
    captions = [describe_row(row) for _, row in rows.iterrows()]
    figure = plot_stamps(material.read_stamps(chosen), material.layers, captions, title="Randomly chosen stamps")
    return Drawn(rows[list(ROW_COLUMNS)].reset_index(drop=True), figure)


def _need_samples(material: Material) -> np.ndarray:
    if material.samples is None:
        raise DataError("this model has no dropout, so no posterior; name a Bayesian one (--network bayesian_vgg6)")
    return material.samples


PAPER_FIGURES: dict[str, Callable[[Material], Drawn]] = {
    "fnr-fpr": _draw_fnr_fpr,
    "posteriors": _draw_posteriors,
    "latent": _draw_latent,
    "recovery": _draw_recovery,
    "reliability": _draw_reliability,
    "examples": _draw_examples,
}
"""Name -> how it is drawn."""
