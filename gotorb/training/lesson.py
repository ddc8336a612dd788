"""What a network learns from: rows divided, weighed and checked, and the stream of their stamps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotorb import layout
from gotorb.dataset.store import Dataset
from gotorb.training.rows import Rows, find_splits, select_rows, weigh_classes
from gotorb.training.stream import Stream, check_finite


@dataclass(frozen=True)
class Lesson:
    """Rows and stream of a training.

    Attributes
    ----------
    rows : Rows
        What is learned from, what decides, what is held out.
    stream : Stream
        Where the stamps come from.
    """

    rows: Rows
    stream: Stream


def prepare_lesson(
    data: Dataset,
    layers: tuple[str, ...],
    batch_size: int,
    *,
    class_weights: str | dict[int, float] | None,
    division: dict[str, Any],
    n_replicas: int = 1,
    splits: Sequence[str] = layout.SPLITS,
) -> Lesson:
    """Divide, weigh and check the rows of a data set.

    Parameters
    ----------
    data : Dataset
        The data set.
    layers : tuple of str
        Layers to learn from.
    batch_size : int
        Rows of a batch.
    class_weights : "balanced", dict or None
        See `gotorb.training.rows.weigh_classes`.
    division : dict
        How rows are divided when the data set has no split: see `gotorb.dataset.split.assign_splits`.
    n_replicas : int
        See `Stream`.
    splits : sequence of str
        Parts whose stamps are read and checked.

    Raises
    ------
    DataError
        If the data set cannot be trained on: one class only, odd labels, NaN, an absent layer.
    ConfigError
        If class weights or batch size are impossible.
    """
    data.layer_indices(layers)
    rows = select_rows(data.table, find_splits(data.table, **division), where=data.data_dir)
    stream = Stream(data, layers, batch_size, weigh_classes(data.labels[rows.train], class_weights), n_replicas)
    check_finite(data, np.concatenate([rows.of(split) for split in splits]), layers)
    return Lesson(rows, stream)
