"""Files written whole or not at all; digests of files, folders and values."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotorb.core.logs import one_line
from gotorb.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a disk that takes no more."""
WHOLE_BYTES, N_BLOCKS, BLOCK = 1 << 23, 32, 1 << 16
"""Largest file of which `content_states` reads all bytes; number and bytes of the blocks read of a larger one."""


@contextmanager
def whole_file(path: Path | str, *, shared: bool = False) -> Iterator[Path]:
    """Write a file under another name, force it to disk, then let it replace the old one.

    Parameters
    ----------
    path : path
        File to make or replace. It stays as it was when the block raises or the process dies. Its folder is made when
        absent.
    shared : bool
        True where two processes may write this file at the same time: each then writes under a name of its own.

    Yields
    ------
    Path
        Where to write: a file in the same folder with the same suffix. It is gone afterwards in any case.

    Raises
    ------
    OSError
        If the file cannot be written; see `reported_writes`.

    Examples
    --------
    >>> with whole_file("answer.json") as aside:  # doctest: +SKIP
    ...     aside.write_text("{}")
    """
    path = Path(path)
    mark = f".{uuid.uuid4().hex}" if shared else ""
    aside = path.with_name(f".{path.stem}{mark}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        fsync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    fsync(path.parent)


def fsync(path: Path | str) -> None:
    """Force a file or folder to disk.

    Parameters
    ----------
    path : path
        File or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_write(path: Path | str, error: Exception) -> DataError:
    """Error for a full disk, or one that cannot be written for another reason.

    Parameters
    ----------
    path : path
        File or folder that was to be written.
    error : Exception
        Error of the system or of a library.

    Returns
    -------
    DataError
        To be raised.
    """
    return DataError(f"cannot write {path} ({one_line(error)}); free space or fix the permissions, then run again")


@contextmanager
def reported_writes(path: Path | str) -> Iterator[None]:
    """Turn errors of a full disk inside the block into a DataError with an instruction.

    Parameters
    ----------
    path : path
        Named in the message.

    Raises
    ------
    DataError
        For an OSError, or the RuntimeError with which h5py closes a file on a full disk.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise cannot_write(path, error) from None


def plain_name(name: str) -> str:
    """Refuse a name that leads out of the folder in which it is to be made.

    Parameters
    ----------
    name : str
        Of a folder or file.

    Returns
    -------
    str
        The same name.

    Raises
    ------
    ConfigError
        If it is empty, absolute, has a separator, begins with a dot, or holds control characters.

    Examples
    --------
    >>> plain_name("braai")
    'braai'
    """
    text = str(name)
    if not text or text.startswith(".") or any(one in "/\\\0" or not one.isprintable() for one in text):
        raise ConfigError(f"name is {text!r}; give a plain name without '/', '..' or control characters")
    return text


def write_text(path: Path | str, text: str) -> Path:
    """Write a UTF-8 text file, whole or not at all.

    Parameters
    ----------
    path : path
        File to make or replace.
    text : str
        Its content.

    Returns
    -------
    Path
        The file.
    """
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: Path | str, content: Any, *, indent: int = 2) -> Path:
    """Write json with sorted keys, so that equal content is equal bytes; whole or not at all.

    Parameters
    ----------
    path : path
        File to make or replace.
    content : dict or list
        Plain values. NaN and infinity are refused: they are not json.
    indent : int
        Spaces of a level.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return write_text(path, json.dumps(content, indent=indent, sort_keys=True, allow_nan=False) + "\n")


def write_csv(path: Path | str, table: pd.DataFrame, *, inert: bool = False, **options: Any) -> Path:
    r"""Write a table as csv without its index, lines ended by ``\n`` on every system; whole or not at all.

    Parameters
    ----------
    path : path
        File to make or replace.
    table : DataFrame
        Its rows.
    inert : bool
        True for a table that people open: text that a spreadsheet would run as a formula gets an apostrophe before it.
    **options
        Of `DataFrame.to_csv`.

    Returns
    -------
    Path
        The file.
    """
    if inert:
        texts = [name for name in table if table[name].dtype.kind not in "biuf"]
        table = table.assign(**{str(name): table[name].map(inert_cell) for name in texts})
    with whole_file(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n", **options)
    return Path(path)


def file_digest(path: Path | str) -> str:
    """Hex sha256 of a file, read in blocks.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        64 hex digits.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(paths: Iterable[Path]) -> str:
    """Hex sha256 over the digests of several files.

    Parameters
    ----------
    paths : iterable of path
        Files; their order counts, their names do not.

    Returns
    -------
    str
        64 hex digits.
    """
    return hashlib.sha256("".join(map(file_digest, paths)).encode()).hexdigest()


def value_digest(value: Any, *, n_digits: int = 16) -> str:
    """Short digest of plain values, as a name for what they decide.

    Parameters
    ----------
    value : object
        Text, numbers, tuples, dictionaries and dataclasses of these: anything with a complete `repr`.
    n_digits : int
        Hex digits wanted, at most 64.

    Returns
    -------
    str
        The first digits of the sha256 of the value's `repr`.

    Examples
    --------
    >>> value_digest(("a", 1)) == value_digest(("a", 1)), len(value_digest(1, n_digits=8))
    (True, 8)
    """
    return hashlib.sha256(repr(value).encode()).hexdigest()[:n_digits]


def content_states(paths: Iterable[Path | str], *, whole: bool = False) -> list[tuple[str, int, str]]:
    """Names, sizes and digests of files: the inputs in the recipe of a folder.

    Paths count, times do not: a touched file is the same input, a copy in another folder is not. A file of up to
    `WHOLE_BYTES` is read whole. Of a larger one, evenly spaced blocks are read: an image that was processed again
    differs in all of them, a change of a few bytes in place may be missed.

    Parameters
    ----------
    paths : iterable of path
        Files, of which some may be absent; for a folder, the files directly in it.
    whole : bool
        True to read large files whole too: where the work reads them whole anyway.

    Returns
    -------
    list of tuple
        (name, bytes, hex sha256); -1 and "" where there is no file.
    """
    files = [one for path in map(Path, paths) for one in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [
        (str(path), path.stat().st_size, _content_digest(path, whole)) if path.is_file() else (str(path), -1, "")
        for path in files
        if not path.is_dir()
    ]


def _content_digest(path: Path, whole: bool) -> str:
    size = path.stat().st_size
    if whole or size <= WHOLE_BYTES:
        return file_digest(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(N_BLOCKS):
            file.seek((size - BLOCK) * number // (N_BLOCKS - 1))
            digest.update(file.read(BLOCK))
    return digest.hexdigest()


def file_states(paths: Iterable[Path | str]) -> list[tuple[str, int, int]]:
    """Names, sizes and times of change of files: a cheap identity for work that is resumed and copies that are kept.

    Parameters
    ----------
    paths : iterable of path
        Files, of which some may be absent.

    Returns
    -------
    list of tuple
        (name, bytes, time of change [ns]); -1 for both where there is no file.
    """
    states = []
    for path in map(Path, paths):
        stat = path.stat() if path.is_file() else None
        states.append((str(path), stat.st_size if stat else -1, stat.st_mtime_ns if stat else -1))
    return states


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First letters of what a spreadsheet takes for a formula."""


def inert_cell(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula: an apostrophe before it.

    Parameters
    ----------
    value : object
        Cell of a table.

    Returns
    -------
    object
        Other values as they are.

    Examples
    --------
    >>> inert_cell("=1+1"), inert_cell("m31"), inert_cell("-1.5"), inert_cell(-1.5)
    ("'=1+1", 'm31', '-1.5', -1.5)
    """
    if not isinstance(value, str) or value[:1] not in FORMULA:
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
