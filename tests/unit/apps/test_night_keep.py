"""Unsure rows of a night are those that an annotator decides on, by the validation rows of an evaluation."""

import numpy as np
import pandas as pd

from gotorb.evaluation.thresholds import Night, keep_classes
from gotorb.visualise.night import NightOptions, _mark_unsure
from tests.unit.evaluation.test_advice import make_predictions


def test_rows_between_the_conformal_scores_are_unsure(tmp_path) -> None:
    predictions = make_predictions().assign(id=[f"r{i}" for i in range(4000)], mean=np.nan)
    predictions.to_csv(tmp_path / "predictions.csv", index=False)
    night = pd.DataFrame({"best": np.linspace(0, 1, 101), "uncertain": False})
    table, sets = _mark_unsure(night, NightOptions(evaluation=tmp_path, keep=0.98))
    found = keep_classes(predictions, 0.98, Night())
    assert sets is not None and [sets["low"], sets["high"]] == sorted([found["low"], found["high"]])
    inside = (night["best"] >= sets["low"]) & (night["best"] <= sets["high"])
    assert table["uncertain"].equals(inside) and 0 < inside.sum() < 101
    by_mean = predictions.assign(mean=predictions["score"] ** 2)
    by_mean.to_csv(tmp_path / "predictions.csv", index=False)
    _, of_mean = _mark_unsure(night, NightOptions(evaluation=tmp_path, keep=0.98))
    assert of_mean is not None and abs(of_mean["low"] - sets["low"] ** 2) < 1e-6
    assert _mark_unsure(night, NightOptions())[1] is None
