"""Whatever is wrong with a data set on disk is found, and a sound one passes."""

import subprocess

import h5py
import numpy as np
import pytest

from gotorb.core import layout
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.folder import write_sums
from gotorb.dataset.store import write_dataset
from tests.unit.dataset.conftest import make_stamps, make_table


def rows_with_provenance():
    return make_table().assign(rule="a rule", code_version="1", candidate_id=[f"c{i}" for i in range(40)])


def write(folder, *, stamps=None, **columns):
    return write_dataset(
        folder / "data", rows_with_provenance().assign(**columns), [make_stamps() if stamps is None else stamps]
    )


def test_sound_data_set_passes(tmp_path):
    assert verify_dataset(write(tmp_path)) == []


def test_sums_are_in_the_form_of_sha256sum(tmp_path):
    data_dir = write(tmp_path)
    subprocess.run(
        ["sha256sum", "--check", "--strict", layout.SUMS_FILE], cwd=data_dir, check=True, capture_output=True
    )


@pytest.mark.parametrize("name", [layout.LABELS_CSV, layout.STAMPS_H5])
def test_one_flipped_bit_is_found(tmp_path, name):
    path = write(tmp_path) / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert any(f"{name} is not the file that was written" in line for line in verify_dataset(path.parent))


def test_every_file_of_a_folder_is_checked(tmp_path):
    data_dir = write(tmp_path)
    (data_dir / "notes.txt").write_text("seeing was bad")
    assert [line for line in verify_dataset(data_dir) if "notes.txt: it was added later" in line]
    write_sums(data_dir)
    for name in ("run.log", layout.EYEBALL_DB, f"{layout.EYEBALL_DB}-wal", ".lock"):
        (data_dir / name).write_text("changes")
    assert verify_dataset(data_dir) == []
    (data_dir / "notes.txt").write_text("seeing was good")
    assert ["notes.txt is not the file" in line for line in verify_dataset(data_dir)] == [True]


def test_rows_moved_in_the_csv_are_found(tmp_path):
    path = write(tmp_path) / layout.LABELS_CSV
    head, first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, second, first, *rest]))
    assert any("row 0 is 'row000'" in line for line in verify_dataset(path.parent))


def test_missing_sums_are_told(tmp_path):
    data_dir = write(tmp_path)
    (data_dir / layout.SUMS_FILE).unlink()
    assert "no SHA256SUMS" in verify_dataset(data_dir)[0]


def test_stamp_that_became_nan_is_found(tmp_path):
    data_dir = write(tmp_path)
    with h5py.File(layout.stamps_path(data_dir), "r+") as file:
        file[layout.STAMPS_KEY][7, 3, 3, 2] = np.nan
    assert "stamp holds NaN or infinity: row007" in verify_dataset(data_dir)


def test_stamp_that_occurs_twice_is_found(tmp_path):
    stamps = make_stamps()
    stamps[30] = stamps[4]
    assert verify_dataset(write(tmp_path, stamps=stamps)) == ["stamp has the pixels of an earlier one: row030"]


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        ({"label": [2, *[1] * 39], "metalabel": "marshall"}, "label is not 1, 0 or -1: row000"),
        ({"metalabel": ["mp", *["marshall"] * 39]}, "label contradicts its metalabel: row000"),
        ({"dec": [91.0, *[0.0] * 39]}, "dec outside -90 to 90: row000"),
        ({"rule": ["", *["a rule"] * 39]}, "no rule: the origin of the row is unknown: row000"),
        ({"candidate_id": ["c8", *[f"c{i}" for i in range(1, 40)]]}, "duplicate detection: row000, row008"),
    ],
)
def test_impossible_rows_are_found(tmp_path, columns, finding):
    assert verify_dataset(write(tmp_path, **columns)) == [finding]


def test_image_that_is_not_listed_is_found(tmp_path):
    data_dir = write(tmp_path)
    (data_dir / layout.IMAGES_CSV).write_text("image_id\n" + "".join(f"im{i}\n" for i in range(7)))
    write_sums(data_dir)
    assert verify_dataset(data_dir) == ["image is not in image.csv: row007, row015, row023, row031, row039"]


def test_missing_file_is_told(tmp_path):
    data_dir = write(tmp_path)
    layout.stamps_path(data_dir).unlink()
    assert any("no data_stamps.h5" in line for line in verify_dataset(data_dir))
