"""One alert packet: an Avro file with gzipped FITS cut-outs, in the schema of ZTF.

Source: Masci et al. 2019 (PASP 131, 018003); https://zwickytransientfacility.github.io/ztf-avro-alert/
"""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from astropy.io import fits

from gotorb.errors import PacketError

CUTOUTS = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
LAYERS = ("science", "template", "difference")
SIZE = 63
QUADRANT = (3072, 3080)
"""Width and height of the image that cut-outs come from [pixel]."""
MAX_BYTES = 1_000_000
"""Largest packet, and largest cut-out when unpacked; real ones have 10^5 and 2 x 10^4 bytes."""
Record = dict[str, Any]


def read_packet(path: Path) -> tuple[Record, np.ndarray]:
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
    packet = _read_avro(path)
    candidate = packet.get("candidate")
    if not isinstance(candidate, dict) or packet.get("candid") is None or packet.get("objectId") is None:
        raise PacketError(f"{path} has no candidate, candid or objectId; give packets of ZTF's alert schema")
    record = candidate | {"candid": str(packet["candid"]), "objectId": str(packet["objectId"])}
    x, y = (_position(path, candidate, name) for name in ("xpos", "ypos"))
    planes = [_read_cutout(path, packet.get(name), name, x, y) for name in CUTOUTS]
    return record, np.stack(planes, axis=-1)


def _read_avro(path: Path) -> Record:
    """The one record of an Avro file; whatever a broken one makes the reader raise is told in one line."""
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
