"""One reader and one writer of a data set: a csv of rows and an hdf5 of stamps in the same order.

The hdf5 repeats the row ids, so that a csv and an hdf5 that do not belong together are refused.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TextIO

import h5py
import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import plain_name, reported_writes, whole_file, write_csv
from gotorb.core.logs import run_log
from gotorb.core.untrusted import (
    MOST_TEXT,
    UntrustedFile,
    check_header,
    check_regular,
    find_array,
    read_json,
    read_texts,
)
from gotorb.dataset.folder import check_finished, hold_folder, write_sums
from gotorb.errors import DataError

CHUNK_ROWS = 16
DATA_FILES = (layout.LABELS_CSV, layout.STAMPS_H5)
TEXT_COLUMNS = (
    "id", "image_id", "fits_filepath", "ut", "metalabel", "number", "candidate_id", "image_name",
    "object_id", "host_id", "rule", "catalogue", "code_version", "split",
)  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """A data set on disk; stamps are read on demand, a batch at a time.

    Attributes
    ----------
    data_dir : Path
        Folder of the two files.
    table : DataFrame
        The csv; text columns are str with "" for nothing, others float or int.
    layers : tuple of str
        Names of the stamps' layers.
    size : int
        Side of a stamp in pixels.
    """

    data_dir: Path
    table: pd.DataFrame
    layers: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return len(self.table)

    @property
    def ids(self) -> np.ndarray:
        """Row ids, (n,) of str."""
        return self.table["id"].to_numpy(dtype=str)

    @property
    def labels(self) -> np.ndarray:
        """Labels, (n,) of int: 1 real, 0 bogus, -1 unknown; others are refused (`check_labels`)."""
        return check_labels(self.table, where=self.data_dir)

    @cached_property
    def _file(self) -> h5py.File:
        return h5py.File(layout.stamps_path(self.data_dir), "r")

    def read_stamps(
        self, rows: Sequence[int] | np.ndarray, layers: Sequence[str] | None = None, *, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Stamps of some rows, in the order asked.

        Parameters
        ----------
        rows : sequence of int
            Row numbers.
        layers : sequence of str, optional
            Names of the layers wanted, in the order wanted; all when left out.
        out : ndarray, optional
            Where they go; new memory when left out.

        Returns
        -------
        ndarray
            (len(rows), size, size, n_layers), float32.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        source = self._file[layout.STAMPS_KEY]
        picked = self.layer_indices(layers)
        stamps = np.empty((len(rows), self.size, self.size, len(picked)), np.float32) if out is None else out
        try:
            for start, stop, where in _runs(np.asarray(rows, dtype=int)):
                stamps[where] = source[start:stop][..., picked]
        except OSError as error:
            path = layout.stamps_path(self.data_dir)
            raise DataError(f"stamps of {path} cannot be read ({error}); make the data set again") from None
        return stamps

    def batches(
        self,
        rows: Sequence[int] | np.ndarray | None = None,
        *,
        layers: Sequence[str] | None = None,
        batch: int = 256,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield stamps with their row numbers, a batch at a time.

        Parameters
        ----------
        rows : sequence of int, optional
            Row numbers; all when left out.
        layers : sequence of str, optional
            All when left out.
        batch : int
            Largest number of rows of a batch.

        Yields
        ------
        rows : ndarray of int
            (m,).
        stamps : ndarray
            (m, size, size, n_layers), float32.
        """
        rows = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=int)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            yield part, self.read_stamps(part, layers)

    def layer_indices(self, layers: Sequence[str] | None) -> list[int]:
        """Positions of the named layers.

        Parameters
        ----------
        layers : sequence of str or None
            All when None.

        Returns
        -------
        list of int

        Raises
        ------
        DataError
            If a layer is missing in the data set.
        """
        wanted = self.layers if layers is None else tuple(layers)
        absent = [name for name in wanted if name not in self.layers]
        if absent:
            raise DataError(
                f"no layer {absent[0]!r} in {layout.stamps_path(self.data_dir)} (has {', '.join(self.layers)}); "
                "name layers that the data set holds (train.layers in params.yaml)"
            )
        return [self.layers.index(name) for name in wanted]


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cover the wanted rows by reads of neighbouring rows: whole chunks are cheap, single rows are not."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    if len(ordered) == 0:
        return
    breaks = np.flatnonzero(np.diff(ordered) != 1) + 1
    for part in np.split(np.arange(len(ordered)), breaks):
        yield int(ordered[part[0]]), int(ordered[part[-1]]) + 1, order[part]


def open_dataset(data_dir: Path | str) -> Dataset:
    """Open a data set and check that its two files belong together.

    Parameters
    ----------
    data_dir : path

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If a file is missing, unreadable or empty, a column is absent, or csv and hdf5 disagree.
    """
    data_dir = Path(data_dir)
    check_finished(data_dir)
    table = read_table(data_dir)
    path = layout.stamps_path(data_dir)
    if not path.exists():
        raise DataError(f"no {path.name} in {data_dir}; make the data set again with label_data.make()")
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            check_links(file)
            shape = file[layout.STAMPS_KEY].shape
            layers = tuple(map(str, read_json(file[layout.STAMPS_KEY].attrs.get("layers", "null")) or layout.LAYERS))
            ids = read_texts(file[layout.IDS_KEY]) if layout.IDS_KEY in file else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as stamps ({error}); make the data set again") from None
    _check_agreement(path, shape, layers, ids, table)
    return Dataset(data_dir, table, layers, int(shape[1]))


def check_links(file: h5py.File) -> None:
    """Refuse stamps that are kept in another file.

    Parameters
    ----------
    file : h5py.File
        The stamps.

    Raises
    ------
    UntrustedFile
        If the stamps or ids are a link, or have their values elsewhere.
    """
    for name in (layout.STAMPS_KEY, layout.IDS_KEY):
        if file.get(name, getlink=True) is not None:
            find_array(file, name)


def _check_agreement(
    path: Path, shape: tuple[int, ...], layers: tuple[str, ...], ids: np.ndarray | None, table: pd.DataFrame
) -> None:
    if shape is None or len(shape) != 4 or shape[1] != shape[2] or shape[3] != len(layers):
        raise DataError(f"{layout.STAMPS_KEY!r} in {path} has shape {shape}; expected (n, size, size, {len(layers)})")
    if shape[0] != len(table):
        raise DataError(
            f"{path} holds {shape[0]} stamps but {layout.LABELS_CSV} holds {len(table)} rows; "
            "the two files are not of one run: make the data set again"
        )
    if ids is not None and not np.array_equal(ids, table["id"].to_numpy(dtype=str)):
        first = int(np.flatnonzero(ids != table["id"].to_numpy(dtype=str))[0])
        raise DataError(
            f"row {first} is {str(ids[first])!r} in {path} but {table['id'].iloc[first]!r} in {layout.LABELS_CSV}; "
            "rows were moved or edited in one file only: make the data set again"
        )


def read_table(data_dir: Path | str) -> pd.DataFrame:
    """Read data_labels.csv; text columns are str, "" where empty.

    Parameters
    ----------
    data_dir : path
        Folder of the data set.

    Returns
    -------
    DataFrame

    Raises
    ------
    DataError
        If the file is missing or empty, a needed column is missing, or an id is a duplicate.
    """
    path = layout.labels_path(data_dir)
    try:
        table = read_csv(path)
    except FileNotFoundError:
        raise DataError(f"no {path.name} in {data_dir}; give a folder made by label_data.make()") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, UntrustedFile) as error:
        raise DataError(f"{path} cannot be read as csv ({str(error).strip()}); make the data set again") from None
    absent = [name for name in ("id", "label", "metalabel") if name not in table]
    if absent:
        raise DataError(f"no column {absent[0]!r} in {path} (has {', '.join(table.columns)}); make the data set again")
    if table.empty:
        raise DataError(f"{path} has no rows; label more images")
    if table["id"].str.len().max() > MOST_TEXT or not isinstance(table.index, pd.RangeIndex):
        raise DataError(f"{path} has ids over {MOST_TEXT} characters, or rows without a column; make it again")
    if table["id"].duplicated().any():
        raise DataError(f"id {table['id'][table['id'].duplicated()].iloc[0]!r} is duplicate in {path}; remove one row")
    return table


def check_labels(table: pd.DataFrame, *, where: object = "the data set") -> np.ndarray:
    """Labels as integers; text, soft labels, other numbers and gaps are refused, never left out in silence.

    Parameters
    ----------
    table : DataFrame
        With id and label.
    where : object
        Name of the table, for messages.

    Returns
    -------
    ndarray of int
        (n,).

    Raises
    ------
    DataError
        If one is none of 1 (real), 0 (bogus), -1 (unknown).
    """
    labels = pd.to_numeric(table["label"], errors="coerce").to_numpy(float)
    wrong = np.flatnonzero(~np.isin(labels, (layout.REAL, layout.BOGUS, layout.UNKNOWN)))
    if len(wrong):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DataError(
            f"label {table['label'].iloc[wrong[0]]} of row {table['id'].iloc[wrong[0]]!r}{more} in {where} is none of "
            "1 (real), 0 (bogus), -1 (unknown); correct the label column"
        )
    return labels.astype(int)


def read_csv(source: Path | TextIO) -> pd.DataFrame:
    """Read a csv of rows; an object called NA keeps its name.

    Parameters
    ----------
    source : Path or file

    Returns
    -------
    DataFrame
        Text columns are str, "" where empty.
    """
    if isinstance(source, Path):
        check_header(source)
    table = pd.read_csv(
        source, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False, na_values=[""], low_memory=False
    )
    text = [name for name in TEXT_COLUMNS if name in table]
    return table.assign(**{name: table[name].fillna("") for name in text})


def write_dataset(
    data_dir: Path | str,
    table: pd.DataFrame,
    stamps: Iterable[np.ndarray],
    *,
    layers: Sequence[str] = layout.LAYERS,
) -> Path:
    """Write a data set, both files whole or none under their final names.

    Parameters
    ----------
    data_dir : path
        Folder; made when absent.
    table : DataFrame
        Rows, with at least id, label, metalabel.
    stamps : iterable of ndarray
        Blocks (m, size, size, n_layers) whose rows follow the table's; only one block is in memory at a time.
    layers : sequence of str
        Names of the layers.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If the stamps are not as many as the rows, not finite or of unequal shape, or the disk is full.
    """
    data_dir = Path(data_dir)
    csv_path, h5_path = layout.labels_path(data_dir), layout.stamps_path(data_dir)
    with reported_writes(data_dir):
        with whole_file(csv_path) as csv_aside, whole_file(h5_path) as h5_aside:
            _write_stamps(h5_aside, table["id"].to_numpy(dtype=str), stamps, tuple(layers))
            table.to_csv(csv_aside, index=False, lineterminator="\n")
            csv_path.unlink(missing_ok=True)  # a csv tells that the set is complete, so it is renamed last
        write_sums(data_dir)
    return data_dir


@contextmanager
def run_folder(out_dir: Path | str, name: str | None) -> Iterator[Path]:
    """Make a run's folder, lock it against a second run and log into it.

    Parameters
    ----------
    out_dir : path
        Where the folder is made.
    name : str, optional
        Its name; ``data_YYYYMMDD-HHMMSS`` when left out.

    Yields
    ------
    Path
        The folder.

    Raises
    ------
    DataError
        If another run holds the folder, or it cannot be made.
    ConfigError
        If the name leads out of `out_dir`.
    """
    data_dir = Path(out_dir) / plain_name(name or layout.timestamped("data"))
    with hold_folder(data_dir), run_log(data_dir):
        yield data_dir


def write_table(data_dir: Path | str, table: pd.DataFrame) -> Path:
    """Replace the csv of a data set by one with the same rows and other columns.

    Parameters
    ----------
    data_dir : path
        A data set.
    table : DataFrame
        Its rows, in the same order.

    Returns
    -------
    Path
        The csv.
    """
    path = write_csv(layout.labels_path(data_dir), table)
    write_sums(data_dir)
    return path


def _write_stamps(path: Path, ids: np.ndarray, blocks: Iterable[np.ndarray], layers: tuple[str, ...]) -> None:
    with h5py.File(path, "w") as file:  # newer formats store the time in the root group
        dataset, row = None, 0
        for block in blocks:
            if dataset is None:
                shape = block.shape[1:]
                dataset = file.create_dataset(
                    layout.STAMPS_KEY,
                    (len(ids), *shape),
                    np.float32,
                    chunks=(min(CHUNK_ROWS, max(len(ids), 1)), *shape),
                )
                dataset.attrs["layers"] = json.dumps(layers)
            _check_block(path, block, dataset.shape, row)
            dataset[row : row + len(block)] = block
            row += len(block)
        if dataset is None or row != len(ids):
            raise DataError(
                f"{row} stamps for {len(ids)} rows while writing {path.parent}; this data set is not written"
            )
        file.create_dataset(layout.IDS_KEY, data=np.char.encode(ids, "utf-8"))


def _check_block(path: Path, block: np.ndarray, shape: tuple[int, ...], row: int) -> None:
    if block.shape[1:] != shape[1:] or row + len(block) > shape[0]:
        raise DataError(f"stamps of shape {block.shape} at row {row} do not fit {shape} while writing {path.parent}")
    finite = np.isfinite(block).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"stamp {row + int(np.argmin(finite))} holds NaN or infinity while writing {path.parent}; "
            "gotorb.survey.pixels.fill_missing fills pixels without data"
        )
