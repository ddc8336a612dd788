"""Cutting square stamps: where the pixels come from, and what stands where there are none."""

import numpy as np


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
    stamps = np.full((len(x), size, size), np.nan, np.float32)
    first_x = np.ceil(np.asarray(x, float) - size / 2).astype(int)
    first_y = np.ceil(np.asarray(y, float) - size / 2).astype(int)
    for i in np.argsort(first_y, kind="stable"):  # down the file, for the sake of memory-mapped reads
        rows, stamp_rows = _overlap(first_y[i], size, image.shape[0])
        columns, stamp_columns = _overlap(first_x[i], size, image.shape[1])
        stamps[i, stamp_rows, stamp_columns] = image[rows, columns]
    return stamps


def _overlap(first: int, size: int, length: int) -> tuple[slice, slice]:
    """Slices of the image and of the stamp along one axis where both have pixels."""
    start, stop = max(first, 0), min(first + size, length)
    if stop <= start:
        return slice(0, 0), slice(0, 0)
    return slice(start, stop), slice(start - first, stop - first)
