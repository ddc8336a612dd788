"""`gotorb simulate` and `gotorb inject`: what they print, and what they say when asked for the impossible."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from gotorb.core import layout
from tests.unit.cli.conftest import Said

Call = Callable[..., Said]


def test_a_survey_is_made_and_told_in_one_line(project: Path, gotorb: Call) -> None:
    survey = {"size": 320, "n_asteroids": 150, "n_training_fields": 3, "n_processes": 1}
    (project / layout.PARAMS_YAML).write_text(yaml.safe_dump({"seed": 2, "survey": survey}))
    said = gotorb("simulate", "survey", "--n-fields", "1", "--n-visits", "1", "--params", layout.PARAMS_YAML)
    assert said.code == 0
    n = len(pd.read_csv(project / "survey" / layout.CANDIDATES_CSV))
    assert said.out.startswith(f"survey: 1 visits of 1 fields, {n} detections")


def test_injection_writes_the_copy_and_its_list(tiny_survey: Path, project: Path, gotorb: Call) -> None:
    image = next((tiny_survey / "storage").rglob("*-me*.fits"))
    words = ("--out-path", "out.fits", "--n-sources", "3", "--mag-range", "17", "18")
    assert "3 sources added" in gotorb("inject", str(image), *words).out
    assert len(pd.read_csv(project / "out-injected.csv")) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("simulate",), "required: out_dir"),
        (("inject", "a.fits"), "required: --out-path"),
        (("simulate", "survey", "--size", "100"), "'100' is not allowed; give a whole number, at least 320"),
    ],
)
def test_impossible_requests_are_wrong_usage(gotorb: Call, words: tuple[str, ...], message: str) -> None:
    said = gotorb(*words)
    assert said.code == 2 and message in said.err
