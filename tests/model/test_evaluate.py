"""Evaluation of a trained model: files, numbers, and the two ways to ask for it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import classifier
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError, ModelError
from gotorb.evaluation.report import Evaluation
from tests.model.blobs import make_blobs
from tests.model.conftest import Trained

FIGURES = {
    "history", "latent", "confusion", "scores", "reliability", "error_rates", "roc", "recovery", "retention",
    "examples", "posteriors",
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(trained: Trained) -> Evaluation:
    return classifier.evaluate(trained.model, trained.meta, n_samples=5, n_bootstrap=50)


def test_files_stand_beside_the_model(trained: Trained, evaluation: Evaluation) -> None:
    assert evaluation.out_dir == trained.run_dir
    assert set(evaluation.figures) - {"misclassified"} == FIGURES
    for name in evaluation.figures:
        assert (trained.run_dir / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((trained.run_dir / "metrics.json").read_text()) == evaluation.metrics
    assert len(pd.read_csv(trained.run_dir / "predictions.csv")) == len(evaluation.predictions)


def test_paths_give_the_same_as_objects(trained: Trained, evaluation: Evaluation, tmp_path: Path) -> None:
    again = classifier.evaluate(
        str(trained.run_dir / "model.h5"),
        str(trained.run_dir / "meta.hkl"),
        n_samples=5,
        n_bootstrap=50,
        out_dir=tmp_path,
    )
    assert again.metrics == evaluation.metrics
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (trained.run_dir / path.name).read_bytes(), path.name


def test_only_held_out_rows_are_judged(trained: Trained, evaluation: Evaluation) -> None:
    predictions, split = evaluation.predictions, trained.meta["split"]
    assert set(predictions["id"]) == {*split["validation"], *split["test"]}
    assert set(predictions.loc[predictions["split"] == "test", "id"]) == set(split["test"])
    assert evaluation.metrics["n_trained_on"] == 0


def test_metrics_are_of_the_test_rows(evaluation: Evaluation) -> None:
    test = evaluation.predictions[evaluation.predictions["split"] == "test"]
    assert evaluation.metrics["n_real"] == int((test["label"] == 1).sum())
    assert evaluation.metrics["auc"] > 0.95
    assert evaluation.metrics["validation"]["n_real"] > 0
    assert set(evaluation.metrics["comparison"]) == {"realbogus"}


def test_posterior_columns_are_within_their_ranges(evaluation: Evaluation) -> None:
    for name in ("score", "mean", "p_real", "confidence"):
        assert evaluation.predictions[name].between(0, 1).all(), name


@pytest.mark.usefixtures("no_drawing")
def test_threshold_can_be_chosen_anew(trained: Trained, evaluation: Evaluation, tmp_path: Path) -> None:
    lax = classifier.evaluate(trained.run_dir, threshold_fpr=0.5, n_samples=2, n_bootstrap=10, out_dir=tmp_path)
    assert lax.metrics["threshold"] < evaluation.metrics["threshold"]


@pytest.mark.usefixtures("no_drawing")
def test_benchmark_takes_channels_from_the_meta(trained: Trained, tmp_path: Path) -> None:
    data = open_dataset(make_blobs(tmp_path / "six", n=80, seed=9))
    order = ["max", "ptp", "difference", "template", "science"]
    table = data.table.assign(id=[f"new-{row}" for row in range(80)])
    other = write_dataset(tmp_path / "turned", table, [data.read_stamps(range(80), order)], layers=order)
    result = classifier.benchmark(trained.run_dir, other, n_samples=2, n_bootstrap=10)
    assert result.out_dir == trained.run_dir / "benchmark_turned"
    assert result.metrics["auc"] > 0.95
    assert result.metrics["n_real"] + result.metrics["n_bogus"] == 80


@pytest.mark.usefixtures("no_drawing")
def test_benchmark_tells_how_many_rows_were_trained_on(trained: Trained, tmp_path: Path) -> None:
    data = open_dataset(trained.data_dir)
    part = write_dataset(tmp_path / "part", data.table.iloc[:80], [data.read_stamps(range(80))])
    result = classifier.benchmark(trained.run_dir, part, n_samples=2, n_bootstrap=10, out_dir=tmp_path)
    n_trained_on = np.isin(data.ids[:80], trained.meta["split"]["train"]).sum()
    assert result.metrics["n_trained_on"] == n_trained_on and 0 < n_trained_on < 80


def test_score_rows_averages_the_posterior(trained: Trained) -> None:
    data = open_dataset(trained.data_dir)
    scores = classifier.score_rows(trained.run_dir, None, data, range(10), n_samples=4, seed=2)
    stamps = data.read_stamps(range(10), trained.meta["layers"])
    np.testing.assert_allclose(scores, classifier.dropout_pred(trained.model, stamps, 4, seed=2).mean(axis=1))


def test_a_model_without_meta_or_data_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no meta\.hkl"):
        classifier.evaluate(trained.model)
    with pytest.raises(DataError, match="no data set at"):
        classifier.evaluate(trained.run_dir, data_dir=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not in .*use classifier\.benchmark"):
        classifier.evaluate(trained.run_dir, data_dir=make_blobs(tmp_path / "few", n=40))


@pytest.mark.usefixtures("no_drawing")
def test_data_changed_since_the_training_are_told(
    trained: Trained, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_dataset(trained.data_dir)
    brighter = write_dataset(tmp_path / "data", data.table, (2 * stamps for _, stamps in data.batches()))
    classifier.evaluate(trained.run_dir, data_dir=brighter, n_samples=2, n_bootstrap=10, out_dir=tmp_path / "out")
    assert "has changed since the model was trained on it" in caplog.text
