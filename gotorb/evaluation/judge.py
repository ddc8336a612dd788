"""A model, its meta and a data set in; an Evaluation out, written to its folder."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset
from gotorb.errors import DataError, ModelError
from gotorb.evaluation.report import Evaluation, make_predictions, measure_predictions, write_evaluation

if TYPE_CHECKING:
    import keras

LOG = logging.getLogger(__name__)
ALL = "all"
"""Name of a benchmark's only part."""


def require_meta(meta: dict[str, Any] | None) -> dict[str, Any]:
    """Refuse a model without meta: its layers and threshold would be guesses.

    Raises
    ------
    ModelError
        If there is none.
    """
    if meta is None:
        raise ModelError(
            f"this model has no {layout.META_HKL} beside it; give meta=, as classifier.train() returned it"
        )
    return meta


def find_data_dir(meta: dict[str, Any], data_dir: str | Path | None) -> Path:
    """Folder of the data set: the one given, else the one recorded relative to the model's folder.

    Raises
    ------
    DataError
        If there is no such folder.
    """
    found = Path(data_dir) if data_dir is not None else Path(meta.get("run_dir", ".")) / meta["data_dir"]
    if not found.is_dir():
        raise DataError(f"no data set at {found}, where the model's meta expects it; give data_dir=")
    return found.resolve() if data_dir is None else found


def find_out_dir(meta: dict[str, Any], out_dir: str | Path | None, name: str = "") -> Path:
    """Folder of the results: the one given, else `name` inside the model's folder.

    Raises
    ------
    ModelError
        If neither is known.
    """
    if out_dir is not None:
        return Path(out_dir)
    if "run_dir" not in meta:
        raise ModelError("this meta does not tell the model's folder; give out_dir=")
    return Path(meta["run_dir"]) / name


def held_out_rows(data: Dataset, meta: dict[str, Any]) -> pd.DataFrame:
    """Validation and test rows that the meta names, with their part in the column ``split``.

    Returns
    -------
    DataFrame
        Rows of the data set, indexed by row number, ascending.

    Raises
    ------
    DataError
        If the data set lacks one of them.
    """
    part_of = {str(id_): split for split in ("validation", "test") for id_ in meta["split"][split]}
    split = data.table["id"].map(part_of)
    if split.notna().sum() != len(part_of):
        absent = sorted(set(part_of) - set(data.ids))
        raise DataError(
            f"row {absent[0]!r} and {len(absent) - 1} more that the model was to be judged on are not in "
            f"{data.data_dir}; give the data set it was trained on, or use classifier.benchmark"
        )
    if data_digest(data.data_dir) != meta["data_digest"]:
        LOG.warning("%s has changed since the model was trained on it", data.data_dir)
    return data.table.assign(split=split)[split.notna()]


def all_rows(data: Dataset) -> pd.DataFrame:
    """All rows of a data set as one part."""
    return data.table.assign(split=ALL)


def judge_model(
    model: "keras.Model",
    meta: dict[str, Any],
    data: Dataset,
    rows: pd.DataFrame,
    *,
    out_dir: Path,
    n_samples: int,
    n_bootstrap: int,
    batch_size: int,
) -> Evaluation:
    """Score, measure, draw and write.

    Parameters
    ----------
    model, meta
        The model and its record.
    data : Dataset
        Where the stamps are.
    rows : DataFrame
        Rows to score, indexed by row number; their ``split`` is validation and test, or all.
    out_dir : Path
        Folder of the files.
    n_samples, n_bootstrap, batch_size : int
        See `gotorb.classifier.evaluate`.
    """
    scores, samples = _score(model, meta, data, rows.index.to_numpy(int), n_samples, batch_size)
    predictions = make_predictions(rows, scores, samples)
    options: dict[str, Any] = {"n_bootstrap": n_bootstrap, "seed": meta["seed"]}
    main = ALL if (rows["split"] == ALL).any() else "test"
    metrics = measure_predictions(predictions, meta["threshold"], split=main, **options)
    if main == "test":
        metrics["validation"] = measure_predictions(predictions, meta["threshold"], split="validation", **options)
    metrics |= {"model": meta["model"], "n_trained_on": int(rows["id"].isin(meta["split"]["train"]).sum())}
    for note in metrics["notes"]:
        LOG.warning("%s: %s", data.data_dir, note)
    evaluation = Evaluation(metrics, predictions, {}, out_dir)
    write_evaluation(evaluation)
    return evaluation


def _score(
    model: "keras.Model", meta: dict[str, Any], data: Dataset, rows: np.ndarray, n_samples: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores (n,), and posterior samples (n, n_samples) where the model has dropout."""
    from gotorb.training.scoring import find_dropouts, sample_scores, score_stamps

    batches = [(stamps for _, stamps in data.batches(rows, layers=meta["layers"])) for _ in range(2)]
    scores = score_stamps(model, batches[0])
    if not find_dropouts(model):
        return scores, None
    return scores, sample_scores(model, batches[1], n_samples, seed=meta["seed"], batch_size=batch_size)
