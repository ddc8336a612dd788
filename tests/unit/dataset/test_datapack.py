"""The published pack's format: three replicas are read as they were written, hostile ones run nothing.

datapack_3_4.hkl was written by hickle 3.4.9 with dill, pandas 1.5.3 and h5py's handling of byte strings of the time.
"""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from gotorb import import_data
from gotorb.dataset.datapack import read_datapack, unpickle_shells
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError

OLD = Path(__file__).with_name("datapack_3_4.hkl")
STAMPS = np.arange(2 * 21 * 21 * 3, dtype=np.float32).reshape(2, 21, 21, 3)


class Attack:
    """Runs a command when it is unpickled by anything that trusts it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def write_pack(path: Path, table: bytes, stamps: np.ndarray = STAMPS) -> Path:
    """A pack in hickle 5's form."""
    with h5py.File(path, "w") as file:
        file["data/data0"] = stamps
        file["data/data1"] = np.frombuffer(table, np.uint8)
    return path


def test_pack_of_hickle_3_is_read_as_it_was_written() -> None:
    stamps, meta = read_datapack(OLD)
    assert stamps.shape == (6, 55, 55, 4) and stamps.dtype == np.float32
    assert stamps[:, 27, 27, 0].tolist() == [3, 6, 9, 12, 15, 18]
    assert meta["id"].tolist() == [f"u{number}" for number in range(6)]
    assert meta["label"].tolist() == [1, 0, 1, 0, 1, 0]
    assert meta["flag"].dtype == bool
    assert np.flatnonzero(meta["mag"].isna()).tolist() == [3]
    assert meta["mag"][0] == pytest.approx(18.548)
    assert meta["ut"].tolist() == ["1", "2", "1", "2", "3", "4"]
    assert meta["obs_date"].tolist() == [pd.Timestamp("2020-01-01")] * 6


def test_stamps_and_table_of_other_lengths_are_refused(tmp_path: Path) -> None:
    with h5py.File(OLD) as file:
        table = bytes(file["data_0/data_1"][0])
    with pytest.raises(DataError, match="2 stamps and 6 rows"):
        read_datapack(write_pack(tmp_path / "pack.hkl", table))


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_table_runs_nothing_and_is_named(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps(Attack(mark), protocol=protocol)
    with pytest.raises(DataError, match="mkdir"):
        read_datapack(write_pack(tmp_path / "pack.hkl", content))
    assert not mark.exists()
    pickle.loads(content)  # the control: it does run where it is trusted
    assert mark.exists()


def test_code_in_hickles_table_of_types_is_never_looked_at(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    with h5py.File(OLD) as file:
        table = bytes(file["data_0/data_1"][0])
    path = write_pack(tmp_path / "pack.hkl", table, np.zeros((6, 21, 21, 3), np.float32))
    with h5py.File(path, "a") as file:
        file["hickle_types_table/0"] = np.frombuffer(pickle.dumps(Attack(mark)), np.uint8)
    assert len(read_datapack(path).meta) == 6
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1, 2]),
        pickle.dumps(pd.DataFrame({"a": [1]}))[:-20],
        b"cdill._dill\n_load_type\n(S'FileType'\ntR.",
    ],
)
def test_damaged_or_foreign_tables_are_one_clear_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError) as caught:
        read_datapack(write_pack(tmp_path / "pack.hkl", content))
    assert "pack.hkl" in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_no_hickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pack.hkl"
    path.write_bytes(b"no hdf5")
    with pytest.raises(DataError, match="cannot be read"):
        read_datapack(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_datapack(tmp_path / "absent.hkl")


def test_external_and_virtual_data_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(STAMPS.tobytes())
    with h5py.File(tmp_path / "pack.hkl", "w") as file:
        file.create_dataset("data/data0", STAMPS.shape, np.float32, external=[(str(secret), 0, STAMPS.nbytes)])
    with pytest.raises(DataError, match="0 arrays"):
        read_datapack(tmp_path / "pack.hkl")


def test_names_of_other_modules_are_refused_whatever_they_are_called() -> None:
    for module in ("pandas.io.pickle", "numpy.f2py", "builtins", "os"):
        content = f"c{module}\nDataFrame\n.".encode()
        with pytest.raises(DataError, match=module):
            unpickle_shells(content, Path("pack.hkl"))


def test_pack_becomes_a_data_set_with_named_layers(tmp_path: Path) -> None:
    data = open_dataset(import_data.import_datapack(OLD, out_dir=tmp_path, name="pack"))
    assert data.layers == ("science", "template", "difference", "ptp")
    assert data.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert np.array_equal(data.read_stamps(range(6)), read_datapack(OLD).stamps)
    with pytest.raises(DataError, match="4 layers"):
        import_data.import_datapack(OLD, out_dir=tmp_path, name="other", layers=["science"])
