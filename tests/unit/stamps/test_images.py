"""The stretch: sky, missing pixels and peaks of made-up and real stamps."""

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from gotorb.core import layout
from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.stamps.images import (
    HATCH_GROUND,
    HATCH_LINE,
    LEAST_HIGH,
    LEAST_REACH,
    LOWEST,
    draw_strip,
    find_missing,
    hatch_lines,
    pack_pixels,
    paint_stamps,
    scale_stamps,
    stretch_limits,
    to_grey,
)
from gotorb.survey.pixels import prepare_stamps
from tests.unit.survey.synthetic import real_data

LAYERS = ("science", "template", "difference")
BLACK, DARKEST, BRIGHTEST = 0.05 * 255, 118, 138
"""Grey below which a panel is black, and the range of a difference's sky."""


def make_stamps(n: int = 40, size: int = 55, seed: int = 1) -> NDArray[np.float32]:
    """Noise of different levels and scales, in each a source of up to 100,000 sigma and a star at the edge."""
    rng = np.random.default_rng(seed)
    stamps = rng.normal(0, 1, (n, size, size, 3))
    middle, peaks = size // 2, np.logspace(0, 5, n)[:, None, None, None]
    stamps[:, middle - 2 : middle + 3, middle - 2 : middle + 3] += peaks * np.array([1, 0.9, 0.1])
    stamps[:, 1:5, 1:5] += 50_000
    scale, level = rng.uniform(0.01, 100, (n, 1, 1, 3)), rng.uniform(-500, 500, (n, 1, 1, 3))
    return (stamps * scale + level).astype(np.float32)


def panel_medians(stamps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Median grey of each panel's pixels that hold data, (n, 3); NaN for panels without."""
    z = scale_stamps(stamps).z
    grey = np.where(np.isnan(z), np.nan, to_grey(z, LAYERS))
    held = ~np.isnan(z).all(axis=(1, 2))
    return np.where(held, np.nanmedian(np.where(held[:, None, None], grey, 0), axis=(1, 2)), np.nan)


def check_panels(stamps: NDArray[np.float32]) -> None:
    medians = panel_medians(stamps)
    assert np.nanmean(medians[:, :2] < BLACK) <= 0.02
    sky = medians[:, 2][np.isfinite(medians[:, 2])]
    assert np.mean((sky >= DARKEST) & (sky <= BRIGHTEST)) >= 0.95


def test_no_panel_is_black_whatever_the_peak() -> None:
    check_panels(make_stamps())


@pytest.mark.parametrize("background", ["median", "none"])
def test_no_panel_of_real_sky_is_black(background: str) -> None:
    with h5py.File(real_data("ztf") / "ztf_stamps.h5") as file:
        check_panels(prepare_stamps(file["stamps"][::3], background)[0])


def test_z_is_sigma_above_the_sky_of_the_pixels_with_data() -> None:
    stamps = make_stamps(3)
    stamps[0, :, 30:] = np.nan
    scaled = scale_stamps(stamps)
    held = stamps[0, :, :30, 1].astype(float)
    sigma = MAD_TO_SIGMA * np.median(abs(held - np.median(held)))
    assert scaled.sky[0, 1] == pytest.approx(np.median(held), rel=1e-5)
    assert scaled.sigma[0, 1] == pytest.approx(sigma, rel=1e-4)
    assert np.isnan(scaled.z[0, :, 30:]).all() and scaled.z.dtype == np.float16
    np.testing.assert_allclose(scaled.z[0, 10:40, :20, 1], (held[10:40, :20] - np.median(held)) / sigma, atol=0.01)


def test_limits_by_hand() -> None:
    z = np.zeros((2, 55, 55, 3), np.float16)
    z[1, 27, 27] = [100, 1000, -50]
    low, high = stretch_limits(z, LAYERS)
    assert low.tolist() == [[LOWEST, LOWEST, -LEAST_REACH], [LOWEST, LOWEST, -40]]
    assert high.tolist() == [[LEAST_HIGH, LEAST_HIGH, LEAST_REACH], [80, 800, 40]]
    grey = to_grey(z, LAYERS)
    assert grey[0, 0, 0, 2] == 128 and grey[1, 27, 27].tolist() == [255, 255, 0]


def test_blocks_of_zeros_are_missing_and_single_zeros_are_not() -> None:
    stamps = make_stamps(2)
    stamps[0, 20:40, 40:, 1] = 0
    stamps[0, ::7, ::5, 0] = 0
    stamps[1, 3, 10:20, 2] = 0  # a dead row
    stamps[1, 50, 50] = [np.inf, -3.4e38, 1e31]
    missing = find_missing(stamps)
    wanted = np.zeros_like(missing)
    wanted[0, 20:40, 40:, 1] = wanted[1, 3, 10:20, 2] = wanted[1, 50, 50] = True
    np.testing.assert_array_equal(missing, wanted)


def test_missing_pixels_are_hatched_and_nothing_else_is_brown() -> None:
    stamps = make_stamps(2)
    stamps[0, 20:40, 40:, 1] = 0
    picture = paint_stamps(stamps, LAYERS)
    brown = (picture[..., 0] != picture[..., 2]) | (picture[..., 0] != picture[..., 1])
    np.testing.assert_array_equal(brown, np.moveaxis(find_missing(stamps), -1, 1))
    lines = hatch_lines(55)[20:40, 40:]
    assert (picture[0, 1, 20:40, 40:][lines] == HATCH_LINE).all()
    assert (picture[0, 1, 20:40, 40:][~lines] == HATCH_GROUND).all()


def test_layers_of_one_value_and_without_data_do_not_fail() -> None:
    stamps = np.zeros((3, 9, 9, 2), np.float32)
    stamps[0, ..., 0], stamps[1, ..., 0], stamps[2, 4, 4, 0] = 5, np.nan, 3
    scaled = scale_stamps(stamps)
    assert (scaled.z[0, ..., 0] == 0).all() and np.isnan(scaled.z[1]).all() and np.isfinite(scaled.sigma).all()
    assert scaled.z[2, 4, 4, 0] == 0 and np.isnan(scaled.z[2, ..., 0]).sum() == 80, "one pixel is all there is"
    assert to_grey(scaled.z, ("science", "difference")).shape == (3, 9, 9, 2)


def test_a_strip_is_the_layers_side_by_side_y_upwards() -> None:
    stamps = make_stamps(1)
    strip = draw_strip(stamps[0], LAYERS)
    assert strip.shape == (55, 165, 3)
    np.testing.assert_array_equal(strip[:, 55:110], paint_stamps(stamps, LAYERS)[0, 1, ::-1])


def test_packed_pixels_are_sky_sigma_and_the_layers_in_turn() -> None:
    stamps = make_stamps(4, size=9)
    packed, scaled = pack_pixels(stamps), scale_stamps(stamps)
    heads = np.frombuffer(packed, "<f4", 4 * 2 * 3).reshape(4, 2, 3)
    np.testing.assert_array_equal(heads[:, 0], scaled.sky)
    np.testing.assert_array_equal(heads[:, 1], scaled.sigma)
    pixels = np.frombuffer(packed, "<f2", offset=heads.nbytes).reshape(4, 3, 9, 9)
    np.testing.assert_array_equal(pixels, np.moveaxis(scaled.z, -1, 1))
    row = len(pack_pixels(np.zeros((1, 55, 55, len(layout.LAYERS)), np.float32)))
    assert row == 2 * 55 * 55 * 6 + 8 * 6, "36 kB a row"
