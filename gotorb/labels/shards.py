"""One file per finished image, and their assembly to a data set.

A run that is killed leaves whole shards and nothing else; the next run goes on behind them. A file that stays
open for hours would be unreadable after a kill, a shard is written in milliseconds and renamed.
"""

import io
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.dataset.store import Dataset, cannot_write, fsync, read_csv, write_dataset
from gotorb.errors import DataError
from gotorb.labels.tasks import ImageTask

TABLE_KEY = "table"
NAME_LENGTH = 60
"""Characters of an image's id in its shard's name; the fingerprint behind them tells images apart."""


def shard_path(shards_dir: Path, task: ImageTask, fingerprint: str) -> Path:
    """Path of an image's shard; another recipe or another file gives another name."""
    safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in task.image_id)
    return shards_dir / f"{safe[:NAME_LENGTH]}-{fingerprint}.h5"


def write_shard(path: Path, table: pd.DataFrame, stamps: np.ndarray) -> None:
    """Write one image's rows and stamps, whole or not at all.

    Raises
    ------
    DataError
        If the disk is full or cannot be written; no later image could be kept either.
    """
    # two workers of a cluster may be at the same image: the one that was thought dead may still be writing
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(part, "w") as file:
            file.create_dataset(layout.STAMPS_KEY, data=stamps.astype(np.float32))
            file.create_dataset(TABLE_KEY, data=np.bytes_(table.to_csv(index=False).encode()))
        fsync(part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # h5py closes a file on a full disk with a RuntimeError
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from None


def read_shard_table(path: Path) -> pd.DataFrame:
    """Rows of a shard."""
    with h5py.File(path, "r") as file:
        text = bytes(file[TABLE_KEY][()]).decode()
    return read_csv(io.StringIO(text))


def read_shard_stamps(path: Path) -> np.ndarray:
    """Stamps of a shard, (n, size, size, n_layers)."""
    with h5py.File(path, "r") as file:
        return file[layout.STAMPS_KEY][:]


def assemble(
    data_dir: Path,
    shards: Sequence[Path],
    *,
    before: Dataset | None = None,
) -> Path:
    """Join shards, in the order given, to a data set.

    Parameters
    ----------
    data_dir : Path
        Where the data set goes.
    shards : sequence of Path
        Finished shards.
    before : Dataset, optional
        Its rows and stamps stand before those of the shards.

    Raises
    ------
    DataError
        If there is no row at all.
    """
    tables = [] if before is None else [before.table]
    tables += [table for table in map(read_shard_table, shards) if len(table)]
    if not tables:
        raise DataError(f"no image gave a labelled detection for {data_dir}; use more images or a fainter limit")
    table = pd.concat([_in_order(part) for part in tables], ignore_index=True)
    return write_dataset(data_dir, table, _blocks(shards, before))


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.reindex(columns=list(layout.LABEL_COLUMNS))


def _blocks(shards: Sequence[Path], before: Dataset | None) -> Iterator[np.ndarray]:
    if before is not None:
        yield from (stamps for _, stamps in before.batches())
    for path in shards:
        stamps = read_shard_stamps(path)
        if len(stamps):
            yield stamps


def remove_shards(shards_dir: Path) -> None:
    """Delete a finished run's shards."""
    for path in (*shards_dir.glob("*.h5"), *shards_dir.glob("*.part")):
        path.unlink()
    if shards_dir.is_dir():
        shards_dir.rmdir()
