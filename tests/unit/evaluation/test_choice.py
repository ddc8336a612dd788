"""Choice of a model on noisy labels: by Brier score, paired and resampled by image."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gotorb.evaluation.calibration import expit, fit_calibration
from gotorb.evaluation.comparison import choose_model

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
