"""Number of exposures in which a detection is seen."""

import numpy as np

from gotorb.stamps.layers import core_light, n_detected_exposures


def make_exposures(n=1, k=3, size=21):
    return np.random.default_rng(5).normal(100, 3, (n, size, size, k)).astype(np.float32)


def test_cosmic_ray_is_seen_once_a_star_in_all_and_nothing_in_none():
    exposures = make_exposures(3)
    exposures[0, 9:12, 9:12, 1] += 60
    exposures[1, 9:12, 9:12, :] += 60
    assert n_detected_exposures(exposures).tolist() == [1, 3, 0]


def test_exposure_that_does_not_reach_there_sees_nothing():
    exposures = make_exposures(2)
    exposures[:, 9:12, 9:12, :] += 60
    exposures[0, ..., 2] = np.nan
    exposures[1, 9:12, 9:12, 0] = np.nan
    assert n_detected_exposures(exposures).tolist() == [2, 2]


def test_no_detection_gives_no_count():
    assert n_detected_exposures(make_exposures(0)).shape == (0,)


def test_light_is_that_of_the_core_above_the_level_with_its_error():
    exposures = make_exposures(400, 1)
    exposures[:, 9:12, 9:12] += 10
    light, error = core_light(exposures)
    assert abs(light.mean() - 10) < 3 * 1.0 / np.sqrt(400) + 0.1
    assert abs(error.mean() - 1.0) < 0.05
    assert abs(light.std() - 1.0) < 0.15
