"""Headline numbers and the curves that DVC overlays."""

import numpy as np
import pandas as pd
import pytest

from gotorb.evaluation.metrics import measure_scores
from gotorb.evaluation.report import make_curves, make_headline


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 900)
    return pd.DataFrame({"label": labels, "score": np.clip(rng.normal(0.3 + 0.4 * labels, 0.2), 0, 1)})


def test_headline_has_few_rounded_numbers_of_the_report(rows: pd.DataFrame) -> None:
    metrics = measure_scores(rows, 0.5, n_bootstrap=10, rng=np.random.default_rng(0))
    headline = make_headline(metrics, "truth_")
    assert headline == {
        "truth_auc": round(metrics["auc"], 4),
        "truth_missed": round(metrics["fnr_at_fpr"]["1_percent"], 4),
    }


def test_curves_are_the_rates_at_their_thresholds(rows: pd.DataFrame) -> None:
    curves = make_curves(rows, {"loss": [1.0, 0.5], "val_auc": [0.7, 0.8]})
    assert curves["history"]["epoch"].tolist() == [1, 2] and curves["history"]["val_auc"].tolist() == [0.7, 0.8]
    real = rows["label"] == 1
    for _, point in curves["error_rates"].iloc[[0, 37, 50, 99, 100]].iterrows():
        assert point["fnr"] == pytest.approx((rows.loc[real, "score"] < point["threshold"]).mean())
        assert point["fpr"] == pytest.approx((rows.loc[~real, "score"] >= point["threshold"]).mean())
    roc = curves["roc"]
    assert len(roc) <= 400 and roc.iloc[0].tolist() == [0, 0] and roc.iloc[-1].tolist() == [1, 1]
    assert (roc.diff().dropna() >= 0).all().all()
    assert curves["reliability"]["n"].sum() == len(rows)


def test_rows_of_one_class_have_a_history_only(rows: pd.DataFrame) -> None:
    assert set(make_curves(rows[rows["label"] == 1], {"loss": [1.0]})) == {"history"}
