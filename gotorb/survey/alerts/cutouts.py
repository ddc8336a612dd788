"""Cut-outs of alert packets: FITS images in memory, packed or not, and the stamp about their source."""

import gzip
import io
import re
import warnings
import zlib
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from isal import isal_zlib

MAX_BYTES = 1_000_000
"""Largest cut-out when unpacked; real ones have 2 x 10^4 to 6 x 10^4 bytes."""
GZIP = b"\x1f\x8b"
CARD, FITS_BLOCK = 80, 2880
END_CARD = b"END".ljust(CARD)
SCALED = re.compile(rb"BSCALE|BZERO|BLANK|GROUPS|XTENSION")
"""Cards with which a pixel is not the number that is stored: astropy reads these."""
REFERENCE = re.compile(rb"CRPIX([12]) {2}= *([-+0-9.Ee]+)")
FLOATS: dict[bytes, np.dtype[Any]] = {b"-32": np.dtype(">f4"), b"-64": np.dtype(">f8")}


class Cutout(NamedTuple):
    """Pixels of a cut-out, row = y first, and its reference pixel (x, y), 0-based; None where its header has none."""

    pixels: np.ndarray
    reference: tuple[float, float] | None


def read_cutout(data: bytes) -> Cutout:
    """Read the first image of a FITS file in memory.

    Parameters
    ----------
    data : bytes
        FITS, or the same packed by gzip.

    Returns
    -------
    Cutout
        Pixels in the machine's order of bytes or FITS', as astropy's numbers.

    Raises
    ------
    ValueError, OSError
        If it is none, is broken or too large.
    """
    raw = unpack_gzip(data) if data[:2] == GZIP else data
    if len(raw) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes unpacked")
    return _read_plain(raw) or _read_any(raw)


def unpack_gzip(data: bytes) -> bytes:
    """Unpack one byte more than `MAX_BYTES` at most.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    bytes

    Raises
    ------
    OSError, EOFError, zlib.error
        If it is broken or cut short.
    """
    unpacker = isal_zlib.decompressobj(zlib.MAX_WBITS | 16)
    with suppress(isal_zlib.error):  # type: ignore[arg-type]
        raw = unpacker.decompress(data, MAX_BYTES + 1)
        if unpacker.eof and not unpacker.unused_data:
            return bytes(raw)
    with gzip.open(io.BytesIO(data)) as packed:  # several members, or an error with a name
        return packed.read(MAX_BYTES + 1)


class _Layout(NamedTuple):
    """Place of the pixels in a FITS file."""

    shape: tuple[int, int]
    kind: np.dtype[Any]
    start: int
    reference: tuple[float, float] | None


def _read_plain(raw: bytes) -> Cutout | None:
    """Read floats without scaling, as nearly all packets hold; None for anything else."""
    layout = _read_layout(raw[:FITS_BLOCK])  # ZTF's headers are all alike
    if layout is None:
        return None
    n_pixels = layout.shape[0] * layout.shape[1]
    if len(raw) < layout.start + n_pixels * layout.kind.itemsize:
        return None
    return Cutout(np.frombuffer(raw, layout.kind, n_pixels, layout.start).reshape(layout.shape), layout.reference)


@lru_cache(maxsize=256)
def _read_layout(header: bytes) -> _Layout | None:
    """Layout by a header of one block; None for what astropy has to read."""
    cards = [header[start : start + 30] for start in range(0, 5 * CARD, CARD)]
    names = [card[:10] for card in cards]
    if names != [b"SIMPLE  = ", b"BITPIX  = ", b"NAXIS   = ", b"NAXIS1  = ", b"NAXIS2  = "]:
        return None
    simple, kind, axes, width, height = (card[10:].strip() for card in cards)
    end = header.find(END_CARD, 5 * CARD)
    if simple != b"T" or axes != b"2" or kind not in FLOATS or end < 0 or end % CARD or SCALED.search(header, 0, end):
        return None
    if not (width.isdigit() and height.isdigit() and int(width) * int(height)):
        return None
    found = {match[1]: float(match[2]) - 1 for match in REFERENCE.finditer(header, 0, end)}
    reference = (found[b"1"], found[b"2"]) if len(found) == 2 else None
    return _Layout((int(height), int(width)), FLOATS[kind], FITS_BLOCK, reference)


def _read_any(raw: bytes) -> Cutout:
    """Read what astropy can."""
    with warnings.catch_warnings(action="ignore"), fits.open(io.BytesIO(raw), memmap=False) as hdus:
        header = hdus[0].header
        if header.get("NAXIS", 0) != 2 or header["NAXIS1"] * header["NAXIS2"] > MAX_BYTES:
            raise ValueError(f"no image: {header.get('NAXIS')} axes of {header.get('NAXIS1')} pixels and more")
        pixels = np.asarray(hdus[0].data, np.float32)
        place = header.get("CRPIX1"), header.get("CRPIX2")
    if pixels.ndim != 2 or not pixels.size:
        raise ValueError(f"shape {pixels.shape}")
    known = all(isinstance(one, int | float) for one in place)
    return Cutout(pixels, (float(place[0]) - 1, float(place[1]) - 1) if known else None)  # type: ignore[arg-type]


def read_errors(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Variance and PSF of one of Rubin's cut-outs.

    Parameters
    ----------
    data : bytes
        FITS with the HDUs UNCERT and PSFIMAGE.

    Returns
    -------
    variance : ndarray
        (height, width), like the pixels.
    psf : ndarray
        (side, side), its sum 1.

    Raises
    ------
    KeyError
        If an HDU is missing.
    ValueError, OSError
        If it is broken.
    """
    with warnings.catch_warnings(action="ignore"), fits.open(io.BytesIO(data), memmap=False) as hdus:
        variance, psf = (np.asarray(hdus[name].data, float) for name in ("UNCERT", "PSFIMAGE"))
    if variance.ndim != 2 or psf.ndim != 2 or not np.isfinite(psf).all() or not psf.sum() > 0:
        raise ValueError(f"variance of shape {variance.shape} and PSF of shape {psf.shape}")
    return variance, psf / psf.sum()


def put_whole(stamp: np.ndarray, pixels: np.ndarray, left: int, top: int) -> None:
    """Copy a cut-out into a stamp of NaN; what lies outside the stamp is left out.

    Parameters
    ----------
    stamp : ndarray
        (size, size), changed in place.
    pixels : ndarray
        (height, width).
    left, top : int
        Column and row of the stamp for the cut-out's first pixel; negative outside the stamp.
    """
    (size, _), (height, width) = stamp.shape, pixels.shape
    rows = slice(max(top, 0), min(top + height, size))
    columns = slice(max(left, 0), min(left + width, size))
    if rows.start < rows.stop and columns.start < columns.stop:
        stamp[rows, columns] = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
