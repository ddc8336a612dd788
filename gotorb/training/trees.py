"""Extremely randomised trees as plain arrays: fitted by scikit-learn, scored and stored without it.

The nodes of all trees are in one table. A row goes left if its feature is at most the threshold. The children of a leaf
are the leaf itself, so all rows descend in step and stay in their leaves. Reading a file runs no code, and a damaged or
hostile table is refused before it is used.

References
----------
Geurts, Ernst & Wehenkel 2006 (Machine Learning 63, 3): extremely randomised trees.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from gotorb.errors import ModelError

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree as SklearnTree

MIN_SAMPLES_LEAF = 2
MAX_FEATURES = 0.2
"""Fraction of the features tried at a node."""
MAX_NODES = 2**25
STRENGTH = 3.0
"""Weight of a node's old value, in rows, when trees are adapted to another survey."""
WALK_ROWS = 256
"""Rows that descend together, whose features fit into the processor's cache."""
ARRAYS = {"feature": np.int32, "threshold": np.float32, "left": np.int32, "right": np.int32, "value": np.float64,
          "roots": np.int32}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trees:
    """A forest.

    Attributes
    ----------
    feature, threshold, left, right, value : ndarray
        (n_nodes,) feature that a node reads, its largest value that goes left, children, and weighted mean of the
        training targets that reached the node.
    roots : ndarray
        (n_trees,) first node of each tree.
    n_features : int
        Number of features of a row.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    n_features: int

    def __len__(self) -> int:
        return len(self.roots)

    def leaves(self, rows: np.ndarray) -> np.ndarray:
        """Value of the leaf that each row reaches in each tree.

        Parameters
        ----------
        rows : ndarray
            (n, n_features) float32 features.

        Returns
        -------
        ndarray
            (n, n_trees) float64 values.

        Raises
        ------
        ModelError
            If the rows have another number of features.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ModelError(
                f"rows of shape {rows.shape} do not fit trees of {self.n_features} features; measure again"
            )
        found = np.empty((len(rows), len(self)), np.float64)
        children = np.stack([self.left, self.right], axis=1).ravel()
        for start in range(0, len(rows), WALK_ROWS):
            part = rows[start : start + WALK_ROWS]
            found[start : start + WALK_ROWS] = self.value[self._walk(part, children)].T
        return found

    def _walk(self, rows: np.ndarray, children: np.ndarray) -> np.ndarray:
        """Leaf of each row in each tree, (n_trees, n)."""
        flat, first = rows.ravel(), np.arange(len(rows), dtype=np.int64) * self.n_features
        node = np.repeat(self.roots[:, None].astype(np.int64), len(rows), axis=1)
        while True:
            after = children[2 * node + (flat[self.feature[node] + first] > self.threshold[node])]
            if np.array_equal(after, node):
                return node
            node = after.astype(np.int64)

    def write(self, group: h5py.Group) -> None:
        """Write the arrays into a group.

        Parameters
        ----------
        group : h5py.Group
        """
        for name, kind in ARRAYS.items():
            group.create_dataset(name, data=np.asarray(getattr(self, name), kind))
        group.attrs["n_features"] = self.n_features

    @classmethod
    def read(cls, group: h5py.Group) -> Trees:
        """Read and check the arrays of a group.

        Parameters
        ----------
        group : h5py.Group

        Returns
        -------
        Trees

        Raises
        ------
        ValueError
            If the arrays are not those of a forest.
        """
        arrays = {name: read_array(group, name, kind, MAX_NODES) for name, kind in ARRAYS.items()}
        trees = cls(**arrays, n_features=int(group.attrs["n_features"]))
        trees.check()
        return trees

    def check(self) -> None:
        """Refuse a table in which a row could descend without end or leave the table.

        Raises
        ------
        ValueError
            If a child, feature, threshold or value is impossible.
        """
        n = len(self.feature)
        at = np.arange(n)
        leaf = (self.left == at) & (self.right == at)
        if any(len(getattr(self, name)) != n for name in ("threshold", "left", "right", "value")) or not n:
            raise ValueError("its trees' arrays differ in length or are empty")
        for name in ("left", "right"):
            child = getattr(self, name)
            if not (leaf | ((child > at) & (child < n))).all():
                raise ValueError(f"a node's {name} child is not behind it")
        if not ((self.feature >= 0) & (self.feature < self.n_features)).all():
            raise ValueError(f"a node reads a feature beyond the {self.n_features} there are")
        if not (np.isfinite(self.threshold).all() and ((self.value >= 0) & (self.value <= 1)).all()):
            raise ValueError("a threshold is not finite or a value not between 0 and 1")
        if not len(self.roots) or not ((self.roots >= 0) & (self.roots < n)).all():
            raise ValueError("it has no trees, or a tree begins outside the table")


def read_array(group: h5py.Group, name: str, kind: Any, most: int) -> np.ndarray:
    """Read a one-dimensional array that is stored in the file itself.

    Parameters
    ----------
    group : h5py.Group
        Group of the array.
    name : str
        Name of the array.
    kind : dtype
        Required type.
    most : int
        Largest length.

    Returns
    -------
    ndarray
        (n,) values.

    Raises
    ------
    ValueError
        If it is missing, stored elsewhere, of another type, or longer.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{name} is missing or a link")
    node = group[name]
    if not isinstance(node, h5py.Dataset) or node.is_virtual or node.external:
        raise ValueError(f"{node.name} is not an array in the file itself")
    if node.dtype != np.dtype(kind) or node.ndim != 1 or len(node) > most:
        raise ValueError(f"{node.name} is {node.dtype} {node.shape}, not at most {most} of {np.dtype(kind)}")
    return np.asarray(node[()])


def fit_trees(
    rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, n_trees: int, seed: int, threads: int | None = None
) -> Trees:
    """Fit trees; the result does not depend on the number of threads.

    Parameters
    ----------
    rows : ndarray
        (n, n_features) float32 features.
    targets : ndarray
        (n,) probabilities that the rows are real, from 0 to 1.
    weights : ndarray
        (n,) weight of each row.
    n_trees, seed : int
        Number of trees, and their seed.
    threads : int, optional
        CPU threads; default: one per core.

    Returns
    -------
    Trees
    """
    from sklearn.ensemble import ExtraTreesRegressor

    model = ExtraTreesRegressor(
        n_trees, min_samples_leaf=MIN_SAMPLES_LEAF, max_features=MAX_FEATURES, random_state=seed, n_jobs=threads or -1
    )
    with warnings.catch_warnings():  # scikit-learn's threads set the filters of the whole process, in turns
        model.fit(rows, targets, sample_weight=weights)
    return join_trees([one.tree_ for one in model.estimators_])


def update_trees(
    trees: Trees, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, strength: float = STRENGTH
) -> Trees:
    """Adapt fitted trees to the labels of another survey: splits stay, values of nodes change.

    The value of a node is the mean of a prior, with the weight of `strength` rows, and of the new rows that reach it.
    The prior is the new value of the parent, plus the old step from the parent to this node. Few rows thus change
    whole branches, and many rows change leaves.

    Parameters
    ----------
    trees : Trees
        Fitted trees.
    rows : ndarray
        (n, n_features) float32 features.
    targets : ndarray
        (n,) probabilities that the rows are real.
    weights : ndarray
        (n,) weight of each row.
    strength : float
        Weight of the prior of each node.

    Returns
    -------
    Trees
    """
    rows = np.ascontiguousarray(rows, np.float32)
    count, total, column = np.zeros(len(trees.feature)), np.zeros(len(trees.feature)), np.arange(len(rows))
    node, moved = np.repeat(trees.roots[:, None].astype(np.int64), len(rows), axis=1), np.True_
    while np.any(moved):
        reached = np.broadcast_to(moved, node.shape)
        weight = np.where(reached, weights, 0.0).ravel()
        count += np.bincount(node.ravel(), weight, len(count))
        total += np.bincount(node.ravel(), weight * np.broadcast_to(targets, node.shape).ravel(), len(count))
        right = rows[column, trees.feature[node]] > trees.threshold[node]
        after = np.where(right, trees.right[node], trees.left[node])
        moved, node = after != node, after
    value, level = np.empty(len(count)), trees.roots.astype(np.int64)
    prior = trees.value[level]
    while len(level):
        value[level] = (strength * np.clip(prior, 0, 1) + total[level]) / (strength + count[level])
        inner = level[trees.left[level] != level]
        level, above = np.concatenate([trees.left[inner], trees.right[inner]]), np.concatenate([inner, inner])
        prior = value[above] + trees.value[level] - trees.value[above]
    return replace(trees, value=np.clip(value, 0, 1))


def join_trees(fitted: list[SklearnTree]) -> Trees:
    """Join scikit-learn's trees to one table.

    Parameters
    ----------
    fitted : list of sklearn.tree._tree.Tree
        Fitted trees.

    Returns
    -------
    Trees
    """
    counts = [tree.node_count for tree in fitted]
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int32)
    own = np.arange(sum(counts), dtype=np.int32)
    shift = np.repeat(roots, counts)
    leaf = np.concatenate([tree.children_left < 0 for tree in fitted])
    left, right = (np.concatenate([getattr(tree, f"children_{side}") for tree in fitted]) for side in ("left", "right"))
    return Trees(
        feature=np.where(leaf, 0, np.concatenate([tree.feature for tree in fitted])).astype(np.int32),
        threshold=_round_down(np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in fitted]))),
        left=np.where(leaf, own, left + shift).astype(np.int32),
        right=np.where(leaf, own, right + shift).astype(np.int32),
        value=np.clip(np.concatenate([tree.value[:, 0, 0] for tree in fitted]), 0.0, 1.0),
        roots=roots,
        n_features=int(fitted[0].n_features),
    )


def _round_down(thresholds: np.ndarray) -> np.ndarray:
    """Largest float32 not above each threshold, for equal comparisons with float32 features."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
