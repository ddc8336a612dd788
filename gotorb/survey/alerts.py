"""Alert packets: Avro files with gzipped FITS cut-outs, in the schema of ZTF.

Source: Masci et al. 2019 (PASP 131, 018003); https://zwickytransientfacility.github.io/ztf-avro-alert/
"""

from __future__ import annotations

import gzip
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pandas as pd
from astropy.io import fits

from gotorb.errors import DataError, PacketError
from gotorb.survey.archives import prepare_stamps

log = logging.getLogger(__name__)

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
LAYERS = ("science", "template", "difference")
SIZE = 63
QUADRANT = (3072, 3080)
"""Width and height of the image that cut-outs come from [pixel]."""
MAX_BYTES = 10_000_000


@dataclass(frozen=True)
class PacketFolder:
    """Alert packets on disk; unusable ones are left out and counted.

    Attributes
    ----------
    paths : tuple of Path
        Usable packets.
    table : DataFrame
        candid, objectId and the fields of ``candidate`` of each, in the order of `paths`.
    skipped : tuple of (Path, str)
        Unusable packets and why.
    """

    paths: tuple[Path, ...]
    table: pd.DataFrame
    skipped: tuple[tuple[Path, str], ...]
    layers: tuple[str, ...] = LAYERS
    size: int = SIZE
    background: str = "median"

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, batch: int = 256) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield prepared stamps (m, size, size, 3) and their missing fractions (m,)."""
        for start in range(0, len(self), batch):
            raw = np.stack([read_packet(path)[1] for path in self.paths[start : start + batch]])
            yield prepare_stamps(raw, self.background)


def open_packets(paths: Sequence[Path], *, background: str = "median") -> PacketFolder:
    """Read the records of alert packets.

    Parameters
    ----------
    paths : sequence of Path
        Avro files.
    background : {"median", "none"}
        See `survey.archives.StampArchive`.

    Raises
    ------
    DataError
        If there is no usable packet.
    """
    rows, good, skipped = [], [], []
    for path in paths:
        try:
            record, _ = read_packet(path)
        except PacketError as error:
            skipped.append((path, str(error)))
            log.warning("skipped packet: %s", error)
            continue
        rows.append(record)
        good.append(path)
    if not good:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise DataError(f"none of {len(paths)} alert packets can be used{reason}; give Avro files of ZTF's schema")
    return PacketFolder(tuple(good), pd.DataFrame(rows), tuple(skipped), background=background)


def read_packet(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Read one alert packet.

    Returns
    -------
    record : dict
        candid (str), objectId and the fields of ``candidate``.
    stamp : ndarray
        (63, 63, 3) science, template, difference; NaN where there are no data.

    Raises
    ------
    PacketError
        If the file is not Avro, lacks a field, or a cut-out cannot be read.
    """
    try:
        with path.open("rb") as file:
            packet: Any = next(iter(fastavro.reader(file)))
    except (OSError, StopIteration, ValueError, EOFError, KeyError, IndexError, TypeError) as error:
        raise PacketError(f"{path} cannot be read as an Avro packet ({error!r}); fetch it again") from None
    candidate = packet.get("candidate") if isinstance(packet, dict) else None
    if not isinstance(candidate, dict) or "candid" not in packet or "objectId" not in packet:
        raise PacketError(f"{path} has no candidate, candid or objectId; give packets of ZTF's alert schema")
    record = candidate | {"candid": str(packet["candid"]), "objectId": str(packet["objectId"])}
    x, y = (float(candidate.get(name) or np.nan) for name in ("xpos", "ypos"))
    planes = [_read_cutout(path, packet.get(name), name, x, y) for name in CUTOUTS]
    return record, np.stack(planes, axis=-1)


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
        raise PacketError(f"{name} of {path} cannot be read ({error!r}); fetch the packet again") from None
    return _pad(image, x, y)


def _pad(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Put a cut-out that ends at the image's edge where it belongs in a whole stamp."""
    stamp = np.full((SIZE, SIZE), np.nan, np.float32)
    height, width = image.shape
    top = SIZE - height if y < QUADRANT[1] / 2 else 0
    left = SIZE - width if x < QUADRANT[0] / 2 else 0
    stamp[top : top + height, left : left + width] = image
    return stamp


def find_packets(path: Path) -> list[Path]:
    """Packets of a folder, by name, or the one packet given."""
    return sorted(path.glob("*.avro")) if path.is_dir() else [path]
