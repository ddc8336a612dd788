"""Folders of results: one writer at a time, a marker while they are unfinished, no replacement of other content.

The marker ``.unfinished`` stands in a folder from before the first file is written until after the last one. A folder
with it is not opened as a data set, whichever of its files a kill left behind. ``.recipe.json`` holds digests of what
decides the content: options and inputs. DVC sees neither.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gotorb.core import layout
from gotorb.core.files import cannot_write, file_digest, fsync, value_digest, write_json, write_text
from gotorb.errors import DataError

_WRITING: set[Path] = set()
"""Folders that this process is writing: it may open them before they are finished."""
CHANGING = (layout.SUMS_FILE, layout.EYEBALL_DB, layout.LABEL_ERRORS_CSV)
"""Files of a data set that change after it is written, and so have no digest there; nor have logs and hidden files."""


def settled_files(data_dir: Path) -> list[str]:
    """Names of the files of a data set whose digests are kept, so that flipped bytes are found later.

    Parameters
    ----------
    data_dir : Path

    Returns
    -------
    list of str
        Sorted; without folders, logs, hidden files, and the journal of labels, which changes.
    """
    found = (path.name for path in data_dir.iterdir() if path.is_file() and path.suffix != ".log")
    return sorted(name for name in found if not name.startswith((".", *CHANGING)))


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


Recipe = dict[str, Any]
"""What decides the content of a folder, by name: plain values, of which digests are kept."""


def check_recipe(data_dir: Path, recipe: Recipe) -> None:
    """Refuse a folder that holds finished content of another recipe.

    Parameters
    ----------
    data_dir : Path
        Folder that is to be written.
    recipe : dict
        Options and inputs of what is to be written.

    Raises
    ------
    DataError
        If it does, or nothing tells its recipe: it names what differs.
    """
    if is_finished(data_dir) and data_dir.resolve() not in _WRITING:
        _compare_recipe(data_dir, recipe, "a data set")


def _compare_recipe(folder: Path, recipe: Recipe, what: str) -> None:
    try:
        known = json.loads((folder / layout.RECIPE_FILE).read_text(encoding="utf-8"))
        differing = [name for name, digest in _digests(recipe).items() if known.get(name) != digest]
    except (OSError, ValueError, AttributeError, RecursionError):
        differing = ["an unknown recipe"]
    if differing:
        raise DataError(
            f"{folder} holds {what}, finished, that was made in another way ({', '.join(differing)}); it is not "
            "replaced: choose another name, or remove the folder"
        )


def _digests(recipe: Recipe) -> dict[str, str]:
    return {name: value_digest(value) for name, value in recipe.items()}


@contextmanager
def unfinished(data_dir: Path, recipe: Recipe | None = None) -> Iterator[None]:
    """Mark a data set as unfinished while its files are written; digests of all of them are written last.

    Blocks inside blocks are one. After an error the marker stays: some files may be of the new content.

    Parameters
    ----------
    data_dir : Path
        Its folder.
    recipe : dict, optional
        What decides the content; a finished folder of another recipe is refused (`check_recipe`).

    Yields
    ------
    None

    Raises
    ------
    DataError
        If the folder holds a finished data set of another recipe.
    """
    place, marker = data_dir.resolve(), data_dir / layout.UNFINISHED_FILE
    if place in _WRITING:
        yield
        return
    if recipe is not None:
        check_recipe(data_dir, recipe)
    write_text(marker, "the files of this folder are being written\n")
    (data_dir / layout.RECIPE_FILE).unlink(missing_ok=True)
    if recipe is not None:
        write_json(data_dir / layout.RECIPE_FILE, _digests(recipe))
    _WRITING.add(place)
    try:
        yield
        write_sums(data_dir)
        marker.unlink()
        fsync(data_dir)
    finally:
        _WRITING.discard(place)


@contextmanager
def whole_folder(folder: Path, recipe: Recipe) -> Iterator[None]:
    """Write a folder of results, with a marker while it is unfinished and its recipe last.

    Parameters
    ----------
    folder : Path
        Made when absent; one writer at a time.
    recipe : dict
        What decides the content.

    Yields
    ------
    None

    Raises
    ------
    DataError
        If another process writes into it, or it holds finished results of another recipe.
    """
    kept, marker = folder / layout.RECIPE_FILE, folder / layout.UNFINISHED_FILE
    is_new = not folder.exists()
    with hold_folder(folder):
        if kept.exists() and not marker.exists():
            _compare_recipe(folder, recipe, "results")
        before = set(folder.iterdir())
        write_text(marker, "the files of this folder are being written\n")
        try:
            yield
        except BaseException:
            if set(folder.iterdir()) <= before | {marker}:  # nothing was written yet
                marker.unlink(missing_ok=True)
                if is_new:
                    shutil.rmtree(folder)
            raise
        write_json(kept, _digests(recipe))
        marker.unlink()


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
    sums = (f"{file_digest(data_dir / name)}  {name}\n" for name in settled_files(data_dir))
    return write_text(data_dir / layout.SUMS_FILE, "".join(sums))
