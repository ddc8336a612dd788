"""A new version holds what is left, records every change, and the diff tells the same story."""

import json

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.dataset.versions import compare_datasets, flips, removals, write_version
from gotorb.errors import DataError


@pytest.fixture
def new_dir(data_dir, tmp_path):
    """Rows 3 and 4 removed, 6 flipped; of the two changes of row 4 the first holds."""
    changes = pd.concat(
        [
            removals(np.array([3, 4]), "known variable"),
            flips(np.array([4, 6]), "minor planet", label=layout.REAL, metalabel="asteroid"),
        ]
    )
    return write_version(data_dir, tmp_path / "data_y", changes)


def test_new_version_holds_the_other_rows_and_stamps(data_dir, new_dir):
    old, new = open_dataset(data_dir), open_dataset(new_dir)
    assert new.ids.tolist() == [id_ for id_ in old.ids if id_ not in ("row003", "row004")]
    np.testing.assert_array_equal(new.read_stamps([3, 4]), old.read_stamps([5, 6]))
    assert new.table.set_index("id").loc["row006", ["label", "metalabel"]].tolist() == [1, "asteroid"]


def test_source_stays_as_it_is_and_is_named_as_parent(data_dir, tmp_path):
    before = data_digest(data_dir)
    new_dir = write_version(data_dir, tmp_path / "data_z", removals(np.array([1]), "why"))
    assert data_digest(data_dir) == before
    card = json.loads((new_dir / layout.CARD_JSON).read_text())
    assert (card["parent"], card["changes"]) == (before, {"why": 1})


def test_every_change_is_recorded(new_dir):
    record = pd.read_csv(new_dir / layout.CHANGES_CSV)
    assert record[["id", "change", "reason"]].values.tolist() == [
        ["row003", "removed", "known variable"],
        ["row004", "removed", "known variable"],
        ["row006", "flipped", "minor planet"],
    ]


def test_diff_tells_rows_metalabels_and_reasons(data_dir, new_dir):
    diff = compare_datasets(data_dir, new_dir)
    assert diff.n_same == 37
    assert diff.summary().values.tolist() == [
        ["flipped", "randjunk", "minor planet", 1],
        ["removed", "mp", "known variable", 1],
        ["removed", "randjunk", "known variable", 1],
    ]
    back = compare_datasets(new_dir, data_dir)
    assert sorted(back.rows["change"]) == ["added", "added", "flipped"]


def test_diff_of_equal_versions_is_empty(data_dir):
    diff = compare_datasets(data_dir, data_dir)
    assert (len(diff.rows), diff.n_same) == (0, 40)


def test_diff_finds_edited_columns_moved_rows_and_other_pixels(data_dir, tmp_path):
    old = open_dataset(data_dir)
    stamps = old.read_stamps(range(40))
    split = write_dataset(tmp_path / "a", old.table.assign(split="train"), [stamps])
    stamps[9, 0, 0, 0] += 1
    table = old.table.assign(split="train")
    table.loc[5, "ra"] += 1
    table.loc[7, "split"] = "test"
    new = write_dataset(tmp_path / "b", table, [stamps])
    rows = compare_datasets(split, new).rows
    assert rows[["id", "change", "reason"]].values.tolist() == [
        ["row005", "edited", "ra"],
        ["row007", "moved", ""],
        ["row009", "repainted", ""],
    ]


def test_changing_a_data_set_in_place_is_refused(data_dir):
    with pytest.raises(DataError, match="changed in place"):
        write_version(data_dir, data_dir, removals(np.array([1]), "why"))


def test_removing_everything_is_refused_and_writes_nothing(data_dir, tmp_path):
    with pytest.raises(DataError, match="all 40 rows"):
        write_version(data_dir, tmp_path / "empty", removals(np.arange(40), "why"))
    assert not layout.labels_path(tmp_path / "empty").exists()
