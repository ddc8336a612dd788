"""Summaries of posterior samples."""

import numpy as np
import pytest

from gotorb.evaluation.posterior import binary_entropy, posterior_density, summarise_samples


def test_summaries_by_hand() -> None:
    samples = np.array([[0.5, 0.5], [1.0, 1.0], [0.0, 1.0], [0.25, 0.75]], np.float32)
    summary = summarise_samples(samples)
    np.testing.assert_allclose(summary.mean, [0.5, 1.0, 0.5, 0.5])
    np.testing.assert_allclose(summary.std, [0.0, 0.0, 0.5, 0.25])
    np.testing.assert_allclose(summary.p_real, [0.0, 1.0, 0.5, 0.5])
    quarter = 1 - float(binary_entropy(np.array(0.25)))
    np.testing.assert_allclose(summary.confidence, [0.0, 1.0, 1.0, quarter])
    np.testing.assert_allclose(summary.bald, [0.0, 0.0, 1.0, quarter])


@pytest.mark.parametrize("centre", [0.0, 0.02, 0.5, 0.99])
def test_density_integrates_to_one_inside_the_range_of_a_score(centre: float) -> None:
    samples = np.clip(np.random.default_rng(0).normal(centre, 0.05, 20), 0, 1)
    grid = np.linspace(0, 1, 4001)
    assert np.trapezoid(posterior_density(samples, grid), grid) == pytest.approx(1, abs=2e-3)


def test_density_of_equal_samples_is_finite() -> None:
    density = posterior_density(np.full(20, 0.7), np.linspace(0, 1, 101))
    assert np.isfinite(density).all() and density.argmax() == 70
