"""Rows for people to label, each once; and learning curves that a kill does not set back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb import active_learning, clean_data, models
from gotorb.cli import main
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import open_dataset, read_table, write_table
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation import learning_curves as curves
from tests.model.blobs import make_blobs
from tests.model.conftest import STAYS_GRAPH, Trained

pytestmark = [pytest.mark.usefixtures("eager_module"), pytest.mark.filterwarnings(STAYS_GRAPH)]
TINY: dict[str, Any] = {
    "methods": ("bald", "random"), "seeds": (1,), "n_start": 20, "n_step": 10, "n_rounds": 2, "n_steps": 2,
    "n_epochs": 2, "n_samples": 3, "layers": ("difference",),
}  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows with candidate ids; some without, some labelled by people."""
    data_dir = make_blobs(tmp_path_factory.mktemp("ask") / "data", n=120)
    table = read_table(data_dir)
    table["candidate_id"] = [str(1000 + row) for row in range(120)]
    table.loc[:9, "candidate_id"] = ""
    table.loc[10:19, "metalabel"] = "marshall"
    table.loc[20:29, "label"] = -1
    write_table(data_dir, table)
    return data_dir


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of 21 pixels, divided."""
    data_dir = make_blobs(tmp_path_factory.mktemp("curves") / "data", n=200, size=21)
    table = read_table(data_dir)
    write_table(data_dir, table.assign(split=assign_splits(table)))
    return data_dir


@pytest.fixture(scope="module")
def whole(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of curves that nothing interrupted."""
    path = tmp_path_factory.mktemp("reports") / "whole.json"
    active_learning.learning_curves(small, out_path=path, **TINY)
    return path


@pytest.mark.parametrize("method", ["bald", "margin", "random"])
def test_asked_rows_can_be_labelled_and_are_never_asked_twice(survey: Path, trained: Trained, method: str) -> None:
    table = read_table(survey).set_index("id")
    asked: list[str] = []
    while len(chosen := active_learning.choose(trained.run_dir, survey, 60, method=method, already=asked)):
        assert tuple(chosen) == active_learning.ASK_COLUMNS and (chosen["label"] == "").all()
        assert (chosen["photometry_id"].to_numpy() == table.loc[chosen["id"], "candidate_id"].to_numpy()).all()
        asked += chosen["id"].tolist()
    assert len(asked) == len(set(asked))
    free = ~table["metalabel"].isin(["marshall", "syntransient"]) & (table["candidate_id"] != "")
    assert set(asked) == set(table.index[free])


def test_value_is_that_of_the_posterior_and_the_seed_decides(survey: Path, trained: Trained) -> None:
    first, again = (active_learning.choose(trained.run_dir, survey, 8, method="bald", seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
    assert (first["value"] >= 0).all() and first["score"].between(0, 1).all()
    whole = active_learning.choose(trained.run_dir, survey, 1000, method="bald", seed=4)
    assert first["value"].min() >= np.sort(whole["value"])[::-1][: 5 * 8][-1]  # of the most telling five times as many


def test_the_csv_comes_back_as_labels(survey: Path, trained: Trained, tmp_path: Path, capsys: Any) -> None:
    command = ["ask", str(trained.run_dir), str(survey), "--n", "12", "--n-samples", "4", "--out-path"]
    assert main([*command, str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.csv'}: 12 rows to label\n"
    assert main([*command, str(tmp_path / "b.csv"), "--already", str(tmp_path / "a.csv")]) == 0
    first, second = (pd.read_csv(tmp_path / name, dtype={"id": str}) for name in ("a.csv", "b.csv"))
    assert not set(first["id"]) & set(second["id"])
    held = read_table(survey).set_index("id")["label"]
    first["label"] = [int(held[id_] != 1) for id_ in first["id"]]
    first.to_csv(tmp_path / "labelled.csv", index=False)
    new = clean_data.relabel(tmp_path / "labelled.csv", survey, out_dir=tmp_path, name="new")
    after = read_table(new).set_index("id")
    assert (after.loc[first["id"], "label"].to_numpy() == first["label"].to_numpy()).all()
    assert main([*command, str(tmp_path / "a.csv")]) == 1  # may hold labels by now
    assert "may hold labels" in capsys.readouterr().err


def test_impossible_questions_are_told(blobs: Path, survey: Path, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can be labelled by people: none has a candidate_id"):
        active_learning.choose(trained.run_dir, blobs, 5)
    with pytest.raises(ConfigError, match=r"^0 rows"):
        active_learning.choose(trained.run_dir, survey, 0, method="random")
    (tmp_path / "x.csv").write_text("name\n1\n")
    with pytest.raises(DataError, match=r"x\.csv is no csv with the column id"):
        active_learning.read_asked([tmp_path / "x.csv"])


def test_curves_of_a_killed_run_are_those_of_a_whole_one(
    small: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trainings = curves.Experiment._train, []

    def counted(*args: Any) -> Any:
        trainings.append(args)
        if len(trainings) == 3:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(curves.Experiment, "_train", counted)
    out = tmp_path / "killed.json"
    with pytest.raises(KeyboardInterrupt):
        active_learning.learning_curves(small, out_path=out, **TINY)
    assert not out.exists()
    for _ in range(2):
        active_learning.learning_curves(small, out_path=out, **TINY)
        assert len(trainings) == 1 + 2 * 2 + 1  # the first is shared by the methods, one was begun twice
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".png").read_bytes() == whole.with_suffix(".png").read_bytes()


def test_labels_are_revealed_once_and_only_of_train_rows(small: Path, whole: Path) -> None:
    data = open_dataset(small)
    train = set(np.flatnonzero(data.table["split"] == "train").tolist())
    kept = json.loads(whole.with_suffix(".runs.json").read_text())["runs"]
    for method in TINY["methods"]:
        chosen = [row for run in kept if run["method"] == method for row in run["chosen"]]
        assert len(chosen) == len(set(chosen)) == 20 and set(chosen) <= train
    report = json.loads(whole.read_text())
    assert {name: one["n"] for name, one in report["chosen"].items()} == {"pool": len(train), "bald": 20, "random": 20}
    pool = data.table[data.table["split"] == "train"]
    assert report["chosen"]["pool"]["real"] == pytest.approx((pool["label"] == 1).mean(), abs=1e-4)
    assert sum(report["chosen"]["bald"]["metalabels"].values()) == pytest.approx(1, abs=1e-3)
    wrong = {name: sum(run["n_wrong"] for run in kept if run["method"] == name) for name in TINY["methods"]}
    assert {name: report["chosen"][name]["wrong"] * 20 for name in TINY["methods"]} == pytest.approx(wrong)
    runs = pd.DataFrame(report["runs"])
    assert runs["n_labels"].tolist() == [20, 30, 40] * 2
    assert runs[runs["round"] == 0]["auc"].nunique() == 1


def test_rows_that_the_network_has_wrong_are_counted(small: Path, whole: Path, tmp_path: Path) -> None:
    import keras

    data, plan = open_dataset(small), curves.Plan(**json.loads(whole.read_text())["plan"])
    experiment = curves.Experiment(plan, data, tmp_path / "a.runs.json", build=models.find_network(plan.network))
    shape = (data.size, data.size, len(plan.layers))
    for bias, wrong in ((2.0, 0), (-2.0, 1)):  # all real, all bogus
        layers = [keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros")]
        network = keras.Sequential([keras.Input(shape), *layers])
        layers[-1].bias.assign([bias])
        rows = experiment.pool[:30]
        assert experiment._count_wrong(network, rows.tolist()) == (data.labels[rows] == wrong).sum()
    assert experiment._count_wrong(network, []) == 0


def test_pool_is_a_part_of_the_train_rows_and_other_curves_are_begun_anew_when_asked(
    small: Path, tmp_path: Path
) -> None:
    out, plan = tmp_path / "a.json", TINY | {"n_pool": 42, "methods": ("random",), "seeds": (1, 2)}
    (tmp_path / "a.runs.json").write_text('{"identity": {"n_start": 1}, "runs": []}')
    active_learning.learning_curves(small, out_path=out, restart=True, **plan)
    kept = curves.Plan(**json.loads(out.read_text())["plan"])
    runs_path = tmp_path / "a.runs.json"
    experiment = curves.Experiment(kept, open_dataset(small), runs_path, build=models.find_network(kept.network))
    labelled = np.concatenate([experiment._labelled("random", seed, 2) for seed in (1, 2)])
    assert len(labelled) == 80 and 40 < len(set(labelled)) <= 42
    with pytest.raises(DataError, match="has 39 labelled train rows"):
        active_learning.learning_curves(small, out_path=tmp_path / "b.json", **plan | {"n_pool": 39})


def test_curves_that_compare_nothing_are_refused(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    for options, reason in (
        ({"methods": ("bald",)}, "methods are bald"),
        ({"methods": ("entropy", "random")}, "unknown acquisition 'entropy'"),
        ({"seeds": ()}, "give at least one"),
        ({"n_steps": 1}, "1 steps cannot be divided into 2 epochs"),
        ({"n_step": 0}, "n_step is 0"),
        ({"n_pool": -5}, "n_pool is -5"),
    ):
        with pytest.raises(ConfigError, match=reason):
            active_learning.learning_curves(small, out_path=out, **TINY | options)
    with pytest.raises(DataError, match="20 and 99 rounds of 10 need 1010"):
        active_learning.learning_curves(small, out_path=out, **TINY | {"n_rounds": 99})
    with pytest.raises(ConfigError, match=r"end its name with \.json"):
        active_learning.learning_curves(small, out_path=tmp_path / "a.txt", **TINY)
    (tmp_path / "a.runs.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.runs\.json cannot be read"):
        active_learning.learning_curves(small, out_path=out, **TINY)
    (tmp_path / "a.runs.json").write_text('{"identity": {"n_start": 1}, "runs": []}')
    with pytest.raises(DataError, match=r"another .*n_start"):
        active_learning.learning_curves(small, out_path=out, **TINY)
