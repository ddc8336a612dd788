"""FITS files: pixels, tables, headers and WCS of one image, each read where and when it is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence

from gotorb.errors import ImageError, MissingPart
from gotorb.survey.planes import Block, open_pixels, read_blocks
from gotorb.survey.structure import ODD, one_line, open_whole

IMAGES = fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU
WCS_CARDS = ("WCSAXES", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CD1_", "CD2_", "PC1_", "PC2_", "CROTA",
             "LONPOLE", "LATPOLE", "RADESYS", "EQUINOX", "PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "NAXIS")  # fmt: skip
"""First letters of the cards that make a WCS; parsing these alone is several times faster."""


class Frame:
    """One open FITS file.

    Of plain, scaled and tile-compressed images (.fz) only the pixels asked for are read; a packed file
    (.fits.gz) is unpacked once into memory.
    """

    def __init__(self, path: Path, hdus: fits.HDUList, content: bytes | None = None) -> None:
        self.path = path
        self._hdus = hdus
        self._content = content
        self._wcs: dict[str | int, WCS] = {}

    def _hdu(self, ext: str | int) -> Any:
        try:
            with _without_warnings():
                return self._hdus[ext]
        except (KeyError, IndexError):
            names = ", ".join(hdu.name or str(i) for i, hdu in enumerate(self._hdus))
            raise MissingPart(
                f"no HDU {ext!r} in {self.path} (has {names}); "
                "set label_data.*_IMAGE_EXT or DIFFERENCE_PHOT_EXT if your survey names it otherwise"
            ) from None

    def _image(self, ext: str | int) -> Any:
        """An image HDU of two axes; a cube is refused even when it has but one plane."""
        hdu = self._hdu(ext)
        shape = hdu.shape if isinstance(hdu, IMAGES) else None
        if shape is None or len(shape) != 2 or not all(isinstance(side, int) and side > 0 for side in shape):
            raise MissingPart(f"HDU {ext!r} in {self.path} holds no 2-d image (shape {shape}); name another HDU")
        return hdu

    def shape(self, ext: str | int) -> tuple[int, int]:
        """Shape of an image HDU; no pixel is read.

        Parameters
        ----------
        ext : str or int
            Name or number of the HDU.

        Returns
        -------
        ny, nx : int
        """
        ny, nx = self._image(ext).shape
        return int(ny), int(nx)

    def plane(self, ext: str | int) -> np.ndarray:
        """All pixels of an image HDU.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        ndarray
            (ny, nx) physical values, possibly big-endian and memory-mapped.
        """
        return open_pixels(self._image(ext), self.path, self._content)[:, :]

    def blocks(self, ext: str | int, x: np.ndarray, y: np.ndarray, reach: float) -> Iterator[Block]:
        """Blocks of an image HDU that hold all pixels near some positions.

        Parameters
        ----------
        ext : str or int
        x, y : ndarray
            (n,) 0-based pixel positions.
        reach : float
            Pixels.

        Returns
        -------
        iterator of Block
        """
        return read_blocks(self._image(ext), self.path, self._content, x=x, y=y, reach=reach)

    def values_at(self, ext: str | int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values of the pixels nearest to some positions.

        Parameters
        ----------
        ext : str or int
        x, y : ndarray
            (n,) 0-based pixel positions.

        Returns
        -------
        ndarray
            (n,) float32, NaN off the image.
        """
        values = np.full(len(x), np.nan, np.float32)
        columns, rows = np.rint(np.asarray(x, float)), np.rint(np.asarray(y, float))
        for first_y, first_x, pixels in self.blocks(ext, columns, rows, 0):
            ny, nx = pixels.shape
            column, row = columns - first_x, rows - first_y
            inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
            values[inside] = pixels[row[inside].astype(int), column[inside].astype(int)]
        return values

    def table(self, ext: str | int) -> fits.FITS_rec:
        """Rows of a table HDU.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        FITS_rec

        Raises
        ------
        MissingPart
            If the HDU is missing or is not a table.
        ImageError
            If the table cannot be read.
        """
        hdu = self._hdu(ext)
        try:
            with _without_warnings():
                rows = hdu.data if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) else None
        except ODD as error:
            raise ImageError(
                f"table {ext!r} in {self.path} cannot be read ({one_line(error)}); copy it again or leave it out"
            ) from None
        if rows is None:
            raise MissingPart(f"HDU {ext!r} in {self.path} is not a table; name the detection table's HDU")
        return rows

    def header(self, ext: str | int) -> fits.Header:
        """Header of an HDU.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        Header
        """
        return self._hdu(ext).header

    def key(self, name: str, *exts: str | int) -> Any:
        """Value of a header key in the first of the HDUs that has it.

        Parameters
        ----------
        name : str
        *exts : str or int
            HDUs in the order of the search.

        Returns
        -------
        object

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
        """Celestial WCS of an HDU, parsed once.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        WCS

        Raises
        ------
        MissingPart
            If the header has no celestial WCS, or one that contradicts itself.
        """
        if ext not in self._wcs:
            try:
                wcs = _read_wcs(self.header(ext))
            except (ValueError, KeyError, TypeError) as error:  # the errors of wcslib are ValueErrors
                raise MissingPart(
                    f"HDU {ext!r} in {self.path} has a WCS that cannot be used ({one_line(error)}); solve it again"
                ) from None
            if not wcs.has_celestial:
                raise MissingPart(
                    f"HDU {ext!r} in {self.path} has no celestial WCS; solve the image's astrometry first"
                )
            self._wcs[ext] = wcs
        return self._wcs[ext]

    def to_pixels(self, ext: str | int, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert sky positions to pixels of an image HDU.

        Parameters
        ----------
        ext : str or int
        ra, dec : ndarray
            (n,) deg, ICRS.

        Returns
        -------
        x, y : ndarray
            (n,) 0-based; NaN for places far off the image.
        """
        return _sky_to_pixels(self.wcs(ext), np.asarray(ra, float), np.asarray(dec, float), self.shape(ext))


@contextmanager
def open_frame(path: Path | str) -> Iterator[Frame]:
    """Open a FITS file for reading.

    Parameters
    ----------
    path : path

    Yields
    ------
    Frame

    Raises
    ------
    TruncatedImage
        If the file is shorter than its headers declare.
    ImageError
        If the file is absent or not FITS, or a header card that is read is damaged.
    """
    with open_whole(Path(path)) as (hdus, content):
        try:
            yield Frame(Path(path), hdus, content)
        except fits.VerifyError as error:  # cards are parsed where they are read
            raise ImageError(f"a header of {path} is damaged ({one_line(error)}); copy it again") from None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence astropy's warnings, which come even for odd cards that are never read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        yield


def _read_wcs(header: fits.Header) -> WCS:
    """WCS of a header's WCS cards alone, which is several times faster than of the whole header.

    Raises
    ------
    ValueError
        If the cards contradict each other.
    """
    cards = [card for card in header.cards if card.keyword.startswith(WCS_CARDS)]
    with _without_warnings():
        return WCS(fits.Header(cards))


def _sky_to_pixels(wcs: WCS, ra: np.ndarray, dec: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions of sky positions on an image.

    Distortions are fitted to the image and mean nothing far off it, where their inverse diverges. So positions
    more than the image's longer side off it, and those that do not converge, have no pixel.

    Parameters
    ----------
    wcs : WCS
        Of the image, distortions (SIP) included.
    ra, dec : ndarray
        (n,) deg, ICRS.
    shape : (int, int)
        (ny, nx) of the image.

    Returns
    -------
    x, y : ndarray
        (n,) 0-based pixel centres; NaN where there is none.
    """
    if len(ra) == 0:
        return np.empty(0), np.empty(0)
    xy = np.column_stack(wcs.wcs_world2pix(ra, dec, 0))
    beyond, size = max(shape), np.array(shape[::-1])
    near = ((xy > -beyond) & (xy < size + beyond)).all(axis=1)
    xy[~near] = np.nan
    if near.any() and wcs.has_distortion:
        try:
            xy[near] = wcs.all_world2pix(np.column_stack([ra, dec])[near], 0)
        except NoConvergence as failed:
            found = failed.best_solution
            for rows in (failed.divergent, failed.slow_conv):
                if rows is not None:
                    found[rows] = np.nan
            xy[near] = found
    return xy[:, 0].copy(), xy[:, 1].copy()
