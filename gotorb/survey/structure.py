"""FITS files, opened only when complete: a truncated file is refused as such.

Headers and data are walked from the first byte to the last, as the standard's block structure declares them, before any
library reads the file: astropy hides HDUs behind a cut with a warning, and never returns from a damaged header that
declares a negative size.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from gotorb.core.untrusted import UntrustedFile, check_regular, unpack
from gotorb.errors import ImageError, MissingImage, TruncatedImage

BLOCK, CARD = 2880, 80
FITS_START, EXTENSION_START = b"SIMPLE  =", b"XTENSION"
SIZE_CARD = re.compile(rb"(BITPIX|NAXIS\d{0,3}|PCOUNT|GCOUNT|NEXTEND) *= *([+-]?\d{1,18}) *(?:/|$)")
GROUPS_CARD = re.compile(rb"GROUPS  = *T *(?:/|$)")
MOST_HDUS = 1_000
"""HDUs of a file that is read: a camera of 200 chips has three planes of each."""
PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes of packed files -> what unpacks them."""
ODD = OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, fits.VerifyError
"""Errors that astropy raises on damaged headers."""


@contextmanager
def open_whole(path: Path) -> Iterator[tuple[fits.HDUList, bytes | None]]:
    """Open a FITS file after a check that every HDU is complete.

    Parameters
    ----------
    path : Path

    Yields
    ------
    hdus : HDUList
        Closed at the end; image data come as stored, `planes` scales them.
    content : bytes or None
        The whole file, unpacked, when it is packed (.gz, .bz2, .xz): such a file cannot be memory-mapped.

    Raises
    ------
    TruncatedImage
        If the file is shorter than its headers declare.
    ImageError
        If the file is absent, unreadable or not FITS.
    """
    with ExitStack() as stack:
        try:
            check_regular(path)
            file: BinaryIO = stack.enter_context(path.open("rb"))
            content = _unpack(path, file)
            if content is not None:
                file = io.BytesIO(content)
            n_hdus = _check_structure(path, file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyWarning)
                hdus = fits.open(file, memmap=content is None, lazy_load_hdus=False, do_not_scale_image_data=True)
                stack.enter_context(hdus)
            if len(hdus) != n_hdus:
                raise ValueError(f"{n_hdus} HDUs, of which only {len(hdus)} make sense")
        except FileNotFoundError:
            raise MissingImage(f"no file {path}; check GOTOPHOTO_WORKDIR and GOTOPHOTO_STORAGEDIR in .env") from None
        except ODD as error:
            raise _unreadable(path, error) from None
        yield hdus, content


def _unpack(path: Path, file: BinaryIO) -> bytes | None:
    """The unpacked bytes of a packed file; None for a plain FITS file."""
    start = file.read(BLOCK)
    file.seek(0)
    unpackers = [opener for magic, opener in PACKED.items() if start.startswith(magic)]
    if not unpackers:
        _check_start(path, start)
        return None
    try:
        with unpackers[0](file) as unpacked:
            content = unpack(unpacked, path.stat().st_size)
    except EOFError:
        raise TruncatedImage(f"{path} ends before its packed content does; copy it again") from None
    except (zlib.error, lzma.LZMAError, UntrustedFile) as error:
        raise _unreadable(path, error) from None
    _check_start(path, content[:BLOCK])
    return content


def _check_start(path: Path, start: bytes) -> None:
    """Refuse a file that is not FITS, or that ends within its first block."""
    if len(start) < BLOCK and any(magic[: len(start)] == start[: len(magic)] for magic in (FITS_START, *PACKED)):
        raise TruncatedImage(f"{path} ends after {len(start)} bytes, before its first header; copy it again")
    if not start.startswith(FITS_START):
        raise _unreadable(path, ValueError(f"it begins with {start[:9]!r}, not with {FITS_START.decode()!r}"))


def _unreadable(path: Path, error: Exception) -> ImageError:
    return ImageError(f"{path} cannot be read as FITS ({one_line(error)}); copy it again or leave it out")


def one_line(error: Exception) -> str:
    """Join the message of another library's error to one line.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    str
    """
    return " ".join(str(error).split())


def _check_structure(path: Path, file: BinaryIO) -> int:
    """Number of HDUs of a FITS file that is all there.

    Zeros behind the last HDU are some writers' padding.

    Parameters
    ----------
    path : Path
        For messages.
    file : binary file
        Unpacked; left at any position.

    Raises
    ------
    TruncatedImage
        If it ends before its headers say, be it within a header.
    ImageError
        If a header is damaged, or other bytes follow the last HDU.
    """
    size, start, n_hdus, n_told = file.seek(0, 2), 0, 0, 0
    while start < size:
        file.seek(start)
        if n_hdus and not _is_extension(path, file, start, size):
            break
        if n_hdus == MOST_HDUS:
            raise _unreadable(path, ValueError(f"more than {MOST_HDUS} HDUs"))
        header = _read_header(path, file, start, size)
        values = _size_cards(header)
        n_told = max(n_told, 0 if n_hdus else values.get("NEXTEND", 0))
        n_bytes = _data_bytes(path, start, values, header)
        end = start + len(header) + _whole_blocks(n_bytes)
        unfilled = n_bytes > 0 and size == start + len(header) + n_bytes  # whole, but for the filling of its block
        if end > size and not unfilled:
            raise TruncatedImage(f"{path} has {size} bytes but its headers declare {end}; copy it again")
        start, n_hdus = end, n_hdus + 1
    if n_told > n_hdus - 1:
        raise TruncatedImage(f"{path} has {n_hdus - 1} extensions but NEXTEND declares {n_told}; copy it again")
    return n_hdus


def _is_extension(path: Path, file: BinaryIO, start: int, size: int) -> bool:
    """True when another HDU follows; False for padding."""
    first = file.read(len(EXTENSION_START))
    file.seek(start)
    if first == EXTENSION_START[: len(first)]:
        return True
    chunk = first
    while chunk and not any(chunk):
        chunk = file.read(1 << 20)
    if chunk:
        raise ImageError(f"{path} has {size - start} bytes behind its last HDU that are no HDU; copy it again")
    return False


def _read_header(path: Path, file: BinaryIO, start: int, size: int) -> bytes:
    """All blocks of a header, up to the one that holds its END card."""
    blocks: list[bytes] = []
    while True:
        block = file.read(BLOCK)
        cards = [block[place : place + CARD] for place in range(0, len(block), CARD)]
        ended = any(card[:8].rstrip() == b"END" for card in cards)
        if len(block) < BLOCK:
            raise TruncatedImage(f"{path} has {size} bytes and ends within its header at {start}; copy it again")
        blocks.append(block)
        if ended:
            return b"".join(blocks)
        if not block.isascii():
            raise ImageError(f"{path} has a header without END at byte {start}; copy it again")


def _size_cards(header: bytes) -> dict[str, int]:
    values: dict[str, int] = {}
    for place in range(0, len(header), CARD):
        found = SIZE_CARD.match(header, place, place + CARD)
        if found:
            values.setdefault(found[1].decode(), int(found[2]))
    return values


def _data_bytes(path: Path, start: int, values: dict[str, int], header: bytes) -> int:
    """Bytes of an HDU's data, heap included (FITS standard 4.0, equations 1 and 2)."""
    n_axes = values.get("NAXIS", -1)
    axes = [values.get(f"NAXIS{axis}", -1) for axis in range(1, n_axes + 1)]
    bits, parameters, groups = abs(values.get("BITPIX", 0)), values.get("PCOUNT", 0), values.get("GCOUNT", 1)
    if n_axes < 0 or bits not in (8, 16, 32, 64) or min([*axes, parameters, groups]) < 0:
        raise ImageError(
            f"{path} has a header at byte {start} whose NAXIS, BITPIX or PCOUNT make no size; copy it again"
        )
    if n_axes == 0:
        return 0
    grouped = axes[0] == 0 and any(GROUPS_CARD.match(header, place) for place in range(0, len(header), CARD))
    return bits // 8 * groups * (parameters + math.prod(axes[1:] if grouped else axes))


def _whole_blocks(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK
