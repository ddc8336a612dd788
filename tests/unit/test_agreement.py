"""Results of a run against committed ones: equal, within the intervals, or named one by one."""

import json
import subprocess
from pathlib import Path

import pytest

from pipelines.agreement import Number, describe_agreement, format_results, print_results, read_numbers

COMMITTED = {"vgg6": {"AUC": Number(0.98, 0.97, 0.99), "calibration error": Number(0.02)}}
"""The calibration error has no interval, so it is not compared."""


def shifted(by: float) -> dict[str, dict[str, Number]]:
    return {
        model: {k: Number(*(None if x is None else x + by for x in v)) for k, v in own.items()}
        for model, own in COMMITTED.items()
    }


def test_equal_numbers_are_told_from_close_ones() -> None:
    assert describe_agreement(COMMITTED, COMMITTED) == "all 1 numbers equal the committed ones"
    assert "agree with the committed ones within" in describe_agreement(shifted(0.005), COMMITTED)


def test_a_number_outside_its_interval_is_named_with_both_values() -> None:
    told = describe_agreement(shifted(0.025), COMMITTED)
    assert told.startswith("1 of 1 numbers differ") and "vgg6 AUC 1.0050 (committed 0.9800)" in told
    assert "\n" not in told


def test_models_that_nobody_committed_are_not_compared() -> None:
    assert describe_agreement({"new": COMMITTED["vgg6"]}, COMMITTED).startswith("no committed results")


def test_table_has_a_line_for_each_model_and_no_empty_column() -> None:
    lines = format_results(COMMITTED | {"other": {"AUC": Number(0.9, 0.8, 1.0)}}).splitlines()
    assert lines[0].split() == ["model", "AUC", "calibration", "error"]
    assert lines[1].split() == ["vgg6", "0.9800", "0.020"] and lines[2].split() == ["other", "0.9000"]


def report(auc: float) -> dict:
    at = {"fpr": 0.02, "fpr_low": 0.01, "fpr_high": 0.04, "fnr": None, "fnr_low": None, "fnr_high": None}
    return {"auc": auc, "auc_low": auc - 0.01, "auc_high": auc + 0.01, "at_threshold": at}


def test_reports_are_compared_with_the_last_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    (reports / "promotion.json").write_text(json.dumps({"model": "vgg6", "name": "gotorb", "champion": True}))
    (reports / "vgg6.json").write_text(json.dumps(report(0.95)))
    (tmp_path / "params.yaml").write_text("seed: 1\ntrain: {models: [vgg6]}\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    (reports / "vgg6.json").write_text(json.dumps(report(0.90)))
    print_results(tmp_path)
    told = capsys.readouterr().out
    assert "champion of gotorb: vgg6" in told and "no report" in told and "vgg6 AUC 0.9000 (committed 0.9500)" in told


def test_undefined_numbers_are_left_out() -> None:
    content = {"vgg6.json": report(0.9), "promotion.json": {"model": "vgg6"}}
    assert set(read_numbers(["vgg6", "other"], lambda path: content.get(path.name))["vgg6"]) == {"AUC"}


def test_a_run_without_reports_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_results(tmp_path)
    assert capsys.readouterr().out == ""
