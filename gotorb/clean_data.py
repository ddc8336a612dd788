"""Find rows of a labelled data set whose label is probably wrong."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

MATCH_RADIUS_ARCSEC = 3.0


def find_variable_stars(
    table: pd.DataFrame, catalogue: Path | str, *, radius_arcsec: float = MATCH_RADIUS_ARCSEC
) -> np.ndarray:
    """Random bogus rows at the place of a known variable star: real changes drawn as junk.

    Parameters
    ----------
    table : DataFrame
        Rows with metalabel, ra, dec (deg, ICRS).
    catalogue : path
        csv or FITS table of variable stars with ra and dec in degrees.
    radius_arcsec : float
        Largest distance from the star.

    Returns
    -------
    ndarray of bool
        (n,) True for suspects.

    Raises
    ------
    CatalogueError
        If the catalogue cannot be read.

    References
    ----------
    Killestein et al. 2021 (MNRAS 503, 4838): about 4 % of vetted junk were variable stars.
    """
    from gotorb.catalogues.crossmatch import find_nearest
    from gotorb.catalogues.variables import read_variables

    stars = read_variables(catalogue)
    _, separation = find_nearest(table["ra"], table["dec"], stars["ra"], stars["dec"])
    return (table["metalabel"] == "randjunk").to_numpy() & (separation <= radius_arcsec)


def suspect_finder(catalogue: Path | str | None) -> Callable[[pd.DataFrame], np.ndarray] | None:
    """`find_variable_stars` for one catalogue, or None without one."""
    return None if catalogue is None else partial(find_variable_stars, catalogue=catalogue)
