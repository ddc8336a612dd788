"""The csv and the hdf5 of a data set are one thing or an error."""

import time

import h5py
import numpy as np
import pandas as pd
import pytest

from gotorb import layout
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
    with pytest.raises(DataError, match="id 'row000' stands twice"):
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
