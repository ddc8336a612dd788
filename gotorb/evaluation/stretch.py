"""Between which values a stamp is drawn, black to white; without a drawing library, for pages need it too."""

import numpy as np

PERCENTILES = (1.0, 50.0, 99.5)
MIDDLE_SHARE = 0.4
"""Fraction of the way from the sky to the extremes in a stamp's middle that the stretch covers at least."""


def stretch_limits(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values drawn black and white: the 1st and 99.5th percentile, wider where the middle of a stamp needs it.

    Percentiles alone would hide a single hot pixel in the noise.

    Parameters
    ----------
    stamps : ndarray
        (..., size, size), finite.

    Returns
    -------
    low, high : ndarray
        (...); high is above low, also for a stamp of one value.
    """
    half, reach = stamps.shape[-1] // 2, max(stamps.shape[-1] // 8, 1)
    middle = stamps[..., half - reach : half + reach + 1, half - reach : half + reach + 1]
    low, sky, high = np.percentile(stamps.reshape(*stamps.shape[:-2], -1), PERCENTILES, axis=-1)
    low = np.minimum(low, sky + MIDDLE_SHARE * (middle.min(axis=(-2, -1)) - sky))
    high = np.maximum(high, sky + MIDDLE_SHARE * (middle.max(axis=(-2, -1)) - sky))
    return low, np.where(high > low, high, low + 1)
