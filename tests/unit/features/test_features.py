"""Laws of the measured features: what changes them and what does not."""

import numpy as np
import pytest

from gotorb.errors import ModelError
from gotorb.features import FeatureSet, describe_feature
from gotorb.features.geometry import FAR_RADIUS

LAYERS = ("science", "template", "difference", "ptp")
SIZE = 31


def make_stamps(n: int = 40, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Stars of all brightnesses on noise, every second one with a dipole in the difference."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size // 2
    stamps = rng.normal(0, 5, (n, size, size, len(LAYERS)))
    for row in range(n):
        star = rng.uniform(5, 400) * np.exp(-((x - rng.normal(0, 0.4)) ** 2 + y**2) / 3.5)
        stamps[row, ..., 0] += star
        stamps[row, ..., 2] += star - (row % 2) * np.roll(star, 2, axis=1)
    return stamps.astype(np.float32)


@pytest.fixture(scope="module")
def features() -> FeatureSet:
    return FeatureSet(SIZE, LAYERS)


@pytest.fixture(scope="module")
def stamps() -> np.ndarray:
    return make_stamps()


@pytest.fixture(scope="module")
def measured(features: FeatureSet, stamps: np.ndarray) -> np.ndarray:
    return features.measure(stamps)


def column(features: FeatureSet, measured: np.ndarray, name: str) -> np.ndarray:
    return measured[:, features.names.index(name)]


@pytest.mark.parametrize("fwhm", [0.8, 3.1, 20.0])
@pytest.mark.parametrize("size", [15, 21, 30, 63])
def test_every_number_is_finite_and_named_once(size: int, fwhm: float) -> None:
    features = FeatureSet(size, LAYERS, fwhm)
    found = features.measure(make_stamps(5, size))
    assert found.shape == (5, len(features.names)) == (5, len(set(features.names)))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize("cut", [1, 3, 31, 32, 33, 39])
def test_no_batch_changes_a_bit(features: FeatureSet, stamps: np.ndarray, measured: np.ndarray, cut: int) -> None:
    parts = [features.measure(stamps[start : start + cut], threads=1) for start in range(0, len(stamps), cut)]
    np.testing.assert_array_equal(np.concatenate(parts), measured)
    np.testing.assert_array_equal(features.measure(stamps[::-1])[::-1], measured)
    assert features.measure(stamps[:0]).shape == (0, len(features.names))


@pytest.mark.parametrize("turn", range(1, 8))
def test_turned_and_mirrored_stamps_measure_alike(
    features: FeatureSet, stamps: np.ndarray, measured: np.ndarray, turn: int
) -> None:
    turned = np.rot90(stamps, turn % 4, axes=(1, 2))
    found = features.measure(turned[:, :, ::-1] if turn >= 4 else turned)
    np.testing.assert_allclose(found, measured, atol=2e-4)


@pytest.mark.parametrize("factor", [1 / 16, 64.0])
def test_units_of_the_survey_do_not_matter(
    features: FeatureSet, stamps: np.ndarray, measured: np.ndarray, factor: float
) -> None:
    np.testing.assert_allclose(features.measure(stamps * np.float32(factor)), measured, atol=1e-4)


def test_sky_levels_do_not_matter(features: FeatureSet, stamps: np.ndarray, measured: np.ndarray) -> None:
    found = features.measure(stamps + np.array([1000.0, 500.0, -30.0, 70.0], np.float32))
    np.testing.assert_allclose(found, measured, atol=2e-2)  # pixels are rounded on their higher level


def test_a_fading_source_measures_as_one_that_brightens(features: FeatureSet, stamps: np.ndarray) -> None:
    faded = stamps * np.array([1, 1, -1, 1], np.float32)
    np.testing.assert_array_equal(features.measure(faded), features.measure(stamps))


@pytest.mark.parametrize("counts", [2e4, 6e4, 1e6])
@pytest.mark.parametrize("place", [(0, 0), (2, 15), (28, 5), (15, 24)])
def test_a_hot_pixel_far_away_changes_next_to_nothing(
    features: FeatureSet, stamps: np.ndarray, measured: np.ndarray, counts: float, place: tuple[int, int]
) -> None:
    assert np.hypot(*(np.array(place) - SIZE // 2)) > FAR_RADIUS
    hot = stamps.copy()
    hot[:, place[0], place[1], :] += np.float32(counts)
    difference = np.abs(features.measure(hot) - measured)
    assert difference.max() < 0.8  # a ring's extreme that was this very pixel, or a count from 0 to 1
    assert (difference > 0.2).sum(axis=1).max() <= 3


def test_a_hot_pixel_in_the_core_is_seen(features: FeatureSet, stamps: np.ndarray, measured: np.ndarray) -> None:
    hot = stamps.copy()
    hot[:, SIZE // 2, SIZE // 2, 2] += 2e4
    found = features.measure(hot)
    narrow = "fit_width.difference"
    assert column(features, found, narrow).max() < column(features, measured, narrow).mean()


def test_gaps_are_masked_and_counted(features: FeatureSet, stamps: np.ndarray, measured: np.ndarray) -> None:
    cut = stamps.copy()
    cut[:, :, 24:] = 0
    found = features.measure(cut)
    np.testing.assert_allclose(column(features, found, "gap.science"), 7 / SIZE, atol=1e-6)
    np.testing.assert_array_equal(column(features, found, "gap.science"), column(features, features.measure(
        np.where(cut == 0, np.float32(np.nan), cut)), "gap.science"))  # fmt: skip
    for name in ("fit_width.difference", "fit_offset.difference"):
        same = column(features, found, name) == column(features, measured, name)
        assert same.mean() > 0.9
    near = [features.names.index(name) for name in ("flux.3", "ring_mean.difference.3")]
    assert np.abs(found[:, near] - measured[:, near]).max() < 0.6  # the noise is estimated from fewer pixels


def test_a_single_zero_is_a_value(features: FeatureSet, stamps: np.ndarray) -> None:
    spotted = stamps.copy()
    spotted[:, 5, 5] = 0
    assert column(features, features.measure(spotted), "gap.difference").max() == 0


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_empty_and_constant_stamps_have_numbers(features: FeatureSet, value: float) -> None:
    found = features.measure(np.full((3, SIZE, SIZE, len(LAYERS)), value, np.float32))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[0], found[2])


def test_enormous_values_have_numbers(features: FeatureSet, stamps: np.ndarray) -> None:
    wild = stamps.copy()
    wild[0, 3:9, 3:9], wild[1] = -3.4e38, wild[1] * 1e25
    assert np.isfinite(features.measure(wild)).all()


def test_radii_go_with_the_psf() -> None:
    """A stamp twice as fine, with a PSF twice as wide, has the same profile."""
    y, x = np.mgrid[:61, :61] - 30

    def profile(width: float, fwhm: float) -> np.ndarray:
        star = 300 * np.exp(-(x**2 + y**2) / 2 / (width / 2.355) ** 2)
        stamps = np.repeat((star + np.random.default_rng(1).normal(0, 1, star.shape))[None, ..., None], 4, axis=3)
        features = FeatureSet(61, LAYERS, fwhm)
        wanted = [f"ring_mean.difference.{ring}" for ring in range(5)]
        return features.measure(stamps.astype(np.float32))[0, [features.names.index(name) for name in wanted]]

    np.testing.assert_allclose(profile(6.2, 6.2), profile(3.1, 3.1), atol=0.4)
    assert np.abs(profile(6.2, 3.1) - profile(3.1, 3.1)).max() > 1


def test_every_feature_says_what_it_is(features: FeatureSet) -> None:
    for name in features.names:
        unit, meaning = describe_feature(name)
        assert unit and len(meaning) > 10, name


def test_stamps_of_another_shape_and_impossible_sets_are_refused(features: FeatureSet) -> None:
    with pytest.raises(ModelError, match="31, 31, 3"):
        features.measure(np.zeros((2, SIZE, SIZE, 3), np.float32))
    with pytest.raises(ModelError, match="difference"):
        FeatureSet(SIZE, ("science", "template"))
    with pytest.raises(ModelError, match="13"):
        FeatureSet(13, LAYERS)
