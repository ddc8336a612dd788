"""Hostile pipes, tables, journals and networks: refused quickly and in little memory, by a reader apart if need be."""

import gzip
import os
import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.core.untrusted import UntrustedFile, look_through, open_hdf5, read_apart
from gotorb.dataset.card import read_card
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.datapack import read_datapack
from gotorb.dataset.folder import check_recipe
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, GotorbError, ImageError, ModelError
from gotorb.eyeball.decisions import Journal
from gotorb.survey.alerts import make_reader
from gotorb.survey.archives import open_archive
from gotorb.survey.planes import open_whole
from gotorb.training.meta import read_meta
from tests.unit.apps.small import make_small
from tests.unit.core import apart
from tests.unit.core.test_untrusted import little_memory, make_model  # noqa: F401
from tests.unit.survey.synthetic import write_archive

pytestmark = pytest.mark.usefixtures("little_memory")


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
