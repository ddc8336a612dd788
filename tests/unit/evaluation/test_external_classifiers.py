"""Out-of-fold scores: groups stay whole, small data sets are left alone, and the table says what it is of."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from gotorb.classifier import score_models_out_of_fold, score_out_of_fold
from gotorb.core import layout
from gotorb.core.params import Params
from gotorb.dataset.split import assign_folds
from gotorb.dataset.store import read_table, write_table
from gotorb.errors import DataError
from gotorb.evaluation.external_classifiers import (
    compare_all,
    compare_scores,
    format_tables,
    read_annotations,
)
from pipelines.external_classifiers import describe_labellers
from studies.finetune import compare_ways
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


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    label = np.repeat([0, 1, -1], [20, 20, 10])
    table = pd.DataFrame({"label": label, "peer_forest": rng.random(50)}, index=[f"r{n}" for n in range(50)])
    return table.assign(image_id=table.index, object_id="")


def test_annotated_rows_come_first_and_seeds_have_a_spread(rows: pd.DataFrame, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "eyes.csv"
    agreed = pd.DataFrame({"candid": ["r0", "r25", "r45", "r46", "none"], "agreed": ["0", "1", "1", "", "0"]})
    agreed.to_csv(path, index=False)
    annotated = read_annotations(path, rows)
    assert annotated[annotated >= 0].to_dict() == {"r0": 0, "r25": 1, "r45": 1}
    trainings = pd.DataFrame({"id": list(rows.index) * 2, layout.SEED_COLUMN: np.repeat([0, 1], 50)})
    trainings = trainings.assign(good=np.tile(rows["label"], 2) + rng.normal(0, 0.3, 100), poor=rng.random(100))
    held_out = pd.Series([0.1, 0.9], ["r0", "r25"])
    tables, spread = compare_all(rows, held_out, trainings, network="good", annotated=annotated)
    assert list(tables) == ["annotated", "out_of_fold", "held_out"]
    assert [tables[name]["gotorb"]["n_real"] for name in tables] == [2, 20, 1]
    labels, first = rows["label"].to_numpy(), trainings["good"].to_numpy()[:50]
    aucs = [roc_auc_score(labels[:40], trainings["good"].to_numpy()[at : at + 40]) for at in (0, 50)]
    assert tables["out_of_fold"]["gotorb"]["auc"] == round(roc_auc_score(labels[:40], first[:40]), 6)
    assert spread["out_of_fold"]["good"]["auc"] == pytest.approx(np.mean(aucs), abs=1e-5)
    assert spread["out_of_fold"]["good"]["auc_std"] == pytest.approx(np.std(aucs, ddof=1), abs=1e-5)
    text = format_tables(tables, title="a", spread=spread, labellers="The labels learned from: rb.")
    assert (
        text.index("## Rows on which annotators agree") < text.index("## All labelled rows")
        and "learned from: rb" in text
    )
    assert text.count("2 trainings (mean and standard deviation)") == 4


def test_without_out_of_fold_scores_held_out_rows_remain(rows: pd.DataFrame, tmp_path: Path) -> None:
    nothing = pd.DataFrame(columns=["id", layout.SEED_COLUMN, "good"])
    tables, spread = compare_all(rows, pd.Series([0.1, 0.9], ["r0", "r25"]), nothing, network="good")
    assert list(tables) == ["held_out"] and spread == {}
    path = tmp_path / "eyes.csv"
    pd.DataFrame({"candid": ["x"], "agreed": [1]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="none with ids of the data set"):
        read_annotations(path, rows)


@pytest.mark.parametrize(
    ("lines", "said"),
    [("r0,2", "'2' for 'r0'"), ("r0,real", "'real'"), ("r0,1\nr0,0", "two different labels of 'r0'")],
)
def test_labels_that_say_neither_real_nor_bogus_are_refused(
    rows: pd.DataFrame, tmp_path: Path, lines: str, said: str
) -> None:
    path = tmp_path / "eyes.csv"
    path.write_text(f"candid,agreed\n{lines}\n")
    with pytest.raises(DataError, match=said):
        read_annotations(path, rows)


def test_repeated_equal_labels_are_one_and_a_broken_csv_is_named(rows: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "eyes.csv"
    path.write_text("candid,agreed\nr0,1\nr0,1\nr1,0.0\n")
    found = read_annotations(path, rows)
    assert found[found >= 0].to_dict() == {"r0": 1, "r1": 0}
    path.write_text('candid,agreed\n"r0,1\n')
    with pytest.raises(DataError, match=r"eyes\.csv"):
        read_annotations(path, rows)


def test_labellers_are_named() -> None:
    archive = {"labels": "rules", "old_score_column": "drb"}
    params = Params(seed=1, label={"archive": archive}, dataset={"soft_scores": ["peer_rb", "peer_drb"]})
    assert "catalogues, drb, rb." in describe_labellers(params)


def test_annotations_are_read_by_the_comparison_alone() -> None:
    """No other stage may learn from them, or choose by them."""
    root = Path(__file__).parents[3]
    files = [*root.glob("gotorb/**/*.py"), *root.glob("pipelines/*.py")]
    readers = {
        path.name
        for path in files
        if re.search(r"read_annotations|ANNOTATIONS_CSV|peers\.annotations", path.read_text())
    }
    assert readers == {"external_classifiers.py", "layout.py"}


@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_all_rows_are_scored_out_of_fold_by_each_model_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gotorb.training.fit.N_FOLD_TREES", 4)
    data_dir = make_blobs(tmp_path / "data", n=60, size=21)
    table = read_table(data_dir)
    table.loc[:11, "label"] = layout.UNKNOWN
    write_table(data_dir, table)
    params = Params(seed=1, train={"n_trees": 8}, peers={"n_folds": 2})
    found = pd.concat([score_models_out_of_fold(data_dir, ["measured"], params, n_before=seed) for seed in (0, 1)])
    assert list(found) == ["id", "measured", layout.SEED_COLUMN] and found["measured"].notna().all()
    assert sorted(found["id"]) == sorted([*table["id"]] * 2)
    one, other = (part["measured"].to_numpy() for _, part in found.groupby(layout.SEED_COLUMN))
    assert not np.allclose(one, other)
    few = Params(seed=1, peers={"n_folds": 20})
    assert score_models_out_of_fold(data_dir, ["measured"], few).empty
