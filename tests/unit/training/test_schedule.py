"""The learning rate is a function of the epoch alone."""

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
    with pytest.raises(ConfigError, match="no learning-rate schedule 'stairs'; choose constant or cosine"):
        make_schedule(make_recipe("stairs"))
