"""Which rows of a data set are learned from, and the checks that come before any training."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.split import assign_splits
from gotorb.errors import ConfigError, DataError

LOG = logging.getLogger(__name__)
LABELS = (layout.BOGUS, layout.REAL)
FEW = 10
"""Fewer rows of a class than this in a part are worth a warning."""


@dataclass(frozen=True)
class Rows:
    """Row numbers of each part, ascending; rows of unknown label are in none.

    Attributes
    ----------
    train, validation, test : ndarray of int
        Row numbers.
    n_unknown : int
        Rows left out because their label is -1.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    n_unknown: int

    @property
    def all(self) -> np.ndarray:
        """Row numbers of all parts."""
        return np.concatenate([self.train, self.validation, self.test])

    def of(self, split: str) -> np.ndarray:
        """Row numbers of the part with that name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


def find_splits(table: pd.DataFrame, **options: Any) -> np.ndarray:
    """Part of each row: the ``split`` column where there is one, else a fresh division without leaks.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set.
    **options
        Passed to `gotorb.dataset.split.assign_splits`.
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

    Raises
    ------
    DataError
        If a label or part is unknown, no row is labelled, or a part lacks a class.
    """
    labels = check_labels(table, where=where)
    unknown = sorted(set(splits) - set(layout.SPLITS))
    if unknown:
        row = table["id"].iloc[int(np.argmax(splits == unknown[0]))]
        raise DataError(
            f"split {str(unknown[0])!r} of row {row!r} in {where} is not "
            f"one of {', '.join(layout.SPLITS)}; mend the column or remove it to have rows divided anew"
        )
    known = labels != layout.UNKNOWN
    train, validation, test = (np.flatnonzero((splits == split) & known) for split in layout.SPLITS)
    rows = Rows(train, validation, test, n_unknown=int((~known).sum()))
    for split in layout.SPLITS:
        _check_classes(labels[rows.of(split)], split, where)
    return rows


def check_labels(table: pd.DataFrame, *, where: object = "the data set") -> np.ndarray:
    """Labels as integers.

    Raises
    ------
    DataError
        If one is none of 1 (real), 0 (bogus), -1 (unknown), or none is known.
    """
    labels = pd.to_numeric(table["label"], errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~np.isin(labels, (*LABELS, layout.UNKNOWN)))
    if len(wrong):
        raise DataError(
            f"label {table['label'].iloc[wrong[0]]} of row {table['id'].iloc[wrong[0]]!r} in {where} is none of "
            "1 (real), 0 (bogus), -1 (unknown); mend the label column"
        )
    if (labels == layout.UNKNOWN).all():
        raise DataError(f"none of the {len(table)} rows in {where} is labelled real or bogus; label some first")
    return labels.astype(int)


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


def count_rows(labels: np.ndarray, rows: Rows) -> dict[str, Any]:
    """Real and bogus rows of each part, and the rows left out."""
    counts: dict[str, Any] = {
        split: {
            "real": int((labels[rows.of(split)] == layout.REAL).sum()),
            "bogus": int((labels[rows.of(split)] == layout.BOGUS).sum()),
        }
        for split in layout.SPLITS
    }
    return counts | {"unknown": rows.n_unknown}
