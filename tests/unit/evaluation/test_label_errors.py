"""Planted wrong labels are ranked first and their rate is estimated."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from gotorb.evaluation.label_errors import rank_labels


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
    with pytest.raises(DataError, match="label errors need real and bogus rows"):
        rank_labels(rows[rows["label"] == 1])
