"""`gotorb data`: exit code and words a shell script can rely on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.dataset.split import assign_splits
from gotorb.dataset.store import write_dataset
from gotorb.dataset.versions import removals, write_version
from tests.unit.dataset.conftest import make_stamps, make_table


@pytest.fixture
def divided(project: Path) -> Path:
    """A divided data set without leaks."""
    rows = make_table(120, 40).assign(rule="a rule", code_version="1")
    rows["split"] = assign_splits(rows)
    return write_dataset(project / "divided", rows, [make_stamps(len(rows))])


def plant(data_dir: Path, kind: str) -> None:
    """Let a training row and a test row share something."""
    table = pd.read_csv(layout.labels_path(data_dir), keep_default_na=False)
    stamps = make_stamps(len(table))
    rows = [int(np.flatnonzero(table["split"] == part)[0]) for part in ("train", "test")]
    if kind == "pixels":
        stamps[rows[1]] = stamps[rows[0]]
    elif kind == "sky":
        table.loc[rows, ["ra", "dec"]] = [10.0, 20.0]
    else:
        table.loc[rows, {"image": "image_id", "object": "object_id", "galaxy": "host_id"}[kind]] = "shared"
    write_dataset(data_dir, table, [stamps])


def test_clean_division_passes(gotorb, divided):
    assert gotorb("data", "leaks", str(divided)).code == 0
    assert gotorb("data", "verify", str(divided)).out == f"{divided}: nothing wrong found\n"


@pytest.mark.parametrize("kind", ["image", "object", "galaxy", "sky", "pixels"])
def test_planted_leak_of_each_kind_fails_and_is_named(gotorb, divided, kind):
    plant(divided, kind)
    said = gotorb("data", "leaks", str(divided))
    assert said.code == 1
    assert kind in said.out and "test+train" in said.out
    told = json.loads(gotorb("data", "leaks", str(divided), "--json").out)
    assert {leak["kind"] for leak in told} == {kind}


def test_flipped_byte_fails_verification(gotorb, divided):
    path = layout.stamps_path(divided)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = gotorb("data", "verify", str(divided))
    assert (said.code, "bytes were flipped or edited" in said.out) == (1, True)
    assert json.loads(gotorb("data", "verify", str(divided), "--json").out)


def test_diff_counts_and_writes_the_rows(gotorb, divided, project):
    new = write_version(divided, project / "new", removals(np.array([0, 1]), "doubtful"))
    said = gotorb("data", "diff", str(divided), str(new), "--rows", "rows.csv")
    assert said.code == 0
    assert "118 rows are the same" in said.out and "doubtful" in said.out
    assert pd.read_csv("rows.csv")["id"].tolist() == ["row000", "row001"]
    told = json.loads(gotorb("data", "diff", str(divided), str(new), "--json").out)
    assert told["same"] == 118 and sum(change["n_rows"] for change in told["changes"]) == 2


def test_card_is_json(gotorb, divided):
    assert json.loads(gotorb("data", "card", str(divided)).out)["n_rows"] == 120


def test_folder_that_is_no_data_set_is_one_line(gotorb, project):
    for action in ("card", "leaks"):
        said = gotorb("data", action, str(project))
        assert said.code == 1 and said.err.count("\n") == 1 and "no data_labels.csv" in said.err
    said = gotorb("data", "verify", str(project))
    assert said.code == 1 and "no data_labels.csv" in said.out
