"""A survey's first model: another survey's trees learn few labels."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from gotorb import classifier
from gotorb.classifier.adopt import find_sets
from gotorb.dataset.store import open_dataset, read_table, write_table
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.training.trees import fit_trees, update_trees
from tests.model.blobs import make_blobs, small_network
from tests.model.conftest import STAYS_GRAPH

N_LABELS = 40


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("parent") / "data", n=200, size=25)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with few labels, in which the parent's bogus are called real and the other way round."""
    data_dir = make_blobs(tmp_path_factory.mktemp("own") / "data", n=200, size=21, seed=7)
    label = read_table(data_dir)["label"].to_numpy()
    write_table(data_dir, read_table(data_dir).assign(label=np.where(np.arange(200) < N_LABELS, 1 - label, -1)))
    return data_dir


def test_few_labels_turn_the_parent_s_opinion(parent: Path, own: Path, tmp_path: Path) -> None:
    model, meta = classifier.adopt(parent, own, out_dir=tmp_path, name="first", n_trees=60, seed=1)
    assert meta["history"]["auc"][0] < 0.2 and meta["history"]["auc"][1] > 0.8
    data = open_dataset(own)
    truth = 1 - open_dataset(make_blobs(tmp_path / "again", n=200, size=21, seed=7)).labels[N_LABELS:]
    scores = classifier.predict(tmp_path / "first", data.read_stamps(range(N_LABELS, 200), model.features.layers))
    assert ((scores >= meta["threshold"]) == truth).mean() > 0.8
    assert len(meta["split"]["train"]) == N_LABELS and meta["conformal"]["n_real"] + meta["conformal"]["n_bogus"] == 40


def test_a_model_is_a_parent_when_its_stamps_are_alike(parent: Path, own: Path, tmp_path: Path) -> None:
    layers = ("science", "template", "difference")
    like = make_blobs(tmp_path / "like", n=200, size=21, seed=3)
    classifier.train(like, "measured", out_dir=tmp_path, name="measured", layers=layers, n_trees=40, seed=1)
    _, meta = classifier.adopt(tmp_path / "measured", own, out_dir=tmp_path, name="first")
    assert meta["history"]["auc"][1] > 0.8 and meta["layers"] == list(layers)
    classifier.train(parent, "measured", out_dir=tmp_path, name="larger", layers=layers, n_trees=40, seed=1)
    with pytest.raises(ModelError, match="25 pixels"):
        classifier.adopt(tmp_path / "larger", own, out_dir=tmp_path, name="no")


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_impossible_starts_are_refused(parent: Path, own: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep is 1"):
        classifier.adopt(parent, own, keep=1.0)
    few = shutil.copytree(own, tmp_path / "few", ignore=shutil.ignore_patterns("model*"))
    table = read_table(few)
    write_table(few, table.assign(label=np.where(table["label"] == 1, -1, table["label"])))
    with pytest.raises(DataError, match="0 real"):
        classifier.adopt(parent, few)
    with pytest.raises(DataError, match="no labels of both classes"):
        classifier.adopt(few, own)
    classifier.train(parent, small_network, out_dir=tmp_path, name="network", epochs=1, layers=("difference",))
    with pytest.raises(ModelError, match="is a network"):
        classifier.adopt(tmp_path / "network", own)


def test_rows_move_the_leaves_they_reach_and_none_leave_the_trees_as_they_are() -> None:
    rng = np.random.default_rng(0)
    rows, ones = rng.normal(size=(300, 5)).astype(np.float32), np.ones(300)
    trees = fit_trees(rows, (rows[:, 0] > 0).astype(float), ones, n_trees=30, seed=1)
    same = update_trees(trees, rows[:0], ones[:0], ones[:0])
    np.testing.assert_allclose(same.value, trees.value, atol=1e-12)
    opposite = update_trees(trees, rows, (rows[:, 0] <= 0).astype(float), 100 * ones)
    assert ((opposite.leaves(rows).mean(axis=1) > 0.5) == (rows[:, 0] <= 0)).mean() > 0.97
    stubborn = update_trees(trees, rows, 1.0 * (rows[:, 0] <= 0), ones, strength=1e9)
    np.testing.assert_allclose(stubborn.value, trees.value, atol=1e-5)


def test_conformal_sets_keep_what_they_promise_or_say_how_many_labels_they_need() -> None:
    rng = np.random.default_rng(4)
    held, n_sets = [], 300
    for _ in range(n_sets):
        labels = np.resize([0, 1], 80)
        scores = 1 / (1 + np.exp(-rng.normal(np.where(labels == 1, 1, -1), 1.0)))
        limits = find_sets(labels[:60], scores[:60], keep=0.9)
        real = labels[60:] == 1
        held.append([(scores[60:][real] >= limits["low"]).mean(), (scores[60:][~real] <= limits["high"]).mean()])
    assert (np.mean(held, axis=0) > 0.9 - 0.01).all() and (np.mean(held, axis=0) < 0.96).all()
    few = find_sets(np.array([0, 1] * 5), np.linspace(0, 1, 10), keep=0.95)
    assert few["low"] is None and few["high"] is None and few["needed"] == 19
