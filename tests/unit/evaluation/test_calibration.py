"""Calibrated scores are right as often as they say, and a night's own fraction of real ones is respected."""

import numpy as np
import pytest

from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.calibration import Calibration, expit, fit_calibration, logit, shift_prior
from gotorb.evaluation.metrics import measure_calibration
from gotorb.training.meta import read_meta, write_meta


def overconfident(n, rng, *, temperature=2.5, offset=0.7):
    """Labels and scores of a network whose true log odds are its own over `temperature`, plus `offset`."""
    logits = rng.normal(0, 4, n)
    return (rng.random(n) < expit(logits / temperature + offset)).astype(int), expit(logits)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_fresh_rows_are_calibrated_after_the_fit_and_not_before(method):
    rng = np.random.default_rng(1)
    fitted = fit_calibration(*overconfident(4000, rng))
    labels, scores = overconfident(40000, rng)
    assert measure_calibration(labels, scores)["ece"] > 0.08
    assert measure_calibration(labels, fitted.apply(scores, method))["ece"] < 0.02


def test_temperature_and_offset_are_found():
    fitted = fit_calibration(*overconfident(40000, np.random.default_rng(2)))
    assert fitted.temperature == pytest.approx(2.5, rel=0.05)
    assert fitted.offset == pytest.approx(0.7, abs=0.06)


def test_order_of_scores_is_kept_by_temperature():
    fitted = fit_calibration(*overconfident(500, np.random.default_rng(3)))
    scores = np.linspace(0.001, 0.999, 500)
    assert (np.diff(fitted.apply(scores)) > 0).all()
    assert (np.diff(fitted.apply(scores, "isotonic")) >= 0).all()


def test_another_fraction_of_real_ones_shifts_the_probabilities_to_it():
    """Rows of the fit are half real; of the night only a few are: the mean probability must say so."""
    rng = np.random.default_rng(4)
    labels, scores = overconfident(60000, rng, offset=0.0)
    fitted = fit_calibration(labels[:20000], scores[:20000])
    keep = (labels == 0) | (rng.random(len(labels)) < 0.05)
    labels, scores = labels[keep][15000:], scores[keep][15000:]
    fraction = labels.mean()
    assert fraction < 0.06
    assert fitted.apply(scores).mean() > 2.5 * fraction
    night = fitted.apply(scores, real_fraction=fraction)
    assert night.mean() == pytest.approx(fraction, rel=0.1)
    assert measure_calibration(labels, night)["ece"] < 0.01


def test_scores_of_exactly_zero_and_one_stay_finite():
    fitted = fit_calibration(np.array([0, 1, 1, 0]), np.array([0.0, 1.0, 1.0, 1.0]))
    for method in ("temperature", "isotonic"):
        found = fitted.apply(np.array([0.0, 1.0]), method, real_fraction=0.01)
        assert np.isfinite(found).all() and (found > 0).all() and (found < 1).all()


def test_separable_rows_do_not_run_away():
    fitted = fit_calibration(np.repeat([0, 1], 50), np.repeat([0.2, 0.8], 50))
    assert 0.005 < fitted.apply(np.array([0.2]))[0] < 0.05


def test_calibration_survives_the_meta_file(tmp_path):
    fitted = fit_calibration(*overconfident(200, np.random.default_rng(5)))
    write_meta(tmp_path / "meta.hkl", {"calibration": fitted.as_dict()})
    again = Calibration.from_dict(read_meta(tmp_path / "meta.hkl")["calibration"])
    scores = np.linspace(0, 1, 50)
    for method in ("temperature", "isotonic"):
        np.testing.assert_array_equal(again.apply(scores, method), fitted.apply(scores, method))


def test_impossible_requests_are_told():
    fitted = fit_calibration(np.array([0, 1]), np.array([0.2, 0.8]))
    with pytest.raises(ConfigError, match="unknown calibration 'beta'; choose one of temperature, isotonic, none"):
        fitted.apply(np.array([0.5]), "beta")
    with pytest.raises(ConfigError, match=r"real fraction of 1\.5 is impossible"):
        shift_prior(np.array([0.5]), 0.5, 1.5)
    with pytest.raises(DataError, match=r"^all 2 rows are of one class"):
        fit_calibration(np.array([1, 1]), np.array([0.2, 0.8]))


def test_logit_and_expit_are_inverse():
    p = np.array([1e-6, 0.3, 0.999])
    np.testing.assert_allclose(expit(logit(p)), p, rtol=1e-9)
