"""Figures of a model and its data set, drawn anew: of what lies here, or of a tagged version."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gotorb import classifier, layout
from gotorb.dataset.card import data_digest, write_json
from gotorb.dataset.store import Dataset, file_digest, open_dataset
from gotorb.evaluation import judge
from gotorb.evaluation.calibration import Calibration
from gotorb.evaluation.paper import Material, draw_paper_figure
from gotorb.evaluation.report import make_predictions, write_figures, write_scores
from gotorb.params import N_SAMPLES, SEED

TEST = "test"


class Written(NamedTuple):
    """Files of a figure: the picture, its numbers, and what both were made of."""

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
    origin: dict[str, Any] | None = None,
) -> Written:
    """Draw a figure of a model's test rows.

    Parameters
    ----------
    name : str
        One of `evaluation.paper.PAPER_FIGURES`.
    model_dir, data_dir : path
        Folder of a trained model, and the data set that it was trained on.
    out_dir : path
        Where ``<name>.png``, ``<name>.csv`` and ``<name>.json`` go.
    n_samples, seed : int
        Posterior samples per stamp; seed of these and of what is drawn at random.
    origin : dict, optional
        More that the json is to tell.

    Returns
    -------
    Written
        The three files.

    Raises
    ------
    ConfigError, ModelError, DataError
        If there is no such figure, model or data, or the figure cannot be drawn from these.
    """
    loaded = classifier.load(model_dir)
    meta, data, out_dir = judge.require_meta(loaded.meta), open_dataset(data_dir), Path(out_dir)
    material = gather_material(loaded.model, meta, data, n_samples=n_samples, seed=seed)
    drawn = draw_paper_figure(name, material)
    write_figures({name: drawn.figure}, out_dir)
    write_scores(out_dir / f"{name}.csv", drawn.data)
    known = {
        "figure": name,
        "n_rows": len(material.rows),
        "data_digest": data_digest(data.data_dir),
        "model_sha256": file_digest(Path(model_dir) / layout.MODEL_H5),
        "n_samples": n_samples,
        "seed": seed,
    }
    write_json(out_dir / f"{name}.json", known | (origin or {}))
    return Written(*(out_dir / f"{name}.{ending}" for ending in ("png", "csv", "json")))


def gather_material(model: Any, meta: dict[str, Any], data: Dataset, *, n_samples: int, seed: int) -> Material:
    """Score the labelled test rows of a data set by a model, for `evaluation.paper.draw_paper_figure`."""
    held_out = judge.held_out_rows(data, meta)
    rows = held_out[(held_out["split"] == TEST) & held_out["label"].isin((layout.REAL, layout.BOGUS))]
    return _judged(model, meta, data, rows, n_samples, seed)


def gather_all(model: Any, meta: dict[str, Any], data: Dataset, *, n_samples: int, seed: int) -> Material:
    """The same of all labelled rows: for data that the model has never seen, such as a validation pack."""
    rows = judge.all_rows(data)
    return _judged(model, meta, data, rows[rows["label"].isin((layout.REAL, layout.BOGUS))], n_samples, seed)


def _judged(model: Any, meta: dict[str, Any], data: Dataset, rows: pd.DataFrame, n_samples: int, seed: int) -> Material:
    numbers = rows.index.to_numpy(int)
    scores, samples = judge.score_model(model, meta, data, numbers, judge.Judging(n_samples, 0, None, seed, 256))
    predictions = make_predictions(rows, scores, samples)
    if "calibration" in meta:
        predictions["probability"] = Calibration.from_dict(meta["calibration"]).apply(scores)

    def read_vectors() -> np.ndarray:
        batches = (stamps for _, stamps in data.batches(numbers, layers=meta["layers"]))
        return classifier.latentvec_pred(model, batches)

    return Material(
        predictions, samples, data.layers, float(meta["threshold"]),
        lambda places: data.read_stamps(numbers[places]), read_vectors, seed,
    )  # fmt: skip
