"""The folder of a trained model: its name, what is recorded of the training, and how both are read back."""

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from gotorb import __version__, layout
from gotorb.dataset.store import Dataset, file_digest
from gotorb.errors import ModelError
from gotorb.training.files import read_model, write_model
from gotorb.training.fit import Fit
from gotorb.training.meta import read_meta, write_meta
from gotorb.training.rows import Rows, count_rows

LOG = logging.getLogger(__name__)
Meta = dict[str, Any]


class Loaded(NamedTuple):
    """A model and what is known of it.

    Attributes
    ----------
    model : keras.Model
        The network.
    meta : dict or None
        What its meta file holds, and under ``run_dir`` the folder; None when it came without one.
    """

    model: keras.Model
    meta: Meta | None


def make_run_dir(parent: Path, name: str | None) -> Path:
    """Make the folder of a model; named by the time, later if need be, when it has no name."""
    run_dir = parent / (name or layout.timestamped("model", short=True))
    when = datetime.now(UTC)
    while name is None and run_dir.exists():
        when += timedelta(seconds=1)
        run_dir = parent / layout.timestamped("model", when, short=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def make_tensorboard(wanted: bool | str | Path, run_dir: Path) -> list[keras.callbacks.Callback]:
    """Build the callback that writes for TensorBoard, none when not wanted."""
    if wanted is False:
        return []
    folder = run_dir / layout.TENSORBOARD_DIR if wanted is True else Path(wanted)
    return [keras.callbacks.TensorBoard(str(folder), write_graph=False)]


def describe_option(value: Any) -> Any:
    """Plain form of an option for the meta file: functions by their names."""
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, dict):
        return {str(key): describe_option(item) for key, item in value.items()}
    return list(value) if isinstance(value, (tuple, list)) else value


def describe_training(
    fit: Fit, data: Dataset, rows: Rows, *, settings: dict[str, Any], digest: str, parent: Meta | None, run_dir: Path
) -> Meta:
    """Make the record of a training: plain values and numpy arrays, no absolute paths, no clock.

    Parameters
    ----------
    fit : Fit
        What came of the training.
    data : Dataset
        What was trained on.
    rows : Rows
        How it was divided.
    settings : dict
        Options of the training.
    digest : str
        Of the data set when the training began.
    parent : dict or None
        Name and digest of the model whose weights were the start.
    run_dir : Path
        Folder of the model; the data set is recorded relative to it.
    """
    return {
        "model": fit.model.name,
        "parameters": settings,
        "seed": settings["seed"],
        "layers": list(settings["layers"]),
        "stamp_size": data.size,
        "history": fit.history,
        "best_epoch": fit.best_epoch,
        "interrupted": fit.interrupted,
        "split": {split: data.ids[rows.of(split)] for split in layout.SPLITS},
        "counts": count_rows(data.labels, rows),
        "data_dir": Path(os.path.relpath(data.data_dir, run_dir)).as_posix(),
        "data_digest": digest,
        "preprocessing": {"normalise": settings["normalise"], "inside_model": True},
        "parent": parent,
        "code_version": __version__,
    }


def describe_parent(name: str, digest: str, meta: Meta | None, data: Dataset, rows: Rows) -> Meta:
    """Make the record of the model whose weights are the start; say when it has seen rows that judge this one.

    Parameters
    ----------
    name, digest : str
        Who the parent is.
    meta : dict or None
        Its own record, which names the rows that it was trained on.
    data, rows : Dataset, Rows
        Of this training.
    """
    known = (meta or {}).get("split", {}).get("train", ())
    held_out = data.ids[np.concatenate([rows.validation, rows.test])]
    n_seen = int(np.isin(held_out, np.asarray(known, dtype=str)).sum()) if len(known) else 0
    if n_seen:
        LOG.warning("%s was trained on %d rows that are to judge this model; its scores will flatter", name, n_seen)
    return {"name": name, "digest": digest, "n_held_out_seen": n_seen}


def write_training(run_dir: Path, model: keras.Model, meta: Meta) -> Loaded:
    """Write model.h5 and meta.hkl, each whole or not at all, and return them as they read back."""
    model_path = write_model(run_dir / layout.MODEL_H5, model)
    write_meta(run_dir / layout.META_HKL, meta | {"model_digest": file_digest(model_path)})
    return Loaded(model, find_meta(run_dir))


def load_training(model: keras.Model | Path | str, meta: Meta | Path | str | None = None) -> Loaded:
    """Load a model and its meta; see `gotorb.classifier.load`."""
    if not isinstance(model, (str, Path)):
        return Loaded(model, find_meta(meta))
    path = Path(model) / layout.MODEL_H5 if Path(model).is_dir() else Path(model)
    if meta is None and path.with_name(layout.META_HKL).exists():
        meta = path.with_name(layout.META_HKL)
    network, found = read_model(path), find_meta(meta)
    if found and found.get("model_digest") not in (None, file_digest(path)):
        raise ModelError(
            f"{path} is not the file that its {layout.META_HKL} describes; it was changed or mixed up: "
            "get both files of one training"
        )
    return Loaded(network, found)


def find_meta(meta: Meta | Path | str | None) -> Meta | None:
    """Meta from a file or a model's folder; a dict is returned as it is."""
    if meta is None or isinstance(meta, dict):
        return meta
    path = Path(meta) / layout.META_HKL if Path(meta).is_dir() else Path(meta)
    return read_meta(path) | {"run_dir": str(path.parent)}
