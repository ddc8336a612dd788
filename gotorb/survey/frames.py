"""FITS files: planes, tables, headers and WCS of one image, read lazily and checked for truncation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from gotorb.errors import ImageError, MissingPart, TruncatedImage

WCS_CARDS = ("WCSAXES", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CD1_", "CD2_", "PC1_", "PC2_", "CROTA",
             "LONPOLE", "LATPOLE", "RADESYS", "EQUINOX", "PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "NAXIS")  # fmt: skip


class Frame:
    """One open FITS file.

    Pixel data come memory-mapped where the file allows it, so that cutting a few stamps out of a large image
    reads only those stamps.
    """

    def __init__(self, path: Path, hdus: fits.HDUList) -> None:
        self.path = path
        self._hdus = hdus

    def _hdu(self, ext: str | int) -> Any:
        try:
            return self._hdus[ext]
        except (KeyError, IndexError):
            names = ", ".join(hdu.name or str(i) for i, hdu in enumerate(self._hdus))
            raise MissingPart(
                f"no HDU {ext!r} in {self.path} (has {names}); "
                "set label_data.*_IMAGE_EXT or DIFFERENCE_PHOT_EXT if your survey names it otherwise"
            ) from None

    def plane(self, ext: str | int) -> np.ndarray:
        """Pixels of an image HDU, (ny, nx), as stored (possibly big-endian and memory-mapped)."""
        data = self._hdu(ext).data
        if data is None or data.ndim != 2:
            shape = None if data is None else data.shape
            raise MissingPart(f"HDU {ext!r} in {self.path} holds no 2-d image (shape {shape}); name another HDU")
        return data

    def table(self, ext: str | int) -> np.ndarray:
        """Rows of a table HDU as a structured array."""
        hdu = self._hdu(ext)
        if not isinstance(hdu, fits.BinTableHDU | fits.TableHDU):
            raise MissingPart(f"HDU {ext!r} in {self.path} is not a table; name the detection table's HDU")
        return hdu.data

    def header(self, ext: str | int) -> fits.Header:
        """Header of an HDU."""
        return self._hdu(ext).header

    def key(self, name: str, *exts: str | int) -> Any:
        """Value of a header key in the first of the HDUs that has it.

        Raises
        ------
        MissingPart
            If none of them has the key.
        """
        for ext in exts:
            if name in self.header(ext):
                return self.header(ext)[name]
        raise MissingPart(f"no header key {name!r} in {self.path} (HDUs {', '.join(map(repr, exts))}); add it")

    def wcs(self, ext: str | int) -> WCS:
        """Celestial WCS of an HDU, parsed from its WCS cards alone (faster than from the whole header).

        Raises
        ------
        MissingPart
            If the header has no celestial WCS.
        """
        header = self.header(ext)
        cards = [card for card in header.cards if card.keyword.startswith(WCS_CARDS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            wcs = WCS(fits.Header(cards))
        if not wcs.has_celestial:
            raise MissingPart(f"HDU {ext!r} in {self.path} has no celestial WCS; solve the image's astrometry first")
        return wcs


@contextmanager
def open_frame(path: Path | str) -> Iterator[Frame]:
    """Open a FITS file for reading.

    Raises
    ------
    TruncatedImage
        If the file is shorter than its headers declare.
    ImageError
        If the file is absent or not FITS.
    """
    path = Path(path)
    with warnings.catch_warnings():
        # astropy only warns of a file that ends early and then hides the HDUs behind that point
        warnings.simplefilter("ignore", AstropyWarning)
        try:
            hdus = fits.open(path, memmap=True, lazy_load_hdus=False)
        except FileNotFoundError:
            raise ImageError(f"no file {path}; check GOTOPHOTO_WORKDIR and GOTOPHOTO_STORAGEDIR in .env") from None
        except OSError as error:
            raise _unreadable(path, error) from None
    with hdus:
        _check_length(path, hdus)
        yield Frame(path, hdus)


def _unreadable(path: Path, error: OSError) -> ImageError:
    if path.is_file() and path.stat().st_size < 2880:
        return TruncatedImage(f"{path} ends after {path.stat().st_size} bytes, before its first header; copy it again")
    return ImageError(f"{path} cannot be read as FITS ({error}); copy it again or leave it out")


def _check_length(path: Path, hdus: fits.HDUList) -> None:
    size = path.stat().st_size
    last = hdus[-1].fileinfo()
    declared = last["datLoc"] + last["datSpan"]
    # a header cut in its middle is dropped by astropy without a trace: the bytes behind the last HDU betray it
    compressed = path.suffix in {".gz", ".bz2", ".zip"}
    if not compressed and size != declared:
        raise TruncatedImage(f"{path} has {size} bytes but its headers declare {declared}; copy it again")
