"""Positional matching on the sphere: index arrays out, radii in arcsec in the names."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

ARCSEC = np.pi / 180 / 3600


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Unit vectors of positions; free of the seam at RA 0 and of the poles.

    Parameters
    ----------
    ra, dec : array_like
        (n,) or scalar, deg, ICRS.

    Returns
    -------
    ndarray
        (n, 3), float64.

    Examples
    --------
    >>> unit_vectors([0.0, 90.0], [0.0, 0.0]).round(6).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    ra, dec = np.radians(np.asarray(ra, float)), np.radians(np.asarray(dec, float))
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def chord(angle_arcsec: float) -> float:
    """Straight distance on the unit sphere between two points an angle apart.

    Parameters
    ----------
    angle_arcsec : float

    Returns
    -------
    float
        In radii of the sphere.

    Examples
    --------
    >>> round(chord(3600.0), 6)  # one degree
    0.017453
    """
    return float(2 * np.sin(angle_arcsec * ARCSEC / 2))


def find_nearest(
    ra: ArrayLike, dec: ArrayLike, ra_catalogue: ArrayLike, dec_catalogue: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest catalogue entry of each position.

    Parameters
    ----------
    ra, dec, ra_catalogue, dec_catalogue : array_like
        (n,) positions and (m,) catalogue entries, deg, ICRS.

    Returns
    -------
    index : ndarray of int
        (n,) row of the catalogue; -1 when the catalogue is empty.
    separation_arcsec : ndarray
        (n,) infinite when the catalogue is empty.

    Examples
    --------
    >>> find_nearest([0.0], [0.0], [1.0, 359.999], [0.0, 0.0])[0].tolist()
    [1]
    """
    n = np.size(ra)
    if np.size(ra_catalogue) == 0 or n == 0:
        return np.full(n, -1), np.full(n, np.inf)
    distance, index = cKDTree(unit_vectors(ra_catalogue, dec_catalogue)).query(unit_vectors(ra, dec))
    return index, 2 * np.arcsin(np.clip(distance / 2, 0, 1)) / ARCSEC


def match_one_to_one(
    ra: ArrayLike, dec: ArrayLike, ra_catalogue: ArrayLike, dec_catalogue: ArrayLike, *, radius_arcsec: float
) -> np.ndarray:
    """Catalogue row of each position within the radius, each entry given once, to its nearest position.

    Parameters
    ----------
    ra, dec, ra_catalogue, dec_catalogue : array_like
        (n,) positions and (m,) catalogue entries, deg, ICRS.
    radius_arcsec : float
        Largest separation of a match.

    Returns
    -------
    ndarray of int
        (n,) row of the catalogue, -1 where there is none.

    Examples
    --------
    >>> match_one_to_one([10.0, 10.0001], [0.0, 0.0], [10.0], [0.0], radius_arcsec=1.0).tolist()
    [0, -1]
    """
    index, separation = find_nearest(ra, dec, ra_catalogue, dec_catalogue)
    matched = np.where(separation <= radius_arcsec, index, -1)
    order = np.argsort(separation, kind="stable")
    first = np.unique(matched[order], return_index=True)[1]
    keep = np.zeros(len(matched), bool)
    keep[order[first]] = True
    return np.where(keep, matched, -1)
