"""Planted wrong labels are ranked first and their rate is estimated."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from gotorb.evaluation.label_errors import correct_fpr, rank_labels


def planted(rate, n=4000, seed=1):
    """Rows whose scores follow the truth, of which some bogus labels are wrong; (rows, wrong)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1.5, n) + 8 * truth - 4)))
    wrong = (truth == 1) & (rng.random(n) < rate)
    label = np.where(wrong, 0, truth)
    metalabel = np.where(label == 1, "mp", "randjunk")
    return pd.DataFrame(
        {"id": [f"r{i}" for i in range(n)], "label": label, "metalabel": metalabel, "score": scores}
    ), wrong


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.10])
def test_noise_rate_is_estimated_for_each_metalabel(rate):
    rows, wrong = planted(rate)
    noise = rank_labels(rows).noise.set_index("metalabel")
    truth = wrong.sum() / (rows["label"] == 0).sum()
    assert noise.loc["randjunk", "low"] * 0.8 <= truth <= noise.loc["randjunk", "high"] * 1.6
    assert noise.loc["mp", "rate"] < 0.02
    assert noise["n"].sum() == len(rows)


def test_planted_errors_are_ranked_first():
    rows, wrong = planted(0.05)
    found = rank_labels(rows).rows
    bogus = found[found["label"] == 0]
    first = bogus.head(int(wrong.sum()))["id"]
    assert np.isin(first, rows["id"][wrong]).mean() > 0.9


def test_without_noise_hardly_a_row_is_suspect():
    rows, _ = planted(0.0)
    assert rank_labels(rows).rows["suspect"].mean() < 0.01


def test_unknown_labels_are_left_out_and_one_class_is_refused():
    rows, _ = planted(0.05)
    rows.loc[:9, "label"] = -1
    assert len(rank_labels(rows).rows) == len(rows) - 10
    with pytest.raises(DataError, match="give real and bogus rows"):
        rank_labels(rows[rows["label"] == 1])


def test_corrected_fpr_covers_the_true_one_where_labels_hide_real_sources() -> None:
    """1 % of the bogus labels are on real sources: they are half of the false positives."""
    from scipy.special import expit

    rng, n, covered, corrected, raw = np.random.default_rng(4), 600, 0, [], []
    threshold, truth = 0.5, 0.012
    for _ in range(200):
        real = rng.random(n) < 0.5
        hidden = ~real & (rng.random(n) < 0.01)
        accepted = ~real & ~hidden & (rng.random(n) < truth)
        logits = np.where(real | hidden, rng.normal(4, 2, n), -4.0)
        scores = expit(np.where(accepted, rng.uniform(0, 2, n), logits))
        found = correct_fpr(real.astype(int), scores, threshold)
        covered += found["fpr_low"] <= truth <= found["fpr_high"]
        corrected.append(found["fpr"])
        raw.append((scores[~real] >= threshold).mean())
    assert covered >= 182
    assert abs(np.mean(corrected) - truth) < 0.003 < np.mean(raw) - truth


def test_few_real_rows_correct_nothing() -> None:
    found = correct_fpr(np.array([0] * 50 + [1] * 5), np.linspace(0, 1, 55), 0.5)
    assert set(found.values()) == {None}
