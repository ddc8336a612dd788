"""Learning curves are compared pair by pair, and labels saved are those between the curves."""

import numpy as np
import pandas as pd
import pytest

from gotorb.evaluation.learning_curves import labels_ratio, plot_learning, summarise_curves

LABELS = np.array([100, 200, 300, 400])


def make_runs(n_seeds: int, gain: float) -> pd.DataFrame:
    """Seeds differ by 0.05, a round brings 0.02, and bald adds `gain` after the start."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(n_seeds):
        level = 0.85 + rng.normal(0, 0.05)
        for method, more in (("bald", gain), ("random", 0.0)):
            for number, n_labels in enumerate(LABELS):
                auc = level + 0.02 * number + more * (number > 0) + rng.normal(0, 0.001)
                rows.append((method, seed, number, n_labels, auc, 1 - auc))
    return pd.DataFrame(rows, columns=["method", "seed", "round", "n_labels", "auc", "error"])


def test_a_gain_smaller_than_the_scatter_of_seeds_is_seen_by_pairs() -> None:
    found = summarise_curves(make_runs(5, 0.01))["methods"]["bald"]["auc"]
    assert found["gain"]["low"] > 0.005 and found["gain"]["high"] < 0.015
    assert found["difference"]["low"][0] < 0 < found["difference"]["high"][0]
    assert found["curve"]["high"][0] - found["curve"]["low"][0] > 0.03
    assert found["labels_ratio"]["low"] > 1


def test_less_error_is_a_gain() -> None:
    found = summarise_curves(make_runs(5, 0.01))["methods"]["bald"]
    assert found["error"]["gain"]["mean"] == pytest.approx(found["auc"]["gain"]["mean"], abs=1e-5)


def test_no_gain_gives_an_interval_around_zero_and_one_seed_none() -> None:
    found = summarise_curves(make_runs(6, 0.0))["methods"]["bald"]["auc"]
    assert found["gain"]["low"] < 0 < found["gain"]["high"]
    assert found["labels_ratio"]["low"] < 1 < found["labels_ratio"]["high"]
    one = summarise_curves(make_runs(1, 0.01))["methods"]["bald"]["auc"]
    assert one["gain"]["low"] is None and one["labels_ratio"]["low"] is None and one["gain"]["mean"] > 0


@pytest.mark.parametrize(
    ("curve", "control", "ratio"),
    [
        ([0.5, 0.9, 0.95, 0.99], [0.5, 0.6, 0.7, 0.9], 2.0),
        ([0.5, 0.6, 0.7, 0.9], [0.5, 0.9, 0.95, 0.99], 0.5),
        ([0.5, 0.6, 0.7, 0.8], [0.5, 0.6, 0.7, 0.8], 1.0),
        ([0.5, 0.8, 0.7, 0.7], [0.5, 0.6, 0.7, 0.8], 2.0),
        ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 1.0),
        ([0.4, 0.4, 0.4, 0.4], [0.5, 0.6, 0.7, 0.8], 1.0),
    ],
)
def test_labels_ratio(curve: list[float], control: list[float], ratio: float) -> None:
    assert labels_ratio(np.array(curve), np.array(control), LABELS) == pytest.approx(ratio)


def test_figure_shows_each_curve_with_its_band() -> None:
    summary = summarise_curves(make_runs(3, 0.01))
    axes = plot_learning(summary).axes
    assert [line.get_label() for line in axes[0].lines] == ["bald", "random"]
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), summary["methods"]["bald"]["auc"]["curve"]["mean"])
    assert len(axes[1].collections) == 2
