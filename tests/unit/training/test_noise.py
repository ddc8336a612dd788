"""Noise as the unit of stamps: what is kept of their light, what is not, and what has no part in the unit."""

from pathlib import Path

import keras
import numpy as np
import pytest

from gotorb import models
from gotorb.errors import ConfigError
from gotorb.training.model_files import read_model, write_model
from gotorb.training.networks import build_network, find_normaliser
from gotorb.training.normalisation import ClippedUnits, NoiseUnits

LAYERS, SIZE, NOISE = ("science", "template", "difference"), 41, 7.0


@pytest.fixture
def stamps() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(0, NOISE, (60, SIZE, SIZE, len(LAYERS))).astype(np.float32)


def units(stamps: np.ndarray) -> np.ndarray:
    """Stamps behind the layer, its logarithm undone: in units of noise."""
    seen = np.asarray(NoiseUnits(LAYERS.index("difference"))(stamps))
    return np.sign(seen) * np.expm1(np.abs(seen))


def test_values_are_in_units_of_the_differences_noise(stamps: np.ndarray) -> None:
    stamps[..., :2] *= 3
    found = units(stamps)
    assert found.std(axis=(1, 2)).mean(axis=0) == pytest.approx([3, 3, 1], rel=0.02)
    np.testing.assert_allclose(
        found / stamps, np.broadcast_to((found / stamps)[:, :1, :1, :1], stamps.shape), rtol=1e-4
    )


def test_the_survey_s_unit_of_light_does_not_matter(stamps: np.ndarray) -> None:
    np.testing.assert_allclose(units(1e-4 * stamps), units(stamps), rtol=1e-3, atol=1e-5)


def test_a_star_and_missing_pixels_leave_the_noise_as_it_is(stamps: np.ndarray) -> None:
    before = units(stamps)[:, 30, 30, 0]
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    stamps[..., 2] += 5000 * np.exp(-(x**2 + y**2) / 6).astype(np.float32)
    assert units(stamps)[:, 30, 30, 0] == pytest.approx(before, rel=0.15)
    stamps[:, :20] = 0
    assert units(stamps)[:, 30, 30, 0] == pytest.approx(before, rel=0.25)
    assert np.all(units(stamps)[:, :20] == 0)


def test_empty_stamps_stay_empty() -> None:
    assert np.all(units(np.zeros((2, SIZE, SIZE, 3), np.float32)) == 0)


def test_noise_needs_the_difference() -> None:
    assert find_normaliser("noise", LAYERS).reference == 2  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="layers are science, template: add it or give 'l2'"):
        find_normaliser("noise", LAYERS[:2])
    with pytest.raises(ConfigError, match="normalise is 'l3'"):
        build_network(models.vgg6, (SIZE, SIZE, 3), layers=LAYERS, normalise="l3")


def test_a_model_written_before_the_layer_moved_still_loads() -> None:
    """The file names the layer by its registered name, not by the module it was defined in."""
    model = read_model(Path(__file__).parents[2] / "model" / "noise_units.h5")
    stamps = np.random.default_rng(3).normal(0, 9, (3, 21, 21, 3)).astype(np.float32)
    written = [0.4429211914539337, 0.389455109834671, 0.4420308470726013]
    np.testing.assert_allclose(np.asarray(model(stamps))[:, 0], written, atol=1e-6)


def test_a_saved_network_is_read_by_ours_and_by_plain_keras(stamps: np.ndarray, tmp_path: Path) -> None:
    model = build_network(models.vgg6, stamps.shape[1:], layers=LAYERS, normalise="noise")
    path = write_model(tmp_path / "model.h5", model)
    expected = np.asarray(model(stamps[:3]))
    np.testing.assert_array_equal(read_model(path)(stamps[:3]), expected)
    plain = keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(np.asarray(plain(stamps[:3])), expected)


def clipped(stamps: np.ndarray) -> np.ndarray:
    return np.asarray(ClippedUnits()(stamps))


def test_a_clipped_layer_has_a_norm_of_one_and_no_unit(stamps: np.ndarray) -> None:
    np.testing.assert_allclose(np.linalg.norm(clipped(stamps).reshape(60, -1, 3), axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(clipped(1e3 * stamps), clipped(stamps), rtol=1e-4, atol=1e-6)
    assert np.all(clipped(np.zeros((2, SIZE, SIZE, 3), np.float32)) == 0)


def test_a_hot_pixel_far_away_cannot_hide_a_source(stamps: np.ndarray) -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    stamps[..., 2] += 200 * np.exp(-(x**2 + y**2) / 4).astype(np.float32)
    before = clipped(stamps)[:, SIZE // 2, SIZE // 2, 2]
    stamps[:, 2, 3, 2] = 1e6
    after = clipped(stamps)
    assert (after[:, SIZE // 2, SIZE // 2, 2] > 0.85 * before).all()
    assert (after[:, 2, 3, 2] <= after[:, SIZE // 2, SIZE // 2, 2] * 1.2).all()


def test_clipped_networks_are_read_back_with_their_scores(tmp_path: Path, stamps: np.ndarray) -> None:
    network = build_network(models.bayesian_vgg6, (SIZE, SIZE, 3), layers=LAYERS, normalise="clipped")
    again = read_model(write_model(tmp_path / "model.h5", network))
    np.testing.assert_array_equal(again.predict(stamps, verbose=0), network.predict(stamps, verbose=0))
