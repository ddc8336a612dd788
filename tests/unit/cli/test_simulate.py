"""`gotorb simulate`: what it prints, and what it says when asked for the impossible."""

import argparse
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gotorb import layout
from gotorb.cli import simulate
from gotorb.errors import ConfigError


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    return simulate.run(parser.parse_args(list(words)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    survey = {"size": 320, "n_asteroids": 150, "n_training_fields": 3, "n_processes": 1}
    (tmp_path / layout.PARAMS_YAML).write_text(yaml.safe_dump({"seed": 2, "survey": survey}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_survey_is_made_and_told_in_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("survey", "--fields", "1", "--visits", "1") == 0
    n = len(pd.read_csv(project / "survey" / layout.CANDIDATES_CSV))
    assert capsys.readouterr().out.startswith(f"survey: 1 visits of 1 fields, {n} detections")


def test_injection_writes_the_copy_and_its_list(
    tiny_survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next((tiny_survey / "storage").rglob("*-me*.fits"))
    out = tmp_path / "out.fits"
    assert call("--into", str(image), "--out", str(out), "--n", "3", "--mag", "17", "18") == 0
    assert "3 sources added" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "out-injected.csv")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither OUT_DIR nor --into"),
        (("survey", "--into", "a.fits"), "two commands"),
        (("--into", "a.fits"), "needs --out"),
        (("survey", "--size", "100"), "size is 100"),
    ],
)
def test_impossible_requests_are_refused_in_words(project: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(*words)
