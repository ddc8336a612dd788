"""Choice of a model on noisy labels: by Brier score, then by injected transients, then by the declared order."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gotorb.evaluation.calibration import expit, fit_calibration
from gotorb.evaluation.comparison import Injected, choose_model
from studies.choices import RULES, format_choices, run_choices, simulate_choice

N, N_IMAGES, WRONG = 593, 58, 0.02


def simulate(seed: int, *, sharper: float) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Labels of which some bogus are wrong, and scores of two models, the second the better by its signal."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, N)
    labels = np.where((truth == 1) & (rng.random(N) < WRONG), 0, truth)
    common = rng.normal(0, 2.2, N)
    logits = {name: (2 * truth - 1) * gain + common + rng.normal(0, 1, N) for name, gain in
              (("plain", 4.0), ("sharp", 4.0 + sharper))}  # fmt: skip
    scores = {name: fit_calibration(labels, expit(z)).apply(expit(z)) for name, z in logits.items()}
    return labels, scores, np.array([f"image {n}" for n in rng.integers(0, N_IMAGES, N)])


def choose(labels: np.ndarray, scores: dict[str, np.ndarray], images: np.ndarray) -> str:
    return choose_model(labels, scores, images, n_bootstrap=200, rng=np.random.default_rng(0)).name


def test_the_better_model_is_chosen_nine_times_in_ten_and_more_often_than_by_auc() -> None:
    right, by_auc = 0, 0
    for seed in range(50):
        labels, scores, images = simulate(seed, sharper=1.2)
        right += choose(labels, {name: scores[name] for name in ("sharp", "plain")}, images) == "sharp"
        areas = {name: roc_auc_score(labels, one) for name, one in scores.items()}
        by_auc += max(areas, key=lambda name: areas[name]) == "sharp"
    assert right >= 45
    assert right >= by_auc


def test_differences_within_the_noise_leave_the_declared_order() -> None:
    last = 0
    for seed in range(50):
        labels, scores, images = simulate(seed, sharper=0.0)
        last += choose(labels, scores, images) == "sharp"
        swapped = {name: scores[name] for name in ("sharp", "plain")}
        assert {choose(labels, scores, images), choose(labels, swapped, images)} <= {"plain", "sharp"}
    assert last >= 45


def test_rows_that_all_models_contradict_do_not_count() -> None:
    labels, images = np.array([0, 0, 1, 1, 0, 1] * 10), np.repeat(np.arange(10), 6).astype(str)
    good = np.where(labels == 1, 0.97, 0.03)
    good[0] = 0.95
    bold = np.where(labels == 1, 0.99, 0.01)
    bold[0] = 0.95
    choice = choose_model(labels, {"good": good, "bold": bold}, images, n_bootstrap=100, rng=np.random.default_rng(0))
    assert choice.name == "bold" and choice.n_suspects == 1
    assert list(choice.table["model"]) == ["good", "bold"]
    assert choice.table["tied"].tolist() == [False, True]


@pytest.mark.parametrize("n_bootstrap", [10, 100])
def test_one_model_is_its_own_best(n_bootstrap: int) -> None:
    labels = np.array([0, 1, 0, 1])
    choice = choose_model(
        labels, {"only": labels * 0.9}, np.array(list("aabb")), n_bootstrap=n_bootstrap, rng=np.random.default_rng(0)
    )
    assert choice.name == "only" and choice.table["worse"].tolist() == [0.0]


def test_the_rule_takes_the_best_of_three_in_nine_of_ten_simulated_choices() -> None:
    """Labels as noisy as ours: 600 rows, 1 % of the bogus are real."""
    report = run_choices(50)
    new, by_auc = report["Brier, injected transients, order"], report["validation AUC"]
    assert new["n_right"] >= 45
    assert new["n_right"] > by_auc["n_right"]
    assert 0.98 < report["auc"]["worst"] < report["auc"]["middling"] < report["auc"]["best"] < 0.999
    table = format_choices(report)
    assert all(f"| {name} | {report[name]['n_right']} of 50 (" in table for name in RULES)


def test_equal_models_are_left_to_the_order() -> None:
    last = 0
    for seed in range(20):
        rows = simulate_choice(seed, {"a": 3.0, "b": 3.0})
        choice = choose_model(
            rows.labels, rows.probabilities, rows.images, injected=rows.injected, n_bootstrap=200,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        last += choice.name == list(rows.probabilities)[-1]
    assert last >= 16


def tied(n: int = 400) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Labels, and equal scores of two models."""
    labels = np.arange(n) % 2
    scores = np.where(labels == 1, 0.9, 0.1) + np.random.default_rng(3).normal(0, 0.02, n)
    return labels, {"first": scores, "last": scores.copy()}, np.array([f"im{i % 20}" for i in range(n)])


def inject(n: int = 300, **found: int) -> Injected:
    """Faint sources, of which each model finds the first so many."""
    rows = pd.DataFrame({"image_id": [f"im{i % 20}" for i in range(n)], "snr": 7.0, "host_offset_arcsec": np.nan})
    return Injected(rows, {name: np.where(np.arange(n) < count, 0.8, 0.05) for name, count in found.items()})


def choose_tied(injected: Injected | None):
    labels, scores, images = tied()
    return choose_model(labels, scores, images, injected=injected, n_bootstrap=200, rng=np.random.default_rng(0))


def test_faint_transients_decide_between_models_of_equal_brier_score() -> None:
    choice = choose_tied(inject(first=200, last=150))
    assert (choice.name, choice.decided_by) == ("first", "injected")
    assert choice.table["tied"].all() and choice.table["even"].tolist() == [True, False]
    assert choice.table["found"].tolist() == pytest.approx([200 / 300, 0.5])
    assert choice.table["fewer_low"].iloc[1] > 0


def test_few_more_transients_decide_nothing() -> None:
    choice = choose_tied(inject(first=151, last=150))
    assert (choice.name, choice.decided_by) == ("last", "order")
    assert choose_tied(None).decided_by == "order"


def test_clear_transients_off_the_nucleus_do_not_count() -> None:
    injected = inject(first=200, last=150)
    mixed = pd.concat([injected.rows, injected.rows.assign(snr=50.0, host_offset_arcsec=4.0)])
    scores = {name: np.append(one, 1 - one) for name, one in injected.probabilities.items()}
    choice = choose_tied(Injected(mixed, scores))
    assert choice.name == "first" and choice.table["found"].iloc[0] == pytest.approx(200 / 300)


def test_given_suspects_are_left_out_of_the_scores_and_of_the_threshold() -> None:
    labels, scores, images = tied()
    suspects = (labels == 0) & (np.arange(400) < 40)
    scores["first"][suspects] = 0.99
    free = choose_model(labels, scores, images, suspects=np.zeros(400, bool), n_bootstrap=100,
                        rng=np.random.default_rng(0))  # fmt: skip
    choice = choose_model(labels, scores, images, suspects=suspects, injected=inject(first=200, last=150),
                          n_bootstrap=100, rng=np.random.default_rng(0))  # fmt: skip
    assert (free.name, free.decided_by) == ("last", "brier")
    assert (choice.name, choice.n_suspects) == ("first", 20)
