"""A leak of each kind, planted into a clean division, is found and named."""

import numpy as np
import pytest

from gotorb.dataset.check import find_leaks, find_pixel_leaks
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError
from tests.unit.dataset.conftest import make_stamps, make_table


def make_rows(n=120, n_images=40):
    rows = make_table(n, n_images)
    return rows.assign(host_id=[f"glade:{i}" if i % 3 == 0 else "" for i in range(n)], split=assign_splits(rows))


def other_part(rows):
    """Numbers of a training row and a test row."""
    return (int(np.flatnonzero(rows["split"] == part)[0]) for part in ("train", "test"))


def test_a_clean_division_has_no_leak():
    assert find_leaks(make_rows()).empty


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [("image_id", "shared", "image"), ("object_id", "mp:Ceres", "object"), ("host_id", "glade:M31", "galaxy")],
)
def test_a_shared_value_is_found_and_named(column, value, kind):
    rows = make_rows()
    rows.loc[list(other_part(rows)), column] = value
    assert find_leaks(rows)[["kind", "what", "splits", "n_rows"]].values.tolist() == [[kind, value, "test+train", 2]]


def test_neighbours_on_the_sky_are_found_across_ra_zero():
    rows = make_rows()
    first, second = other_part(rows)
    rows.loc[[first, second], ["ra", "dec"]] = [[359.9999, 0.0], [0.0001, 0.0]]
    assert find_leaks(rows)["kind"].tolist() == ["sky"]
    assert find_leaks(rows, link_radius_arcsec=0.5).empty


def test_copied_pixels_are_found_even_in_one_layer_and_under_another_name(tmp_path):
    rows = make_rows()
    stamps = make_stamps(len(rows))
    first, second = other_part(rows)
    stamps[second, ..., 1] = stamps[first, ..., 1]
    leaks = find_pixel_leaks(open_dataset(write_dataset(tmp_path / "data", rows, [stamps])))
    assert leaks[["kind", "splits", "n_rows"]].values.tolist() == [["pixels", "test+train", 2]]
    assert leaks["what"].iloc[0].startswith("template of row")


def test_layers_without_data_are_no_leak(tmp_path):
    rows = make_rows()
    stamps = make_stamps(len(rows))
    stamps[..., 3] = 0
    assert find_pixel_leaks(open_dataset(write_dataset(tmp_path / "data", rows, [stamps]))).empty


def test_undivided_rows_are_refused():
    with pytest.raises(DataError, match="not divided"):
        find_leaks(make_table())
