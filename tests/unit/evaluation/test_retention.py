"""Errors that sit at low confidence make a small area, errors anywhere that of random order."""

import numpy as np
import pytest

from gotorb.evaluation.metrics import retention_curve


def test_errors_at_low_confidence_vanish_first():
    wrong, confidence = np.arange(100) < 10, np.arange(100) / 100
    curve = retention_curve(wrong, confidence)
    assert curve.error[89] == 0 and curve.error[-1] == pytest.approx(0.1)
    assert curve.gain > 10


def test_confidence_that_says_nothing_gains_nothing():
    rng = np.random.default_rng(1)
    wrong = rng.random(20000) < 0.1
    assert retention_curve(wrong, rng.random(20000)).gain == pytest.approx(1, abs=0.1)
    constant = retention_curve(wrong, np.ones(20000))
    assert constant.gain == pytest.approx(1)
    np.testing.assert_allclose(constant.error, wrong.mean())


def test_no_wrong_call_has_no_gain():
    assert retention_curve(np.zeros(5, bool), np.arange(5.0)).gain is None
