"""The threshold is chosen on validation rows, its costs are those of the test rows."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.thresholds import Night, advise, error_rates

NIGHT = Night(real_fraction=0.1, n_detections=2000)


def make_predictions(n=4000, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.3, n) + 4 * labels - 2)))
    split = np.where(np.arange(n) % 2, "validation", "test")
    return pd.DataFrame({"label": labels, "score": scores, "split": split, "mag": rng.uniform(16, 20, n)})


def called(predictions, split, threshold):
    rows = predictions[predictions["split"] == split]
    real = rows["label"] == 1
    return (rows.loc[real, "score"] >= threshold).mean(), (rows.loc[~real, "score"] >= threshold).mean()


def purity(tpr, fpr, night=NIGHT):
    return night.real_fraction * tpr / (night.real_fraction * tpr + (1 - night.real_fraction) * fpr)


def test_purity_is_reached_on_validation_at_the_nights_fraction_by_the_lowest_threshold():
    predictions = make_predictions()
    advice = advise(predictions, "purity", 0.9, NIGHT)
    assert purity(*called(predictions, "validation", advice.threshold)) >= 0.9
    part = predictions[predictions["split"] == "validation"]
    lower = error_rates(part["label"].to_numpy(), part["score"].to_numpy()).thresholds
    below = lower[lower < advice.threshold]
    assert all(purity(*called(predictions, "validation", t)) < 0.9 for t in below[-20:])


def test_completeness_is_reached_by_the_highest_threshold():
    predictions = make_predictions()
    advice = advise(predictions, "completeness", 0.99, NIGHT)
    assert called(predictions, "validation", advice.threshold)[0] >= 0.99
    assert called(predictions, "validation", advice.threshold + 0.01)[0] < 0.99


def test_number_per_night_is_not_exceeded():
    predictions = make_predictions()
    advice = advise(predictions, "per_night", 150, NIGHT)
    tpr, fpr = called(predictions, "validation", advice.threshold)
    n_called = 2000 * (0.1 * tpr + 0.9 * fpr)
    assert 140 < n_called <= 150
    assert advice.validation["night"]["called_real"] == pytest.approx(n_called)


def test_costs_are_those_of_the_test_rows():
    predictions = make_predictions()
    advice = advise(predictions, "completeness", 0.95, NIGHT)
    tpr, fpr = called(predictions, "test", advice.threshold)
    assert (advice.test["fpr"], advice.test["fnr"]) == pytest.approx((fpr, 1 - tpr))
    night = advice.test["night"]
    assert night["real_missed"] == pytest.approx(200 * (1 - tpr))
    assert night["bogus_accepted"] == pytest.approx(1800 * fpr)
    assert night["purity"] == pytest.approx(purity(tpr, fpr))
    assert sum(errors["n_real"] for errors in advice.by_mag.values()) == advice.test["n_real"]
    assert set(advice.by_mag) == {"16-17", "17-18", "18-19", "19-20"}


@pytest.mark.parametrize(
    ("goal", "wanted", "night", "says"),
    [
        ("purity", 1.5, NIGHT, r"a purity of 1\.5 is impossible"),
        ("per_night", 5000, NIGHT, "5000 of 2000 detections a night are impossible"),
        ("beauty", 0.5, NIGHT, "unknown goal 'beauty'"),
        ("purity", 0.9, Night(0.0, 100), "a real fraction of 0 is impossible"),
        (
            "purity",
            0.999999,
            Night(1e-6, 100),
            r"no threshold reaches purity 0\.999999 on the validation",
        ),
    ],
)
def test_impossible_goals_are_told(goal, wanted, night, says):
    predictions = make_predictions()
    top = predictions["split"].eq("validation") & predictions["label"].eq(0)
    predictions.loc[predictions.index[top][:5], "score"] = 1.0
    with pytest.raises(ConfigError, match=says):
        advise(predictions, goal, wanted, night)


def test_part_without_a_class_is_told():
    predictions = make_predictions().query("split == 'test' or label == 1")
    with pytest.raises(DataError, match="labelled validation rows lack real or bogus ones"):  # prose: ignore
        advise(predictions, "purity", 0.9, NIGHT)
