"""Pixels of an image HDU, read only where needed: mapped, scaled or decompressed in blocks."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from astropy.io import fits

from gotorb.errors import ImageError, InconsistentImage
from gotorb.survey.structure import one_line

BAND_ROWS = 256
"""Rows that are decompressed at a time: blocks stay in the processor's cache, and memory stays flat."""
MOSTLY = 0.8
"""Of a compressed image's tiles: where more are wanted, all of it is decompressed in one call, which takes three
quarters of the time of many calls (astropy then reads all compressed bytes together)."""
WHOLE_PIXELS = 1 << 26
"""Larger images are decompressed in bands even then, for the sake of memory."""
DTYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""BITPIX -> type of the stored pixels."""


class Pixels(Protocol):
    """Anything that can be sliced like a 2-d array, and gives physical values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(ny, nx)."""

    def __getitem__(self, key: Any, /) -> np.ndarray:
        """Physical values of a part."""


class Block(NamedTuple):
    """A rectangle of an image: the pixel where it starts, and its pixels."""

    first_y: int
    first_x: int
    pixels: Pixels


class Scaled:
    """Image of scaled or blanked numbers; only what is sliced out is converted, as astropy does it.

    Parameters
    ----------
    stored : ndarray
        (ny, nx) numbers as the file holds them.
    header : Header
        With BSCALE, BZERO and BLANK.
    """

    def __init__(self, stored: np.ndarray, header: fits.Header) -> None:
        self._stored = stored
        self._scale, self._zero = card_number(header, "BSCALE", 1), card_number(header, "BZERO", 0)
        self._blank = card_number(header, "BLANK", None) if stored.dtype.kind in "iu" else None

    @property
    def shape(self) -> tuple[int, ...]:
        """(ny, nx)."""
        return self._stored.shape

    def __getitem__(self, key: Any) -> np.ndarray:
        stored = self._stored[key]
        values = self._unsigned(stored)
        if values is None:
            values = stored.astype(_float_type(stored.dtype))
            if self._scale != 1:
                values *= self._scale
            if self._zero != 0:
                values += self._zero
        if self._blank is None:
            return values
        return np.where(stored == self._blank, np.nan, values)

    def _unsigned(self, stored: np.ndarray) -> np.ndarray | None:
        """FITS has no unsigned integers but of one byte: they are stored with half their range taken off."""
        half = 1 << (8 * stored.dtype.itemsize - 1)
        if stored.dtype.kind != "i" or self._scale != 1 or self._zero != half:
            return None
        return stored.astype(stored.dtype.newbyteorder("=")).view(f"u{stored.dtype.itemsize}") ^ half


def card_number(header: fits.Header, name: str, default: float | None) -> Any:
    """Number of a header card; some writers put it in quotes.

    Parameters
    ----------
    header : Header
    name : str
    default : float or None
        Value of an absent card.

    Returns
    -------
    object

    Raises
    ------
    InconsistentImage
        If it holds anything else.
    """
    value = header.get(name, default)
    if isinstance(value, str):
        try:
            value = int(value) if re.fullmatch(r"\s*[+-]?\d+\s*", value) else float(value)
        except ValueError:
            value = np.nan
    if value is not None and (isinstance(value, bool) or not np.isfinite(value)):
        raise InconsistentImage(
            f"{name} of HDU {header.get('EXTNAME', '')!r} is {header[name]!r} and no number; correct the header"
        )
    return value


def _float_type(stored: np.dtype) -> type[np.floating]:
    if stored.kind == "f":
        return np.float32 if stored.itemsize == 4 else np.float64
    return np.float32 if stored.itemsize <= 2 else np.float64


def read_blocks(
    hdu: Any, path: Path, content: bytes | None, *, x: np.ndarray, y: np.ndarray, reach: float
) -> Iterator[Block]:
    """Blocks that together hold every pixel within `reach` of the positions, downwards.

    An image that is not compressed is one memory-mapped block. Of a tile-compressed one each tile that is
    wanted is decompressed once, a band of `BAND_ROWS` rows at a time; where most are wanted, all of them together.

    Parameters
    ----------
    hdu : image HDU
        Of an open file; its ``.data`` is never touched, which would read all of a scaled image.
    path : Path
        The file.
    content : bytes or None
        The whole file when it is packed.
    x, y : ndarray
        (n,) 0-based pixel positions; those that are not finite want nothing.
    reach : float
        Pixels.

    Yields
    ------
    Block

    Raises
    ------
    ImageError
        If compressed pixels are damaged.
    """
    if isinstance(hdu, fits.CompImageHDU):
        wanted = _wanted_tiles(hdu.shape, hdu.tile_shape, x, y, reach)
        if wanted.mean() > MOSTLY and math.prod(hdu.shape) <= WHOLE_PIXELS:
            yield Block(0, 0, open_pixels(hdu, path, content))
            return
        for rows, columns in _bands(wanted, hdu.shape, hdu.tile_shape):
            yield Block(rows.start, columns.start, _physical(_decompress(hdu, path, (rows, columns)), hdu.header))
    else:
        yield Block(0, 0, open_pixels(hdu, path, content))


def open_pixels(hdu: Any, path: Path, content: bytes | None) -> Pixels:
    """All pixels of an image HDU: mapped if the file allows, converted when they are sliced out.

    Parameters
    ----------
    hdu : image HDU
        Of an open file.
    path : Path
        The file.
    content : bytes or None
        The whole file when it is packed.

    Returns
    -------
    Pixels
        (ny, nx).

    Raises
    ------
    ImageError
        If compressed pixels are damaged.
    """
    if isinstance(hdu, fits.CompImageHDU):
        return _physical(_decompress(hdu, path, ...), hdu.header)
    dtype, start = np.dtype(DTYPES[hdu.header["BITPIX"]]), hdu.fileinfo()["datLoc"]
    stored: np.ndarray
    if content is None:
        stored = np.asarray(np.memmap(path, dtype, "r", start, hdu.shape))
    else:
        stored = np.frombuffer(content, dtype, math.prod(hdu.shape), start).reshape(hdu.shape)
    return _physical(stored, hdu.header)


def _physical(stored: np.ndarray, header: fits.Header) -> Pixels:
    plain = card_number(header, "BSCALE", 1) == 1 and card_number(header, "BZERO", 0) == 0
    return stored if plain and (stored.dtype.kind == "f" or "BLANK" not in header) else Scaled(stored, header)


def _decompress(hdu: fits.CompImageHDU, path: Path, key: Any) -> np.ndarray:
    try:
        return hdu.section[key]
    except Exception as error:  # the codecs raise whatever they stumble upon
        raise ImageError(
            f"HDU {hdu.name!r} in {path} cannot be decompressed ({one_line(error)}); copy it again or leave it out"
        ) from None


def _wanted_tiles(
    shape: tuple[int, int], tile: tuple[int, int], x: np.ndarray, y: np.ndarray, reach: float
) -> np.ndarray:
    """(rows of tiles, columns of tiles), bool: tiles with a pixel within reach of a position."""
    wanted = np.zeros([-(-length // side) for length, side in zip(shape, tile, strict=True)], bool)
    (ny, nx), (tile_y, tile_x) = shape, tile
    near = (x > -reach - 1) & (x < nx + reach) & (y > -reach - 1) & (y < ny + reach)
    edges = [np.clip(edge, 0, length - 1).astype(int) // side for edge, length, side in (
        (np.floor(y[near] - reach), ny, tile_y), (np.ceil(y[near] + reach), ny, tile_y),
        (np.floor(x[near] - reach), nx, tile_x), (np.ceil(x[near] + reach), nx, tile_x))]  # fmt: skip
    for top, bottom, left, right in zip(*(edge.tolist() for edge in edges), strict=True):
        wanted[top : bottom + 1, left : right + 1] = True
    return wanted


def _bands(wanted: np.ndarray, shape: tuple[int, int], tile: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rectangles of wanted tiles, none twice: rows of tiles that want the same columns, up to a band's height."""
    n_rows = max(1, BAND_ROWS // int(tile[0]))
    top = 0
    while top < len(wanted):
        bottom = top + 1
        while bottom < min(len(wanted), top + n_rows) and np.array_equal(wanted[bottom], wanted[top]):
            bottom += 1
        for left, right in _runs(wanted[top]):
            yield _pixels(top, bottom, tile[0], shape[0]), _pixels(left, right, tile[1], shape[1])
        top = bottom


def _pixels(first: int, last: int, side: int, length: int) -> slice:
    return slice(int(first * side), int(min(last * side, length)))


def _runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Starts and ends of the stretches of True.

    >>> _runs(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    steps = np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]]))
    return [(int(a), int(b)) for a, b in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)]
