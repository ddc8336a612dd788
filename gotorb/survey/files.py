"""FITS files opened whole or refused: a file that is cut short says so and never looks as if a part were missing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from gotorb.errors import ImageError, MissingImage, TruncatedImage
from gotorb.survey.structure import BLOCK, FITS_START, check_structure

PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes of packed files -> what unpacks them."""
ODD = OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, fits.VerifyError
"""What astropy raises on damaged headers."""


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
    with ExitStack() as stack:
        try:
            file: BinaryIO = stack.enter_context(path.open("rb"))
            content = _unpack(path, file)
            if content is not None:
                file = io.BytesIO(content)
            n_hdus = check_structure(path, file)
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
            content = unpacked.read()
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
    return ImageError(f"{path} cannot be read as FITS ({one_line(error)}); copy it again or leave it out")


def one_line(error: Exception) -> str:
    """Another library's message in one line."""
    return " ".join(str(error).split())
