"""Choice of the champion among models whose quality is known beforehand."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.dataset.store import read_table
from gotorb.errors import ModelError
from gotorb.tracking.promotion import promote_best, rollback
from gotorb.tracking.registry import CHAMPION, find_alias, list_models
from gotorb.tracking.runs import find_run, md5, track_stage
from tests.unit.tracking.tiny import LAYERS, SIZE, make_data, make_model, make_params, write_model

GOOD, MIDDLING = "vgg6", "bayesian_vgg6"


def test_first_model_becomes_champion(project: Path, models_dir: Path, data_dir: Path) -> None:
    decision = promote_best(models_dir, data_dir, make_params(MIDDLING))
    assert decision["champion"] is True
    assert decision["model"] == MIDDLING
    assert 0.5 < decision["test_auc"] < 1
    champion = find_alias("gotorb", CHAMPION)
    assert champion is not None
    assert champion.md5 == decision["md5"] == md5(models_dir / MIDDLING / layout.MODEL_H5)
    assert champion.tags["network"] == MIDDLING
    assert champion.tags["data_digest"] == decision["data_digest"]


def test_the_better_of_two_is_chosen(project: Path, models_dir: Path, data_dir: Path) -> None:
    assert promote_best(models_dir, data_dir, make_params(MIDDLING, GOOD))["model"] == GOOD


def test_worse_model_is_registered_but_refused_with_the_numbers(
    project: Path, models_dir: Path, data_dir: Path
) -> None:
    promote_best(models_dir, data_dir, make_params(GOOD))
    decision = promote_best(models_dir, data_dir, make_params(MIDDLING))
    assert decision["champion"] is False
    assert (
        f"test AUC {decision['test_auc']:.4f} is below that of the champion, {decision['champion_auc']:.4f}"
        in (decision["reason"])
    )
    assert [row["aliases"] for row in list_models()] == ["champion", ""]


def test_better_model_takes_the_place(project: Path, models_dir: Path, data_dir: Path) -> None:
    promote_best(models_dir, data_dir, make_params(MIDDLING))
    assert promote_best(models_dir, data_dir, make_params(GOOD))["champion"] is True
    assert [row["aliases"] for row in list_models()] == ["", "champion"]


def test_the_same_model_again_changes_nothing(project: Path, models_dir: Path, data_dir: Path) -> None:
    first, again = (promote_best(models_dir, data_dir, make_params(GOOD)) for _ in range(2))
    assert first == again
    assert [(row["version"], row["aliases"]) for row in list_models()] == [("1", "champion")]


def test_champion_for_stamps_of_another_size_stays_with_a_reason(
    project: Path, models_dir: Path, data_dir: Path, tmp_path: Path
) -> None:
    promote_best(models_dir, data_dir, make_params(GOOD))
    larger = make_data(tmp_path / "larger", size=SIZE + 2)
    write_model(tmp_path / "others", GOOD, larger, size=SIZE + 2)
    decision = promote_best(tmp_path / "others", larger, make_params(GOOD))
    assert decision["champion"] is False
    assert decision["reason"] == "the champion (version 1) takes other stamps"
    assert [row["aliases"] for row in list_models()] == ["champion", ""]


def test_model_restored_from_the_cache_gets_a_run(project: Path, models_dir: Path, data_dir: Path) -> None:
    """Stages that DVC restores leave no run, and a fresh clone has an empty store."""
    from mlflow import get_run

    digest = md5(models_dir / GOOD / layout.MODEL_H5)
    assert find_run(digest, "gotorb") is None
    promote_best(models_dir, data_dir, make_params(GOOD))
    found = find_run(digest, "gotorb")
    assert found is not None
    assert get_run(found).info.run_name == f"restored {GOOD}"
    assert get_run(found).data.tags["gotorb.restored"] == "true"


def test_model_trained_while_the_server_was_away_gets_no_second_run(
    project: Path, models_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models_dir / GOOD / layout.MODEL_H5
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        with track_stage("train", make_params(GOOD), name="train away") as run:
            run.log_model(path, tags={})
    assert run.run_id == ""
    promote_best(models_dir, data_dir, make_params(GOOD))
    assert all_names() == ["train away"]


def all_names() -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient()
    found = client.search_runs([one.experiment_id for one in client.search_experiments()])
    return [str(run.info.run_name) for run in found]


def test_model_without_its_meta_is_told(project: Path, models_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bare"
    shutil.copytree(models_dir, copy)
    (copy / GOOD / layout.META_HKL).unlink()
    with pytest.raises(Exception, match=rf"no {layout.META_HKL} in .*run the train stage again"):
        promote_best(copy, data_dir, make_params(GOOD))


def test_experiment_computes_the_gate_and_registers_nothing(
    project: Path, models_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run` may be one of many; what is kept of it is registered by the next `dvc repro --force promote`."""
    promote_best(models_dir, data_dir, make_params(MIDDLING))
    monkeypatch.setenv("DVC_EXP_NAME", "hazy-otter")
    tried = promote_best(models_dir, data_dir, make_params(GOOD))
    assert (tried["champion"], tried["registered"], tried["model"]) == (True, False, GOOD)
    assert [row["aliases"] for row in list_models()] == ["champion"]
    monkeypatch.delenv("DVC_EXP_NAME")
    kept = promote_best(models_dir, data_dir, make_params(GOOD))
    assert kept == {name: value for name, value in tried.items() if name != "registered"}
    assert [row["aliases"] for row in list_models()] == ["", "champion"]


def test_champion_can_be_rolled_back(project: Path, models_dir: Path, data_dir: Path) -> None:
    promote_best(models_dir, data_dir, make_params(MIDDLING))
    promote_best(models_dir, data_dir, make_params(GOOD))
    rollback("gotorb", "champion", reason="misses supernovae")
    assert [row["aliases"] for row in list_models()] == ["champion", ""]


def test_registered_version_carries_its_card(project: Path, models_dir: Path, data_dir: Path) -> None:
    from mlflow import MlflowClient

    from gotorb.tracking.registry import MAX_DESCRIPTION, describe_version

    decision = promote_best(models_dir, data_dir, make_params(GOOD))
    champion = find_alias("gotorb", CHAMPION)
    assert champion is not None
    text = MlflowClient().get_model_version("gotorb", champion.version).description
    assert f"AUC {decision['test_auc']:.4f}" in text
    assert "| metalabel mp | 20 |" in text and "## Not for" in text
    describe_version(champion, "line\n" * 2000)
    kept = MlflowClient().get_model_version("gotorb", champion.version).description
    assert len(kept) <= MAX_DESCRIPTION and kept.endswith("\n...")


def write_pixels(models_dir: Path, data: Path, n_pixels: int, name: str = GOOD) -> Path:
    """A model that looks at the first pixels only: the fewer, the less they tell."""
    from gotorb.training.model_files import write_training

    folder, model = models_dir / name, make_model()
    weights = np.zeros((SIZE * SIZE, len(LAYERS)))
    weights[:n_pixels] = 1 / n_pixels / len(LAYERS)
    model.get_layer("score").set_weights([weights.reshape(-1, 1), np.zeros(1)])
    folder.mkdir(parents=True)
    write_training(folder, model, {"model": name, "layers": list(LAYERS), "threshold": 0.5, "data_digest": "d" * 64})
    return models_dir


def test_small_losses_in_a_row_end_at_the_best_champion_so_far(project: Path, tmp_path: Path) -> None:
    """Each is within its noise of the one before; the third is worse than the first beyond it."""
    data = make_data(tmp_path / "data", n=360)
    decisions = [promote_best(write_pixels(tmp_path / str(n), data, n), data, make_params(GOOD)) for n in (5, 4, 3)]
    assert [one["champion"] for one in decisions] == [True, True, False]
    (holder,), (now, best) = decisions[1]["checks"], decisions[2]["checks"]
    assert holder["passed"] and now["passed"] and not best["passed"]
    assert "is below that of version 1, champion before" in decisions[2]["reason"]
    assert 0 < best["numbers"]["noticeable_loss"] < 0.1 and "with 80 %" in best["text"]
    assert [row["aliases"] for row in list_models()] == ["", "champion", ""]


def test_holder_that_a_rollback_took_the_alias_from_is_no_measure(project: Path, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", n=360)
    for n in (4, 5):
        promote_best(write_pixels(tmp_path / str(n), data, n), data, make_params(GOOD))
    rollback("gotorb", CHAMPION, reason="too slow")
    assert promote_best(write_pixels(tmp_path / "3", data, 3), data, make_params(GOOD))["champion"] is True


def test_injected_transients_decide_between_equal_models(
    project: Path, models_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models of the same scores: the first finds more faint sources, and the order would take the other."""
    monkeypatch.chdir(project)
    shutil.copytree(models_dir / GOOD, models_dir.parent / "equal" / GOOD)
    shutil.copytree(models_dir / GOOD, models_dir.parent / "equal" / MIDDLING)
    equal, params = models_dir.parent / "equal", make_params(GOOD, MIDDLING)
    plain = promote_best(equal, data_dir, params)
    assert (plain["model"], plain["decided_by"]) == (MIDDLING, "order")
    rows = {"id": [f"i{n}" for n in range(200)], "image_id": "im1", "snr": 7.0, "host_offset_arcsec": np.nan}
    table = pd.DataFrame(rows | {GOOD: 0.9999, MIDDLING: np.where(np.arange(200) < 100, 0.9999, 0.0001)})
    Path(layout.CHOICE_CSV).parent.mkdir(parents=True)
    table.to_csv(layout.CHOICE_CSV, index=False)
    chosen = promote_best(equal, data_dir, params)
    assert (chosen["model"], chosen["decided_by"]) == (GOOD, "injected")
    assert [row["found"] for row in chosen["choice"]] == [1.0, 0.5]
    table.rename(columns={MIDDLING: "another"}).to_csv(layout.CHOICE_CSV, index=False)
    assert promote_best(equal, data_dir, params)["decided_by"] == "order"


def test_out_of_fold_scores_of_all_models_take_the_place_of_validation(
    project: Path, models_dir: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trainings of each model: the candidate that errs less in both is chosen, and rows are counted once."""
    monkeypatch.chdir(project)
    table = read_table(data_dir)
    rows = table[table["split"] != "test"]
    flips = np.random.default_rng(2).random((2, len(rows)))
    truth, parts = rows["label"].to_numpy(int), []
    for seed, flip in enumerate(flips):
        scores = {GOOD: np.where(flip < 0.4, 1 - truth, truth), MIDDLING: np.where(flip < 0.02, 1 - truth, truth)}
        parts.append(rows[["id"]].assign(**{layout.SEED_COLUMN: seed}, **{n: 0.1 + 0.8 * s for n, s in scores.items()}))
    Path(layout.OUT_OF_FOLD_CSV).parent.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).to_csv(layout.OUT_OF_FOLD_CSV, index=False)
    decision = promote_best(models_dir, data_dir, make_params(GOOD, MIDDLING))
    assert (decision["model"], decision["decided_by"], decision["n_chosen_by"]) == (MIDDLING, "brier", len(rows))
    pd.concat(parts).iloc[1:].to_csv(layout.OUT_OF_FOLD_CSV, index=False)
    with pytest.raises(ModelError, match=f"no score of '{rows['id'].iloc[0]}'"):
        promote_best(models_dir, data_dir, make_params(GOOD, MIDDLING))
