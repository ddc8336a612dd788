"""meta.hkl: round trip, equal bytes, and hostile files."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import h5py
import hickle
import numpy as np
import pytest

from gotorb.errors import ModelError
from gotorb.training.meta import read_meta, write_meta

CONTENT: dict[str, Any] = {
    "text": "Grüße", "empty": "", "none": None, "flag": True, "n": 3, "x": 0.25, "names": ["a", "bb", "bb"], "no": [],
    "numbers": [1.5, 2.5], "pair": (1, 2), "nested": {"history": {"loss": [0.3, 0.2]}, "0": 1.5, "nothing": {}},
    "ids": np.array(["row-1", "ζ-2"]), "array": np.arange(6.0).reshape(2, 3), "mixed": ["a", None, 2],
}  # fmt: skip


def test_meta_comes_back_as_it_was(tmp_path: Path) -> None:
    found = read_meta(write_meta(tmp_path / "meta.hkl", CONTENT))
    assert list(found) == list(CONTENT)
    for name, value in CONTENT.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value and type(found[name]) is type(value), name


def test_hickle_itself_reads_the_file(tmp_path: Path) -> None:
    found = hickle.load(write_meta(tmp_path / "meta.hkl", CONTENT))
    assert found["text"] == "Grüße" and found["nested"]["history"]["loss"] == [0.3, 0.2]


def test_equal_content_written_later_is_equal_bytes(tmp_path: Path) -> None:
    first = write_meta(tmp_path / "meta.hkl", CONTENT).read_bytes()
    time.sleep(1.1)  # HDF5 counts in seconds
    assert write_meta(tmp_path / "meta.hkl", dict(CONTENT)).read_bytes() == first


def test_other_types_are_refused_when_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"meta\['nested'\]\['bad'\] is a Path|PosixPath"):
        write_meta(tmp_path / "meta.hkl", {"nested": {"bad": Path()}})
    assert not list(tmp_path.iterdir())


class Bomb:
    """Makes a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.filterwarnings("ignore")
def test_pickles_in_a_meta_file_are_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    hickle.dump({"x": Bomb(marker)}, str(tmp_path / "object.hkl"))
    write_meta(tmp_path / "table.hkl", CONTENT)
    write_meta(tmp_path / "attribute.hkl", CONTENT)
    payload = np.frombuffer(pickle.dumps(Bomb(marker)), np.uint8)
    with h5py.File(tmp_path / "table.hkl", "r+") as file:
        for name, entry in list(file["hickle_types_table"].items()):
            if entry.shape is not None:
                base = entry.attrs["base_type"]
                del file["hickle_types_table"][name]
                file["hickle_types_table"].create_dataset(name, data=payload).attrs["base_type"] = base
    with h5py.File(tmp_path / "attribute.hkl", "r+") as file:
        file["data"].attrs["type"] = np.void(payload.tobytes())
    assert read_meta(tmp_path / "table.hkl")["text"] == CONTENT["text"], "types are read by name, never unpickled"
    for name in ("object", "attribute"):
        with pytest.raises(ModelError, match="not a meta file of plain values"):
            read_meta(tmp_path / f"{name}.hkl")
    assert not marker.exists()


def test_links_out_of_the_file_are_refused(tmp_path: Path) -> None:
    write_meta(tmp_path / "other.hkl", {"secret": "text"})
    write_meta(tmp_path / "meta.hkl", {"a": 1})
    with h5py.File(tmp_path / "meta.hkl", "r+") as file:
        del file["data"]['"a"']
        file["data"]['"a"'] = h5py.ExternalLink(str(tmp_path / "other.hkl"), '/data/"secret"')
    with pytest.raises(ModelError, match="is a link"):
        read_meta(tmp_path / "meta.hkl")


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(50)])
def test_broken_meta_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meta.hkl").write_bytes(content)
    with pytest.raises(ModelError, match="not a meta file") as caught:
        read_meta(tmp_path / "meta.hkl")
    assert "\n" not in str(caught.value)
