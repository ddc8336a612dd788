"""The picture of a tuning holds each completed trial, ends and ticks where the values are."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from gotorb.evaluation.figures import BOGUS_COLOUR
from gotorb.evaluation.model_figures import TRIAL_AXES, TrialAxis, plot_trials, spread_equal


@pytest.fixture
def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trial": [0, 1, 2], "objective": [0.5, np.nan, 0.25], "epochs": [2, 0, 4], "block1": [8, 8, 32],
            "scale_up": [0, 8, 16], "dense": [64, 64, 512], "initializer": ["he_uniform"] * 3,
            "activation": ["relu", "elu", "elu"], "dropout": [0.01, 0.1, 0.5], "l2": [1e-8, 1e-4, 1e-1],
            "learning_rate": [1e-5, 1e-4, 1e-2],
        }
    )  # fmt: skip


def lines(figure):
    return [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(TRIAL_AXES)]


@pytest.mark.parametrize(("direction", "up"), [("min", True), ("max", False)])
def test_each_completed_trial_is_a_line_and_the_better_end_is_up(trials, direction, up):
    best = 2 if direction == "min" else 0
    figure = plot_trials(trials, "val_loss", best=best, direction=direction)
    drawn = lines(figure)
    assert len(drawn) == 2
    (red,) = [line for line in drawn if to_hex(line.get_color()) == BOGUS_COLOUR]
    assert red.get_ydata()[-1] == 1
    assert bool(red.get_ydata()[0] == 1) is up  # 32 filters are the most
    assert "2 trials, 1 failed" in figure.get_suptitle()


def test_one_trial_can_be_drawn(trials):
    figure = plot_trials(trials[:1], "val_auc", best=0, direction="max")
    assert len(lines(figure)) == 1 and np.isfinite(lines(figure)[0].get_ydata()).all()


def test_ticks_stand_where_their_values_are():
    values = pd.Series([1e-8, 1e-4])
    scale = TrialAxis(values, "l2")
    ticks = scale.ticks()
    assert ticks["1e-08"] == pytest.approx(0) and ticks["1e-06"] == pytest.approx(0.5)
    assert TrialAxis(pd.Series(["relu", "elu"]), "activation").ticks() == {"elu": 0.0, "relu": 1.0}
    upside_down = TrialAxis(pd.Series([0.1, 0.3]), "objective", upside_down=True).ticks()
    assert len(upside_down) > 2
    assert all(place == pytest.approx(1 - (float(text) - 0.1) / 0.2) for text, place in upside_down.items())


def test_equal_values_are_drawn_apart_and_others_are_not_moved():
    shifts = spread_equal(pd.Series([8, 16, 8, 8]))
    assert shifts[1] == 0 and shifts.sum() == pytest.approx(0) and len(set(shifts[[0, 2, 3]])) == 3
    assert np.ptp(spread_equal(pd.Series([1] * 500))) < 0.15
