"""Ready-made stamps behind one contract: an archive (one hdf5, described by the rows of one csv) or alert packets."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import pandas as pd

from gotorb.core.params import BATCH_SIZE, ArchiveParams
from gotorb.core.untrusted import UntrustedFile, check_header, check_regular, find_array, read_texts
from gotorb.errors import DataError
from gotorb.survey.alerts import find_packets, holds_packets, make_reader, open_packets
from gotorb.survey.pixels import crop_stamps, kept_size, prepare_stamps


class StampSource(Protocol):
    """A table in the source's own columns, and its stamps in the same order."""

    @property
    def table(self) -> pd.DataFrame:
        """One row for each stamp."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the stamps' layers."""

    @property
    def size(self) -> int:
        """Side of a stamp in pixels."""

    def __len__(self) -> int:
        """Number of stamps."""

    def batches(self, batch: int = ...) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps, a batch at a time.

        Parameters
        ----------
        batch : int
            Largest number of stamps of a batch.

        Yields
        ------
        stamps : ndarray
            (m, size, size, n_layers), float32.
        missing : ndarray
            (m,) fraction of pixels without data.
        """


@dataclass(frozen=True, kw_only=True)
class StampArchive:
    """Ready-made stamps, read a batch at a time.

    Attributes
    ----------
    path : Path
        The hdf5.
    table : DataFrame
        The csv's rows in the hdf5's order; only ids when there is no csv.
    ids : ndarray
        (n,) ids of the rows, text.
    key : str
        Name of the array in the hdf5.
    layers : tuple of str
        Names of its layers.
    size : int
        Side of a stamp in pixels, of which the central ones are kept.
    background : str
        ``median`` subtracts each layer's median, because a sky level left in would hide the source from a network
        that normalises; ``none`` leaves the pixels as they are.
    """

    path: Path
    table: pd.DataFrame
    ids: np.ndarray
    key: str
    layers: tuple[str, ...]
    size: int
    background: str

    def __len__(self) -> int:
        return len(self.table)

    def batches(self, batch: int = BATCH_SIZE) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps, a batch at a time.

        Parameters
        ----------
        batch : int
            Largest number of stamps of a batch.

        Yields
        ------
        stamps : ndarray
            (m, size, size, n_layers), float32.
        missing : ndarray
            (m,) fraction of pixels without data.

        Raises
        ------
        DataError
            If the stamps cannot be read.
        """
        try:
            with h5py.File(self.path, "r") as file:
                array = find_array(file, self.key)
                for start in range(0, len(self), batch):
                    stamps, missing = prepare_stamps(array[start : start + batch], self.background)
                    yield crop_stamps(stamps, self.size), missing
        except (OSError, KeyError, UntrustedFile) as error:
            raise DataError(f"the stamps in {self.path} cannot be read ({error}); copy the file again") from None


def open_stamps(path: Path | str, params: ArchiveParams) -> StampSource:
    """Open alert packets (a ``.avro`` or ``.bin`` file or a folder of them) or a stamp archive (anything else).

    Parameters
    ----------
    path : path
    params : ArchiveParams

    Returns
    -------
    StampSource

    Raises
    ------
    DataError
        If there is nothing there, or it cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no {path}; give a stamp archive's folder or hdf5, or a folder of alert packets")
    if holds_packets(path):
        reader = make_reader(params.packets, params.size)
        return open_packets(find_packets(path), background=params.background, size=params.size, reader=reader)
    return open_archive(path, params)


def open_archive(path: Path | str, params: ArchiveParams) -> StampArchive:
    """Open a stamp archive: its folder, or its hdf5 alone (then without a table).

    Parameters
    ----------
    path : path
    params : ArchiveParams

    Returns
    -------
    StampArchive

    Raises
    ------
    DataError
        If a file is missing, cannot be read, or csv and hdf5 disagree.
    """
    path = Path(path)
    stamps_path = _find(path, params.stamps_file, "stamps") if path.is_dir() else path
    shape, known = _read_outline(stamps_path, params)
    ids = np.arange(shape[0]).astype(str) if known is None else known
    table = pd.DataFrame({params.ids_key: ids})
    if path.is_dir():
        table = _read_table(_find(path, params.table_file, "table"), ids, params, has_ids=known is not None)
    size = kept_size(shape[1], params.size, path)
    return StampArchive(
        path=stamps_path,
        table=table,
        ids=ids,
        key=params.stamps_key,
        layers=params.layers,
        size=size,
        background=params.background,
    )


def _read_outline(path: Path, params: ArchiveParams) -> tuple[tuple[int, ...], np.ndarray | None]:
    """Shape of the stamps and ids of the rows; None when the file has no ids."""
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            stamps, ids = find_array(file, params.stamps_key), None
            if params.ids_key in file:
                ids = _as_text(find_array(file, params.ids_key), path)
            shape, kind = stamps.shape, stamps.dtype.kind
    except (OSError, KeyError, UntrustedFile) as error:
        reason = str(error).strip("'\"")
        raise DataError(
            f"{path} cannot be read as a stamp archive ({reason}); "
            "check the file and label.archive.stamps_key in params.yaml"
        ) from None
    _check_shape(path, shape, kind, params)
    if ids is not None and len(ids) != shape[0]:
        raise DataError(f"{path} holds {shape[0]} stamps and {len(ids)} ids in {params.ids_key!r}; make it again")
    return shape, ids


def _find(folder: Path, pattern: str, what: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(
            f"{len(found)} files match {pattern!r} in {folder}, one is needed; give a folder of images, of packets or "
            f"of one archive, or set label.archive.{what}_file in params.yaml"
        )
    return found[0]


def _as_text(ids: h5py.Dataset, path: Path) -> np.ndarray:
    if ids.dtype.kind not in "iuSUO" or ids.ndim != 1:
        raise DataError(
            f"ids {ids.name[1:]!r} in {path} are {ids.ndim}-d of type {ids.dtype}, which names no row exactly; write "
            "a row of text or int64"
        )
    return read_texts(ids)


def _check_shape(path: Path, shape: tuple[int, ...], kind: str, params: ArchiveParams) -> None:
    if kind not in "fiu":
        raise DataError(f"{params.stamps_key!r} in {path} holds no numbers; set label.archive.stamps_key")
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != len(params.layers):
        raise DataError(
            f"{params.stamps_key!r} in {path} has shape {shape}; expected (n, size, size, {len(params.layers)}) "
            "for label.archive.layers in params.yaml"
        )
    if shape[0] == 0:
        raise DataError(f"{path} holds no stamps; give another file")


def _read_table(path: Path, ids: np.ndarray, params: ArchiveParams, *, has_ids: bool) -> pd.DataFrame:
    column = params.columns.get("candidate_id", params.ids_key)
    if isinstance(column, list):
        raise DataError(
            f"label.archive.columns.candidate_id is {column} in params.yaml; name the one column of row ids"
        )
    try:
        check_header(path)
        table = pd.read_csv(path, dtype={column: str}, low_memory=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as csv ({str(error).strip()}); check the file") from None
    if column not in table:
        raise DataError(
            f"no column {column!r} of row ids in {path} (has {', '.join(map(str, table.columns[:12]))}, ...); set "
            "label.archive.columns.candidate_id in params.yaml, and ids_key to the hdf5's array of the same ids"
        )
    if len(table) != len(ids) or (table[column].to_numpy(str) != ids).any():
        if not has_ids:
            raise DataError(
                f"no array {params.ids_key!r} of row ids in the hdf5 next to {path}; set label.archive.ids_key in "
                f"params.yaml to the array that holds the csv's {column!r}"
            )
        raise DataError(
            f"{path} ({len(table)} rows) and the stamps ({len(ids)}) differ in number or order of {column!r}; "
            "give the csv and the hdf5 of one archive"
        )
    return table
