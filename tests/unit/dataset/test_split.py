"""No image, object, host or place stands on two sides of a split."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotorb.dataset.check import find_leaks
from gotorb.dataset.split import assign_splits, link_groups
from gotorb.errors import DataError


def make_rows(n, n_images, n_objects, seed):
    rng = np.random.default_rng(seed)
    objects = rng.integers(0, n_objects, n)
    return pd.DataFrame(
        {
            "image_id": rng.integers(0, n_images, n).astype(str),
            "object_id": np.where(rng.random(n) < 0.2, [f"mp:{o}" for o in objects], ""),
            "host_id": np.where(rng.random(n) < 0.1, [f"glade:{o}" for o in objects], ""),
            "ra": rng.uniform(0, 360, n),
            "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))),
            "label": rng.integers(0, 2, n),
        }
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(30, 300), st.integers(20, 60), st.integers(50, 500), st.integers(0, 10**6))
def test_nothing_leaks_whatever_the_rows(n, n_images, n_objects, seed):
    rows = make_rows(n, n_images, n_objects, seed)
    if link_groups(rows).max() < 2:
        return
    rows["split"] = assign_splits(rows, seed=seed)
    assert find_leaks(rows).empty
    for column in ("image_id", "object_id", "host_id"):
        known = rows[rows[column] != ""]
        assert (known.groupby(column)["split"].nunique() == 1).all()


def test_fractions_are_met_for_both_classes():
    rows = make_rows(4000, 200, 10**6, 1)
    rows["object_id"], rows["host_id"] = "", ""
    rows["split"] = assign_splits(rows, test_fraction=0.2, validation_fraction=0.15, seed=5)
    share = rows.groupby("label")["split"].value_counts(normalize=True)
    for label in (0, 1):
        assert share[label, "test"] == pytest.approx(0.2, abs=0.02)
        assert share[label, "validation"] == pytest.approx(0.15, abs=0.02)


def test_same_place_on_two_nights_is_one_group_also_across_ra_zero():
    rows = pd.DataFrame({"image_id": ["1", "2", "3"], "ra": [0.0001, 359.9999, 0.1], "dec": [0.0, 0.0, 0.0]})
    assert link_groups(rows, link_radius_arcsec=3).tolist() == [0, 0, 1]
    assert link_groups(rows, link_radius_arcsec=0).tolist() == [0, 1, 2]


def test_positions_that_are_unknown_link_nothing():
    rows = pd.DataFrame({"image_id": ["1", "2", "3"], "ra": [np.nan] * 3, "dec": [np.nan] * 3})
    assert link_groups(rows).tolist() == [0, 1, 2]


def test_a_planted_leak_is_found():
    rows = make_rows(200, 40, 10**6, 2)
    rows["split"] = assign_splits(rows, seed=0)
    rows.loc[rows.index[0], "split"] = "train" if rows["split"].iloc[0] == "test" else "test"
    assert len(find_leaks(rows)) == 1


def test_too_few_groups_are_refused():
    rows = make_rows(50, 2, 10**6, 3)
    with pytest.raises(DataError, match="too few for train, validation and test"):
        assign_splits(rows)


def test_seed_decides():
    rows = make_rows(500, 80, 10**6, 4)
    first, again, other = (assign_splits(rows, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
