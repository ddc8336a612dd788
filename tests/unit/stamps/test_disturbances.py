"""Disturbances far from the source: what they change, and what they leave as it is."""

import numpy as np
import pytest

from gotorb.stamps.batches import FAR_FWHM, KINDS, disturb_stamps

LAYERS = ("science", "template", "difference", "ptp")
SIZE, FWHM = 41, 3.0


@pytest.fixture
def stamps() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 5, (60, SIZE, SIZE, 4)).astype(np.float32)


def disturb(stamps: np.ndarray, kind: str | None, seed: int = 1, level: float | None = None) -> np.ndarray:
    return disturb_stamps(stamps, LAYERS, kind, level=level, fwhm=FWHM, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_only_pixels_beyond_three_widths_change(stamps: np.ndarray, kind: str | None) -> None:
    before = stamps.copy()
    after = disturb(stamps, kind)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    near = np.hypot(y, x) <= FAR_FWHM * FWHM
    np.testing.assert_array_equal(stamps, before)
    np.testing.assert_array_equal(after[:, near], stamps[:, near])
    assert (after != stamps).any(axis=(1, 2, 3)).all() and np.isfinite(after).all() and after.dtype == np.float32


def test_each_draw_repeats_with_its_seed(stamps: np.ndarray) -> None:
    np.testing.assert_array_equal(disturb(stamps, None), disturb(stamps, None))
    assert (disturb(stamps, None) != disturb(stamps, None, seed=2)).any()


def test_no_stamps_stay_none(stamps: np.ndarray) -> None:
    assert disturb(stamps[:0], None).shape == (0, SIZE, SIZE, 4)


def test_a_hot_pixel_is_one_pixel_of_its_level_outside_the_template(stamps: np.ndarray) -> None:
    added = disturb(stamps, "hot_pixel", level=1000.0) - stamps
    assert (added[..., 1] == 0).all()
    for place in (0, 2, 3):
        assert (np.count_nonzero(added[..., place], axis=(1, 2)) == 1).all()
        assert np.median(added[..., place].max(axis=(1, 2))) == pytest.approx(5000, rel=0.1)


def test_a_track_is_long_and_a_star_round(stamps: np.ndarray) -> None:
    track = disturb(stamps, "cosmic_ray", level=1e4) - stamps
    assert np.median(np.count_nonzero(track[..., 2], axis=(1, 2))) > 3
    star = disturb(stamps, "bright_star", level=1e4) - stamps
    np.testing.assert_allclose(star[..., 0].max(axis=(1, 2)), star[..., 1].max(axis=(1, 2)), rtol=1e-3)
    assert (np.abs(star[..., 2]).max(axis=(1, 2)) < 0.04 * star[..., 0].max(axis=(1, 2))).all()


def test_masked_areas_are_without_data_in_all_layers(stamps: np.ndarray) -> None:
    after = disturb(stamps, "masked_area")
    gone = after == 0
    np.testing.assert_array_equal(gone.all(axis=3), gone.any(axis=3))
    assert np.count_nonzero(gone[..., 0], axis=(1, 2)).min() >= 1
    np.testing.assert_array_equal(after[~gone], stamps[~gone])
