"""The card of a model tells its data, its numbers with intervals, its slices, and what it is not for."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.evaluation.metrics import measure_scores
from gotorb.evaluation.report import NOT_FOR, make_model_card

DATA = {"size_pixel": 55, "n_rows": 400, "digest": "abc" * 20, "by_metalabel": {"mp": 150, "randjunk": 250}}
ROOT = Path(__file__).parents[3]


def rows(n: int = 200) -> pd.DataFrame:
    labels = np.arange(n) % 2
    scores = np.clip(0.5 * labels + np.random.default_rng(0).uniform(0, 0.6, n), 0, 1)
    return pd.DataFrame(
        {"label": labels, "score": scores, "metalabel": np.where(labels == 1, "mp", "randjunk"), "snr": 8.0}
    )


def test_card_holds_data_numbers_slices_and_limits() -> None:
    metrics = measure_scores(rows(), 0.5, n_bootstrap=20, rng=np.random.default_rng(0))
    text = make_model_card("tiny", metrics, DATA, layers=["science", "difference"])
    assert "150 mp, 250 randjunk" in text
    assert f"AUC {metrics['auc']:.4f}" in text
    assert "| metalabel mp | 100 |" in text
    assert f"without them FPR {100 * metrics['corrected']['fpr']:.1f} %" in text
    assert f"purity where 5 % of the detections are real: {100 * metrics['night']['purity']:.1f} %" in text
    assert "| S/N 7-10 | 200 |" in text
    assert all(limit in text for limit in NOT_FOR)


def test_undefined_numbers_are_said_to_be_so() -> None:
    one_class = rows().query("label == 1")
    metrics = measure_scores(one_class, 0.5, n_bootstrap=20, rng=np.random.default_rng(0))
    text = make_model_card("tiny", metrics, DATA, layers=["science"])
    assert "AUC undefined" in text and "FPR ," in text


def test_card_of_the_projects_own_report_has_every_group() -> None:
    metrics = json.loads((ROOT / "reports" / "bayesian_vgg6.json").read_text())
    text = make_model_card("bayesian_vgg6", metrics, DATA, layers=["science"])
    assert all(f"| metalabel {name} |" in text for name in metrics["by_metalabel"])
