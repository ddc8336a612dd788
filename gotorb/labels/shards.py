"""One file per finished image, and their assembly to a data set.

An interrupted run leaves whole shards and nothing else; the next run resumes behind them. A file that stays open for
hours would be unreadable after a kill, a shard is written in milliseconds and renamed.
"""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import reported_writes, whole_file
from gotorb.dataset.store import Dataset, read_csv, write_dataset
from gotorb.errors import DataError

TABLE_KEY = "table"
NAME_LENGTH = 60
"""Characters of an image's id in its shard's name; the fingerprint behind them distinguishes images."""


def shard_path(shards_dir: Path, image_id: str, fingerprint: str) -> Path:
    """Path of an image's shard.

    Parameters
    ----------
    shards_dir : Path
        Folder of the run's shards.
    image_id : str
        Any text; letters and digits of it are kept.
    fingerprint : str
        Digest of everything that decides the shard, so that another recipe or another file gives another name.

    Returns
    -------
    Path

    Examples
    --------
    >>> shard_path(Path("shards"), "r0000001 UT1", "4f2a").as_posix()
    'shards/r0000001_UT1-4f2a.h5'
    """
    safe = "".join(c if c.isascii() and c.isalnum() else "_" for c in image_id)
    return shards_dir / f"{safe[:NAME_LENGTH]}-{fingerprint}.h5"


def write_shard(path: Path, table: pd.DataFrame, stamps: np.ndarray) -> None:
    """Write one image's rows and stamps, whole or not at all.

    Parameters
    ----------
    path : Path
        The shard. Two workers of a cluster may write it: the one that was given up may still be at work.
    table : DataFrame
        (n,) rows; ``attrs["facts"]`` holds numbers about the image.
    stamps : ndarray
        (n, size, size, n_layers).

    Raises
    ------
    DataError
        If the disk is full or cannot be written; no later image could be kept either.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_shard(Path(folder) / "visit.h5", pd.DataFrame({"id": ["a"], "label": [1]}), np.zeros((1, 21, 21, 6)))
    ...     read_shard_table(Path(folder) / "visit.h5").to_dict("list")
    {'id': ['a'], 'label': [1]}
    """
    with reported_writes(path), whole_file(path, shared=True) as aside, h5py.File(aside, "w") as file:
        file.create_dataset(layout.STAMPS_KEY, data=stamps.astype(np.float32))
        file.create_dataset(TABLE_KEY, data=np.bytes_(table.to_csv(index=False).encode()))
        file.attrs[layout.FACTS_KEY] = json.dumps(table.attrs.get(layout.FACTS_KEY, {}))


def read_shard_table(path: Path) -> pd.DataFrame:
    """Rows of a shard.

    Parameters
    ----------
    path : Path
        The shard.

    Returns
    -------
    DataFrame

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_shard(Path(folder) / "visit.h5", pd.DataFrame({"id": ["a"], "label": [1]}), np.zeros((1, 21, 21, 6)))
    ...     read_shard_table(Path(folder) / "visit.h5")["id"].tolist()
    ['a']
    """
    with h5py.File(path, "r") as file:
        text, facts = bytes(file[TABLE_KEY][()]).decode(), file.attrs.get(layout.FACTS_KEY, "{}")
    table = read_csv(io.StringIO(text))
    table.attrs[layout.FACTS_KEY] = json.loads(facts)
    return table


def assemble(data_dir: Path, shards: Sequence[Path], *, before: Dataset | None = None) -> Path:
    """Join shards, in the order given, to a data set.

    Parameters
    ----------
    data_dir : Path
        Where the data set goes.
    shards : sequence of Path
        Finished shards.
    before : Dataset, optional
        Its rows and stamps stand before those of the shards.

    Returns
    -------
    Path
        `data_dir`.

    Raises
    ------
    DataError
        If there is no row at all.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shards = [Path(folder) / f"{name}.h5" for name in "ab"]
    ...     for shard in shards:
    ...         rows = pd.DataFrame({"id": [shard.stem], "label": [1], "metalabel": ["mp"]})
    ...         write_shard(shard, rows, np.zeros((1, 21, 21, 6)))
    ...     pd.read_csv(assemble(Path(folder), shards) / layout.LABELS_CSV)["id"].tolist()
    ['a', 'b']
    """
    tables = [] if before is None else [before.table]
    tables += [table for table in map(read_shard_table, shards) if len(table)]
    if not tables:
        raise DataError(f"no image gave a labelled detection for {data_dir}; use more images or a fainter limit")
    columns = list(layout.LABEL_COLUMNS)
    for part in tables:
        part.attrs.clear()  # else concat compares them
    table = pd.concat([part.reindex(columns=columns) for part in tables], ignore_index=True)
    return write_dataset(data_dir, table, _blocks(shards, before))


def _blocks(shards: Sequence[Path], before: Dataset | None) -> Iterator[np.ndarray]:
    if before is not None:
        yield from (stamps for _, stamps in before.batches())
    for path in shards:
        with h5py.File(path, "r") as file:
            stamps = file[layout.STAMPS_KEY][:]
        if len(stamps):
            yield stamps


def remove_shards(shards_dir: Path) -> None:
    """Delete a run's shards, finished or not.

    Parameters
    ----------
    shards_dir : Path
        Their folder; it goes too.

    Examples
    --------
    >>> import tempfile
    >>> shards_dir = Path(tempfile.mkdtemp())
    >>> write_shard(shards_dir / "visit.h5", pd.DataFrame({"id": ["a"]}), np.zeros((1, 21, 21, 6)))
    >>> remove_shards(shards_dir)
    >>> shards_dir.exists()
    False
    """
    for path in shards_dir.glob("*.h5"):
        path.unlink()
    if shards_dir.is_dir():
        shards_dir.rmdir()
