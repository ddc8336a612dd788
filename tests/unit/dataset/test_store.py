"""The csv and the hdf5 of a data set are one thing or an error."""

import tempfile
import time
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotorb.core import files, layout
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import DataError

from .conftest import make_stamps, make_table


def test_stamps_come_back_in_the_order_asked(data_dir):
    rows = [7, 3, 4, 5, 39, 3]
    np.testing.assert_array_equal(open_dataset(data_dir).read_stamps(rows), make_stamps()[rows])


def test_layers_come_back_in_the_order_asked(data_dir):
    got = open_dataset(data_dir).read_stamps([2], ["difference", "science"])
    np.testing.assert_array_equal(got, make_stamps()[[2]][..., [2, 0]])


def test_batches_cover_every_row_once(data_dir):
    parts = list(open_dataset(data_dir).batches(batch=16))
    assert [len(rows) for rows, _ in parts] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate([stamps for _, stamps in parts]), make_stamps())


def test_equal_content_is_equal_bytes_at_another_time(tmp_path):
    for name in "ab":
        time.sleep(1.1 * (name == "b"))  # time stamps in files count seconds
        write_dataset(tmp_path / name, make_table(), [make_stamps()[:13], make_stamps()[13:]])
    for path in (layout.labels_path, layout.stamps_path):
        assert path(tmp_path / "a").read_bytes() == path(tmp_path / "b").read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_stamp_that_is_not_finite_is_refused_and_nothing_is_left(tmp_path, bad):
    stamps = make_stamps()
    stamps[5, 0, 0, 0] = bad
    with pytest.raises(DataError, match="stamp 5 holds NaN"):
        write_dataset(tmp_path / "new", make_table(), [stamps])
    assert list((tmp_path / "new").iterdir()) == []


def test_failed_write_leaves_the_old_version(data_dir):
    before = layout.stamps_path(data_dir).read_bytes()
    with pytest.raises(DataError, match="39 stamps for 40 rows"):
        write_dataset(data_dir, make_table(), [make_stamps()[:39]])
    assert layout.stamps_path(data_dir).read_bytes() == before
    assert len(open_dataset(data_dir)) == 40


def test_missing_folder_says_what_to_give(tmp_path):
    with pytest.raises(DataError, match=r"no data_labels.csv in .*nowhere; give a folder made by label_data.make"):
        open_dataset(tmp_path / "nowhere")


def test_missing_hdf5_is_told(data_dir):
    layout.stamps_path(data_dir).unlink()
    with pytest.raises(DataError, match=r"no data_stamps.h5"):
        open_dataset(data_dir)


def test_csv_and_hdf5_of_different_length_are_refused(data_dir):
    pd.read_csv(layout.labels_path(data_dir)).iloc[:-1].to_csv(layout.labels_path(data_dir), index=False)
    with pytest.raises(DataError, match=r"holds 40 stamps but data_labels.csv holds 39 rows"):
        open_dataset(data_dir)


def test_moved_rows_are_refused(data_dir):
    pd.read_csv(layout.labels_path(data_dir)).iloc[::-1].to_csv(layout.labels_path(data_dir), index=False)
    with pytest.raises(DataError, match="row 0 is 'row000'"):
        open_dataset(data_dir)


@pytest.mark.parametrize("column", ["id", "label", "metalabel"])
def test_missing_column_is_named(data_dir, column):
    pd.read_csv(layout.labels_path(data_dir)).drop(columns=column).to_csv(layout.labels_path(data_dir), index=False)
    with pytest.raises(DataError, match=f"no column '{column}'"):
        open_dataset(data_dir)


def test_empty_table_is_refused(data_dir):
    pd.read_csv(layout.labels_path(data_dir)).iloc[:0].to_csv(layout.labels_path(data_dir), index=False)
    with pytest.raises(DataError, match="has no rows"):
        open_dataset(data_dir)


def test_empty_file_is_refused(data_dir):
    layout.labels_path(data_dir).write_text("")
    with pytest.raises(DataError, match="cannot be read as csv"):
        open_dataset(data_dir)


def test_doubled_id_is_named(data_dir):
    table = pd.read_csv(layout.labels_path(data_dir))
    table.loc[1, "id"] = "row000"
    table.to_csv(layout.labels_path(data_dir), index=False)
    with pytest.raises(DataError, match="id 'row000' is duplicate"):
        open_dataset(data_dir)


def test_cut_off_hdf5_is_refused(data_dir):
    path = layout.stamps_path(data_dir)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match="cannot be read as stamps"):
        open_dataset(data_dir)


def test_hdf5_without_layer_names_is_taken_as_the_six_layers(data_dir):
    with h5py.File(layout.stamps_path(data_dir), "r+") as file:
        del file[layout.STAMPS_KEY].attrs["layers"]
    assert open_dataset(data_dir).layers == layout.LAYERS


def test_unknown_layer_is_named_with_those_there(data_dir):
    with pytest.raises(DataError, match=r"no layer 'sky' .*has science, template"):
        open_dataset(data_dir).read_stamps([0], ["sky"])


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
ROW = st.tuples(TEXT, st.floats(), st.integers(-1, 1), st.sampled_from(["mp", "NA", "nan", "None", "a,b", '"', ""]))


@settings(deadline=None, max_examples=20)
@given(st.lists(ROW, min_size=1, max_size=20), st.integers(1, 5), st.integers(1, 7))
def test_rows_and_stamps_come_back_as_they_were_written(rows, size, block):
    text, mag, label, metalabel = zip(*rows, strict=True)
    ids = [f"{number}{name}" for number, name in enumerate(text)]
    table = pd.DataFrame(
        {"id": ids, "label": label, "metalabel": metalabel, "object_id": text, "mag": np.array(mag, float)}
    )
    stamps = np.random.default_rng(size).normal(size=(len(rows), size, size, 6)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(files, "fsync"):
        blocks = (stamps[start : start + block] for start in range(0, len(rows), block))
        data = open_dataset(write_dataset(folder, table, blocks))
        np.testing.assert_array_equal(data.read_stamps(range(len(rows))), stamps)
    for name in ("id", "label", "metalabel", "object_id"):
        assert data.table[name].tolist() == table[name].tolist()
    np.testing.assert_array_equal(data.table["mag"].to_numpy(float), table["mag"].to_numpy(float))


@pytest.mark.parametrize("point", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_write_stopped_at_any_point_leaves_a_whole_data_set_or_none(data_dir, monkeypatch, point, nth):
    """A data set that opens is the old or the new one, never rows of one with stamps of the other."""
    owner, plain, calls = (files, files.fsync, []) if point == "fsync" else (Path, Path.replace, [])

    def fail(*args):
        calls.append(args)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return plain(*args)

    monkeypatch.setattr(owner, point, fail)
    new = make_table(40).assign(id=[f"new{number}" for number in range(40)])
    with pytest.raises(DataError, match=r"cannot write .* \(.*No space left"):
        write_dataset(data_dir, new, [make_stamps() + 1])
    monkeypatch.undo()
    try:
        data = open_dataset(data_dir)
    except DataError as error:
        assert "no data_labels.csv" in str(error)
    else:
        shift = np.float32(data.table["id"][0] == "new0")
        np.testing.assert_array_equal(data.read_stamps(range(40)), make_stamps() + shift)
    assert not list(data_dir.glob("*.part*")) and not list(data_dir.glob(".*.part*"))
    assert open_dataset(write_dataset(data_dir, new, [make_stamps() + 1])).table["id"][0] == "new0"
