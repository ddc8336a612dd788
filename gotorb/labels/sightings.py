"""Light at the middle of a stamp: in how many exposures there is any, and how much of it is new."""

import numpy as np

CORE = 3
"""Side of the square of pixels that is taken for a source's core."""
SIGMA = 5.0
MAD_TO_SIGMA = 1.4826


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
    """
    first = (planes.shape[1] - CORE) // 2
    core = planes[:, first : first + CORE, first : first + CORE]
    pixels = planes.reshape(len(planes), -1, planes.shape[-1])
    empty = np.isnan(pixels).all(axis=1, keepdims=True) | np.isnan(core).all(axis=(1, 2))[:, None]
    pixels = np.where(empty, 0, pixels)
    level = np.nanmedian(pixels, axis=1)
    scatter = MAD_TO_SIGMA * np.nanmedian(np.abs(pixels - level[:, None]), axis=1)
    light = np.nanmean(np.where(empty[:, :, None], 0, core), axis=(1, 2)) - level
    blank = empty[:, 0]
    return np.where(blank, np.nan, light), np.where(blank, np.nan, scatter / CORE)


def count_sightings(exposures: np.ndarray) -> np.ndarray:
    """Number of single exposures in which something shines at the middle.

    Parameters
    ----------
    exposures : ndarray
        (n, size, size, n_exposures); NaN where there are no data.

    Returns
    -------
    ndarray of int
        (n,) exposures whose core is more than 5 sigma above the stamp's median. A cosmic ray is seen in exactly
        one, a star in all; 0 says that only the stacked image shows it.
    """
    if len(exposures) == 0:
        return np.zeros(0, int)
    light, error = core_light(exposures)
    return (light > SIGMA * error).sum(axis=1)
