"""Training data: rows of each part, their weights, and their stamps in batches from disk to Keras.

Rows are divided and checked before any training. Batches are shuffled, rotated and weighted, and the whole file is
never in memory. Random numbers come from generators seeded by (seed, epoch), so the stream is the same in every run and
does not depend on how far ahead it is read.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import Dataset, check_labels
from gotorb.errors import ConfigError, DataError
from gotorb.features import FeatureSet
from gotorb.features.geometry import REFERENCE_FWHM
from gotorb.stamps.batches import N_ORIENTATIONS, USUAL_FWHM, disturb_stamps, turn_stamps
from gotorb.training.backend import tf

LOG = logging.getLogger(__name__)
LABELS = (layout.BOGUS, layout.REAL)
FEW = 10
"""Fewer rows of a class than this in a part are worth a warning."""
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
CHECK_ROWS = 512
N_AHEAD = 4
N_WIDTHS, MIN_WIDTHS, GOOD_FIT = 1000, 20, 0.8
"""Real rows that are fitted for the width of the PSF, the fewest good fits, and the smallest R2 of a good one."""


@dataclass(frozen=True)
class Rows:
    """Row numbers of each part, ascending; rows of unknown label are in none.

    Attributes
    ----------
    train, validation, test : ndarray of int
        Row numbers.
    n_unknown : int
        Rows left out because their label is -1.
    undecided : ndarray of int
        Rows of these in the training part that have soft labels.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    n_unknown: int
    undecided: np.ndarray = field(default_factory=lambda: np.empty(0, int))

    @property
    def all(self) -> np.ndarray:
        """Row numbers of all parts."""
        return np.concatenate([self.train, self.validation, self.test])

    def of(self, split: str) -> np.ndarray:
        """Row numbers of one part.

        Parameters
        ----------
        split : {"train", "validation", "test"}

        Returns
        -------
        ndarray of int
        """
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def find_splits(table: pd.DataFrame, **options: Any) -> np.ndarray:
    """Part of each row: the ``split`` column, or else a new division without leaks.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    **options
        Passed to `gotorb.dataset.split.assign_splits`.

    Returns
    -------
    ndarray of str
        (n,) train, validation or test.
    """
    if layout.SPLIT_COLUMN in table:
        return table[layout.SPLIT_COLUMN].to_numpy(dtype=str)
    return assign_splits(table, **options)


def select_rows(table: pd.DataFrame, splits: np.ndarray, *, where: object = "the data set") -> Rows:
    """Divide the labelled rows by their part.

    Parameters
    ----------
    table : DataFrame
        Rows with a label.
    splits : ndarray of str
        (n,) the part of each row.
    where : object
        Named in messages.

    Returns
    -------
    Rows
        Row numbers of each part.

    Raises
    ------
    DataError
        If a label or part is unknown, no row is labelled, or a class is missing in a part.
    """
    labels = check_labels(table, where=where)
    if (labels == layout.UNKNOWN).all():
        raise DataError(f"none of the {len(table)} rows in {where} is labelled real or bogus; label some first")
    unknown = sorted(set(splits) - set(layout.SPLITS))
    if unknown:
        row = table["id"].iloc[int(np.argmax(splits == unknown[0]))]
        raise DataError(
            f"split {str(unknown[0])!r} of row {row!r} in {where} is not "
            f"one of {', '.join(layout.SPLITS)}; correct the column or remove it to have rows divided again"
        )
    known = labels != layout.UNKNOWN
    train, validation, test = (np.flatnonzero((splits == split) & known) for split in layout.SPLITS)
    rows = Rows(train, validation, test, n_unknown=int((~known).sum()))
    if layout.PROBABILITY_COLUMN in table:
        weight = pd.to_numeric(table[layout.WEIGHT_COLUMN], errors="coerce").to_numpy(float)
        rows = replace(rows, undecided=np.flatnonzero((splits == layout.SPLITS[0]) & ~known & (weight > 0)))
    for split in layout.SPLITS:
        _check_classes(labels[rows.of(split)], split, where)
    return rows


def _check_classes(labels: np.ndarray, split: str, where: object) -> None:
    n_bogus, n_real = (int((labels == label).sum()) for label in LABELS)
    if n_bogus == 0 or n_real == 0:
        raise DataError(
            f"the {split} part of {where} holds {n_real} real and {n_bogus} bogus rows; both classes are needed: "
            "label more images or change dataset.test_fraction and dataset.validation_fraction"
        )
    if min(n_bogus, n_real) < FEW:
        LOG.warning("the %s part of %s holds %d real and %d bogus rows: few to go by", split, where, n_real, n_bogus)


def weigh_classes(labels: np.ndarray, class_weights: str | dict[int, float] | None) -> dict[int, float]:
    """Weight of each class's loss.

    Parameters
    ----------
    labels : ndarray of int
        (n,) labels 0 and 1.
    class_weights : "balanced", dict or None
        ``balanced`` gives both classes the same total weight; None weighs all rows alike.

    Returns
    -------
    dict of float
        Weight by label.

    Examples
    --------
    >>> weigh_classes(np.array([0, 0, 0, 1]), "balanced")
    {0: 0.6666666666666666, 1: 2.0}
    """
    if class_weights is None:
        return dict.fromkeys(LABELS, 1.0)
    if class_weights == "balanced":
        return {label: len(labels) / (2 * int((labels == label).sum())) for label in LABELS}
    if isinstance(class_weights, dict) and set(class_weights) == set(LABELS):
        return {label: float(class_weights[label]) for label in LABELS}
    raise ConfigError(f"class_weights is {class_weights!r}; give 'balanced', None or {{0: weight, 1: weight}}")


@dataclass(frozen=True)
class Targets:
    """Probability that each row of a data set is real, and its weight in training.

    Attributes
    ----------
    probability, weight : ndarray
        (n,) float32 of all rows; of rows without soft labels, the label and the weight of its class.
    """

    probability: np.ndarray
    weight: np.ndarray


def make_targets(table: pd.DataFrame, labels: np.ndarray, class_weights: dict[int, float]) -> Targets:
    """Targets of a training: soft labels, or else labels.

    Parameters
    ----------
    table : DataFrame
        Rows of the data set.
    labels : ndarray of int
        (n,).
    class_weights : dict
        Weight of each label's loss; a soft label has the mean of both by its probability.

    Returns
    -------
    Targets

    Raises
    ------
    DataError
        If a soft label is no probability, or a weight is negative.
    """
    real, weight = np.maximum(labels, 0).astype(float), np.ones(len(labels))
    if layout.PROBABILITY_COLUMN in table:
        soft, own = (
            pd.to_numeric(table[name], errors="coerce").to_numpy(float)
            for name in (layout.PROBABILITY_COLUMN, layout.WEIGHT_COLUMN)
        )
        known = np.isfinite(soft)
        odd = (known & ~((soft >= 0) & (soft <= 1))) | (known & ~(own >= 0))
        if odd.any():
            raise DataError(
                f"soft label {soft[odd][0]} of weight {own[odd][0]} of row {table['id'].to_numpy()[odd][0]!r} is no "
                "probability with a weight of 0 or more; make the soft labels again"
            )
        real, weight = np.where(known, soft, real), np.where(known, own, weight)
    mean = real * class_weights[layout.REAL] + (1 - real) * class_weights[layout.BOGUS]
    return Targets(real.astype(np.float32), (mean * weight).astype(np.float32))


def count_rows(labels: np.ndarray, rows: Rows) -> dict[str, Any]:
    """Count real and bogus rows of each part, and the rows left out.

    Parameters
    ----------
    labels : ndarray of int
        (n,) of the whole table.
    rows : Rows

    Returns
    -------
    dict
        real and bogus by part, and unknown.
    """
    counts: dict[str, Any] = {
        split: {
            "real": int((labels[rows.of(split)] == layout.REAL).sum()),
            "bogus": int((labels[rows.of(split)] == layout.BOGUS).sum()),
        }
        for split in layout.SPLITS
    }
    return counts | {"unknown": rows.n_unknown}


def draw_orientations(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw orientations, each of the eight equally likely.

    Parameters
    ----------
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of int
        (n,) from 0 to 7.
    """
    return rng.integers(0, N_ORIENTATIONS, n)


def find_fwhm(data: Dataset, rows: np.ndarray, layers: tuple[str, ...], *, labelled: bool = True) -> float:
    """Measure the width of a survey's PSF: the mean width of the Gaussians that fit its real training rows well.

    Parameters
    ----------
    data : Dataset
    rows : ndarray of int
        Training rows.
    layers : tuple of str
        Layers to measure.
    labelled : bool
        Fit the rows labelled real; all rows, and take the median, when False, for a survey with few labels.

    Returns
    -------
    float
        Full width at half maximum in pixels; the features' own reference where few rows are fitted well, or without a
        difference.
    """
    if "difference" not in layers:
        return REFERENCE_FWHM
    features = FeatureSet(data.size, layers)
    chosen = rows[data.labels[rows] == layout.REAL] if labelled else rows
    found = measure_rows(features, data, chosen[:N_WIDTHS])
    good = found[:, features.names.index("fit_r2.difference")] > GOOD_FIT
    widths = found[good, features.names.index("fit_width.difference")]
    middle = np.mean if labelled else np.median  # some of the rows are hot pixels then
    return round(float(middle(widths)), 2) if len(widths) >= MIN_WIDTHS else REFERENCE_FWHM


def measure_rows(features: FeatureSet, data: Dataset, rows: np.ndarray) -> np.ndarray:
    """Measure rows of a data set.

    Parameters
    ----------
    features : FeatureSet
    data : Dataset
    rows : ndarray of int
        (n,) row numbers.

    Returns
    -------
    ndarray
        (n, n_features) float32.
    """
    parts = [features.measure(stamps) for _, stamps in data.batches(rows, layers=list(features.layers))]
    return np.concatenate(parts) if parts else np.empty((0, len(features.names)), np.float32)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Source of batches.

    Raises
    ------
    ConfigError
        If a batch cannot be divided evenly.

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
    disturb : float
        Fraction of the training stamps that are disturbed far from the source, in each epoch again.
    fwhm : float
        Width of the PSF, pixels.
    """

    data: Dataset
    layers: tuple[str, ...]
    batch_size: int
    class_weights: dict[int, float]
    n_replicas: int = 1
    disturb: float = 0.0
    fwhm: float = USUAL_FWHM

    def __post_init__(self) -> None:
        """Check that a batch divides evenly."""
        if self.batch_size % self.n_replicas:
            raise ConfigError(
                f"batch_size is {self.batch_size}, which {self.n_replicas} replicas of the strategy cannot share; "
                f"give a multiple of {self.n_replicas}"
            )

    def n_batches(self, rows: np.ndarray) -> int:
        """Number of batches that cover the rows once.

        Parameters
        ----------
        rows : ndarray of int
            Row numbers.

        Returns
        -------
        int
        """
        return -(-len(self._even(rows)) // self.batch_size)

    def training(self, rows: np.ndarray, *, seed: int, augment: bool, first_epoch: int = 0) -> tf.data.Dataset:
        """Yield endless batches: each epoch has a new order and, with `augment`, new orientations.

        Parameters
        ----------
        rows : ndarray of int
            Row numbers.
        seed : int
            Of orders and orientations.
        augment : bool
            Flip and turn the stamps.
        first_epoch : int
            Epoch with which the batches begin.

        Returns
        -------
        tf.data.Dataset
            Of stamps (n, size, size, n_layers), labels (n, 1) and weights (n,), all float32.
        """

        def batches() -> Iterator[Batch]:
            for epoch in count(first_epoch):
                rng = np.random.default_rng([seed, epoch])
                yield from self._batches(self._even(rng.permutation(rows)), rng if augment else None, soft=True)

        return self._as_tensors(batches)

    def validation(self, rows: np.ndarray) -> tf.data.Dataset:
        """Yield batches that cover the rows once, in order and without augmentation.

        Parameters
        ----------
        rows : ndarray of int
            Row numbers.

        Returns
        -------
        tf.data.Dataset
            As of `training`.
        """
        batches = self._as_tensors(lambda: self._batches(self._even(rows), None))
        return batches.apply(tf.data.experimental.assert_cardinality(self.n_batches(rows)))

    def _even(self, rows: np.ndarray) -> np.ndarray:
        return rows[: len(rows) // self.n_replicas * self.n_replicas]

    @cached_property
    def targets(self) -> Targets:
        """Targets of the training rows: soft labels, or else labels."""
        return make_targets(self.data.table, self.data.labels, self.class_weights)

    def _batches(self, rows: np.ndarray, rng: np.random.Generator | None, *, soft: bool = False) -> Iterator[Batch]:
        labels = self.data.labels
        weight_of = np.array([self.class_weights[label] for label in (0, 1)], np.float32)
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            stamps = self.data.read_stamps(part, self.layers)
            if rng is not None:
                stamps = self._disturb(turn_stamps(stamps, draw_orientations(len(part), rng)), rng)
            if soft:
                yield stamps, self.targets.probability[part][:, None], self.targets.weight[part]
            else:
                yield stamps, labels[part].astype(np.float32)[:, None], weight_of[labels[part]]

    def _disturb(self, stamps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.disturb:
            chosen = np.flatnonzero(rng.random(len(stamps)) < self.disturb)
            stamps[chosen] = disturb_stamps(stamps[chosen], self.layers, fwhm=self.fwhm, rng=rng)
        return stamps

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


def _check_finite(data: Dataset, rows: np.ndarray, layers: tuple[str, ...]) -> None:
    """Read the rows once, in file order, and refuse stamps with NaN or infinity.

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
                "cut it again with gotorb.stamps.layers or remove the row"
            )


@dataclass(frozen=True)
class Lesson:
    """Rows and stream of a training.

    Attributes
    ----------
    rows : Rows
        Training, validation and test rows.
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
    disturb: float = 0.0,
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
        See `weigh_classes`.
    division : dict
        How rows are divided when the data set has no split: see `gotorb.dataset.split.assign_splits`.
    n_replicas : int
        See `Stream`.
    splits : sequence of str
        Parts whose stamps are read and checked.
    disturb : float
        See `Stream`.

    Returns
    -------
    Lesson
        Rows and stream of stamps.

    Raises
    ------
    DataError
        If the data set cannot be trained on: one class only, odd labels, NaN, an absent layer.
    ConfigError
        If class weights or batch size are impossible.
    """
    data.layer_indices(layers)
    rows = select_rows(data.table, find_splits(data.table, **division), where=data.data_dir)
    weights = weigh_classes(data.labels[rows.train], class_weights)
    fwhm = find_fwhm(data, rows.train, layers) if disturb else USUAL_FWHM
    stream = Stream(
        data=data, layers=layers, batch_size=batch_size, class_weights=weights, n_replicas=n_replicas,
        disturb=disturb, fwhm=fwhm,
    )  # fmt: skip
    _check_finite(data, np.concatenate([rows.undecided, *(rows.of(split) for split in splits)]), layers)
    return Lesson(rows, stream)
