"""Folders of results: one writer at a time, a marker while they are unfinished, no replacement of other content.

The marker ``.unfinished`` stands in a folder from before the first file is written until after the last one. A folder
with it is not opened as a data set, whichever of its files a kill left behind. DVC does not see it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from gotorb.core import layout
from gotorb.core.files import cannot_write, file_digest, fsync, write_text
from gotorb.errors import DataError

_WRITING: set[Path] = set()
"""Folders that this process is writing: it may open them before they are finished."""
SUMMED = (
    layout.LABELS_CSV, layout.STAMPS_H5, layout.CARD_JSON, layout.CHANGES_CSV, layout.IMAGES_CSV, layout.EYEBALL_CSV,
)  # fmt: skip
"""Files of a data set whose digests are kept, so that flipped bytes are found later."""


@contextmanager
def hold_folder(folder: Path) -> Iterator[Path]:
    """Keep other processes from writing into a folder.

    Parameters
    ----------
    folder : Path
        Made when absent.

    Yields
    ------
    Path
        The same folder.

    Raises
    ------
    DataError
        If another process writes into it, with its number and machine; or if it cannot be made.
    """
    owner = folder / layout.OWNER_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%F %T} UTC")
    except Timeout:
        held_by = owner.read_text() if owner.exists() else "another run"
        raise DataError(f"{folder} is in use by {held_by}; wait for it, stop it or choose another name") from None
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield folder
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


@contextmanager
def unfinished(data_dir: Path) -> Iterator[None]:
    """Mark a data set as unfinished while its files are written; digests of all of them are written last.

    Blocks inside blocks are one. After an error the marker stays: some files may be of the new content.

    Parameters
    ----------
    data_dir : Path
        Its folder.

    Yields
    ------
    None
    """
    place, marker = data_dir.resolve(), data_dir / layout.UNFINISHED_FILE
    if place in _WRITING:
        yield
        return
    write_text(marker, "the files of this folder are being written\n")
    _WRITING.add(place)
    try:
        yield
        write_sums(data_dir)
        marker.unlink()
        fsync(data_dir)
    finally:
        _WRITING.discard(place)


def check_finished(data_dir: Path) -> None:
    """Refuse a folder whose files were not all written.

    Parameters
    ----------
    data_dir : Path
        A data set.

    Raises
    ------
    DataError
        If its marker says so.
    """
    if (data_dir / layout.UNFINISHED_FILE).exists() and data_dir.resolve() not in _WRITING:
        raise DataError(
            f"{data_dir} is unfinished: the run that wrote it was interrupted or still works; repeat the same call "
            "to finish it, or remove the folder"
        )


def is_finished(data_dir: Path) -> bool:
    """True for a folder that holds a complete data set.

    Parameters
    ----------
    data_dir : Path

    Returns
    -------
    bool
    """
    return layout.labels_path(data_dir).exists() and not (data_dir / layout.UNFINISHED_FILE).exists()


def write_sums(data_dir: Path | str) -> Path:
    """Write the sha256 of a data set's files in the form that ``sha256sum --check`` reads.

    Parameters
    ----------
    data_dir : path
        A data set.

    Returns
    -------
    Path
        The file of digests.
    """
    data_dir = Path(data_dir)
    known = [name for name in SUMMED if (data_dir / name).exists()]
    return write_text(
        data_dir / layout.SUMS_FILE, "".join(f"{file_digest(data_dir / name)}  {name}\n" for name in known)
    )
