"""`gotorb threshold`: words for people, json for programs, one line for mistakes."""

import json

import pytest

from tests.unit.evaluation.test_advice import make_predictions


@pytest.fixture
def evaluation(project):
    folder = project / "evaluations"
    folder.mkdir()
    make_predictions().assign(id="x", metalabel="mp").to_csv(folder / "predictions.csv", index=False)
    return str(folder)


def test_threshold_and_its_costs_are_told_with_intervals_and_counts(gotorb, evaluation):
    said = gotorb(
        "threshold", evaluation, "--purity", "0.9", "--real-fraction", "0.1", "--n-detections", "2000", "--by-mag"
    )
    assert said.code == 0
    first, second, third, *by_mag = said.out.splitlines()
    assert first.startswith("threshold 0.") and "purity 0.9 on the" in first
    assert second.startswith("on the test rows: FPR ") and " to " in second and ", of " in second
    assert third.startswith("a night of 2000 detections, 10 % real: ")
    assert len(by_mag) == 4 and by_mag[0].startswith("mag 16-17: FPR ")


def test_json_says_the_same(gotorb, evaluation):
    told = json.loads(gotorb("threshold", evaluation, "--per-night", "40", "--json").out)
    assert told["goal"] == "per_night" and told["validation"]["night"]["called_real"] <= 40
    assert "by_mag" not in told


def test_goals_exclude_each_other_and_one_is_needed(gotorb, evaluation):
    assert gotorb("threshold", evaluation).code == 2
    assert gotorb("threshold", evaluation, "--purity", "0.9", "--completeness", "0.9").code == 2


def test_no_evaluation_is_one_line(gotorb, project):
    said = gotorb("threshold", str(project), "--purity", "0.9")
    assert said.code == 1 and said.err.count("\n") == 1 and "predictions.csv cannot be read" in said.err
