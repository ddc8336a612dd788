"""FITS files: pixels, tables, headers and WCS of one image, read on demand."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from gotorb.core.logs import one_line
from gotorb.errors import ImageError, MissingPart
from gotorb.survey.astrometry import Astrometry, read_astrometry, wcs_cards
from gotorb.survey.planes import ODD, Block, open_pixels, open_whole, read_blocks

IMAGES = fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU


class Frame:
    """One open FITS file.

    Of plain, scaled and tile-compressed images (.fz) only the pixels asked for are read; a packed file
    (.fits.gz) is unpacked once into memory.

    Parameters
    ----------
    path : Path
        The file, for messages.
    hdus : HDUList
        The open file.
    content : bytes, optional
        Unpacked content of a packed file.
    """

    def __init__(self, path: Path, hdus: fits.HDUList, content: bytes | None = None) -> None:
        self.path = path
        self._hdus = hdus
        self._content = content
        self._astrometry: dict[str | int, Astrometry] = {}
        self._found: dict[str | int, Any] = {}
        self._wcs_cards: dict[str | int, list[tuple[str, Any]]] = {}

    def sky_images(self) -> list[int]:
        """Numbers of the HDUs that are 2-d images with a celestial WCS."""
        return [
            number
            for number, hdu in enumerate(self._hdus)
            if isinstance(hdu, IMAGES) and "CTYPE1" in hdu.header and len(hdu.shape) == 2
        ]

    def _hdu(self, ext: str | int) -> Any:
        if ext not in self._found:  # the library compares the names of all HDUs each time
            self._found[ext] = self._find_hdu(ext)
        return self._found[ext]

    def _find_hdu(self, ext: str | int) -> Any:
        try:
            with warnings.catch_warnings(action="ignore", category=AstropyWarning):  # even of cards never read
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
            with warnings.catch_warnings(action="ignore", category=AstropyWarning):  # even of cards never read
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

    def astrometry(self, ext: str | int) -> Astrometry:
        """World coordinates of an HDU, parsed once.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        Astrometry

        Raises
        ------
        MissingPart
            If the header has no celestial WCS, one that contradicts itself, or one that is not supported.
        """
        if ext not in self._astrometry:
            header = self.header(ext)
            if not any(name in header for name in ("CTYPE1", "CTYPE2")):
                raise MissingPart(
                    f"HDU {ext!r} in {self.path} has no celestial WCS; solve the image's astrometry first"
                )
            try:
                self._astrometry[ext] = read_astrometry(header, self._hdus)
            except (*ODD, MemoryError) as error:  # wcslib's errors of cards, and of distortions
                raise MissingPart(
                    f"HDU {ext!r} in {self.path} has a WCS that cannot be used ({one_line(error)}); solve it again"
                ) from None
        return self._astrometry[ext]

    def wcs_cards(self, ext: str | int) -> list[tuple[str, Any]]:
        """Cards that decide the world coordinates of an HDU, parsed once.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        list of (str, value)
            Equal for HDUs that share their world coordinates.
        """
        if ext not in self._wcs_cards:
            self._wcs_cards[ext] = wcs_cards(self.header(ext))
        return self._wcs_cards[ext]

    def wcs(self, ext: str | int) -> WCS:
        """Celestial WCS of an HDU, its axes in the order of the header.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        WCS

        Raises
        ------
        MissingPart
            As `astrometry`.
        """
        return self.astrometry(ext).wcs

    def to_sky(self, ext: str | int, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Convert pixels of an image HDU to sky positions.

        Parameters
        ----------
        ext : str or int
        x, y : array_like
            (n,) 0-based pixel centres.

        Returns
        -------
        ra, dec : ndarray
            (n,) deg, ICRS; NaN where there is none.
        """
        return self.astrometry(ext).to_sky(x, y)

    def scale_arcsec(self) -> float | None:
        """Scale of the first image with a celestial WCS, arcsec per pixel; None when there is none."""
        images = self.sky_images()
        return self.astrometry(images[0]).scale_arcsec if images else None

    def centre(self, ext: str | int) -> tuple[float, float]:
        """Sky position of the middle of an image HDU.

        Parameters
        ----------
        ext : str or int

        Returns
        -------
        ra, dec : float
            Deg, ICRS.
        """
        ny, nx = self.shape(ext)
        (ra,), (dec,) = self.to_sky(ext, [(nx - 1) / 2], [(ny - 1) / 2])
        return float(ra), float(dec)

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
        return self.astrometry(ext).to_pixels(ra, dec, self.shape(ext))


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
