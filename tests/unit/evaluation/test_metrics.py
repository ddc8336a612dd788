"""Numbers against hand-made cases and scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from gotorb.evaluation.comparison import compare_auc, roc_comparison
from gotorb.evaluation.intervals import (
    area_under_roc,
    auc_interval,
    count_by_score,
    find_groups,
    fraction_interval,
    wilson_interval,
)
from gotorb.evaluation.metrics import average_precision, measure_scores, reliability_table
from gotorb.evaluation.thresholds import choose_threshold, error_rates, fnr_at_fpr, measure_errors


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 400)
    return labels, np.round(np.clip(rng.normal(0.35 + 0.3 * labels, 0.2), 0, 1), 2)


def test_areas_agree_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    labels, scores = scored
    assert area_under_roc(*count_by_score(labels, scores)[1:]) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    fpr, tpr, _ = roc_curve(labels, scores)
    for target in (0.01, 0.05, 0.1):
        assert fnr_at_fpr(labels, scores, target) == pytest.approx(1 - tpr[fpr <= target].max())


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (1, 100, 0.00177, 0.05449)],
)
def test_wilson_intervals_have_their_known_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=1e-5)


def test_no_trials_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_errors_are_counted_by_hand() -> None:
    labels, scores = np.array([0, 0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.5, 0.9, 0.5, 0.4])
    errors = measure_errors(labels, scores, 0.5)
    assert (errors["n_bogus"], errors["n_false_positive"], errors["fpr"]) == (4, 2, 0.5)
    assert (errors["n_real"], errors["n_false_negative"], errors["fnr"]) == (2, 1, 0.5)
    assert errors["mme"] == 0.5 and errors["fpr_low"] < 0.5 < errors["fpr_high"]


def test_auc_interval_holds_the_area(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    low, high = auc_interval(labels, scores)
    area = area_under_roc(*count_by_score(labels, scores)[1:])
    assert low < area < high and 0.01 < high - low < 0.1


@pytest.mark.parametrize("auc", [0.95, 0.99])
def test_auc_intervals_cover_the_truth_as_often_as_they_say(auc: float) -> None:
    """Percentiles of a bootstrap cover 89.7 % at 0.99."""
    from scipy.stats import norm

    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 200)
    shift = np.sqrt(2) * norm.ppf(auc) * labels
    intervals = np.array([auc_interval(labels, rng.normal(size=400) + shift) for _ in range(1000)])
    covered = ((intervals[:, 0] <= auc) & (auc <= intervals[:, 1])).mean()
    assert 0.93 <= covered <= 0.97


def test_images_that_differ_widen_the_interval_until_it_covers() -> None:
    from scipy.stats import norm

    rng, image, labels = np.random.default_rng(0), np.repeat(np.arange(40), 10), np.tile([0, 1], 200)
    shift, spread, covered = 3.3 * labels, 1.0, {"image": 0, "row": 0}
    truth = norm.cdf(3.3 / np.sqrt(2 * (1 + spread**2)))
    for _ in range(400):
        scores = rng.normal(0, spread, 40)[image] + rng.normal(size=400) + shift
        for kind, groups in (("image", [image]), ("row", [])):
            low, high = auc_interval(labels, scores, groups)
            covered[kind] += low <= truth <= high
    assert covered["image"] >= 0.92 * 400
    assert covered["row"] <= 0.91 * 400


def test_classes_apart_have_an_interval_by_their_number() -> None:
    labels = np.repeat([0, 1], [200, 50])
    low, high = auc_interval(labels, labels.astype(float))
    assert high == 1.0 and low == pytest.approx(0.025 ** (1 / 50))


def test_groups_are_images_and_objects() -> None:
    rows = pd.DataFrame({"image_id": np.arange(60) // 3, "object_id": [""] * 58 + ["sn", "sn"], "label": 1})
    images, objects = find_groups(rows)
    assert len(set(images)) == 20 and len(set(objects)) == 59 and objects[58] == objects[59]
    assert list(find_groups(rows.assign(image_id="one", object_id=""))) == []


def test_trails_of_one_image_count_as_one() -> None:
    wrong, images = np.ones(24, bool), np.zeros(24, int)
    low, high = fraction_interval(wrong, [images])
    assert (low, high) == pytest.approx(wilson_interval(1, 1)) and high == 1.0
    assert low < 0.25 < wilson_interval(24, 24)[0]
    spread = np.arange(24) % 2 == 0
    assert fraction_interval(spread, [np.arange(24) // 2]) == pytest.approx(wilson_interval(12, 24))
    together = fraction_interval(spread, [np.arange(24) % 2 + 2 * (np.arange(24) // 12)])
    assert together[0] < wilson_interval(12, 24)[0] and together[1] > wilson_interval(12, 24)[1]


def test_calibration_error_has_its_expectation_by_chance() -> None:
    from gotorb.evaluation.metrics import expect_calibration, measure_calibration

    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, 200)
    expected, limit = expect_calibration(scores, n_draws=500, rng=rng)
    found = [measure_calibration((rng.random(200) < scores).astype(int), scores)["ece"] for _ in range(300)]
    assert expected == pytest.approx(np.mean(found), abs=0.003)
    assert 0.02 < np.mean(np.array(found) > limit) < 0.09
    assert expect_calibration(rng.uniform(0, 1, 20_000), n_draws=50, rng=rng)[0] < expected / 5


def test_threshold_keeps_its_promise_on_the_rows_it_was_chosen_on(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    for max_fpr in (0.0, 0.01, 0.1, 0.5):
        threshold = choose_threshold(labels, scores, max_fpr=max_fpr)
        assert measure_errors(labels, scores, threshold)["fpr"] <= max_fpr
    best = choose_threshold(labels, scores)
    assert measure_errors(labels, scores, best)["mme"] == pytest.approx(error_rates(labels, scores).mme.min())


def test_threshold_can_refuse_everything() -> None:
    labels, scores = np.array([1, 0]), np.array([0.3, 1.0])
    threshold = choose_threshold(labels, scores, max_fpr=0.0)
    assert measure_errors(labels, scores, threshold)["fpr"] == 0.0


def test_brier_and_calibration_error_by_hand() -> None:
    rows = pd.DataFrame({"label": [0, 1, 1, 1], "score": [0.15, 0.15, 0.95, 0.95]})
    metrics = measure_scores(rows, 0.5, n_bootstrap=10, rng=np.random.default_rng(0))
    assert metrics["brier"] == pytest.approx((0.15**2 + 0.85**2 + 2 * 0.05**2) / 4, abs=1e-6)
    assert metrics["ece"] == pytest.approx((2 * 0.35 + 2 * 0.05) / 4, abs=1e-6)
    assert reliability_table(rows["label"].to_numpy(), rows["score"].to_numpy())["n"].tolist() == [2, 2]


def test_purity_is_that_of_a_nights_real_fraction() -> None:
    labels = np.repeat([0, 1], [1000, 200])
    rows = pd.DataFrame({"label": labels, "score": np.where(np.arange(1200) < 50, 0.9, labels * 0.9)})
    night = measure_scores(rows, 0.5, rng=np.random.default_rng(0))["night"]
    assert night["real_fraction"] == 0.05
    assert night["purity"] == pytest.approx(0.05 / (0.05 + 0.95 * 0.05), abs=1e-6)
    assert night["purity_limit"] == pytest.approx(0.05 / (0.05 + 0.95 * 0.0631), abs=0.001)


def test_breakdowns_by_metalabel_and_magnitude() -> None:
    rows = pd.DataFrame(
        {
            "label": [1, 1, 0],
            "score": [0.9, 0.2, 0.1],
            "metalabel": ["mp", "mp", "randjunk"],
            "mag": [18.2, 19.1, np.nan],
        }
    )
    metrics = measure_scores(rows, 0.5, n_bootstrap=10, rng=np.random.default_rng(0))
    assert metrics["by_metalabel"]["mp"]["fnr"] == 0.5 and metrics["by_metalabel"]["mp"]["fpr"] is None
    assert list(metrics["by_mag"]) == ["18-19", "19-20"]


@pytest.mark.parametrize(("labels", "note"), [([1, 1], "real rows only"), ([0], "bogus rows only"), ([], "no rows")])
def test_undefined_numbers_are_none_and_said_so(labels: list[int], note: str) -> None:
    rows = pd.DataFrame({"label": np.array(labels, int), "score": np.full(len(labels), 0.4)})
    metrics = measure_scores(rows, 0.5, rng=np.random.default_rng(0))
    assert metrics["auc"] is None and note in metrics["notes"][0]
    json.dumps(metrics, allow_nan=False)


def test_a_score_compared_with_itself_differs_by_nothing(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    table = roc_comparison(labels, scores, scores, n_bootstrap=20)
    assert (table[["difference", "difference_low", "difference_high"]] == 0).all(axis=None)
    both = compare_auc(labels, scores, scores)
    assert both.difference == both.difference_low == both.difference_high == 0


def test_comparison_finds_the_better_score(scored: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = scored
    blurred = scores + np.random.default_rng(1).normal(0, 0.4, len(scores))
    blurred[:5] = np.nan
    table = roc_comparison(labels, scores, blurred, (0.1,), n_bootstrap=100)
    assert table["difference_low"].item() > 0
    assert table["n_real"].item() + table["n_bogus"].item() == len(labels) - 5
    assert compare_auc(labels, scores, blurred).difference_low > 0


def test_comparison_needs_both_classes() -> None:
    with pytest.raises(DataError, match="2 real and 0 bogus rows"):
        roc_comparison(np.array([1, 1, 0]), np.array([0.5, 0.6, 0.1]), np.array([0.5, 0.6, np.nan]))
