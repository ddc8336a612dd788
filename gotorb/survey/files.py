"""FITS files opened whole or refused: a file that is cut short says so and never looks as if a part were missing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from gotorb.errors import ImageError, TruncatedImage

BLOCK = 2880
FITS_START, EXTENSION_START = b"SIMPLE  =", b"XTENSION"
PACKED: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes of packed files -> what unpacks them."""


@contextmanager
def open_whole(path: Path) -> Iterator[tuple[fits.HDUList, bytes | None]]:
    """Open a FITS file whose every HDU is all there.

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
    try:
        content = _unpack(path)
        with warnings.catch_warnings():
            # astropy only warns of a file that ends early and then hides the HDUs behind that point
            warnings.simplefilter("ignore", AstropyWarning)
            source = path if content is None else io.BytesIO(content)
            hdus = fits.open(source, memmap=True, lazy_load_hdus=False, do_not_scale_image_data=True)
    except FileNotFoundError:
        raise ImageError(f"no file {path}; check GOTOPHOTO_WORKDIR and GOTOPHOTO_STORAGEDIR in .env") from None
    except (OSError, ValueError, TypeError, KeyError, IndexError, OverflowError, fits.VerifyError) as error:
        if "END card" in str(error):
            raise TruncatedImage(f"{path} ends within its first header; copy it again") from None
        raise _unreadable(path, error) from None
    with hdus:
        _check_end(path, hdus, content)
        yield hdus, content


def _unpack(path: Path) -> bytes | None:
    """The unpacked bytes of a packed file; None for a plain FITS file."""
    with path.open("rb") as file:
        start = file.read(BLOCK)
    unpackers = [opener for magic, opener in PACKED.items() if start.startswith(magic)]
    if not unpackers:
        _check_start(path, start)
        return None
    try:
        with unpackers[0](path) as file:
            content = file.read()
    except EOFError:
        raise TruncatedImage(f"{path} ends before its packed content does; copy it again") from None
    except (zlib.error, lzma.LZMAError) as error:
        raise _unreadable(path, error) from None
    _check_start(path, content[:BLOCK])
    return content


def _check_start(path: Path, start: bytes) -> None:
    """Refuse what is no FITS file, and tell it from a FITS file of a few bytes."""
    if len(start) < BLOCK and any(magic[: len(start)] == start[: len(magic)] for magic in (FITS_START, *PACKED)):
        raise TruncatedImage(f"{path} ends after {len(start)} bytes, before its first header; copy it again")
    if not start.startswith(FITS_START):
        raise _unreadable(path, ValueError(f"it begins with {start[:9]!r}, not with {FITS_START.decode()!r}"))


def _unreadable(path: Path, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())
    return ImageError(f"{path} cannot be read as FITS ({reason}); copy it again or leave it out")


def _check_end(path: Path, hdus: fits.HDUList, content: bytes | None) -> None:
    """Compare where the headers say that the file ends with where it does."""
    size = path.stat().st_size if content is None else len(content)
    last = hdus[-1].fileinfo()
    declared = last["datLoc"] + last["datSpan"]
    n_behind = len(hdus) - 1
    if size < declared:
        raise TruncatedImage(f"{path} has {size} bytes but its headers declare {declared}; copy it again")
    if int(hdus[0].header.get("NEXTEND", 0)) > n_behind:
        n_told = hdus[0].header["NEXTEND"]
        raise TruncatedImage(f"{path} has {n_behind} extensions but NEXTEND declares {n_told}; copy it again")
    if size > declared:
        _check_rest(path, declared, size, content)


def _check_rest(path: Path, declared: int, size: int, content: bytes | None) -> None:
    """Zeros behind the last HDU are some writers' padding; the start of another HDU is a header cut in its middle."""
    with path.open("rb") if content is None else io.BytesIO(content) as file:
        file.seek(declared)
        start = file.read(BLOCK)
        chunk = start
        while chunk and not any(chunk):
            chunk = file.read(1 << 20)
    if not chunk:
        return
    if start[: len(EXTENSION_START)] == EXTENSION_START[: len(start)]:
        raise TruncatedImage(f"{path} has {size} bytes and ends within a header at {declared}; copy it again")
    raise ImageError(f"{path} has {size - declared} bytes behind its last HDU that are no HDU; copy it again")
