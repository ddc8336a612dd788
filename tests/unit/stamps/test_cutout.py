"""Stamps are the image's own pixels, and missing pixels are known to be missing."""

import numpy as np
import pytest
from astropy.nddata import Cutout2D, NoOverlapError
from hypothesis import given, settings
from hypothesis import strategies as st

from gotorb.stamps.layers import cut_stamps
from gotorb.survey.pixels import fill_missing

IMAGE = np.random.default_rng(1).normal(size=(80, 60)).astype(">f4")


@pytest.mark.parametrize("size", [15, 55])
def test_pixels_equal_those_of_astropys_cutout(size):
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-3, 62, 60), rng.uniform(-3, 82, 60)
    stamps = cut_stamps(IMAGE, x, y, size=size)
    for i in range(60):
        reference = Cutout2D(IMAGE, (x[i], y[i]), size, mode="partial", fill_value=np.nan).data
        np.testing.assert_array_equal(stamps[i], reference.astype(np.float32))


def test_source_lies_in_the_middle_pixel():
    image = np.zeros((50, 50))
    image[20, 31] = 1
    assert cut_stamps(image, np.array([31.4]), np.array([19.6]), size=15)[0, 7, 7] == 1


def test_position_far_outside_gives_no_data():
    assert np.isnan(cut_stamps(IMAGE, np.array([500.0]), np.array([-400.0]), size=15)).all()


def test_edge_stamp_is_marked_not_silently_zero():
    stamp = cut_stamps(IMAGE, np.array([0.0]), np.array([40.0]), size=15)[..., None]
    filled, missing = fill_missing(stamp)
    assert np.isfinite(filled).all()
    assert missing[0] == pytest.approx(7 / 15)


def test_no_positions_give_no_stamps():
    assert cut_stamps(IMAGE, np.empty(0), np.empty(0), size=15).shape == (0, 15, 15)


@pytest.mark.parametrize("far", [-1.0, 1e9, -1e9, 2.0**31, 2.0**63, -1e300, np.inf, -np.inf, np.nan])
def test_no_position_however_far_gives_pixels_of_another(far):
    x = np.array([far * 1000 if far == -1 else far, 30.0, 30.0])
    y = np.array([40.0, far * 1000 if far == -1 else far, 40.0])
    stamps = cut_stamps(IMAGE, x, y, size=15)
    assert np.isnan(stamps[:2]).all() and np.isfinite(stamps[2]).all()


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", ">i2", ">u2", "u1", ">i4"])
def test_every_type_of_pixel_comes_out_as_float32(dtype):
    image = np.arange(80 * 60).reshape(80, 60).astype(dtype)
    stamps = cut_stamps(image, np.array([30.0]), np.array([40.0]), size=15)
    assert stamps.dtype == np.float32 and stamps.dtype.isnative
    np.testing.assert_array_equal(stamps[0], image[33:48, 23:38].astype(np.float32))


def test_numbers_beyond_float32_are_infinite_and_count_as_missing():
    image = np.full((20, 20), 1e300)
    stamps = cut_stamps(image, np.array([10.0]), np.array([10.0]), size=5)[..., None]
    assert fill_missing(stamps)[1][0] == 1


@settings(deadline=None)
@given(st.floats(-40, 100), st.floats(-40, 120), st.integers(1, 40), st.booleans())
def test_stamp_at_any_position_is_astropys_cutout(x, y, size, halved):
    if halved:  # edges of pixels, where rounding decides
        x, y = np.floor(x) + 0.5, np.floor(y) + 0.5
    stamp = cut_stamps(IMAGE, np.array([x]), np.array([y]), size=size)[0]
    try:
        reference = Cutout2D(IMAGE, (x, y), size, mode="partial", fill_value=np.nan).data
    except NoOverlapError:
        reference = np.full((size, size), np.nan)
    np.testing.assert_array_equal(stamp, reference.astype(np.float32))
