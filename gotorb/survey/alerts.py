"""Alert packets on disk: a folder of them as a source of stamps; one that cannot be used never stops the others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.errors import DataError, PacketError
from gotorb.survey.packets import LAYERS, SIZE, Record, read_packet
from gotorb.survey.pixels import crop_stamps, kept_size, prepare_stamps

log = logging.getLogger(__name__)

LATER_FIELDS = ("drb",)
"""Fields that packets of an older schema lack."""


@dataclass(frozen=True)
class PacketFolder:
    """Alert packets on disk; unusable ones are left out and counted.

    Attributes
    ----------
    paths : tuple of Path
        Usable packets.
    table : DataFrame
        candid, objectId and the fields of ``candidate`` of each, in the order of `paths`.
    n_skipped : int
        Unusable packets.
    """

    paths: tuple[Path, ...]
    table: pd.DataFrame
    n_skipped: int
    layers: tuple[str, ...] = LAYERS
    size: int = SIZE
    background: str = "median"

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, batch: int = 256) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps (m, size, size, 3) and their missing fractions (m,)."""
        for start in range(0, len(self), batch):
            raw = np.stack([read_packet(path)[1] for path in self.paths[start : start + batch]])
            stamps, missing = prepare_stamps(raw, self.background)
            yield crop_stamps(stamps, self.size), missing


def open_packets(paths: Sequence[Path], *, background: str = "median", size: int | None = None) -> PacketFolder:
    """Read the records of alert packets.

    Parameters
    ----------
    paths : sequence of Path
        Avro files.
    background : {"median", "none"}
        See `survey.archives.StampArchive`.
    size : int, optional
        Central pixels kept of each stamp; all when left out.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    kept = kept_size(SIZE, size, "alert packets")
    good = [(path, record) for path, record, _ in read_usable(paths)]
    table = pd.DataFrame([record for _, record in good])
    table = table.assign(**{name: np.nan for name in LATER_FIELDS if name not in table})
    n_skipped = len(paths) - len(good)
    return PacketFolder(tuple(path for path, _ in good), table, n_skipped, size=kept, background=background)


def stream_packets(paths: Sequence[Path], batch: int = 256) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Read packets once, a batch at a time, so that any number fits in memory.

    Yields
    ------
    table : DataFrame
        The records of `read_packet`.
    raw : ndarray
        (m, size, size, 3) stamps, NaN where there are no data.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    packets = read_usable(paths)
    while block := list(islice(packets, batch)):
        yield pd.DataFrame([record for _, record, _ in block]), np.stack([stamp for _, _, stamp in block])


def read_usable(paths: Sequence[Path]) -> Iterator[tuple[Path, Record, np.ndarray]]:
    """Yield each packet's path, record and stamp; one that cannot be used is logged and left out.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    n_skipped, first = 0, ""
    for path in paths:
        try:
            yield path, *read_packet(path)
        except PacketError as error:
            n_skipped, first = n_skipped + 1, first or f"; the first: {error}"
            log.warning("skipped packet: %s", error)
    if n_skipped == len(paths):
        raise DataError(f"none of {len(paths)} alert packets can be used{first}; give Avro files of ZTF's schema")


def find_packets(path: Path) -> list[Path]:
    """Packets of a folder, by name, or the one packet given."""
    return sorted(path.glob("*.avro")) if path.is_dir() else [path]


def holds_packets(path: Path) -> bool:
    """Whether a path is an alert packet or a folder of them."""
    return path.suffix == ".avro" or (path.is_dir() and any(path.glob("*.avro")))
