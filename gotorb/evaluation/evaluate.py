"""Evaluation of a model on rows of a data set: scores, metrics and figures, written to a folder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import ScoreParams
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.evaluation.calibration import Calibration, fit_calibration
from gotorb.evaluation.latent import map_latent, plot_latent
from gotorb.evaluation.metrics import find_clear, measure_calibration, measure_robustness, rounded
from gotorb.evaluation.posterior import Scale
from gotorb.evaluation.report import (
    Evaluation,
    add_tags,
    make_curves,
    make_predictions,
    measure_predictions,
    write_evaluation,
)
from gotorb.evaluation.thresholds import Night, choose_threshold, keep_classes

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

LOG, SCORE = logging.getLogger(__name__), ScoreParams()
ALL = "all"
"""Name of the single part of a benchmark."""
SAMPLED_BATCH = 256
"""Stamps that share the thinned networks of a posterior sample; the samples depend on it."""


def load_with_meta(model_dir: Path | str) -> "tuple[keras.Model, dict[str, Any]]":
    """Load a trained model with its meta.

    Parameters
    ----------
    model_dir : path
        Folder of a trained model.

    Returns
    -------
    model : keras.Model
        The network.
    meta : dict
        Record of its training.

    Raises
    ------
    ModelError
        If either is missing or broken.

    Examples
    --------
    >>> model, meta = load_with_meta("models/small")
    >>> model.input_shape, meta["layers"], meta["threshold"]
    ((None, 21, 21, 4), ['science', 'template', 'difference', 'ptp'], 0.5)
    """
    from gotorb.training.model_files import load_training

    loaded = load_training(Path(model_dir))
    return loaded.model, require_meta(loaded.meta)


def require_meta(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Refuse a model without meta, whose layers and threshold are unknown.

    Parameters
    ----------
    meta : dict or None
        Record of the training.

    Returns
    -------
    dict
        The same meta.

    Raises
    ------
    ModelError
        If there is none.

    Examples
    --------
    >>> require_meta({"threshold": 0.5})
    {'threshold': 0.5}
    """
    if meta is None:
        raise ModelError(
            f"this model has no {layout.META_HKL} in its folder; give meta= as returned by classifier.train()"
        )
    return meta


def find_data_dir(meta: dict[str, Any], data_dir: str | Path | None) -> Path:
    """Folder of the data set: `data_dir`, or else the folder recorded in the meta, relative to the model.

    Parameters
    ----------
    meta : dict
        Record of the training.
    data_dir : path or None
        Folder given by the user.

    Returns
    -------
    Path
        Existing folder.

    Raises
    ------
    DataError
        If there is no such folder.

    Examples
    --------
    >>> find_data_dir({"data_dir": "../../data/dataset", "run_dir": "models/small"}, None).name
    'dataset'
    """
    if data_dir is None and not meta["data_dir"]:
        raise DataError("this model was trained elsewhere and names no data set; give data_dir=")
    found = Path(data_dir) if data_dir is not None else Path(meta.get("run_dir", ".")) / meta["data_dir"]
    if not found.is_dir():
        raise DataError(f"no data set at {found}, the folder in the model's meta; give data_dir=")
    return found.resolve() if data_dir is None else found


def find_out_dir(meta: dict[str, Any], out_dir: str | Path | None, name: str = "") -> Path:
    """Folder of the results: `out_dir`, or else `name` inside the model's folder.

    Parameters
    ----------
    meta : dict
        Record of the training.
    out_dir : path or None
        Folder given by the user.
    name : str
        Subfolder of the model's folder.

    Returns
    -------
    Path
        Folder, which may not exist yet.

    Raises
    ------
    ModelError
        If neither is known.

    Examples
    --------
    >>> find_out_dir({"run_dir": "models/vgg6"}, None, "evaluation").as_posix()
    'models/vgg6/evaluation'
    """
    if out_dir is not None:
        return Path(out_dir)
    if "run_dir" not in meta:
        raise ModelError("this meta does not name the model's folder; give out_dir=")
    return Path(meta["run_dir"]) / name


def held_out_rows(data: Dataset, meta: dict[str, Any]) -> pd.DataFrame:
    """Validation and test rows listed in the meta, with their part in the column ``split``.

    Parameters
    ----------
    data : Dataset
        Data set of the training.
    meta : dict
        Record of the training; its split holds the ids.

    Returns
    -------
    DataFrame
        Rows of the data set, indexed by row number, ascending.

    Raises
    ------
    DataError
        If a row is missing from the data set.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> meta = load_with_meta("models/small")[1]
    >>> held_out_rows(open_dataset("data/dataset"), meta)["split"].value_counts().to_dict()
    {'validation': 4, 'test': 4}
    """
    if not any(len(meta["split"][split]) for split in layout.SPLITS):
        return _divided_rows(data)
    part_of = {str(id_): split for split in ("validation", "test") for id_ in meta["split"][split]}
    split = data.table["id"].map(part_of)
    if split.notna().sum() != len(part_of):
        absent = sorted(set(part_of) - set(data.ids))
        raise DataError(
            f"row {absent[0]!r} and {len(absent) - 1} more validation and test rows of the model are not in "
            f"{data.data_dir}; give the data set it was trained on, or use classifier.benchmark"
        )
    if data_digest(data.data_dir) != meta["data_digest"]:
        LOG.warning("%s has changed since the model was trained on it", data.data_dir)
    return data.table.assign(label=data.labels, split=split)[split.notna()]


def _divided_rows(data: Dataset) -> pd.DataFrame:
    """Validation and test rows by the split of the data set, for a model that was trained elsewhere."""
    if layout.SPLIT_COLUMN not in data.table:
        raise DataError(
            f"neither the model nor {data.data_dir} has a split; split it with `gotorb dataset`, or use "
            "classifier.benchmark"
        )
    rows = data.table.assign(label=data.labels)
    return rows[rows[layout.SPLIT_COLUMN].isin(("validation", "test"))]


def all_rows(data: Dataset) -> pd.DataFrame:
    """All rows of a data set as one part.

    Parameters
    ----------
    data : Dataset
        Data set to score.

    Returns
    -------
    DataFrame
        Table with labels as numbers and `ALL` in the column ``split``.

    Raises
    ------
    DataError
        If a label is not 1 (real), 0 (bogus) or -1 (unknown).

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> all_rows(open_dataset("data/dataset"))["split"].unique().tolist()
    ['all']
    """
    return data.table.assign(label=data.labels, split=ALL)


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes
    ----------
    n_samples : int
        Posterior samples per stamp.
    n_bootstrap : int
        Resamples for intervals.
    threshold_fpr : float or None
        False-positive rate on the validation rows at which to choose a new threshold; None keeps the model's.
    seed : int
        Seed of samples and resamples.
    batch_size : int
        Stamps sampled at a time.
    """

    n_samples: int
    n_bootstrap: int
    threshold_fpr: float | None
    seed: int
    batch_size: int = SAMPLED_BATCH


def evaluate_model(
    model: "keras.Model",
    meta: dict[str, Any],
    data: Dataset,
    rows: pd.DataFrame,
    *,
    how: EvaluationOptions,
    out_dir: Path,
) -> Evaluation:
    """Score rows, measure the scores, draw figures and write all files.

    Parameters
    ----------
    model, meta
        Model and record of its training.
    data : Dataset
        Data set with the stamps.
    rows : DataFrame
        Rows to score, indexed by row number; their ``split`` is validation and test, or all.
    how : EvaluationOptions
        Samples, resamples and threshold.
    out_dir : Path
        Folder of the files.

    Returns
    -------
    Evaluation
        Metrics, predictions, figures and curves, as written.

    Examples
    --------
    >>> import tempfile
    >>> from gotorb.dataset.store import open_dataset
    >>> (model, meta), data = load_with_meta("models/small"), open_dataset("data/dataset")
    >>> how = EvaluationOptions(n_samples=3, n_bootstrap=20, threshold_fpr=None, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = evaluate_model(model, meta, data, held_out_rows(data, meta), how=how, out_dir=Path(folder))
    >>> found.metrics["auc"], found.metrics["n_real"], sorted(found.figures)[:3]
    (1.0, 2, ['confusion', 'error_rates', 'examples'])
    """
    # here: matplotlib takes memory that servers of labels and scores do not have to spare
    from gotorb.evaluation.figures import draw_figures
    from gotorb.evaluation.stamp_figures import draw_stamps

    scores, samples = score_model(model, meta, data, rows.index.to_numpy(int), how)
    predictions = make_predictions(add_tags(rows, data.data_dir), scores, samples, find_scale(meta))
    if "suspects" in meta:
        predictions["suspect"] = predictions["id"].isin(np.asarray(meta["suspects"], str)).astype(int)
    threshold = _find_threshold(predictions, meta, how)
    calibration = _find_calibration(predictions, meta)
    if calibration is not None:
        predictions["probability"] = calibration.apply(predictions["score"].to_numpy(float))
    options: dict[str, Any] = {"n_bootstrap": how.n_bootstrap, "seed": how.seed}
    main = ALL if (rows["split"] == ALL).any() else "test"
    metrics = measure_predictions(predictions, threshold, split=main, **options)
    if main == "test":
        metrics["validation"] = measure_predictions(predictions, threshold, split="validation", **options)
    metrics["conformal"] = _measure_conformal(predictions, main)
    metrics["calibrated"] = _measure_calibrated(predictions, calibration, main)
    metrics |= {"model": meta["model"], "n_trained_on": int(rows["id"].isin(meta["split"]["train"]).sum())}
    for note in metrics["notes"]:
        LOG.warning("%s: %s", data.data_dir, note)
    metrics["robustness"] = _measure_robustness(model, meta, data, predictions[predictions["split"] == main], how)
    shown = (predictions["split"] == main).to_numpy()
    figures = draw_figures(predictions[shown], metrics, meta)
    figures |= draw_stamps(
        data, rows.index.to_numpy(int)[shown], predictions[shown], None if samples is None else samples[shown],
        threshold=threshold, seed=how.seed,
    )  # fmt: skip
    figures |= _draw_latent(model, meta, data, predictions[shown], rows=rows.index.to_numpy(int)[shown], seed=how.seed)
    curves = make_curves(predictions[shown], meta["history"])
    evaluation = Evaluation(metrics, predictions, figures, out_dir, curves)
    write_evaluation(evaluation)
    return evaluation


def _measure_robustness(
    model: "keras.Model", meta: dict[str, Any], data: Dataset, predictions: pd.DataFrame, how: EvaluationOptions
) -> dict[str, Any]:
    """Robustness of the calls of clear rows, real and bogus, to a bright pixel far from the source."""
    from gotorb.training.data import find_fwhm
    from gotorb.training.inference import CompiledModel

    compiled, layers, threshold = CompiledModel(model), tuple(meta["layers"]), float(meta["threshold"])
    rows = data.table["id"].isin(predictions["id"]).to_numpy().nonzero()[0]
    known = data.table.iloc[rows]
    scores = compiled.score(block for _, block in data.batches(rows, layers=list(layers)))
    fwhm = find_fwhm(data, rows, layers)
    found = {}
    for kind, clear in find_clear(known, scores, threshold).items():
        stamps = data.read_stamps(rows[clear], layers)
        found[kind] = measure_robustness(compiled.score, stamps, layers, threshold=threshold, fwhm=fwhm, seed=how.seed)
    return rounded(found)


def _draw_latent(
    model: "keras.Model", meta: dict[str, Any], data: Dataset, predictions: pd.DataFrame, *, rows: np.ndarray, seed: int
) -> "dict[str, Figure]":
    """Map of the rows' latent vectors; empty for networks without such vectors or for too few rows."""
    from gotorb.training.inference import latent_vectors

    try:
        vectors = latent_vectors(model, (stamps for _, stamps in data.batches(rows, layers=meta["layers"])))
        places, threshold = map_latent(vectors, seed=seed), float(meta["threshold"])
        return {"latent": plot_latent(places, predictions.reset_index(drop=True), threshold)}
    except (ModelError, DataError) as reason:
        LOG.info("no latent map: %s", reason)
        return {}


def _find_threshold(predictions: pd.DataFrame, meta: dict[str, Any], how: EvaluationOptions) -> float:
    labels, scores = _labelled(predictions, "validation")
    if how.threshold_fpr is None or len(labels) == 0:
        return float(meta["threshold"])
    return choose_threshold(labels, scores, max_fpr=how.threshold_fpr)


def _labelled(predictions: pd.DataFrame, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of the labelled rows of a part."""
    part = predictions[(predictions["split"] == split) & predictions["label"].isin((0, 1))]
    return part["label"].to_numpy(int), part["score"].to_numpy(float)


def find_scale(meta: dict[str, Any]) -> Scale:
    """Scale of the confidence, from the threshold and calibration of a model, as in `gotorb score`.

    Parameters
    ----------
    meta : dict
        Record of the training.

    Returns
    -------
    Scale
        Threshold and temperature.

    Examples
    --------
    >>> find_scale({"threshold": 0.4})
    Scale(threshold=0.4, temperature=1.0)
    """
    return Scale(float(meta["threshold"]), float(meta.get("calibration", {}).get("temperature", 1.0)))


def _find_calibration(predictions: pd.DataFrame, meta: dict[str, Any]) -> Calibration | None:
    """Calibration of the model, or else one fitted on the validation rows; None if these have one class only."""
    if "calibration" in meta:
        return Calibration.from_dict(meta["calibration"])
    labels, scores = _labelled(predictions, "validation")
    return fit_calibration(labels, scores) if len(set(labels.tolist())) == 2 else None


def _measure_calibrated(predictions: pd.DataFrame, calibration: Calibration | None, split: str) -> dict[str, Any]:
    """Brier score and ECE after each kind of calibration, on the rows of a part."""
    labels, scores = _labelled(predictions, split)
    if calibration is None or len(labels) == 0:
        return {}
    found = {name: measure_calibration(labels, calibration.apply(scores, name)) for name in ("temperature", "isotonic")}
    return rounded(found | {"n_fitted": calibration.n_rows})


def _measure_conformal(predictions: pd.DataFrame, split: str) -> dict[str, Any]:
    """Conformal sets that keep `SCORE.keep` of each class of the validation rows, measured on the test rows."""
    try:
        return rounded(keep_classes(predictions, SCORE.keep, Night())) if split == "test" else {}
    except (ConfigError, DataError) as reason:
        LOG.info("no conformal sets: %s", reason)
        return {"note": str(reason)}


def score_plainly(
    model: "keras.Model", layers: Sequence[str], data: Dataset, rows: np.ndarray | None = None
) -> np.ndarray:
    """Score rows of a data set deterministically.

    Parameters
    ----------
    model : keras.Model
        Network.
    layers : sequence of str
        Layers of its input.
    data : Dataset
        Data set with the stamps.
    rows : ndarray of int, optional
        Row numbers; default: all rows.

    Returns
    -------
    ndarray
        (n,) scores.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load_with_meta("models/small")
    >>> score_plainly(model, meta["layers"], open_dataset("data/dataset"), np.array([0, 1])).round(1).tolist()
    [0.0, 1.0]
    """
    from gotorb.training.inference import score_stamps

    return score_stamps(model, (stamps for _, stamps in data.batches(rows, layers=list(layers))))


def score_rows(
    model: "keras.Model", meta: dict[str, Any], data: Dataset, rows: np.ndarray | None = None, *,
    n_samples: int, seed: int,
) -> np.ndarray:  # fmt: skip
    """Score rows of a data set by the mean of their posterior samples, the score that GOTO publishes.

    Parameters
    ----------
    model, meta
        Model and record of its training.
    data : Dataset
        Data set with the stamps.
    rows : ndarray of int, optional
        Row numbers; default: all rows.
    n_samples, seed : int
        Posterior samples per stamp, and their seed.

    Returns
    -------
    ndarray
        (n,) scores; plain scores for a network without dropout.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load_with_meta("models/small")
    >>> score_rows(model, meta, open_dataset("data/dataset"), np.array([0, 1]), n_samples=5, seed=1).round(1).tolist()
    [0.0, 1.0]
    """
    from gotorb.training.inference import has_posterior, sample_scores

    if not has_posterior(model):
        return score_plainly(model, meta["layers"], data, rows)
    stamps = (block for _, block in data.batches(rows, layers=meta["layers"]))
    return sample_scores(model, stamps, n_samples, seed=seed, batch_size=SAMPLED_BATCH).mean(axis=1)


def score_model(
    model: "keras.Model", meta: dict[str, Any], data: Dataset, rows: np.ndarray, how: EvaluationOptions
) -> tuple[np.ndarray, np.ndarray | None]:
    """Score rows, with posterior samples if the model has dropout.

    Parameters
    ----------
    model : keras.Model
        Network.
    meta : dict
        Record of its training, with its layers.
    data : Dataset
        Data set with the stamps.
    rows : ndarray of int
        (n,) row numbers.
    how : EvaluationOptions
        Number of samples, their seed and batch size.

    Returns
    -------
    scores : ndarray
        (n,) plain scores.
    samples : ndarray or None
        (n, n_samples) posterior samples; None without dropout.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> model, meta = load_with_meta("models/small")
    >>> how = EvaluationOptions(n_samples=5, n_bootstrap=0, threshold_fpr=None, seed=1)
    >>> scores, samples = score_model(model, meta, open_dataset("data/dataset"), np.array([0, 1]), how)
    >>> scores.round(1).tolist(), samples.shape
    ([0.0, 1.0], (2, 5))
    """
    from gotorb.training.inference import has_posterior, sample_scores

    scores = score_plainly(model, meta["layers"], data, rows)
    if not has_posterior(model):
        return scores, None
    stamps = (block for _, block in data.batches(rows, layers=meta["layers"]))
    return scores, sample_scores(model, stamps, how.n_samples, seed=how.seed, batch_size=how.batch_size)
