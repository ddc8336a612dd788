"""Summaries of posterior samples."""

import numpy as np
import pytest

from gotorb.evaluation.posterior import Scale, binary_entropy, posterior_density, summarise_samples


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


def test_a_row_at_the_threshold_is_the_least_confident_one() -> None:
    """On the scale of plain scores it would be one half."""
    samples = np.repeat([[0.05], [0.2], [0.5], [0.95]], 10, axis=1)
    relative = summarise_samples(samples, Scale(0.2, 1.0))
    assert relative.confidence.argmin() == 1 and relative.confidence[1] == 0
    assert summarise_samples(samples).confidence.argmin() == 2
    assert relative.p_real.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(relative.mean, [0.05, 0.2, 0.5, 0.95])


def test_calibration_takes_back_what_scores_are_too_sure_of() -> None:
    samples = np.full((1, 10), 0.999)
    plain, cooled = summarise_samples(samples), summarise_samples(samples, Scale(0.5, 4.0))
    assert cooled.confidence[0] < 0.5 < plain.confidence[0]
    torn = np.array([[0.6, 0.999]])
    assert summarise_samples(torn, Scale(0.6, 1.0)).bald[0] > summarise_samples(torn).bald[0]
