"""Alert packets (Avro files with gzipped FITS cut-outs in the schema of ZTF), one by one and as a source of stamps.

A packet that cannot be used never stops the others.

References
----------
Masci et al. 2019 (PASP 131, 018003); https://zwickytransientfacility.github.io/ztf-avro-alert/
"""

from __future__ import annotations

import gzip
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas as pd
from astropy.io import fits

from gotorb.errors import DataError, PacketError
from gotorb.survey.pixels import crop_stamps, kept_size, prepare_stamps

log = logging.getLogger(__name__)

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
LAYERS = ("science", "template", "difference")
SIZE = 63
QUADRANT = (3072, 3080)
"""Width and height of the image that cut-outs come from [pixel]."""
MAX_BYTES = 1_000_000
"""Largest packet, and largest cut-out when unpacked; real ones have 10^5 and 2 x 10^4 bytes."""
Record = dict[str, Any]
LATER_FIELDS = ("drb",)
"""Fields that are missing in packets of an older schema."""


@dataclass(frozen=True, kw_only=True)
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
        """Yield prepared stamps, a batch at a time.

        Parameters
        ----------
        batch : int
            Largest number of stamps of a batch.

        Yields
        ------
        stamps : ndarray
            (m, size, size, 3), float32.
        missing : ndarray
            (m,) fraction of pixels without data.
        """
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
    good = [(path, record) for path, record, _ in _read_usable(paths)]
    table = pd.DataFrame([record for _, record in good])
    table = table.assign(**{name: np.nan for name in LATER_FIELDS if name not in table})
    n_skipped = len(paths) - len(good)
    return PacketFolder(
        paths=tuple(path for path, _ in good), table=table, n_skipped=n_skipped, size=kept, background=background
    )


def stream_packets(paths: Sequence[Path], batch: int = 256) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Read packets once, a batch at a time, so that any number fits in memory.

    Parameters
    ----------
    paths : sequence of Path
    batch : int
        Largest number of packets of a batch.

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
    packets = _read_usable(paths)
    while block := list(islice(packets, batch)):
        yield pd.DataFrame([record for _, record, _ in block]), np.stack([stamp for _, _, stamp in block])


def _read_usable(paths: Sequence[Path]) -> Iterator[tuple[Path, Record, np.ndarray]]:
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
    """Packets of a folder, by name, or the one packet given.

    Parameters
    ----------
    path : Path
        A folder, or one packet.

    Returns
    -------
    list of Path
        Sorted by name.
    """
    return sorted(path.glob("*.avro")) if path.is_dir() else [path]


def holds_packets(path: Path) -> bool:
    """True for an alert packet or a folder of them.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    return path.suffix == ".avro" or (path.is_dir() and any(path.glob("*.avro")))


def read_packet(path: Path) -> tuple[Record, np.ndarray]:
    """Read one alert packet.

    Parameters
    ----------
    path : Path

    Returns
    -------
    record : dict
        candid (str), objectId and the fields of ``candidate``.
    stamp : ndarray
        (63, 63, 3) science, template, difference; NaN where there are no data.

    Raises
    ------
    PacketError
        If the file is not Avro, a field is missing, or a cut-out cannot be read.
    """
    packet = _read_avro(path)
    candidate = packet.get("candidate")
    if not isinstance(candidate, dict) or packet.get("candid") is None or packet.get("objectId") is None:
        raise PacketError(f"{path} has no candidate, candid or objectId; give packets of ZTF's alert schema")
    record = candidate | {"candid": str(packet["candid"]), "objectId": str(packet["objectId"])}
    x, y = (_position(path, candidate, name) for name in ("xpos", "ypos"))
    planes = [_read_cutout(path, packet.get(name), name, x, y) for name in CUTOUTS]
    return record, np.stack(planes, axis=-1)


def _read_avro(path: Path) -> Record:
    """Read the one record of an Avro file; errors of broken files are reported in one line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        with path.open("rb") as file:
            records = fastavro.reader(file)
            packet: Any = next(records)
            if next(records, None) is not None:
                raise ValueError("several alerts in one file")
    except Exception as error:
        raise PacketError(f"{path} cannot be read as an Avro packet ({_one_line(error)}); fetch it again") from None
    return packet if isinstance(packet, dict) else {}


def _one_line(error: Exception) -> str:
    text = " ".join(repr(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def _position(path: Path, candidate: Record, name: str) -> float:
    """A position on the image, NaN when the packet has none."""
    value = candidate.get(name)
    if value is not None and not isinstance(value, (int, float)):
        raise PacketError(f"{name} of {path} is {value!r}, not a number; give packets of ZTF's alert schema")
    return float("nan") if value is None else float(value)


def _read_cutout(path: Path, cutout: Any, name: str, x: float, y: float) -> np.ndarray:
    try:
        with gzip.open(io.BytesIO(cutout["stampData"])) as packed:
            raw = packed.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes unpacked")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(raw), memmap=False) as hdus:
                image = np.asarray(hdus[0].data, np.float32)
        if image.ndim != 2 or max(image.shape) > SIZE or image.size == 0:
            raise ValueError(f"shape {image.shape}, expected at most {SIZE} x {SIZE}")
    except Exception as error:
        raise PacketError(f"{name} of {path} cannot be read ({_one_line(error)}); fetch the packet again") from None
    return _pad(image, x, y)


def _pad(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Put a cut-out that ends at the image's edge where it belongs in a whole stamp."""
    stamp = np.full((SIZE, SIZE), np.nan, np.float32)
    height, width = image.shape
    top = SIZE - height if y < QUADRANT[1] / 2 else 0
    left = SIZE - width if x < QUADRANT[0] / 2 else 0
    stamp[top : top + height, left : left + width] = image
    return stamp
