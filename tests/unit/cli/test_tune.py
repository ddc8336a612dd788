"""`gotorb tune`: the best in one line, and mistakes in one line."""

import json

import pytest

from gotorb.core import layout
from tests.model.blobs import make_blobs

QUICK = (
    "--method",
    "random",
    "--max-trials",
    "1",
    "--max-epochs",
    "1",
    "--space",
    '{"block1": 8, "activation": "elu"}',
)


@pytest.fixture
def data(project):
    return str(make_blobs(project / "data", n=120, size=21))


def test_the_best_is_told_and_written(gotorb, project, data):
    said = gotorb("tune", data, "--out-dir", "tuning", *QUICK)
    assert said.code == 0
    (line,) = said.out.splitlines()
    best = json.loads((project / "tuning" / layout.BEST_JSON).read_text())
    assert line.startswith(f"best: trial 0, val_binary_crossentropy {best['objective']['value']:g}: learning_rate")
    assert "block1 8" in line and "activation elu" in line
    assert {layout.TRIALS_CSV, layout.TRIALS_PNG} <= {path.name for path in (project / "tuning").iterdir()}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--objective", "val_luck"), 2, "'val_luck' is not allowed; give one of val_binary_crossentropy, "),
        (("--method", "random", "--max-trials", "null"), 1, "without which random does not end"),
        (("--max-trials", "-1"), 2, "'-1' is not allowed; give a whole number, at least 1"),
        (("--space", "[1"), 2, "'[1' is not allowed; give a mapping"),
        (("--space", '{"depth": 1}'), 1, "no hyperparameter 'depth'"),
    ],
)
def test_mistakes_are_one_line(gotorb, data, words, code, says):
    said = gotorb("tune", data, *words)
    assert said.code == code and said.out == ""
    assert says in said.err and len([line for line in said.err.splitlines() if line.startswith("gotorb")]) == 1
