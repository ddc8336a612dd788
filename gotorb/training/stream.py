"""Batches of stamps from disk to Keras: shuffled, turned and weighted, never the whole file in memory.

Every draw comes from a generator seeded by (seed, epoch), so the stream is the same on every run and does
not depend on how far ahead it is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import tensorflow as tf

from gotorb.dataset.store import Dataset
from gotorb.errors import ConfigError, DataError
from gotorb.training.augment import draw_orientations, turn_stamps
from gotorb.training.buffers import Buffers

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
CHECK_ROWS = 512
N_AHEAD = 4


@dataclass(frozen=True)
class Stream:
    """Where batches come from.

    Attributes
    ----------
    data : Dataset
        The stamps on disk.
    layers : tuple of str
        Layers read, in order.
    batch_size : int
        Rows of a batch; the last of an epoch may hold fewer.
    class_weights : dict
        Weight of each label's loss.
    n_replicas : int
        Replicas of a strategy that share a batch. They need equal parts: up to n_replicas - 1 rows of an epoch
        are left out.

    Raises
    ------
    ConfigError
        If a batch cannot be divided evenly.
    """

    data: Dataset
    layers: tuple[str, ...]
    batch_size: int
    class_weights: dict[int, float]
    n_replicas: int = 1

    def __post_init__(self) -> None:
        """Check that a batch divides evenly."""
        if self.batch_size % self.n_replicas:
            raise ConfigError(
                f"batch_size is {self.batch_size}, which {self.n_replicas} replicas of the strategy cannot share; "
                f"give a multiple of {self.n_replicas}"
            )

    def n_batches(self, rows: np.ndarray) -> int:
        """Number of batches that cover the rows once."""
        return -(-len(self._even(rows)) // self.batch_size)

    def training(self, rows: np.ndarray, *, seed: int, augment: bool, first_epoch: int = 0) -> tf.data.Dataset:
        """Endless batches: each epoch a new order and, when asked, new orientations."""

        buffers = self._buffers()

        def batches() -> Iterator[Batch]:
            for epoch in count(first_epoch):
                rng = np.random.default_rng([seed, epoch])
                yield from self._batches(self._even(rng.permutation(rows)), rng if augment else None, buffers)

        return self._as_tensors(batches)

    def validation(self, rows: np.ndarray) -> tf.data.Dataset:
        """Batches that cover the rows once, in order and as they are on disk."""
        buffers = self._buffers()
        batches = self._as_tensors(lambda: self._batches(self._even(rows), None, buffers))
        return batches.apply(tf.data.experimental.assert_cardinality(self.n_batches(rows)))

    def _even(self, rows: np.ndarray) -> np.ndarray:
        return rows[: len(rows) // self.n_replicas * self.n_replicas]

    def _buffers(self) -> Buffers:
        return Buffers((self.batch_size, self.data.size, self.data.size, len(self.layers)))

    def _batches(self, rows: np.ndarray, rng: np.random.Generator | None, buffers: Buffers) -> Iterator[Batch]:
        labels = self.data.labels
        weight_of = np.array([self.class_weights[label] for label in (0, 1)], np.float32)
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            stamps = self.data.read_stamps(part, self.layers, out=buffers.take(len(part)))
            if rng is not None:
                stamps = turn_stamps(stamps, draw_orientations(len(part), rng), out=buffers.take(len(part)))
            yield stamps, labels[part].astype(np.float32)[:, None], weight_of[labels[part]]

    def _as_tensors(self, batches: Callable[[], Iterator[Batch]]) -> tf.data.Dataset:
        size = self.data.size
        signature = (
            tf.TensorSpec((None, size, size, len(self.layers)), tf.float32),
            tf.TensorSpec((None, 1), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        )
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        source = tf.data.Dataset.from_generator(batches, output_signature=signature)
        return source.prefetch(N_AHEAD).with_options(options)


def check_finite(data: Dataset, rows: np.ndarray, layers: tuple[str, ...]) -> None:
    """Read the rows once, in file order, and refuse a stamp that would turn every weight to NaN.

    Raises
    ------
    DataError
        If a stamp holds NaN or infinity; the message names the row.
    """
    for part, stamps in data.batches(np.sort(rows), layers=layers, batch=CHECK_ROWS):
        finite = np.isfinite(stamps).all(axis=(1, 2, 3))
        if not finite.all():
            row = int(part[np.argmin(finite)])
            raise DataError(
                f"the stamp of row {row} (id {str(data.ids[row])!r}) in {data.data_dir} holds NaN or infinity; "
                "cut it again with gotorb.stamps.cutout or remove the row"
            )
