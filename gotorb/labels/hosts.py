"""Galaxies of an image that can carry a synthetic transient or stand for a bare residual."""

import numpy as np
import pandas as pd

from gotorb.catalogues.galaxies import find_galaxies
from gotorb.labels.tasks import ImageTask
from gotorb.stamps.cutout import cut_into
from gotorb.stamps.layers import Extensions
from gotorb.survey.frames import Frame

CORE_PIXELS = 11
SATURATION_KEY = "SATURATE"
SATURATED_FRACTION = 0.8
"""Of the saturation level; what is brighter at a catalogued galaxy is a star in front of it, or its bleeding."""


def find_hosts(
    task: ImageTask, frame: Frame, extensions: Extensions, catshtm_dir: str, *, max_mag: float, margin: int
) -> pd.DataFrame:
    """Galaxies whose core lies on pixels with data, clear of saturated stars, with room for most of a stamp.

    Parameters
    ----------
    task, frame : ImageTask, Frame
        The image and its open file.
    extensions : Extensions
        Names of the HDUs.
    catshtm_dir : str
        Folder of the GLADE catalogue.
    max_mag : float
        Faintest galaxy (B).
    margin : int
        Least distance from the edge in pixels.

    Returns
    -------
    DataFrame
        Columns of `catalogues.galaxies.find_galaxies`.
    """
    wcs, (height, width) = frame.wcs(extensions.difference), frame.shape(extensions.difference)
    scale = np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600
    radius = 0.5 * scale * float(np.hypot(height, width))
    galaxies = find_galaxies(catshtm_dir, task.ra_c, task.dec_c, radius_arcsec=radius, max_mag=max_mag)
    if galaxies.empty:
        return galaxies
    x, y = frame.to_pixels(extensions.difference, galaxies["ra"].to_numpy(), galaxies["dec"].to_numpy())
    inside = (x > margin) & (x < width - 1 - margin) & (y > margin) & (y < height - 1 - margin)
    galaxies, x, y = galaxies[inside], x[inside], y[inside]
    core = np.empty((2, len(x), CORE_PIXELS, CORE_PIXELS), np.float32)
    for ext, stamps in zip((extensions.science, extensions.template), core, strict=True):
        cut_into(stamps, frame.blocks(ext, x, y, CORE_PIXELS / 2), x, y)
    middle = frame.values_at(extensions.difference, x, y)
    clear = np.isfinite(middle) & ~(core > _saturation(frame, extensions)).any(axis=(0, 2, 3))
    return galaxies[clear].reset_index(drop=True)


def _saturation(frame: Frame, extensions: Extensions) -> float:
    """Level that counts as saturated; infinite when the header does not know it."""
    level = frame.header(extensions.science).get(SATURATION_KEY, frame.header(0).get(SATURATION_KEY))
    return SATURATED_FRACTION * float(level) if isinstance(level, int | float) and level > 0 else np.inf
