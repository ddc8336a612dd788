"""Square stamps cut from a plane of pixels, with a fill value outside it."""

from collections.abc import Iterable

import numpy as np

from gotorb.survey.planes import Block

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
