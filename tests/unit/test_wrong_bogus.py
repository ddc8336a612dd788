"""Ways to learn from contaminated bogus labels, on rows whose truth is known."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from gotorb.dataset.store import Dataset
from studies import wrong_bogus

N, N_WRONG = 400, 8


@pytest.fixture
def lesson(monkeypatch: pytest.MonkeyPatch) -> wrong_bogus.Lesson:
    """Two overlapping classes; some real rows have the label bogus."""
    monkeypatch.setattr(wrong_bogus, "N_TREES", 40)
    rng = np.random.default_rng(1)
    truth = np.arange(N) % 2
    rows = (rng.normal(0, 1, (N, 4)) + 6 * truth[:, None]).astype(np.float32)
    labels = truth.copy()
    labels[np.flatnonzero(truth == 1)[:N_WRONG]] = 0
    return wrong_bogus.Lesson(rows, labels, labels == 0, np.arange(N), seed=0)


@pytest.mark.parametrize("name", wrong_bogus.WAYS)
def test_each_way_tells_the_classes_apart(lesson: wrong_bogus.Lesson, name: str) -> None:
    rng = np.random.default_rng(2)
    truth = np.arange(100) % 2
    scores = wrong_bogus.WAYS[name](lesson)((rng.normal(0, 1, (100, 4)) + 6 * truth[:, None]).astype(np.float32))
    assert scores.min() >= 0 and scores.max() <= 1
    assert scores[truth == 1].min() > scores[truth == 0].max() - 0.5
    assert np.mean((scores > 0.5) == truth) > 0.95


@pytest.mark.parametrize("name", [name for name in wrong_bogus.WAYS if name != "labels as they are"])
def test_wrong_bogus_rows_are_scored_as_real_again(lesson: wrong_bogus.Lesson, name: str) -> None:
    wrong = np.flatnonzero((np.arange(N) % 2 == 1) & (lesson.labels == 0))
    plain = wrong_bogus.learn_as_labelled(lesson)(lesson.rows[wrong])
    assert wrong_bogus.WAYS[name](lesson)(lesson.rows[wrong]).mean() > plain.mean() + 0.05


def test_planted_rows_are_minor_planets_and_make_up_the_share() -> None:
    table = pd.DataFrame({"metalabel": ["mp"] * 60 + ["randjunk"] * 80 + ["syntransient"] * 20})
    data, labels = cast(Dataset, SimpleNamespace(table=table)), np.repeat([1, 0, 1], [60, 80, 20])
    planted = wrong_bogus.plant(data, labels, 0.2, np.random.default_rng(1))
    assert set(table["metalabel"][planted]) == {"mp"}
    assert planted.sum() / (planted.sum() + 80) == pytest.approx(0.2)
    assert not wrong_bogus.plant(data, labels, 0.0, np.random.default_rng(1)).any()


def test_report_names_the_differences_to_the_first_way() -> None:
    one = {"auc": 0.99, "auc_std": 0.001, "missed": 0.05, "missed_std": 0.01}
    one |= {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    other = one | {"difference": 0.002, "difference_low": -0.001, "difference_high": 0.005}
    report = {"n_real": 3, "n_bogus": 4, "n_seeds": 2, "fpr": 0.01, "shares": {"0.05": {"plain": one, "new": other}}}
    lines = wrong_bogus.format_ways(report).splitlines()
    assert lines[-2] == "| 5 % | plain | 0.9900 +- 0.0010 |  | 5.0 +- 1.0 % |"
    assert lines[-1] == "| 5 % | new | 0.9900 +- 0.0010 | +0.0020 (-0.0010 to +0.0050) | 5.0 +- 1.0 % |"
