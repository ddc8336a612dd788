"""Square stamps cut out of images, and their six layers: three of the stacked images, three over the exposures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from gotorb.core import layout
from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.planes import Block
from gotorb.survey.sanity import find_grid

FAR = 1 << 40
"""Stands for positions beyond all images, and for those that are no number."""


def cut_stamps(image: np.ndarray, x: np.ndarray, y: np.ndarray, *, size: int) -> np.ndarray:
    """Cut square stamps around positions; pixels off the image become NaN.

    Nothing is resampled: each stamp starts at the whole pixel ``ceil(x - size / 2)``, so that for an odd size
    the position lies within half a pixel of the middle pixel's centre.

    Parameters
    ----------
    image : ndarray
        (ny, nx); may be memory-mapped and of any byte order.
    x, y : ndarray
        (n,) positions, 0-based pixel centres.
    size : int
        Side of a stamp in pixels.

    Returns
    -------
    ndarray
        (n, size, size), float32, row = y.

    Examples
    --------
    >>> cut_stamps(np.arange(9.0).reshape(3, 3), np.array([0.0]), np.array([1.0]), size=3)[0]
    array([[nan,  0.,  1.],
           [nan,  3.,  4.],
           [nan,  6.,  7.]], dtype=float32)
    """
    stamps = np.empty((len(x), size, size), np.float32)
    cut_into(stamps, [Block(0, 0, image)], x, y)
    return stamps


def cut_into(stamps: np.ndarray, blocks: Iterable[Block], x: np.ndarray, y: np.ndarray) -> None:
    """Cut stamps out of an image that comes in blocks.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size), overwritten; NaN where there is no block.
    blocks : iterable of Block
    x, y : ndarray
        (n,) 0-based pixel positions.

    Examples
    --------
    >>> from gotorb.survey.planes import Block
    >>> image, stamps = np.arange(25, dtype=np.float32).reshape(5, 5), np.empty((1, 3, 3), np.float32)
    >>> cut_into(stamps, [Block(0, 0, image)], np.array([2.0]), np.array([2.0]))
    >>> stamps[0].tolist()
    [[6.0, 7.0, 8.0], [11.0, 12.0, 13.0], [16.0, 17.0, 18.0]]
    """
    size = stamps.shape[1]
    first_x, first_y = first_pixels(x, size), first_pixels(y, size)
    written = np.zeros(len(stamps), bool)  # the others still hold anything
    with np.errstate(over="ignore"):  # float64 beyond float32 is infinite, and counts as no data
        for block in blocks:
            _paste(stamps, written, block, first_x, first_y)
    stamps[~written] = np.nan


def first_pixels(positions: np.ndarray, size: int) -> np.ndarray:
    """First pixel of each stamp along one axis.

    Parameters
    ----------
    positions : ndarray
        (n,) 0-based centres.
    size : int
        Side of the stamps, pixels.

    Returns
    -------
    ndarray of int
        (n,); `FAR` for positions that are not a number.

    Examples
    --------
    >>> first_pixels(np.array([10.0, 10.4, 10.6]), 5).tolist()
    [8, 8, 9]
    """
    first = np.ceil(np.asarray(positions, float) - size / 2)
    return np.clip(np.where(np.isnan(first), FAR, first), -FAR, FAR).astype(np.int64)


def _paste(stamps: np.ndarray, written: np.ndarray, block: Block, first_x: np.ndarray, first_y: np.ndarray) -> None:
    """Copy what a block has of each stamp, down the file for the sake of memory-mapped reads."""
    size, pixels = stamps.shape[1], block.pixels
    x, y = first_x - block.first_x, first_y - block.first_y
    ny, nx = pixels.shape
    reached = np.flatnonzero((x > -size) & (x < nx) & (y > -size) & (y < ny))
    reached = reached[np.argsort(y[reached], kind="stable")]
    x, y = x[reached], y[reached]
    whole = (x >= 0) & (x <= nx - size) & (y >= 0) & (y <= ny - size)
    stamps[reached[~whole & ~written[reached]]] = np.nan
    written[reached] = True
    for i, left, top, inside in zip(reached.tolist(), x.tolist(), y.tolist(), whole.tolist(), strict=True):
        if inside:
            stamps[i] = pixels[top : top + size, left : left + size]
        else:
            x0, x1, y0, y1 = max(left, 0), min(left + size, nx), max(top, 0), min(top + size, ny)
            stamps[i, y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]


N_STACKED = 3
"""Planes of a stacked image: science, template, difference."""
ROWS_AT_ONCE = 8
"""Stamps whose layers are made together, so that they stay in the processor's cache."""
CORE = 3
"""Side of the square of pixels that is taken for a source's core."""
DETECTED_SIGMA = 5.0
"""Of the core above the stamp's median, for a source to count as seen in an exposure."""


@dataclass(frozen=True)
class Extensions:
    """Names of the HDUs to read."""

    science: str = "IMAGE"
    template: str = "TEMPLATE"
    difference: str = "DIFFERENCE"
    detections: str = "PHOTOMETRY_DIFF"
    exposure: str = "IMAGE"


@dataclass(frozen=True)
class Planes:
    """Stamps before they are summed up to layers.

    Attributes
    ----------
    stacked : ndarray
        (n, size, size, 3): science, template, difference.
    exposures : ndarray
        (n, size, size, n_exposures), each cut at its own WCS.
    """

    stacked: np.ndarray
    exposures: np.ndarray

    def take(self, rows: np.ndarray) -> "Planes":
        """Planes of some rows.

        Parameters
        ----------
        rows : ndarray
            Row numbers, or a mask.

        Returns
        -------
        Planes
        """
        return Planes(self.stacked[rows], self.exposures[rows])

    def layers(self) -> np.ndarray:
        """The six layers (n, size, size, 6) in the order of `layout.LAYERS`; NaN where there are no data.

        Without single exposures the science image is the only one: ptp is 0, min and max are science.
        """
        singles = self.exposures if self.exposures.shape[-1] else self.stacked[..., :1]
        layers = np.empty((*self.stacked.shape[:3], len(layout.LAYERS)), np.float32)
        for start in range(0, len(layers), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            exposures = np.moveaxis(singles[rows], -1, 0)
            low, high = (
                reduce(np.fmin, exposures),
                reduce(np.fmax, exposures),
            )  # pixels missing in all exposures stay NaN
            layers[rows, ..., :3] = self.stacked[rows]
            with np.errstate(invalid="ignore"):  # infinite minus infinite is NaN
                spread = high - low
            for layer, values in enumerate((spread, low, high), 3):
                layers[rows, ..., layer] = values
        return layers


def cut_planes(
    frame: Frame,
    exposure_paths: Sequence[Path],
    ra: np.ndarray,
    dec: np.ndarray,
    *,
    size: int,
    extensions: Extensions,
    xy: tuple[np.ndarray, np.ndarray] | None = None,
) -> Planes:
    """Cut stamps at sky positions from a difference image's file and from its single exposures.

    Apart from the frame one file is open at a time and one plane at a time in memory, so that memory holds the
    stamps and little else.

    Parameters
    ----------
    frame : Frame
        The difference image's open file.
    exposure_paths : sequence of Path
        Its single exposures. One that does not show a position gives NaN there.
    ra, dec : ndarray
        (n,) deg, ICRS.
    size : int
        Side of a stamp in pixels.
    extensions : Extensions
        Names of the HDUs.
    xy : pair of ndarray, optional
        Positions on the difference image where the survey measured them (0-based); from its WCS when left out.

    Returns
    -------
    Planes

    Raises
    ------
    ImageError
        If a file is missing or truncated, a part of it is missing, or planes show the sky in different ways.

    Examples
    --------
    >>> from gotorb.survey.fits import open_frame
    >>> with open_frame("images/visit.fits") as frame:
    ...     ra, dec = frame.centre("DIFFERENCE")
    ...     planes = cut_planes(frame, [], np.array([ra]), np.array([dec]), size=21, extensions=Extensions())
    >>> planes.stacked.shape
    (1, 21, 21, 3)
    """
    x, y = xy if xy is not None else frame.to_pixels(extensions.difference, ra, dec)
    names = extensions.science, extensions.template, extensions.difference
    stacked = np.empty((len(names), len(ra), size, size), np.float32)
    exposures = np.empty((len(exposure_paths), len(ra), size, size), np.float32)
    for name, stamps in zip(names, stacked, strict=True):
        if find_grid(frame, name, extensions.difference):
            _cut_into(stamps, frame, name, x, y)
        else:  # whole pixels of its own grid, as for the exposures
            sky = frame.to_sky(extensions.difference, x, y)
            _cut_into(stamps, frame, name, *frame.to_pixels(name, *sky))
    for path, stamps in zip(exposure_paths, exposures, strict=True):
        with open_frame(path) as exposure:
            _cut_into(stamps, exposure, extensions.exposure, *exposure.to_pixels(extensions.exposure, ra, dec))
    return Planes(np.moveaxis(stacked, 0, -1), np.moveaxis(exposures, 0, -1))


def _cut_into(stamps: np.ndarray, frame: Frame, ext: str, x: np.ndarray, y: np.ndarray) -> None:
    x, y = np.asarray(x, float), np.asarray(y, float)
    cut_into(stamps, frame.blocks(ext, x, y, stamps.shape[1] / 2), x, y)


def core_light(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean brightness of the core above the stamp's median, and its error.

    Parameters
    ----------
    planes : ndarray
        (n, size, size, k); NaN where there are no data.

    Returns
    -------
    light, error : ndarray
        (n, k), in the planes' units; NaN where a stamp has no data. The error is that of a mean of independent
        pixels whose scatter is the median absolute deviation of the stamp.

    Examples
    --------
    >>> planes = np.zeros((1, 9, 9, 1))
    >>> planes[0, 4, 4, 0] = 9
    >>> light, _ = core_light(planes)
    >>> light.tolist()
    [[1.0]]
    """
    first = (planes.shape[1] - CORE) // 2
    core = planes[:, first : first + CORE, first : first + CORE]
    pixels = planes.reshape(len(planes), -1, planes.shape[-1])
    empty = np.isnan(pixels).all(axis=1, keepdims=True) | np.isnan(core).all(axis=(1, 2))[:, None]
    pixels = np.where(empty, 0, pixels)
    level = _medians(pixels)
    scatter = MAD_TO_SIGMA * _medians(np.abs(pixels - level[:, None]))
    light = np.nanmean(np.where(empty[:, :, None], 0, core), axis=(1, 2)) - level
    blank = empty[:, 0]
    return np.where(blank, np.nan, light), np.where(blank, np.nan, scatter / CORE)


def _medians(pixels: np.ndarray) -> np.ndarray:
    """Median over the pixels with data of each stamp, (n, n_pixels, k) -> (n, k)."""
    whole = ~np.isnan(pixels).any(axis=(1, 2))
    medians = np.empty((len(pixels), pixels.shape[-1]), pixels.dtype)
    medians[whole] = np.median(pixels[whole], axis=1)
    if not whole.all():  # several times slower
        medians[~whole] = np.nanmedian(pixels[~whole], axis=1)
    return medians


def n_detected_exposures(exposures: np.ndarray) -> np.ndarray:
    """Number of single exposures with a source at the middle.

    Parameters
    ----------
    exposures : ndarray
        (n, size, size, n_exposures); NaN where there are no data.

    Returns
    -------
    ndarray of int
        (n,) exposures whose core is more than 5 sigma above the stamp's median. A cosmic ray is seen in exactly
        one, a star in all; 0 says that only the stacked image shows it.

    Examples
    --------
    >>> exposures = np.random.default_rng(1).normal(0, 1, (1, 21, 21, 3))
    >>> exposures[0, 9:12, 9:12, :2] += 20  # in two of three
    >>> n_detected_exposures(exposures).tolist()
    [2]
    """
    if exposures.shape[0] == 0 or exposures.shape[-1] == 0:
        return np.zeros(len(exposures), int)
    light, error = core_light(exposures)
    return (light > DETECTED_SIGMA * error).sum(axis=1)
