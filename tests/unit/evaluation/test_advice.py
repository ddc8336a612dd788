"""The threshold is chosen on validation rows, its costs are those of the test rows; what is not proved is refused."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.calibration import fit_conformal
from gotorb.evaluation.thresholds import Night, advise, error_rates, keep_classes, upper_limit

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


def proved(predictions, threshold, night=NIGHT):
    """Purity at the upper limit of the FPR of the validation rows."""
    tpr, fpr = called(predictions, "validation", threshold)
    n = int((predictions["split"].eq("validation") & predictions["label"].eq(0)).sum())
    return purity(tpr, float(upper_limit(round(fpr * n), n)), night)


def test_purity_is_proved_on_validation_at_the_nights_fraction_by_the_lowest_threshold():
    predictions = make_predictions()
    advice = advise(predictions, "purity", 0.9, NIGHT)
    assert purity(*called(predictions, "validation", advice.threshold)) > 0.9
    assert proved(predictions, advice.threshold) >= 0.9
    assert advice.validation["night"]["purity_limit"] == pytest.approx(proved(predictions, advice.threshold))
    part = predictions[predictions["split"] == "validation"]
    lower = error_rates(part["label"].to_numpy(), part["score"].to_numpy()).thresholds
    below = lower[lower < advice.threshold]
    assert all(proved(predictions, t) < 0.9 for t in below[-20:])


def test_purity_that_the_rows_cannot_prove_is_refused_with_the_rows_it_takes():
    """300 bogus rows without a false positive prove an FPR of 1 %; at 1 % real that is a purity of one half."""
    rng, n = np.random.default_rng(0), 1200
    labels, split = np.arange(n) % 2, np.where(np.arange(n) < n // 2, "validation", "test")
    scores = np.clip(0.1 + 0.8 * labels + rng.normal(0, 0.02, n), 0, 1)
    predictions = pd.DataFrame({"label": labels, "score": scores, "split": split, "mag": 18.0})
    night = Night(0.01, 1000)
    with pytest.raises(
        ConfigError, match=r"no threshold reaches purity 0\.95 .*300 bogus rows prove.*at least 5634 bogus"
    ):
        advise(predictions, "purity", 0.95, night)
    assert advise(predictions, "purity", 0.5, night).test["night"]["purity_limit"] == pytest.approx(0.503, abs=0.01)


def test_advice_of_purity_holds_on_the_night_in_nine_of_ten_surveys():
    """By the point estimate alone it holds in about half."""
    night, held, by_point = Night(0.05, 1000), 0, 0
    sky = make_predictions(200_000, seed=99)
    real = sky["label"] == 1
    for seed in range(40):
        predictions = make_predictions(2000, seed=seed)
        threshold = advise(predictions, "purity", 0.7, night).threshold
        held += purity((sky.score[real] >= threshold).mean(), (sky.score[~real] >= threshold).mean(), night) >= 0.7
        part = predictions[predictions["split"] == "validation"]
        rates = error_rates(part["label"].to_numpy(), part["score"].to_numpy())
        reached = [purity(1 - fnr, fpr, night) >= 0.7 for fpr, fnr in zip(rates.fpr, rates.fnr, strict=True) if fnr < 1]
        point = rates.thresholds[int(np.argmax(reached))]
        by_point += purity((sky.score[real] >= point).mean(), (sky.score[~real] >= point).mean(), night) >= 0.7
    assert held >= 36
    assert by_point <= 30


def test_suspects_do_not_count():
    predictions = make_predictions().assign(suspect=0)
    wrong = predictions.index[predictions["split"].eq("validation") & predictions["label"].eq(0)][:20]
    predictions.loc[wrong, "score"] = 0.9999
    spoilt = advise(predictions, "completeness", 0.9, NIGHT).validation["fpr"]
    predictions.loc[wrong, "suspect"] = 1
    known = advise(predictions, "completeness", 0.9, NIGHT).validation
    assert (
        known["fpr"] < spoilt
        and known["n_bogus"] == advise(make_predictions(), "completeness", 0.9, NIGHT).validation["n_bogus"] - 20
    )


def test_conformal_sets_keep_each_class_in_the_mean():
    kept = {"real_kept": [], "bogus_kept": []}
    for seed in range(60):
        found = keep_classes(make_predictions(800, seed=seed), 0.95, NIGHT)
        for name, values in kept.items():
            values.append(found[name])
    assert all(0.94 <= np.mean(values) <= 0.97 for values in kept.values())
    found = keep_classes(make_predictions(), 0.99, NIGHT)
    assert found["person"] == pytest.approx(0.1 * found["person_real"] + 0.9 * found["person_bogus"])
    assert keep_classes(make_predictions(), 0.998, NIGHT)["person"] > found["person"] > 0


def test_sets_of_too_few_rows_are_refused_with_the_number_it_takes():
    labels = np.repeat([0, 1], [500, 98])
    with pytest.raises(ConfigError, match="98 real validation rows cannot prove that 99 % are kept, which takes 99"):
        fit_conformal(labels, labels + 0.0, 0.99)
    assert fit_conformal(np.append(labels, 1), np.append(labels + 0.0, 1), 0.99).low == 1.0
    with pytest.raises(ConfigError, match=r"a fraction of 1\.5 cannot be kept"):
        fit_conformal(labels, labels + 0.0, 1.5)


def test_command_tells_what_goes_to_a_person(tmp_path, capsys):
    from gotorb import cli

    predictions = make_predictions().assign(id=[f"r{i}" for i in range(4000)], mag=18.0)
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    assert cli.main(["threshold", str(tmp_path / "predictions.csv"), "--keep", "0.99", "--real-fraction", "0.1"]) == 0
    found, told = keep_classes(predictions, 0.99, NIGHT), capsys.readouterr().out
    assert f"{100 * found['person']:.1f} % of a night's rows go to an annotator" in told


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
    with pytest.raises(DataError, match=r"^the 998 labelled validation rows"):
        advise(predictions, "purity", 0.9, NIGHT)
