"""Division of rows into train, validation and test without leaks.

Rows are linked when they share an image, an object (minor planet or galaxy), a host galaxy, or a place on
the sky; each connected group of rows goes whole into one part. A random split of rows would put the same
star's residual, seen on three nights, on both sides, and the test would measure memory.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from gotorb.catalogues.crossmatch import chord, unit_vectors
from gotorb.core import layout
from gotorb.core.params import SEED, DatasetParams
from gotorb.dataset.store import check_labels
from gotorb.errors import DataError
from gotorb.survey.ids import is_blank

DATASET = DatasetParams()
LINK_COLUMNS = ("image_id", "object_id", "host_id")


def assign_splits(
    table: pd.DataFrame,
    *,
    test_fraction: float = DATASET.test_fraction,
    validation_fraction: float = DATASET.validation_fraction,
    seed: int = SEED,
    link_radius_arcsec: float = DATASET.link_radius_arcsec,
    grouping: str = DATASET.grouping,
) -> np.ndarray:
    """Assign every row to ``train``, ``validation`` or ``test``, whole groups at a time.

    Parameters
    ----------
    table : DataFrame
        Rows with label and any of image_id, object_id, host_id, ra, dec (deg, ICRS).
    test_fraction, validation_fraction : float
        Wanted fractions of the labelled rows.
    seed : int
        Decides the order in which groups are placed.
    link_radius_arcsec : float
        Rows closer than this on the sky stay together; 0 links no neighbours.
    grouping : {"linked", "none"}
        none divides row by row, so that parts share images and objects: only to measure what that feigns.

    Returns
    -------
    ndarray of str
        (n,) the part of each row.

    Raises
    ------
    DataError
        If the rows form too few groups for three parts.
    """
    linked = grouping == "linked"
    groups = link_groups(table, link_radius_arcsec=link_radius_arcsec) if linked else np.arange(len(table))
    n_groups = int(groups.max()) + 1
    if n_groups < len(layout.SPLITS):
        raise DataError(
            f"the {len(table)} rows form {n_groups} group(s) linked by image, object or sky position, "
            "too few for train, validation and test; label images of more fields"
        )
    fractions = {
        "test": test_fraction,
        "validation": validation_fraction,
        "train": 1 - test_fraction - validation_fraction,
    }
    counts = _class_counts(table["label"].to_numpy(), groups, n_groups)
    part_of_group = _place_groups(counts, fractions, np.random.default_rng([seed, n_groups]))
    return part_of_group[groups]


def link_groups(table: pd.DataFrame, *, link_radius_arcsec: float = DATASET.link_radius_arcsec) -> np.ndarray:
    """Number the connected groups of rows, 0 and up in order of first appearance.

    Parameters
    ----------
    table : DataFrame
        Any of `LINK_COLUMNS`, ra and dec (deg).
    link_radius_arcsec : float
        Rows closer than this are linked; 0 for no links by position.

    Returns
    -------
    ndarray of int
        (n,) number of each row's group.

    Examples
    --------
    >>> rows = pd.DataFrame({"image_id": ["a", "a", "b", "c"], "object_id": ["", "ceres", "ceres", ""]})
    >>> link_groups(rows).tolist()
    [0, 0, 0, 1]
    """

    pairs = [_pairs_by_value(table[name]) for name in LINK_COLUMNS if name in table]
    pairs.append(pairs_on_sky(table, link_radius_arcsec))
    first, second = np.concatenate([np.empty((2, 0), int), *pairs], axis=1)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(table), len(table)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0]


def _pairs_by_value(values: pd.Series) -> np.ndarray:
    """Link each row to the first row with the same value; a blank one, or "nan", is none."""
    known = ~is_blank(values)
    rows = np.flatnonzero(known)
    codes = pd.factorize(values[known].astype(str))[0]
    first = np.unique(codes, return_index=True)[1]
    return np.stack([rows, rows[first[codes]]])


def pairs_on_sky(table: pd.DataFrame, radius_arcsec: float) -> np.ndarray:
    """Pairs of rows that are close to each other on the sky.

    Parameters
    ----------
    table : DataFrame
        With ra and dec (deg, ICRS); without them there are no pairs.
    radius_arcsec : float
        0 for no pairs.

    Returns
    -------
    ndarray of int
        (2, n_pairs) row numbers.
    """
    if radius_arcsec <= 0 or not {"ra", "dec"} <= set(table.columns):
        return np.empty((2, 0), int)
    position = table[["ra", "dec"]].to_numpy(float)
    rows = np.flatnonzero(np.isfinite(position).all(axis=1))
    tree = cKDTree(unit_vectors(*position[rows].T))
    return rows[tree.query_pairs(chord(radius_arcsec), output_type="ndarray")].T


def _class_counts(labels: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Rows of each class, bogus and real, (n_groups, 2); unknown labels do not count."""
    counts = np.zeros((n_groups, 2))
    for label in (layout.BOGUS, layout.REAL):
        counts[:, label] = np.bincount(groups[labels == label], minlength=n_groups)
    return counts


def _place_groups(counts: np.ndarray, fractions: dict[str, float], rng: np.random.Generator) -> np.ndarray:
    """Give each group, the largest first, to the part that is furthest below its share of both classes."""
    order = np.argsort(-counts.sum(axis=1) + rng.uniform(0, 1e-3, len(counts)), kind="stable")
    order = np.concatenate([rng.permutation(part) for part in _similar_sizes(counts.sum(axis=1), order)])
    names = list(fractions)
    wanted = np.array([[fractions[name]] for name in names]) * np.maximum(counts.sum(axis=0), 1)
    placed = np.zeros((len(names), 2))
    chosen = np.empty(len(counts), dtype="U10")
    for group in order:
        lack = ((wanted - placed) / wanted).min(axis=1)
        part = int(np.argmax(lack))
        chosen[group] = names[part]
        placed[part] += counts[group]
    return chosen


def _similar_sizes(sizes: np.ndarray, order: np.ndarray) -> Iterable[np.ndarray]:
    """Cut the ordered groups where their size halves, so that shuffling keeps the large ones first."""
    levels = np.floor(np.log2(np.maximum(sizes[order], 0.5)))
    return np.split(order, np.flatnonzero(np.diff(levels)) + 1)


def labelled_rows(table: pd.DataFrame, split: str) -> np.ndarray:
    """Numbers of the rows of a part that are labelled real or bogus.

    Parameters
    ----------
    table : DataFrame
        With split and label.
    split : {"train", "validation", "test"}

    Returns
    -------
    ndarray of int
        Ascending.

    Raises
    ------
    DataError
        If a label is none of 1, 0 and -1.
    """
    known = check_labels(table) != layout.UNKNOWN
    return np.flatnonzero((table[layout.SPLIT_COLUMN] == split).to_numpy(bool) & known)


def images_of(table: pd.DataFrame, split: str) -> list[str]:
    """Ids of the images that have rows in a part.

    Parameters
    ----------
    table : DataFrame
        With split and image_id.
    split : {"train", "validation", "test"}

    Returns
    -------
    list of str
        Sorted.
    """
    return sorted(set(table.loc[table[layout.SPLIT_COLUMN] == split, "image_id"]))


def assign_folds(labels: np.ndarray, groups: np.ndarray, *, n_folds: int, seed: int) -> np.ndarray:
    """Assign rows to folds: groups stay whole, classes are spread evenly.

    Parameters
    ----------
    labels : ndarray
        (n,) labels.
    groups : ndarray
        (n,) number of each row's group (`link_groups`).
    n_folds, seed : int
        Number of folds, and seed of the order.

    Returns
    -------
    ndarray of int
        (n,) fold of each row.

    Raises
    ------
    DataError
        If there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise DataError(f"{n_groups} groups of linked rows are too few for {n_folds} folds; label more images")
    folds = np.empty(len(labels), int)
    parts = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, rows) in enumerate(parts):
        folds[rows] = fold
    return folds
