"""The learning rate is a function of the epoch and the step alone."""

import numpy as np
import pytest

from gotorb.errors import ConfigError
from gotorb.training.recipe import Recipe, make_schedule


def make_recipe(schedule):
    return Recipe(
        epochs=10, patience=5, monitor="val_loss", learning_rate=0.002, optimizer="adam", augment=False, seed=0,
        schedule=schedule,
    )  # fmt: skip


def test_cosine_starts_at_the_rate_is_half_in_the_middle_and_falls():
    (callback,) = make_schedule(make_recipe("cosine"))
    rates = [callback.schedule(epoch) for epoch in range(11)]
    assert rates[0] == pytest.approx(0.002)
    assert rates[5] == pytest.approx(0.001)
    assert rates[10] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)


def test_constant_needs_no_callback():
    assert make_schedule(make_recipe("constant")) == []


def test_unknown_schedule_is_refused():
    with pytest.raises(ConfigError, match="no learning-rate schedule 'stairs'; choose constant, cosine or one_cycle"):
        make_schedule(make_recipe("stairs"))


def test_one_cycle_rises_to_the_rate_and_falls_to_nothing():
    (callback,) = make_schedule(make_recipe("one_cycle"))
    assert callback.rate(0) == pytest.approx(0.04 * callback.largest)
    rates = [callback.rate(time) for time in np.linspace(0, callback.epochs, 101)]
    assert int(np.argmax(rates)) == 30
    assert max(rates) == callback.largest
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(np.diff(rates[:31]) > 0)
    assert all(np.diff(rates[30:]) < 0)
