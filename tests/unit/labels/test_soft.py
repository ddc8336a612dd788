"""Soft labels: labellers who err are found out, and every row gets a probability."""

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.errors import ConfigError, DataError
from gotorb.labels.soft import fit_labellers, soften_labels
from gotorb.training.data import make_targets, select_rows

RATES = {"good": 0.95, "fair": 0.8, "poor": 0.6}


def draw(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth of rows, and levels by three labellers of known accuracy who know three quarters of the rows."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.3).astype(int)
    right = rng.random((n, 3)) < list(RATES.values())
    levels = np.where(right, truth[:, None], 1 - truth[:, None])
    return truth, np.where(rng.random((n, 3)) < 0.75, levels, -1)


def test_the_errors_of_labellers_are_found_without_the_truth() -> None:
    truth, levels = draw()
    start = np.where(levels[:, 0] < 0, 0.5, levels[:, 0])
    labellers, probability = fit_labellers(list(RATES), levels, start, np.full(len(truth), np.nan))
    for rates, accuracy in zip(labellers.rates, RATES.values(), strict=True):
        assert rates[0, 0] == pytest.approx(accuracy, abs=0.06) and rates[1, 1] == pytest.approx(accuracy, abs=0.06)
    assert labellers.real_fraction == pytest.approx(0.3, abs=0.03)
    for low, high in ((0, 0.1), (0.9, 1)):
        part = (probability >= low) & (probability <= high)
        assert truth[part].mean() == pytest.approx(probability[part].mean(), abs=0.04)
    votes = np.where(levels.sum(axis=1) > 0, 1, 0)
    assert ((probability > 0.5) == truth).mean() > (votes == truth).mean() + 0.02


def test_anchors_stay_and_rows_without_a_word_get_the_fraction() -> None:
    _, levels = draw(300)
    levels[:5] = -1
    anchors = np.full(300, np.nan)
    anchors[5:10] = 0.99
    labellers, probability = fit_labellers(list(RATES), levels, np.full(300, 0.5), anchors)
    np.testing.assert_array_equal(probability[5:10], 0.99)
    np.testing.assert_allclose(probability[:5], labellers.real_fraction, atol=1e-3)


@pytest.fixture
def table() -> pd.DataFrame:
    """Rows whose score is right in nine of ten cases; a third of them undecided."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 600)
    score = np.clip(np.where(rng.random(600) < 0.9, truth, 1 - truth) * 0.8 + 0.1 + rng.normal(0, 0.05, 600), 0, 1)
    decided = rng.random(600) < 0.66
    rows = pd.DataFrame({"id": [f"r{row}" for row in range(600)], "truth": truth, "score": score})
    rows["label"] = np.where(decided, truth, layout.UNKNOWN)
    rows["metalabel"] = np.where(~decided, "unlabelled", np.where(truth == 1, "mp", "randjunk"))
    return rows


def test_undecided_rows_get_a_probability_from_scores_and_annotators(table: pd.DataFrame) -> None:
    votes = pd.DataFrame({"id": ["r0", "r1"], "labeller": "ann", "label": ["real", "unsure"]})
    soft = soften_labels(table, scores=["score"], votes=votes)
    probability, open_ = soft[layout.PROBABILITY_COLUMN].to_numpy(), table["label"].to_numpy() == layout.UNKNOWN
    assert ((probability > 0.5) == table["truth"])[open_].mean() > 0.85
    assert (soft[layout.WEIGHT_COLUMN] == 1).all()
    without = soften_labels(table)
    assert (without.loc[open_, layout.WEIGHT_COLUMN] == 0).all() and (
        without.loc[~open_, layout.WEIGHT_COLUMN] == 1
    ).all()
    assert (without.loc[table["metalabel"] == "mp", layout.PROBABILITY_COLUMN] == 0.99).all()


def test_labellers_who_say_nothing_change_nothing(table: pd.DataFrame) -> None:
    silent = table.assign(host_offset_arcsec=np.nan, other=np.nan)
    soft = soften_labels(silent, scores=["score", "other"])
    pd.testing.assert_frame_equal(soft[table.columns], table)
    expected = soften_labels(table, scores=["score"])
    pd.testing.assert_series_equal(soft[layout.PROBABILITY_COLUMN], expected[layout.PROBABILITY_COLUMN])


def test_an_unknown_method_is_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="'median'"):
        soften_labels(table, method="median")


def test_a_missing_score_is_named(table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="'peer_x'"):
        soften_labels(table, scores=["peer_x"])


def test_training_learns_from_probabilities_and_undecided_rows(table: pd.DataFrame) -> None:
    soft = soften_labels(table, scores=["score"])
    splits = np.resize(["train", "train", "validation", "test"], len(table))
    rows = select_rows(soft, splits)
    labels = table["label"].to_numpy()
    np.testing.assert_array_equal(rows.undecided, np.flatnonzero((splits == "train") & (labels == layout.UNKNOWN)))
    targets = make_targets(soft, labels, {0: 1.0, 1: 3.0})
    np.testing.assert_allclose(targets.probability, soft[layout.PROBABILITY_COLUMN], atol=1e-6)
    np.testing.assert_allclose(targets.weight, 1 + 2 * soft[layout.PROBABILITY_COLUMN], atol=1e-5)
    hard = make_targets(table, labels, {0: 1.0, 1: 3.0})
    np.testing.assert_array_equal(hard.probability, np.maximum(labels, 0))
    with pytest.raises(DataError, match="'r7'"):
        make_targets(
            soft.assign(**{layout.PROBABILITY_COLUMN: np.where(np.arange(600) == 7, 1.5, 0.5)}), labels, {0: 1, 1: 1}
        )


def test_mean_of_scores_and_annotations_counts_half_of_a_decided_label(table: pd.DataFrame) -> None:
    few = table.iloc[:4].assign(
        score=[0.2, 0.6, np.nan, 0.4], other=[0.4, np.nan, np.nan, 1.2], label=[1, -1, -1, -1],
        metalabel=["mp", *["unlabelled"] * 3],
    )  # fmt: skip
    votes = pd.DataFrame({"id": ["r3"], "labeller": "ann", "label": ["bogus"]})
    soft = soften_labels(few, scores=["score", "other"], votes=votes, method="mean")
    third = (0.4 + 1.0 + 0.0) / 3
    np.testing.assert_allclose(soft[layout.PROBABILITY_COLUMN], [0.65, 0.6, 0.5, third], atol=1e-6)
    np.testing.assert_allclose(soft[layout.WEIGHT_COLUMN], [1, 3 - 2 * 0.6, 0, 3 - 2 * third], atol=1e-6)
    pd.testing.assert_frame_equal(soft[few.columns], few)
