"""Figures for a paper, each with the numbers that it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import file_digest, write_json
from gotorb.core.params import N_SAMPLES, SEED
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.calibration import Calibration
from gotorb.evaluation.evaluate import (
    EvaluationOptions,
    all_rows,
    find_scale,
    held_out_rows,
    load_with_meta,
    score_model,
)
from gotorb.evaluation.figures import (
    paper_style,
    plot_error_rates,
    plot_recovery,
    plot_reliability,
    plot_roc,
    population_rates,
    recovery_table,
    roc_curves,
)
from gotorb.evaluation.injections import fit_completeness, plot_completeness
from gotorb.evaluation.intervals import find_groups
from gotorb.evaluation.latent import map_latent, plot_latent
from gotorb.evaluation.metrics import reliability_table
from gotorb.evaluation.posterior import posterior_density
from gotorb.evaluation.report import make_predictions, write_figures, write_scores
from gotorb.evaluation.stamp_figures import (
    GRID,
    describe_posterior,
    describe_row,
    misclassified_rows,
    plot_posteriors,
    plot_stamps,
    random_rows,
    telling_rows,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS, PAPER_DPI = ("png", "pdf", "svg"), 200
ROW_COLUMNS = ("id", "label", "metalabel", "mag", "score", "mean", "std", "confidence")


@dataclass(frozen=True, kw_only=True)
class Material:
    """Data of the figures: scored rows of one model.

    Attributes
    ----------
    rows : DataFrame
        (n,) predictions of labelled rows (`evaluation.report.make_predictions`).
    samples : ndarray or None
        (n, n_samples) posterior samples.
    layers : tuple of str
        Layers of the stamps.
    threshold : float
        Threshold of the model.
    read_stamps : callable
        Function from (m,) indices into `rows` to stamps (m, size, size, n_layers).
    read_vectors : callable
        Function that returns the latent vectors (n, n_features).
    seed : int
        Seed of random choices.
    name : str
        Name of the model.
    cells : list of dict, optional
        Recovery of injected transients (`evaluation.injections.map_recovery`).
    """

    rows: pd.DataFrame
    samples: np.ndarray | None
    layers: tuple[str, ...]
    threshold: float
    read_stamps: Callable[[np.ndarray], np.ndarray]
    read_vectors: Callable[[], np.ndarray]
    seed: int = 0
    name: str = "model"
    cells: list[dict[str, Any]] | None = None

    @property
    def labels(self) -> np.ndarray:
        """Labels of the rows.

        Returns
        -------
        ndarray of int
            (n,) 1 real, 0 bogus.
        """
        return self.rows["label"].to_numpy(int)

    @property
    def scores(self) -> np.ndarray:
        """Scores of the rows.

        Returns
        -------
        ndarray
            (n,) scores.
        """
        return self.rows["score"].to_numpy(float)


class Drawn(NamedTuple):
    """A figure and the numbers that it shows."""

    data: pd.DataFrame
    figure: Figure


def draw_paper_figure(name: str, material: Material) -> Drawn:
    """Draw one of `PAPER_FIGURES`.

    Parameters
    ----------
    name : str
        Name of the figure.
    material : Material
        Scored rows.

    Returns
    -------
    Drawn

    Raises
    ------
    ConfigError
        If there is no figure of that name.
    DataError
        If the rows have no data for it.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> (model, meta), data = load_with_meta("models/small"), open_dataset("data/dataset")
    >>> material = gather_material(model, meta, data, n_samples=3, seed=1)
    >>> draw_paper_figure("fnr-fpr", material).data.columns.tolist()
    ['rows', 'threshold', 'fpr', 'fnr']
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
        raise DataError("no real row and therefore no missed fraction; give a data set with both classes")
    return Drawn(pd.concat(parts, ignore_index=True), plot_error_rates(material.rows, material.threshold))


def _draw_posteriors(material: Material) -> Drawn:
    samples = _need_samples(material)
    reasons = telling_rows(material.rows, material.threshold)
    chosen = np.array(list(reasons), int)
    captions = [describe_posterior(material.rows.iloc[place], why) for place, why in reasons.items()]
    curves = {material.rows["id"].iloc[place]: posterior_density(samples[place], GRID) for place in chosen}
    figure = plot_posteriors(
        material.read_stamps(chosen), material.layers, samples[chosen], captions, threshold=material.threshold
    )
    return Drawn(pd.DataFrame({"score": GRID} | curves), figure)


def _draw_latent(material: Material) -> Drawn:
    places = map_latent(material.read_vectors(), seed=material.seed)
    rows = material.rows.reset_index(drop=True)
    return Drawn(
        rows[list(ROW_COLUMNS)].assign(x=places[:, 0], y=places[:, 1]), plot_latent(places, rows, material.threshold)
    )


def _draw_recovery(material: Material) -> Drawn:
    real = material.labels == 1
    mags = pd.to_numeric(material.rows["mag"], errors="coerce").to_numpy(float)[real]
    if not np.isfinite(mags).any():
        raise DataError("no real row has a magnitude; give a data set with magnitudes to draw the recovery")
    scores = material.scores[real]
    return Drawn(recovery_table(mags, scores, material.threshold), plot_recovery(mags, scores, material.threshold))


def _draw_reliability(material: Material) -> Drawn:
    figure = plot_reliability(material.labels, material.scores, material.rows.get("probability"))
    return Drawn(reliability_table(material.labels, material.scores), figure)


def _draw_roc(material: Material) -> Drawn:
    named = {material.name: material.scores}
    curves = roc_curves(material.labels, named)
    if not curves:
        raise DataError("all rows are of one class; give a data set with both classes to draw a ROC curve")
    fpr, tpr = curves[material.name]
    figure = plot_roc(material.labels, named, material.threshold, find_groups(material.rows))
    return Drawn(pd.DataFrame({"fpr": fpr, "tpr": tpr}), figure)


def _draw_injections(material: Material) -> Drawn:
    if material.cells is None:
        raise DataError(f"no injections for {material.name} in reports/injections.json; run `make repro`")
    found = fit_completeness(material.cells)
    return Drawn(found, plot_completeness(material.cells, found, title=material.name))


def _draw_misclassified(material: Material) -> Drawn:
    chosen = misclassified_rows(material.rows, material.threshold)
    if not len(chosen):
        raise DataError(f"no wrong call at threshold {material.threshold:.3f}; draw another figure")
    return _draw_rows(material, chosen, f"The worst wrong calls at {material.threshold:.3f}")


def _draw_examples(material: Material) -> Drawn:
    chosen = random_rows(material.rows, np.random.default_rng(material.seed))
    return _draw_rows(material, chosen, "Randomly chosen stamps")


def _draw_rows(material: Material, chosen: np.ndarray, title: str) -> Drawn:
    rows = material.rows.iloc[chosen]
    captions = [describe_row(row) for _, row in rows.iterrows()]
    figure = plot_stamps(material.read_stamps(chosen), material.layers, captions, title=title)
    return Drawn(rows[list(ROW_COLUMNS)].reset_index(drop=True), figure)


def _need_samples(material: Material) -> np.ndarray:
    if material.samples is None:
        raise DataError("this model has no dropout and no posterior; name a Bayesian one (--network bayesian_vgg6)")
    return material.samples


PAPER_FIGURES: dict[str, Callable[[Material], Drawn]] = {
    "fnr-fpr": _draw_fnr_fpr,
    "roc": _draw_roc,
    "posteriors": _draw_posteriors,
    "latent": _draw_latent,
    "recovery": _draw_recovery,
    "injections": _draw_injections,
    "reliability": _draw_reliability,
    "examples": _draw_examples,
    "misclassified": _draw_misclassified,
}
"""Name of a figure -> function that draws it."""


class Written(NamedTuple):
    """Files of a figure: picture, numbers, and origin of both."""

    picture: Path
    numbers: Path
    origin: Path


def draw_figure(
    name: str,
    model_dir: Path | str,
    data_dir: Path | str,
    *,
    out_dir: Path | str = ".",
    n_samples: int = N_SAMPLES,
    seed: int = SEED,
    kind: str = FORMATS[0],
    style: str = "page",
    cells: list[dict[str, Any]] | None = None,
    origin: dict[str, Any] | None = None,
) -> Written:
    """Draw a figure of a model's test rows.

    Parameters
    ----------
    name : str
        One of `PAPER_FIGURES`.
    model_dir, data_dir : path
        Folder of a trained model, and of its data set.
    out_dir : path
        Folder for ``<name>.png`` (or .pdf, .svg), ``<name>.csv`` and ``<name>.json``.
    n_samples, seed : int
        Posterior samples per stamp; seed of these and of random choices.
    kind : {"png", "pdf", "svg"}
        Format of the picture.
    style : {"column", "page"}
        Width and font size for a column or a page of a journal.
    cells : list of dict, optional
        As in `Material`.
    origin : dict, optional
        Further content of the json.

    Returns
    -------
    Written
        Paths of the three files.

    Raises
    ------
    ConfigError, ModelError, DataError
        If there is no such figure, model or data set, or the rows have no data for the figure.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = draw_figure("fnr-fpr", "models/small", "data/dataset", out_dir=folder, n_samples=2)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['fnr-fpr.csv', 'fnr-fpr.json', 'fnr-fpr.png']
    """
    if kind not in FORMATS:
        raise ConfigError(f"format {kind!r}; choose {', '.join(FORMATS)}")
    (model, meta), data, out_dir = load_with_meta(model_dir), open_dataset(data_dir), Path(out_dir)
    known = gather_material(model, meta, data, n_samples=n_samples, seed=seed)
    material = replace(known, name=str(meta.get("model", "model")), cells=cells)
    with paper_style(style):
        drawn = draw_paper_figure(name, material)
        write_figures({name: drawn.figure}, out_dir, kind=kind, dpi=PAPER_DPI)
    write_scores(out_dir / f"{name}.csv", drawn.data)
    about = {
        "figure": name,
        "n_rows": len(material.rows),
        "data_digest": data_digest(data.data_dir),
        "model_sha256": file_digest(Path(model_dir) / layout.MODEL_H5),
        "n_samples": n_samples,
        "seed": seed,
    }
    write_json(out_dir / f"{name}.json", about | (origin or {}))
    return Written(*(out_dir / f"{name}.{ending}" for ending in (kind, "csv", "json")))


def gather_material(
    model: Any, meta: dict[str, Any], data: Dataset, *, n_samples: int, seed: int, everything: bool = False
) -> Material:
    """Score the labelled rows of a data set for `draw_paper_figure`.

    Parameters
    ----------
    model : keras.Model
        Network.
    meta : dict
        Record of its training.
    data : Dataset
        Data set with the stamps.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.
    everything : bool
        True for all labelled rows, if the model was not trained on this data set; False for the test rows in the meta.

    Returns
    -------
    Material

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> (model, meta), data = load_with_meta("models/small"), open_dataset("data/dataset")
    >>> material = gather_material(model, meta, data, n_samples=3, seed=1)
    >>> len(material.rows), material.samples.shape, material.layers
    (4, (4, 3), ('science', 'template', 'difference', 'ptp', 'min', 'max'))
    """
    rows = all_rows(data) if everything else held_out_rows(data, meta).query("split == 'test'")
    rows = rows[rows["label"].isin((layout.REAL, layout.BOGUS))]
    numbers = rows.index.to_numpy(int)
    options = EvaluationOptions(n_samples=n_samples, n_bootstrap=0, threshold_fpr=None, seed=seed)
    scores, samples = score_model(model, meta, data, numbers, options)
    predictions = make_predictions(rows, scores, samples, find_scale(meta))
    if "calibration" in meta:
        predictions["probability"] = Calibration.from_dict(meta["calibration"]).apply(scores)

    def read_vectors() -> np.ndarray:
        from gotorb.training.inference import latent_vectors

        return latent_vectors(model, (stamps for _, stamps in data.batches(numbers, layers=meta["layers"])))

    return Material(
        rows=predictions, samples=samples, layers=data.layers, threshold=float(meta["threshold"]),
        read_stamps=lambda places: data.read_stamps(numbers[places]), read_vectors=read_vectors, seed=seed,
    )  # fmt: skip
