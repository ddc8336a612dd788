"""Files that are made to do harm: each kind is refused, quickly and in little memory, and nothing in them is run."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
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
from gotorb.core.untrusted import UntrustedFile, check_header, look_through, open_hdf5, read_apart, read_json, read_zip
from gotorb.dataset.card import read_card
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.datapack import read_datapack
from gotorb.dataset.folder import check_recipe
from gotorb.dataset.store import open_dataset, read_table
from gotorb.errors import DataError, GotorbError, ImageError, ModelError
from gotorb.eyeball.decisions import Journal
from gotorb.labels.cleaning import read_flagged
from gotorb.labels.marshall import read_labels
from gotorb.survey.alerts import make_reader
from gotorb.survey.archives import open_archive
from gotorb.survey.planes import open_whole
from gotorb.training.backend import keras  # here, for its import takes longer than any file may
from gotorb.training.meta import read_meta, write_meta
from tests.unit.apps.small import make_small
from tests.unit.core import apart
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


# --- pipes, tables, journals, sums -------------------------------------------------------------------


PIPES: dict[str, Callable[[Path], Any]] = {
    layout.LABELS_CSV: lambda path: open_dataset(path.parent),
    layout.STAMPS_H5: lambda path: open_dataset(path.parent),
    "my_meta.csv": lambda path: open_archive(path.parent, ArchiveParams()),
    "my_stamps.h5": lambda path: open_archive(path.parent, ArchiveParams()),
    "a.fits": lambda path: next(open_whole(path).gen),
    "a.avro": lambda path: list(make_reader().read_file(path)),
    "datapack.hkl": read_datapack,
    "meta.hkl": read_meta,
    "card.json": lambda path: read_card(path.parent),
    "model.h5": lambda path: next(open_hdf5(path).gen),
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", PIPES)
def test_pipes_in_the_place_of_files(name: str, tmp_path: Path) -> None:
    folder = write_archive(tmp_path / "data", 4) if name.startswith("my_") else make_small(tmp_path / "data")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises((GotorbError, UntrustedFile)):
        PIPES[name](folder / name)


TABLES = {
    "a row of 100,000 values": "id,label,metalabel\na,1,mp" + ",x" * 100_000,
    "rows without a column": "id,label,metalabel\na,1,mp,x,y\nb,1,mp,x,y",
    "a long id": f"id,label,metalabel\n{'a' * 100_000},1,mp\nb,0,mp",
    "an open quote": 'id,label,metalabel\n"' + "x\n" * 1_000_000,
    "zeros": "id,label,metalabel\n" + "\0" * 10_000_000,
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_data_sets(kind: str, tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    layout.labels_path(data).write_text(TABLES[kind])
    with pytest.raises(GotorbError):
        open_dataset(data)


@pytest.mark.parametrize("text", ["x" * 50_000, "\ud800"])
@pytest.mark.parametrize("kind", ["archive", "data set"])
def test_ids_of_any_length_and_bytes(kind: str, text: str, tmp_path: Path) -> None:
    ids = [text.encode(errors="surrogatepass")] * 3
    archive, data = write_archive(tmp_path / "archive", 3), make_small(tmp_path / "data", n=3)
    for path, name in ((archive / "my_stamps.h5", "candid"), (layout.stamps_path(data), layout.IDS_KEY)):
        with h5py.File(path, "r+") as file:
            del file[name]
            file.create_dataset(name, data=ids, dtype=h5py.string_dtype())
    with pytest.raises(GotorbError):
        open_archive(archive, ArchiveParams()) if kind == "archive" else open_dataset(data)


@pytest.mark.parametrize("layers", ["{", "5", "[" * 100_000, np.zeros(3)])
def test_layers_that_are_no_names(layers: Any, tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    with h5py.File(layout.stamps_path(data), "r+") as file:
        attrs = h5py.AttributeManager(file[layout.STAMPS_KEY])
        attrs["layers"] = layers if not isinstance(layers, str) or len(layers) < 1000 else layers[:60_000]
    with pytest.raises(GotorbError):
        open_dataset(data)


def test_stamps_that_cannot_be_decoded(tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    path = layout.stamps_path(data)
    with h5py.File(path, "r+") as file:
        old = file[layout.STAMPS_KEY]
        stamps, attrs = old[:], dict(old.attrs)
        del file[layout.STAMPS_KEY]
        made = file.create_dataset(layout.STAMPS_KEY, data=stamps, chunks=stamps.shape, compression="gzip")
        made.attrs.update(attrs)
        place, size = made.id.get_chunk_info(0).byte_offset, made.id.get_chunk_info(0).size
    content = path.read_bytes()
    path.write_bytes(content[:place] + bytes(size) + content[place + size :])
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(data).read_stamps([0])
    assert any("cannot be read" in found for found in verify_dataset(data))


@pytest.mark.parametrize("content", [b"\xff\xfe" * 500, b"broken\n\n", b"0  ../../etc/passwd\n0  \0\n0  pipe\n"])
def test_lists_of_digests(content: bytes, tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    os.mkfifo(data / "pipe")
    (data / layout.SUMS_FILE).write_bytes(content)
    assert any(layout.LABELS_CSV in found for found in verify_dataset(data))


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{"])
def test_recipes_and_cards(text: str, tmp_path: Path) -> None:
    data = make_small(tmp_path / "data")
    for name in (layout.RECIPE_FILE, layout.CARD_JSON):
        (data / name).write_text(text)
    with pytest.raises(DataError, match="unknown recipe"):
        check_recipe(data, {"options": 1})
    with pytest.raises(DataError, match="card"):
        read_card(data)


JOURNALS = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
    "view": "ALTER TABLE events RENAME TO old; CREATE VIEW events AS SELECT * FROM old",
    "other view": "CREATE VIEW v AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
    "expression": "ALTER TABLE events ADD COLUMN more TEXT AS (hex(zeroblob(100000000)))",
    "bytes": "INSERT INTO events (uuid, labeller, id, kind, blind, sequence, model, made_at)"
             " VALUES (x'ff', x'fe', 'a', 'real', 0, '', '', '')",
    "long": "INSERT INTO events (uuid, labeller, id, kind, blind, sequence, model, made_at)"
            " VALUES ('u', CAST(zeroblob(20000000) AS TEXT), 'a', 'real', 0, '', '', '')",
}  # fmt: skip


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", JOURNALS)
def test_journals_that_compute(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "eyeball.sqlite"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(JOURNALS[kind])
    with pytest.raises(DataError, match="journal"):
        Journal(path).current()


@pytest.mark.timeout(5)
def test_images_of_many_parts(tmp_path: Path) -> None:
    start, part = (cards_of(kind) for kind in ("SIMPLE  =                    T", "XTENSION= 'IMAGE   '"))
    (tmp_path / "a.fits").write_bytes(start + part * 20_000)
    with pytest.raises(ImageError, match="1000 HDUs"):
        next(open_whole(tmp_path / "a.fits").gen)


def cards_of(first: str) -> bytes:
    """An HDU without data."""
    rows = [first, "BITPIX  =                    8", "NAXIS   =                    0"]
    rows += ["PCOUNT  =                    0", "GCOUNT  =                    1"] if "XTENSION" in first else []
    return b"".join(row.ljust(80).encode() for row in (*rows, "END")).ljust(2880)


# --- reading in a process of its own -----------------------------------------------------------------


def test_reading_apart_gives_plain_arrays(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("1 2 3")
    found = read_apart(apart.read, tmp_path / "given", factor=2.5)
    assert found["values"].tolist() == [2.5, 5.0, 7.5]
    assert found["names"].tolist() == ["a", "é"]


HARM: list[tuple[Callable[..., Any], dict[str, Any], type[Exception], str]] = [
    (apart.grow, {"n_bytes": 1 << 31}, UntrustedFile, "given takes more than 128 MiB of memory"),
    (apart.loop, {}, UntrustedFile, "given takes more than 1 CPU seconds"),
    (apart.crash, {}, UntrustedFile, "given ended the process that read it.*SIGABRT"),
    (apart.fail, {}, UntrustedFile, "given cannot be read.*KeyError: 'absent'"),
    (apart.refuse, {}, ModelError, "given is no model"),
]


@pytest.mark.parametrize(("job", "options", "error", "told"), HARM, ids=[row[0].__name__ for row in HARM])
def test_a_reader_that_does_harm_ends_alone(
    job: Callable[..., Any], options: dict[str, Any], error: type[Exception], told: str, tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("1")
    before, cpu = own_peak(), own_children()
    with pytest.raises(error, match=told):
        read_apart(job, tmp_path / "given", memory=1 << 27, seconds=1, **options)
    assert own_peak() - before < 8 << 20
    assert own_children() - cpu < 5


def test_objects_do_not_come_back(tmp_path: Path) -> None:
    with pytest.raises(UntrustedFile, match="objects"):
        read_apart(apart.fail, tmp_path / "with.suffix")


def own_peak() -> int:
    """Largest memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def own_children() -> float:
    """CPU seconds of the processes that this one started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.long("a process reads until its time is over")
def test_damaged_files_on_which_the_library_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "endless.h5"
    path.write_bytes(gzip.decompress(Path(__file__).with_name("endless.h5.gz").read_bytes()))
    cpu = own_children()
    with pytest.raises(UntrustedFile, match="more than 1 CPU seconds"):
        read_apart(look_through, path, seconds=1)
    assert own_children() - cpu < 5


def test_files_are_looked_through(tmp_path: Path) -> None:
    make_model(tmp_path / "model.keras", {})
    assert read_apart(look_through, tmp_path / "model.keras", member="model.weights.h5", most=1 << 20) == {}
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["a"] = h5py.SoftLink("/b")
    with pytest.raises(UntrustedFile, match="SoftLink"):
        read_apart(look_through, tmp_path / "data.h5")
