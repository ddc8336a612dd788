"""Trees as arrays: equal to scikit-learn's, stored exactly, and refused when the file is hostile."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from gotorb.errors import ModelError
from gotorb.training.trees import ARRAYS, Trees, fit_trees, join_trees


def make_rows(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 12)).astype(np.float32)
    rows[:, 3] = np.round(rows[:, 3])  # many equal values
    return rows, (rows[:, 0] + rows[:, 3] + rng.normal(0, 0.5, n) > 0).astype(float)


@pytest.fixture(scope="module")
def trees() -> Trees:
    rows, targets = make_rows()
    return fit_trees(rows, targets, np.ones(len(rows)), n_trees=30, seed=1, threads=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_leaves_are_those_of_scikit_learn(seed: int) -> None:
    rows, targets = make_rows(seed=seed)
    weights = np.where(targets == 1, 0.3, 2.0)
    fitted = ExtraTreesRegressor(20, min_samples_leaf=2, random_state=seed).fit(rows, targets, sample_weight=weights)
    ours, new = join_trees([one.tree_ for one in fitted.estimators_]), make_rows(2000, seed + 9)[0]
    at_thresholds = np.repeat(ours.threshold[:500, None], 12, axis=1)  # as close as float32 comes
    for part in (new, at_thresholds, np.nextafter(at_thresholds, np.float32(np.inf))):
        theirs = np.stack([one.predict(part) for one in fitted.estimators_], axis=1)
        np.testing.assert_array_equal(ours.leaves(part), theirs)
    np.testing.assert_allclose(ours.leaves(new).mean(axis=1), fitted.predict(new), rtol=1e-13, atol=1e-15)


def test_fitting_repeats_with_any_number_of_threads(trees: Trees) -> None:
    rows, targets = make_rows()
    again = fit_trees(rows, targets, np.ones(len(rows)), n_trees=30, seed=1, threads=2)
    other = fit_trees(rows, targets, np.ones(len(rows)), n_trees=30, seed=2, threads=1)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(trees, name), getattr(again, name))
    assert len(other.feature) != len(trees.feature) or (other.threshold != trees.threshold).any()


def test_fitting_in_threads_leaves_the_filters_of_warnings_alone() -> None:
    rng, before = np.random.default_rng(1), list(warnings.filters)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    for seed in range(12):  # without care, two or three fits are enough to change them
        fit_trees(rows, (rows[:, 0] > 0).astype(float), np.ones(200), n_trees=40, seed=seed, threads=2)
    assert list(warnings.filters) == before


@pytest.mark.parametrize("cut", [1, 7, 256, 257])
def test_no_batch_changes_a_leaf(trees: Trees, cut: int) -> None:
    rows = make_rows(600, 5)[0]
    parts = [trees.leaves(rows[start : start + cut]) for start in range(0, len(rows), cut)]
    np.testing.assert_array_equal(np.concatenate(parts), trees.leaves(rows))


def test_soft_targets_are_learned() -> None:
    rows, targets = make_rows()
    soft = fit_trees(rows, 0.25 + targets / 2, np.ones(len(rows)), n_trees=10, seed=1, threads=1)
    assert soft.value.min() >= 0.25 and soft.value.max() <= 0.75


def test_a_single_leaf_is_a_tree() -> None:
    trees = fit_trees(np.zeros((4, 3), np.float32), np.array([0.0, 1, 1, 1]), np.ones(4), n_trees=2, seed=0, threads=1)
    np.testing.assert_array_equal(trees.leaves(np.ones((2, 3), np.float32)), np.full((2, 2), 0.75))


def test_rows_of_other_features_are_refused(trees: Trees) -> None:
    with pytest.raises(ModelError, match="12"):
        trees.leaves(np.zeros((2, 5), np.float32))


def write(path: Path, trees: Trees) -> Path:
    with h5py.File(path, "w") as file:
        trees.write(file.create_group("trees"))
    return path


def read(path: Path) -> Trees:
    with h5py.File(path, "r") as file:
        return Trees.read(file["trees"])


def test_stored_trees_are_the_same_and_so_are_the_bytes(trees: Trees, tmp_path: Path) -> None:
    again = read(write(tmp_path / "a.h5", trees))
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(trees, name), getattr(again, name))
    assert write(tmp_path / "b.h5", again).read_bytes() == (tmp_path / "a.h5").read_bytes()


def changed(values: np.ndarray, place: int, value: Any) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("left", 0, 0), ("right", 0, -1), ("left", 0, 10**8), ("right", 5, 2), ("feature", 0, 12), ("feature", 0, -1),
        ("threshold", 0, np.nan), ("threshold", 0, np.inf), ("value", 3, 1.5), ("value", 3, np.nan), ("roots", 1, -1),
        ("roots", 1, 10**8),
    ],
)  # fmt: skip
def test_tables_on_which_a_row_could_get_lost_are_refused(
    trees: Trees, tmp_path: Path, name: str, place: int, value: Any
) -> None:
    hostile = replace(trees, **{name: changed(getattr(trees, name), place, value)})
    with pytest.raises(ValueError):
        read(write(tmp_path / "trees.h5", hostile))


def test_links_other_types_and_other_lengths_are_refused(trees: Trees, tmp_path: Path) -> None:
    other = write(tmp_path / "other.h5", trees)
    for number, spoil in enumerate((_link, _external, _retype, _shorten, _remove)):
        path = write(tmp_path / f"{number}.h5", trees)
        with h5py.File(path, "a") as file:
            spoil(file["trees"], other)
        with pytest.raises(ValueError):
            read(path)


def _link(group: h5py.Group, other: Path) -> None:
    del group["value"]
    group["value"] = h5py.ExternalLink(str(other), "/trees/value")


def _external(group: h5py.Group, other: Path) -> None:
    n = len(group["value"])
    del group["value"]
    group.create_dataset("value", (n,), np.float64, external=[(str(other), 0, n * 8)])


def _retype(group: h5py.Group, other: Path) -> None:
    values = group["feature"][()]
    del group["feature"]
    group["feature"] = values.astype(np.int64)


def _shorten(group: h5py.Group, other: Path) -> None:
    values = group["threshold"][()]
    del group["threshold"]
    group["threshold"] = values[:-1]


def _remove(group: h5py.Group, other: Path) -> None:
    del group["roots"]
