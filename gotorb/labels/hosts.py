"""Galaxies and variable stars of an image, as hosts of synthetic light and as bare residuals."""

import numpy as np
import pandas as pd

from gotorb.catalogues.crossmatch import chord, unit_vectors
from gotorb.catalogues.galaxies import find_galaxies
from gotorb.catalogues.variables import read_variables
from gotorb.labels.jobs import ImageTask
from gotorb.stamps.cutout import cut_into
from gotorb.stamps.layers import Extensions
from gotorb.survey.fits import Frame

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
    radius = _half_diagonal_arcsec(frame, extensions)
    galaxies = find_galaxies(catshtm_dir, task.ra_c, task.dec_c, radius_arcsec=radius, max_mag=max_mag)
    return _on_good_pixels(galaxies, frame, extensions, margin)


def find_stars(task: ImageTask, frame: Frame, extensions: Extensions, catalogue: str, *, margin: int) -> pd.DataFrame:
    """Known variable stars of an image, in the columns and on the conditions of `find_hosts`.

    Parameters
    ----------
    task, frame, extensions, margin
        As for `find_hosts`.
    catalogue : str
        Catalogue of variable stars (csv or FITS).

    Returns
    -------
    DataFrame
    """
    stars = read_variables(catalogue)
    distance = np.linalg.norm(unit_vectors(stars["ra"], stars["dec"]) - unit_vectors(task.ra_c, task.dec_c), axis=1)
    stars = stars[distance <= chord(_half_diagonal_arcsec(frame, extensions))]
    names = [f"var:{ra:.5f}{dec:+.5f}" for ra, dec in zip(stars["ra"], stars["dec"], strict=True)]
    return _on_good_pixels(stars.assign(galaxy_id=names), frame, extensions, margin)


def _half_diagonal_arcsec(frame: Frame, extensions: Extensions) -> float:
    scale = frame.astrometry(extensions.difference).scale_arcsec
    return float(0.5 * scale * np.hypot(*frame.shape(extensions.difference)))


def _on_good_pixels(places: pd.DataFrame, frame: Frame, extensions: Extensions, margin: int) -> pd.DataFrame:
    """Places (ra, dec) whose core has data and no saturated star, off the edge by a margin."""
    if places.empty:
        return places.reset_index(drop=True)
    height, width = frame.shape(extensions.difference)
    x, y = frame.to_pixels(extensions.difference, places["ra"].to_numpy(), places["dec"].to_numpy())
    inside = (x > margin) & (x < width - 1 - margin) & (y > margin) & (y < height - 1 - margin)
    places, x, y = places[inside], x[inside], y[inside]
    core = np.empty((2, len(x), CORE_PIXELS, CORE_PIXELS), np.float32)
    for ext, stamps in zip((extensions.science, extensions.template), core, strict=True):
        cut_into(stamps, frame.blocks(ext, x, y, CORE_PIXELS / 2), x, y)
    middle = frame.values_at(extensions.difference, x, y)
    clear = np.isfinite(middle) & ~(core > _saturation(frame, extensions)).any(axis=(0, 2, 3))
    return places[clear].reset_index(drop=True)


def _saturation(frame: Frame, extensions: Extensions) -> float:
    """Level that counts as saturated; infinite when the header does not know it."""
    level = frame.header(extensions.science).get(SATURATION_KEY, frame.header(0).get(SATURATION_KEY))
    return SATURATED_FRACTION * float(level) if isinstance(level, int | float) and level > 0 else np.inf
