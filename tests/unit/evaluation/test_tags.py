"""Error rates by the tags that annotators gave."""

from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.evaluation.metrics import measure_scores
from gotorb.evaluation.report import add_tags, make_predictions


def test_false_positives_are_counted_by_tag(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": list("abcdef"), "label": [0, 0, 0, 0, 1, 1], "metalabel": "x", "split": "test"})
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.9, 0.7])
    votes = {"id": list("abbcf"), "labeller": list("ababa"), "tags": ["ghost", "", "ghost,edge", "dipole", "moving"]}
    pd.DataFrame(votes).to_csv(tmp_path / layout.EYEBALL_CSV, index=False)
    rows = make_predictions(add_tags(table, tmp_path), scores, None)
    assert rows["tag"].tolist() == ["ghost", "ghost", "dipole", "", "", "moving"]
    metrics = measure_scores(rows, threshold=0.5, n_bootstrap=10, rng=np.random.default_rng(1))
    assert {tag: found["fpr"] for tag, found in metrics["by_tag"].items()} == {
        "ghost": 0.5,
        "dipole": 0.0,
        "moving": None,
    }


def test_without_tags_nothing_is_added(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a"], "label": [0]})
    assert "tag" not in add_tags(table, tmp_path)
    pd.DataFrame({"id": ["a"], "labeller": ["x"], "label": ["bogus"]}).to_csv(
        tmp_path / layout.EYEBALL_CSV, index=False
    )
    assert "tag" not in add_tags(table, tmp_path)
