"""Files that are made to do harm: each kind is refused, quickly and in little memory, and nothing in them is run."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb.catalogues.galaxies import SONS, find_galaxies, write_glade
from gotorb.catalogues.variables import read_variables
from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.core.params import ArchiveParams
from gotorb.core.untrusted import UntrustedFile, check_header, open_hdf5, read_json, read_zip
from gotorb.dataset.datapack import read_datapack
from gotorb.dataset.store import open_dataset, read_table
from gotorb.errors import GotorbError
from gotorb.labels.cleaning import read_flagged
from gotorb.labels.marshall import read_labels
from gotorb.survey.archives import open_archive
from gotorb.survey.planes import open_whole
from gotorb.training.backend import keras  # here, for its import takes longer than any file may
from gotorb.training.meta import read_meta, write_meta
from tests.unit.apps.small import make_small
from tests.unit.survey.synthetic import write_archive

MOST_MEMORY = 1 << 30
"""Bytes that reading a file may take."""


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_MEMORY


# --- meta.hkl ---------------------------------------------------------------------------------------


def meta_doubled(path: Path) -> None:
    """Groups that hold the next one twice: 2^40 parts in a small file."""
    write_meta(path, {"a": {"b": 1}})
    with h5py.File(path, "r+") as file:
        inner = file["data"]['"a"']
        for level in range(40):
            outer = file.create_group(f"level{level}")
            outer.attrs.update(inner.attrs)
            for number, name in enumerate(('"x"', '"y"')):
                outer[name] = inner
                outer[name].attrs["key_idx"] = number
            inner = outer
        file["data"]['"c"'] = inner
        inner.attrs["key_idx"] = 1


def meta_circle(path: Path) -> None:
    write_meta(path, {"a": {"b": 1}})
    with h5py.File(path, "r+") as file:
        file["data"]['"a"']['"c"'] = file["data"]


def meta_packed(path: Path) -> None:
    """3 GB of zeros in a few kB."""
    write_meta(path, {"a": np.arange(3.0)})
    with h5py.File(path, "r+") as file:
        old = file["data"]['"a"']
        attrs = dict(old.attrs)
        del file["data"]['"a"']
        made = file["data"].create_dataset('"a"', (3 << 27,), "f8", chunks=(1 << 20,), compression="gzip")
        made.attrs.update(attrs)


def meta_elsewhere(path: Path) -> None:
    write_meta(path, {"a": np.arange(3.0)})
    with h5py.File(path, "r+") as file:
        attrs = dict(file["data"]['"a"'].attrs)
        del file["data"]['"a"']
        made = file["data"].create_dataset('"a"', (2,), "f8", external=[("/etc/hostname", 0, 16)])
        made.attrs.update(attrs)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("make", [meta_doubled, meta_circle, meta_packed, meta_elsewhere])
def test_records_of_trainings(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "meta.hkl")
    assert (tmp_path / "meta.hkl").stat().st_size < 1 << 20
    with pytest.raises(GotorbError):
        read_meta(tmp_path / "meta.hkl")


# --- datapack.hkl -----------------------------------------------------------------------------------


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.parts


def plain(**more: Any) -> Any:
    return pd.DataFrame({"label": [1, 0], "metalabel": ["mp", "randjunk"]} | more)


PICKLES: dict[str, Callable[[Path], bytes]] = {
    "code": lambda mark: pickle.dumps(Call(os.system, f"touch {mark}")),
    "objects from bytes": lambda _: pickle.dumps(Call(np.ndarray, (2,), np.dtype("O"), b"\x41" * 16)),
    "objects by state": lambda _: pickle.dumps(
        Call(np.ndarray, (0,), np.dtype("u1"), state=(1, (2,), np.dtype("O"), False, b"\x41" * 16))
    ),
    "type with fields": lambda _: pickle.dumps(plain(x=np.zeros(2)).assign(y=[np.zeros(1, "f8,O8")] * 2)),
    "type by state": lambda _: pickle.dumps(
        Call(np.dtype, "f8", False, True, state=(3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 63))
    ),
    "memory": lambda _: b"\x80\x04K\x01r\xff\xff\xff\x7f.",
    "doubled": lambda _: b"\x80\x04]" + b"".join(b"(2ee" for _ in range(3)) + b".",
    "long text": lambda _: b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"x.",
    "depth": lambda _: b"\x80\x04" + b"(" * 10_000 + b"t" * 10_000 + b".",
    "pandas' reader": lambda mark: pickle.dumps(Call(pd.read_pickle, str(mark))),
}  # fmt: skip


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", PICKLES)
def test_tables_of_packs(kind: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "datapack.hkl"
    with h5py.File(path, "w") as file:
        file["data0"] = np.zeros((2, 5, 5, 4), np.float32)
        file["data1"] = np.frombuffer(PICKLES[kind](mark), np.uint8)
    with pytest.raises(GotorbError):
        read_datapack(path)
    assert not mark.exists()


@pytest.mark.timeout(5)
def test_packs_that_declare_more_than_they_store(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "datapack.hkl", "w") as file:
        file.create_dataset("data0", (10**5, 300, 300, 4), "f4", chunks=(1, 300, 300, 4))
        file["data1"] = np.frombuffer(pickle.dumps(plain()), np.uint8)
    with pytest.raises(GotorbError):
        read_datapack(tmp_path / "datapack.hkl")


# --- .keras and .h5 ---------------------------------------------------------------------------------


def make_model(path: Path, changes: dict[str, Any], *, kind: str = "Dense") -> Path:
    """A file of Keras 3 whose last layer was changed in its description."""
    stamps = keras.Input((8, 8, 2))
    score = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(stamps))
    model = keras.Model(stamps, score)
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(_changed(json.loads(file.attrs["model_config"]), changes, kind))
        return path
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(_changed(json.loads(parts["config.json"]), changes, kind)).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def _changed(config: Any, changes: dict[str, Any], kind: str) -> Any:
    layers = config["config"]["layers"]
    for layer in layers:
        for key, value in changes.items():
            if key in layer["config"]:
                layer["config"][key] = value
    if kind != "Dense":
        layers[1].update(class_name=kind, config={"name": layers[1]["config"]["name"], **changes})
    return config


HURT: dict[str, tuple[dict[str, Any], str]] = {
    "wide": ({"units": 10**9}, "Dense"),
    "embedding": ({"input_dim": 10**8, "output_dim": 64}, "Embedding"),
    "stamps": ({"batch_shape": [None, 30_000, 30_000, 2]}, "Dense"),
    "larger stamps": ({"batch_shape": [None, 700, 700, 2]}, "Dense"),
    "files": ({"vocabulary": "/etc/passwd"}, "StringLookup"),
    "other network": ({"filepath": "/tmp"}, "TFSMLayer"),
    "large values": ({"size": [250, 250]}, "UpSampling2D"),
    "large images": ({"height": 100_000, "width": 100_000}, "Resizing"),
    "code": ({"function": {"class_name": "__lambda__", "config": {"code": "4wE=", "defaults": None, "closure": None}}},
             "Lambda"),
}  # fmt: skip


@pytest.mark.timeout(10)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("kind", HURT)
def test_networks(kind: str, suffix: str, tmp_path: Path) -> None:
    from gotorb.training.model_files import read_model

    changes, layer = HURT[kind]
    with pytest.raises(GotorbError):
        read_model(make_model(tmp_path / f"model{suffix}", changes, kind=layer))


def test_good_networks_are_read(tmp_path: Path) -> None:
    from gotorb.training.model_files import read_model

    for suffix in (".h5", ".keras"):
        assert read_model(make_model(tmp_path / f"model{suffix}", {})).output_shape == (None, 1)


@pytest.mark.parametrize("kind", ["bomb", "no zip", "empty"])
def test_archives(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    if kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", bytes(1 << 27))
    else:
        path.write_bytes(b"PK" if kind == "no zip" else b"")
    with pytest.raises(UntrustedFile):
        read_zip(path, "config.json", 1 << 20)


# --- csv, stamps, json, ONNX ------------------------------------------------------------------------


@pytest.mark.timeout(5)
def test_tables_of_a_million_columns(tmp_path: Path) -> None:
    path = layout.labels_path(tmp_path)
    path.write_text(",".join(f"c{n}" for n in range(10**6)) + "\n" + ",".join(["1"] * 10**6) + "\n")
    with pytest.raises(GotorbError):
        read_table(tmp_path)
    with pytest.raises(UntrustedFile):
        check_header(path)


@pytest.mark.parametrize("kind", ["link", "soft", "virtual", "raw"])
def test_stamps_in_other_files(kind: str, tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    path = layout.stamps_path(data)
    with h5py.File(path, "r+") as file:
        shape, attrs = file[layout.STAMPS_KEY].shape, dict(file[layout.STAMPS_KEY].attrs)
        file.move(layout.STAMPS_KEY, "old")
        if kind == "link":
            file[layout.STAMPS_KEY] = h5py.ExternalLink(str(path), "/old")
        elif kind == "soft":
            file[layout.STAMPS_KEY] = h5py.SoftLink("/old")
        elif kind == "virtual":
            pieces = h5py.VirtualLayout(shape, "f4")
            pieces[:] = h5py.VirtualSource("/etc/hostname", "x", shape)
            file.create_virtual_dataset(layout.STAMPS_KEY, pieces).attrs.update(attrs)
        else:
            size = int(np.prod(shape)) * 4
            made = file.create_dataset(layout.STAMPS_KEY, shape, "f4", external=[("/etc/hostname", 0, size)])
            made.attrs.update(attrs)
    with pytest.raises(GotorbError):
        open_dataset(data)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 40 + "]" * 40, "{", "x" * 9_000_000])
def test_json(text: str) -> None:
    with pytest.raises(UntrustedFile):
        read_json(text)


def test_hdf5_in_memory_is_checked_too() -> None:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["x"] = h5py.SoftLink("/y")
    with pytest.raises(UntrustedFile), open_hdf5(content):
        pass


def test_onnx_with_weights_elsewhere(tmp_path: Path) -> None:
    from gotorb.training.onnx import read_portable

    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x12\x07gotorb:\x6a\x1d\x0a\x08location\x12\x11/etc/hostname.bin")
    with pytest.raises(GotorbError, match="other files"):
        read_portable(path)


@pytest.mark.parametrize("cell", ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_cells_that_a_spreadsheet_would_run(cell: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "out.csv", pd.DataFrame({"id": [cell, "a", "-1.5"], "x": [-1.0, 2, 3]}), inert=True)
    found = pd.read_csv(path, dtype={"id": str}, keep_default_na=False, lineterminator="\n")
    assert found["id"].tolist() == [f"'{cell}", "a", "-1.5"]
    assert found["x"].tolist() == [-1.0, 2, 3]


# --- stamp archives, catalogues and packed files ------------------------------------------------------


def link_stamps(file: h5py.File, kind: str, other: Path) -> None:
    """Put stamps of another file, or none at all, in the place of an archive's own."""
    shape = file["stamps"].shape
    with h5py.File(other, "w") as elsewhere:
        elsewhere.create_dataset("group/stamps", data=np.zeros(shape, np.float32))
    del file["stamps"]
    if kind == "external link":
        file["stamps"] = h5py.ExternalLink(str(other), "group/stamps")
    elif kind == "soft link":
        file["own"] = np.zeros(shape, np.float32)
        file["stamps"] = h5py.SoftLink("/own")
    elif kind == "virtual":
        layer = h5py.VirtualLayout(shape, np.float32)
        layer[:] = h5py.VirtualSource(str(other), "group/stamps", shape)
        file.create_virtual_dataset("stamps", layer)
    elif kind == "external":
        file.create_dataset("stamps", shape, "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
    elif kind == "declared":
        file.create_dataset("stamps", (shape[0], 2001, 2001, shape[3]), "f4", chunks=(1, 69, 69, 3))
    else:
        file["elsewhere"] = h5py.ExternalLink(str(other), "/group")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external", "declared", "group"])
def test_archives_of_stamps_hold_their_own(kind: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", 4)
    with h5py.File(archive / "my_stamps.h5", "a") as file:
        link_stamps(file, kind, tmp_path / "other.h5")
    key = "elsewhere/stamps" if kind == "group" else "stamps"
    with pytest.raises(GotorbError):
        next(open_archive(archive, ArchiveParams(stamps_key=key)).batches())


@pytest.mark.timeout(5)
def test_tables_of_archives_labels_and_stars_have_few_columns(tmp_path: Path) -> None:
    archive, wide = write_archive(tmp_path / "archive", 4), "a," * 1_000_000 + "candid\n" + "1," * 1_000_000 + "2\n"
    (archive / "my_meta.csv").write_text(wide)
    (tmp_path / "wide.csv").write_text(wide)
    for read in (read_labels, read_flagged, read_variables):
        with pytest.raises(GotorbError):
            read(tmp_path / "wide.csv")
    with pytest.raises(GotorbError):
        open_archive(archive, ArchiveParams())


@pytest.mark.timeout(5)
@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_packed_zeros_are_not_unpacked(suffix: str, tmp_path: Path) -> None:
    start = io.BytesIO()
    fits.PrimaryHDU().writeto(start)
    opener = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}[suffix]
    level = {"preset": 0} if suffix == "xz" else {"compresslevel": 1}
    with opener(tmp_path / f"a.fits.{suffix}", "wb", **level) as file:
        file.write(start.getvalue())
        for _ in range(10):
            file.write(bytes(1 << 22))
    for read in (lambda path: next(open_whole(path).gen), read_variables):
        with pytest.raises(GotorbError, match="unpacked"):
            read(tmp_path / f"a.fits.{suffix}")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", ["circle", "link", "beyond"])
def test_trees_of_galaxies_end(kind: str, tmp_path: Path) -> None:
    rows = np.column_stack([np.radians([[150.0, 2.0]]), [[16.0, np.nan, 40.0]]])
    write_glade(rows, tmp_path)
    path = tmp_path / "GLADE" / "GLADE_htm.hdf5"
    with h5py.File(path, "r+") as file:
        name = next(iter(file))
        index = file[name][:]
        if kind == "link":
            del file[name]
            file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), name)
        else:
            index[SONS] = np.arange(1, 5)[:, None] if kind == "circle" else 10.0**12
            file[name][...] = index
    with pytest.raises(GotorbError):
        find_galaxies(tmp_path, 150.0, 2.0, radius_arcsec=3600)
