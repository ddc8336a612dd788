"""Two models on the same rows: evaluations from their csv, models by scoring the data set."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.classifier import compare as compare_models
from gotorb.cli import main
from gotorb.core import layout
from gotorb.errors import DataError
from tests.unit.tracking.conftest import data_dir, models_dir  # noqa: F401


def write_evaluation(folder: Path, scores: np.ndarray, *, labels: np.ndarray, threshold: float = 0.5) -> Path:
    folder.mkdir(parents=True)
    rows = pd.DataFrame({"id": [f"r{number:03d}" for number in range(len(labels))], "label": labels, "mag": 18.0})
    rows = rows.assign(metalabel=np.where(labels == 1, "mp", "randjunk"), split="test", score=scores, ut="1")
    rows.to_csv(folder / layout.PREDICTIONS_CSV, index=False)
    (folder / layout.METRICS_JSON).write_text(json.dumps({"threshold": threshold}))
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A good and a poor evaluation of the same 200 rows."""
    labels = np.arange(200) % 2
    noise = np.random.default_rng(0).normal(size=(2, 200))
    scores = [
        1 / (1 + np.exp(-(strength * (labels - 0.5) + part))) for strength, part in zip((4, 1), noise, strict=True)
    ]
    return tuple(write_evaluation(tmp_path / name, s, labels=labels) for name, s in zip("ab", scores, strict=True))  # type: ignore[return-value]


def test_better_model_is_ahead_with_an_interval_and_a_small_p(pair: tuple[Path, Path]) -> None:
    found = compare_models(*map(str, pair), n_bootstrap=100)
    assert (found["n_rows"], found["n_real"]) == (200, 100)
    assert found["auc"]["difference_low"] > 0
    every = next(row for row in found["calls"] if row["group"] == "all")
    assert every["wrong"] < every["wrong_other"] and every["p_value"] < 0.001
    assert every["wrong_other"] - every["wrong"] == every["only_other"] - every["only_one"]


def test_turning_the_pair_round_turns_the_signs(pair: tuple[Path, Path]) -> None:
    one, other = (compare_models(*map(str, order), n_bootstrap=50) for order in (pair, pair[::-1]))
    assert one["auc"]["difference"] == pytest.approx(-other["auc"]["difference"])
    assert [row["only_one"] for row in one["calls"]] == [row["only_other"] for row in other["calls"]]


def test_rows_of_other_labels_or_none_in_common_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "turned", np.full(200, 0.5), labels=1 - np.arange(200) % 2)
    with pytest.raises(DataError, match="equal label"):
        compare_models(str(pair[0]), str(other))


def test_evaluation_without_its_threshold_is_told(pair: tuple[Path, Path]) -> None:
    (pair[0] / layout.METRICS_JSON).unlink()
    with pytest.raises(DataError, match="threshold"):
        compare_models(*map(str, pair))


def test_models_score_the_data_set_themselves(models_dir: Path, data_dir: Path) -> None:  # noqa: F811
    found = compare_models(
        str(models_dir / "vgg6"), str(models_dir / "bayesian_vgg6"), data_dir=data_dir, n_bootstrap=50
    )
    assert found["n_rows"] == 40
    assert found["auc"]["auc_a"] > found["auc"]["auc_b"]


def test_command_prints_a_table_and_json(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *map(str, pair), "--n-bootstrap", "20"]) == 0
    text = capsys.readouterr().out
    assert "found at 1 % FPR" in text and "metalabel mp" in text
    assert main(["compare", *map(str, pair), "--n-bootstrap", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_rows"] == 200
