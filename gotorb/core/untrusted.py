"""Untrusted files, opened within limits: HDF5 without links to other files, json and csv of bounded size.

A file that is not ours may be made to exhaust memory, or to have other files read. Each reader checks what a file
declares before anything of that size is allocated. A library that decides by itself how much it allocates reads in a
separate process (`read_apart`), whose memory and CPU time the system limits.
"""

import bz2
import gzip
import io
import json
import lzma
import math
import os
import resource
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import h5py
import numpy as np

from gotorb import errors


@dataclass(frozen=True)
class Limits:
    """Largest content of a file that is read.

    Attributes
    ----------
    nodes : int
        Groups, arrays and attributes, counted as often as they are linked.
    depth : int
        Levels of groups, or of lists and mappings.
    values : int
        Values of all arrays together.
    text : int
        Characters of a text.
    """

    nodes: int = 20_000
    depth: int = 32
    values: int = 60_000_000
    text: int = 8_000_000


LIMITS = Limits()
MOST_MEMBERS = 200
"""Members of an archive."""
MOST_COLUMNS, MOST_HEADER = 4_096, 1 << 20
"""Columns of a csv, and bytes of its first line."""
MOST_UNSTORED, MOST_PACKED = 1 << 24, 200
"""Bytes of an array that need not be stored, and how many times smaller than its content a larger one may be."""


MOST_UNPACKED, AT_ONCE = 1 << 31, 1 << 24
"""Bytes of a file of images or a catalogue once it is unpacked, and those that are unpacked at a time."""
MOST_TEXT, TEXTS_AT_ONCE = 1_000, 64
"""Characters of an id, and ids of any length that are read at a time."""


class UntrustedFile(ValueError):
    """A file exceeds the limits or refers to other files."""


@contextmanager
def open_hdf5(path: Path | str | BinaryIO, limits: Limits = LIMITS) -> Iterator[h5py.File]:
    """Open an HDF5 file whose links, storage and sizes were checked.

    Parameters
    ----------
    path : path or file object
        The file.
    limits : Limits
        Largest content.

    Yields
    ------
    h5py.File
        To read.

    Raises
    ------
    UntrustedFile
        If it has soft or external links, arrays stored in other files, arrays of objects, or is too large.
    OSError
        If it is no HDF5 file.
    """
    if isinstance(path, str | Path):
        check_regular(Path(path))
    with h5py.File(path, "r", locking=False) as file:
        count_values(file, limits)
        yield file


def look_through(path: Path, *, member: str = "", most: int = MOST_UNPACKED) -> dict[str, np.ndarray]:
    """Read all of an HDF5 file: a job for `read_apart`, since the library never ends on some damaged files.

    Parameters
    ----------
    path : Path
        The file, or a zip archive that holds it.
    member : str
        Its name in the archive.
    most : int
        Bytes of all members together.

    Returns
    -------
    dict
        Empty.
    """

    def read(_: str, node: h5py.HLObject) -> None:
        dict(node.attrs)
        if isinstance(node, h5py.Dataset):
            node[()]

    with open_hdf5(io.BytesIO(read_zip(path, member, most)) if member else path) as file:
        read("", file)
        file.visititems(read)
    return {}


def check_regular(path: Path) -> None:
    """Refuse a pipe, a device or a folder in the place of a file: reading it may never end.

    Parameters
    ----------
    path : Path
        The file, which may be absent.

    Raises
    ------
    UntrustedFile
        If it is something else.
    """
    if path.exists() and not path.is_file():
        raise UntrustedFile(f"{path} is not a regular file")


def count_values(file: h5py.File, limits: Limits = LIMITS) -> int:
    """Check a file's links, storage and sizes.

    Parameters
    ----------
    file : h5py.File
        Open to read.
    limits : Limits
        Largest content.

    Returns
    -------
    int
        Values of all its arrays.

    Raises
    ------
    UntrustedFile
        As `open_hdf5`.
    """
    walk = _Walk(limits)
    walk.group(file, 0)
    return walk.n_values


class _Walk:
    """A walk through a file that counts its nodes and values."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.n_nodes, self.n_values = limits, 0, 0

    def group(self, group: h5py.Group, depth: int) -> None:
        if depth > self.limits.depth:
            raise UntrustedFile(f"groups deeper than {self.limits.depth} levels")
        self._count(len(group) + len(group.attrs))
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise UntrustedFile(f"{group.name}/{name} is a {type(link).__name__}, not data of this file")
            node = group[name]
            if isinstance(node, h5py.Group):
                self.group(node, depth + 1)
            elif isinstance(node, h5py.Dataset):
                self._dataset(node)

    def _dataset(self, node: h5py.Dataset) -> None:
        check_storage(node)
        self._count(len(node.attrs))
        self.n_values += math.prod(node.shape or ())
        if self.n_values > self.limits.values:
            raise UntrustedFile(f"more than {self.limits.values} values")

    def _count(self, n: int) -> None:
        self.n_nodes += n
        if self.n_nodes > self.limits.nodes:
            raise UntrustedFile(f"more than {self.limits.nodes} groups, arrays and attributes")


def check_storage(node: h5py.Dataset) -> None:
    """Refuse an array whose values are in other files, or are objects.

    Parameters
    ----------
    node : h5py.Dataset
        The array.

    Raises
    ------
    UntrustedFile
        If it is one.
    """
    stored = node.id.get_storage_size()
    if node.nbytes > MOST_UNSTORED and node.nbytes > MOST_PACKED * max(stored, 1):
        raise UntrustedFile(f"{node.name} declares {node.nbytes} bytes and stores {stored}")
    if node.is_virtual or node.external:
        raise UntrustedFile(f"{node.name} has its values in other files")
    if node.dtype.kind == "O" and h5py.check_string_dtype(node.dtype) is None and not h5py.check_ref_dtype(node.dtype):
        raise UntrustedFile(f"{node.name} holds objects")


def find_array(file: h5py.File, key: str) -> h5py.Dataset:
    """Find an array in the file itself, not behind links, whose storage was checked.

    Parameters
    ----------
    file : h5py.File
        Open to read.
    key : str
        Name of the array, with those of its groups.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    KeyError
        If there is none.
    UntrustedFile
        If it is in another file, behind a link, holds objects, or declares more than it stores.
    """
    node: Any = file
    for part in key.strip("/").split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            raise KeyError(f"no array {key} among {', '.join(list(file)[:8])}")
        if not isinstance(link, h5py.HardLink):
            raise UntrustedFile(f"{key} is a {type(link).__name__}, not data of this file")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise KeyError(f"no array {key} among {', '.join(list(file)[:8])}")
    check_storage(node)
    return node


def read_texts(node: h5py.Dataset) -> np.ndarray:
    """Texts of an array, a few at a time: all of them may refer to one long text.

    Parameters
    ----------
    node : h5py.Dataset
        (n,) texts, stored as such or as bytes.

    Returns
    -------
    ndarray
        (n,) of str; what is not UTF-8 is replaced.

    Raises
    ------
    UntrustedFile
        If one is longer than `MOST_TEXT` characters: an array of str takes as much for each of them.
    """
    step = TEXTS_AT_ONCE if node.dtype.kind == "O" else max(1, AT_ONCE // max(1, node.dtype.itemsize))
    found: list[str] = []
    for start in range(0, len(node), step):
        part = [
            one.decode(errors="replace") if isinstance(one, bytes) else str(one) for one in node[start : start + step]
        ]
        if max(map(len, part), default=0) > MOST_TEXT:
            raise UntrustedFile(f"{node.name} holds a text longer than {MOST_TEXT} characters")
        found += part
    return np.array(found, dtype=str)


PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes of packed files -> what unpacks them."""
BROKEN_PACKING = OSError, EOFError, zlib.error, lzma.LZMAError, UntrustedFile
"""Errors of `unpack_known` on damaged files; the end of the file before that of its content is an EOFError."""


def unpack_known(file: BinaryIO, n_packed: int) -> bytes | None:
    """Unpack a file of gzip, bzip2 or xz.

    Parameters
    ----------
    file : binary file
        At its beginning.
    n_packed : int
        Its size in bytes.

    Returns
    -------
    bytes or None
        Content; None for a file of another kind, which is then at its beginning again.
    """
    start = file.read(6)
    file.seek(0)
    opener = next((one for magic, one in PACKED.items() if start.startswith(magic)), None)
    if opener is None:
        return None
    with opener(file) as packed:
        return unpack(packed, n_packed)


def unpack(packed: Any, n_packed: int) -> bytes:
    """Unpack a file, unless it is much larger than images and tables are.

    Parameters
    ----------
    packed : file object
        Gives the unpacked bytes, as from `gzip.open`.
    n_packed : int
        Bytes of the packed file.

    Returns
    -------
    bytes

    Raises
    ------
    UntrustedFile
        If it is too large, or zeros that were packed.
    """
    parts: list[bytes] = []
    most = min(MOST_UNPACKED, max(MOST_UNSTORED, MOST_PACKED * n_packed))
    while part := packed.read(AT_ONCE):
        parts.append(part)
        if sum(map(len, parts)) > most:
            raise UntrustedFile(f"{n_packed} bytes that become more than {most} unpacked")
    return b"".join(parts)


def read_json(text: str | bytes, limits: Limits = LIMITS) -> Any:
    """Decode json of bounded length, depth and number of values.

    Parameters
    ----------
    text : str or bytes
        The json.
    limits : Limits
        Largest content.

    Returns
    -------
    object

    Raises
    ------
    UntrustedFile
        If it is broken or too large.
    """
    if len(text) > limits.text:
        raise UntrustedFile(f"json of {len(text)} characters, more than {limits.text}")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UntrustedFile(f"broken json ({error})") from None
    if depth_of(found, limits.depth) > limits.depth:
        raise UntrustedFile(f"json deeper than {limits.depth} levels")
    return found


def depth_of(value: Any, most: int) -> int:
    """Levels of lists and mappings in a value, counted no further than one above `most`.

    Parameters
    ----------
    value : object
        Plain value.
    most : int
        Levels allowed.

    Returns
    -------
    int

    Examples
    --------
    >>> depth_of({"a": [1]}, 5), depth_of([[[[]]]], 1)
    (2, 2)
    """
    level, depth = [value], 0
    while depth <= most:
        containers = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in containers for item in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return depth + 1 if isinstance(value, dict | list) and depth == 0 else depth
        depth += 1
    return depth


def read_zip(path: Path, name: str, most: int) -> bytes:
    """Read a member of a zip archive whose sizes were checked.

    Parameters
    ----------
    path : Path
        The archive.
    name : str
        Of the member.
    most : int
        Bytes of all members together.

    Returns
    -------
    bytes

    Raises
    ------
    UntrustedFile
        If it is no archive, has no such member, or is too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(one.file_size for one in archive.infolist())
            if total > most or len(archive.infolist()) > MOST_MEMBERS:
                raise UntrustedFile(f"{len(archive.infolist())} members of {total} bytes, more than {most}")
            if name not in archive.namelist():
                raise UntrustedFile(f"no {name} in it")
            with archive.open(name) as member:
                content = member.read(most + 1)
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, zlib.error) as error:
        raise UntrustedFile(f"a broken archive ({error})") from None
    if len(content) > most:
        raise UntrustedFile(f"{name} is larger than {most} bytes")
    return content


def check_header(path: Path) -> None:
    """Refuse a csv whose first lines are too long or have too many columns: reading it would take hours.

    Parameters
    ----------
    path : Path
        The csv.

    Raises
    ------
    UntrustedFile
        If it is.
    """
    check_regular(path)
    with path.open("rb") as file:
        lines = [file.readline(MOST_HEADER + 1) for _ in range(2)]
    if any(len(line) > MOST_HEADER or line.count(b",") > MOST_COLUMNS for line in lines):
        raise UntrustedFile(f"{path} has more than {MOST_COLUMNS} columns or a line over {MOST_HEADER} bytes")


APART_BYTES, APART_SECONDS, APART_WALL = 1 << 30, 60, 900
"""Memory and CPU seconds that a reading process may take besides its imports, and the longest wait for it [s]."""
RESULT, TOLD, OUT_OF_MEMORY = "result.npz", "told.json", "MemoryError"
READER = "import sys; from gotorb.core.untrusted import _read_here; _read_here(*sys.argv[1:])"
ONE_THREAD = {
    "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2",
}  # fmt: skip
"""Environment of a reading process: each thread would reserve memory, which counts."""
Arrays = dict[str, np.ndarray]


def read_apart(
    job: Callable[..., Arrays], path: Path, *, memory: int = APART_BYTES, seconds: int = APART_SECONDS, **options: Any
) -> Arrays:
    """Read a file in a separate process, within limits of memory and CPU time.

    Parameters
    ----------
    job : callable
        ``job(path, **options) -> {name: array}``: a module-level function. Only plain arrays come back.
    path : Path
        The file or folder.
    memory : int
        Bytes that the process may allocate once its modules are imported.
    seconds : int
        CPU seconds, likewise.
    **options
        Plain values of the job: they travel as json.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    UntrustedFile
        If a limit is exceeded or the process dies: with the name of the limit or of the signal.
    GotorbError
        The job's own, of the same class.
    """
    named = {"module": job.__module__, "name": job.__name__, "path": str(path), "options": options}
    root = str(Path(errors.__file__).parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    with TemporaryDirectory() as folder:
        (Path(folder) / TOLD).write_text(json.dumps(named | {"memory": memory, "seconds": seconds}))
        try:
            done = subprocess.run(
                [sys.executable, "-c", READER, folder], env=os.environ | ONE_THREAD | {"PYTHONPATH": paths},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=APART_WALL,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UntrustedFile(f"{path} was not read within {APART_WALL} s") from None
        if not (Path(folder) / RESULT).exists():
            told = json.loads((Path(folder) / TOLD).read_text())
            raise _failure(path, told, done.returncode)
        try:
            with np.load(Path(folder) / RESULT, allow_pickle=False) as found:
                return dict(found)
        except ValueError:
            raise UntrustedFile(f"{path} was read as objects, not as arrays") from None


def _failure(path: Path, told: dict[str, Any], code: int) -> Exception:
    """Error of a reading process that gave no result."""
    kind = getattr(errors, str(told.get("error")), None)
    if kind is not None:
        return kind(told["text"])
    if told.get("error") == OUT_OF_MEMORY:
        return UntrustedFile(f"{path} takes more than {told['memory'] >> 20} MiB of memory to read")
    if -code in (signal.SIGXCPU, signal.SIGKILL):
        return UntrustedFile(f"{path} takes more than {told['seconds']} CPU seconds to read")
    if "text" in told:
        return UntrustedFile(f"{path} cannot be read ({told['text']})")
    ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return UntrustedFile(f"{path} ended the process that read it, within {told['memory'] >> 20} MiB of memory: {ended}")


def _read_here(folder: str) -> None:
    """Do the job of a reading process: the result is written last, and whole."""
    place = Path(folder)
    told = json.loads((place / TOLD).read_text())
    try:
        job = getattr(import_module(told["module"]), told["name"])
        _limit_process(told["memory"], told["seconds"])
        np.savez(place / "part.npz", **job(Path(told["path"]), **told["options"]))
        (place / "part.npz").rename(place / RESULT)
    except (errors.GotorbError, MemoryError) as error:
        (place / TOLD).write_text(json.dumps(told | {"error": type(error).__name__, "text": str(error)}))
    except Exception as error:  # a library's
        text = f"{type(error).__name__}: {error}"[:300]
        (place / TOLD).write_text(json.dumps(told | {"text": text}))


def _limit_process(memory: int, seconds: int) -> None:
    """Limit what this process takes from now on: memory, CPU time, and the size of a file that it writes."""
    status = Path("/proc/self/statm")
    used = int(status.read_text().split()[0]) * resource.getpagesize() if status.exists() else 1 << 32
    times = resource.getrusage(resource.RUSAGE_SELF)
    until = math.ceil(times.ru_utime + times.ru_stime) + seconds
    limits = {"AS": (used + memory,) * 2, "CPU": (until, until + 1), "FSIZE": (memory, memory), "CORE": (0, 0)}
    for name, (soft, hard) in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        allowed = resource.getrlimit(kind)[1]
        within = [one if allowed == resource.RLIM_INFINITY else min(one, allowed) for one in (soft, hard)]
        resource.setrlimit(kind, (within[0], within[1]))
