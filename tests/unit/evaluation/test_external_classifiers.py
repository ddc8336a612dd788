"""Out-of-fold scores: groups stay whole, small data sets are left alone, and the table says what it is of."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gotorb.classifier import score_out_of_fold
from gotorb.core.params import Params
from gotorb.dataset.split import assign_folds
from gotorb.dataset.store import read_table
from gotorb.errors import DataError
from gotorb.evaluation.external_classifiers import compare_scores, compare_ways, format_tables
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH, run_eagerly


def test_folds_keep_groups_whole_and_spread_the_classes() -> None:
    rng = np.random.default_rng(3)
    groups = rng.integers(0, 80, 300)
    labels = (rng.random(300) < 0.8).astype(int)
    folds = assign_folds(labels, groups, n_folds=5, seed=1)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert all((labels[folds == fold] == 0).sum() >= 5 for fold in range(5))
    np.testing.assert_array_equal(folds, assign_folds(labels, groups, n_folds=5, seed=1))
    with pytest.raises(DataError, match="4 groups"):
        assign_folds(labels, groups % 4, n_folds=5, seed=1)


def test_too_few_rows_are_not_divided(tmp_path: Path) -> None:
    data_dir = make_blobs(tmp_path / "data", n=40, size=21)  # 20 of each class, 25 are wanted for five folds
    assert score_out_of_fold(data_dir, "bayesian_vgg6", Params(seed=1)).empty


@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_ways_are_judged_by_one_training_and_by_the_mean_of_several(tmp_path: Path) -> None:
    data_dir = make_blobs(tmp_path / "data", n=60, size=21)
    params = Params(seed=1, train={"epochs": 1, "models": ["bayesian_vgg6"]}, peers={"n_folds": 2})
    with run_eagerly():
        one = score_out_of_fold(data_dir, "bayesian_vgg6", params)
        other = score_out_of_fold(data_dir, "bayesian_vgg6", params, n_before=1)
    assert one.index.equals(other.index) and not np.allclose(one, other)
    rows = read_table(data_dir).set_index("id")
    tables = compare_ways(rows, {"alone": [one, other]}, (1, 2))
    assert list(tables) == ["alone", "alone, 2 trainings averaged"]
    labels = rows.loc[one.index, "label"].to_numpy(int)
    for table, scores in zip(tables.values(), (one, (one + other) / 2), strict=True):
        assert table["gotorb"]["auc"] == round(float(roc_auc_score(labels, scores)), 6)


def test_the_table_names_counts_intervals_and_both_sets_of_rows() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    ours, theirs = labels + rng.normal(0, 0.5, 100), labels + rng.normal(0, 1.0, 100)
    theirs[:5] = np.nan
    table = compare_scores(labels, ours, {"forest": theirs})
    text = format_tables({"held_out": table, "out_of_fold": table}, title="a and others")
    assert "## Held-out rows" in text and "scored out of fold" in text
    assert text.count("| forest | 50 | 45 |") == 2 and text.count("| gotorb | 50 | 50 |") == 2
    assert table["forest"]["auc_low"] < table["forest"]["auc"] < table["forest"]["auc_high"]
