"""Which orbits can be near a field: all are propagated once per night, and a field only asks for those within reach.

The screen never decides where an object is, only that it cannot be there. Each orbit's place at local midnight is
known to arcseconds; how far it can get within the night follows from its speed, its distance and the Sun's pull.
Objects close to the Earth or to the Sun, and lines that are no plain ellipses, are never screened out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import erfa
import numpy as np
from numpy.typing import NDArray

from gotorb.catalogues.crossmatch import ARCSEC, unit_vectors
from gotorb.catalogues.elements import GAUSS_K, REFERENCE_MJD, Catalogue

if TYPE_CHECKING:
    from gotorb.catalogues.minor_planets import Field

HALF_NIGHT = 0.5
MARGIN_ARCSEC = 120.0
"""Covers PyEphem's own accuracy, and that pympc takes UTC for TT (69 s)."""
SAFETY = 1.1
CLOSE_TO_EARTH_AU, CLOSE_TO_SUN_AU = 0.1, 0.3
SLOW = np.radians(1.0)
LIGHT_DAY_PER_AU = 499.004784 / 86400
EARTH_RADIUS_AU = 6378.137 / 149_597_870.7
TT_MINUS_UTC = 69.184 / 86400
MJD_ZERO = 2_400_000.5
BLOCK = 1 << 14
"""Orbits propagated at a time: their arrays stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class Night:
    """Every orbit of a catalogue during one night.

    Attributes
    ----------
    sight : ndarray
        (3, n) unit vectors from the Earth's centre at local midnight.
    reach : ndarray
        (n,) angle [rad] that the object stays within all night; pi if it may be anywhere.
    fast : ndarray of int
        Rows with a reach beyond `SLOW`.
    """

    sight: NDArray[np.float32]
    reach: NDArray[np.float32]
    fast: NDArray[np.intp]

    def rows_near(self, field: Field) -> NDArray[np.intp]:
        """Rows that can be in a field, in the order of the catalogue."""
        radius = np.radians(field.radius_deg) + MARGIN_ARCSEC * ARCSEC
        centre = unit_vectors(field.ra, field.dec)[0].astype(np.float32)
        cosine = np.einsum("i,ij->j", centre, self.sight)  # one thread, unlike @: workers share the cores
        rows = np.union1d(np.flatnonzero(cosine >= np.cos(min(radius + SLOW, np.pi))), self.fast)
        apart = np.linalg.norm(self.sight[:, rows] - centre[:, None], axis=0)
        return rows[2 * np.arcsin(np.clip(apart / 2, 0, 1)) <= radius + self.reach[rows]]


def lines_near(catalogue: Catalogue, field: Field, longitude: float) -> bytes | None:
    """Lines of the objects that can be in a field; None if the file has been replaced meanwhile."""
    return catalogue.lines(screen(catalogue, midnight(field.epoch_mjd, longitude)).rows_near(field))


def midnight(mjd: float, longitude: float) -> float:
    """Midnight [MJD, UTC] of the night of a time, nights counted from local noon to noon.

    Examples
    --------
    >>> midnight(60000.9, 0.0), midnight(60001.4, 0.0)
    (60001.0, 60001.0)
    >>> round(midnight(60000.2, 289.25), 3)  # Chile: 16 h to 16 h UTC
    60000.197
    """
    east = ((longitude + 180) % 360 - 180) / 360
    return float(np.floor(mjd + east - 0.5)) + 1.0 - east


@lru_cache(maxsize=2)
def screen(catalogue: Catalogue, midnight: float) -> Night:
    """Propagate every orbit of a catalogue to a midnight."""
    tt = midnight + TT_MINUS_UTC
    earth = erfa.epv00(MJD_ZERO, tt)[0]
    n = len(catalogue)
    sight, reach = np.empty((3, n), np.float32), np.empty(n, np.float32)
    for start in range(0, n, BLOCK):
        part = slice(start, start + BLOCK)
        sight[:, part], reach[part] = _propagate(catalogue.orbits[:-1, part], tt, earth["p"], earth["v"])
    return Night(sight, reach, np.flatnonzero(reach > SLOW))


def _propagate(orbits: NDArray, tt: float, earth: NDArray, earth_speed: NDArray) -> tuple[NDArray, NDArray]:
    """Unit vectors and reach of some orbits; zero and pi where nothing is known."""
    p, q, (e, motion, anomaly) = orbits[:3], orbits[3:6], orbits[6:]
    eccentric = eccentric_anomaly(anomaly + motion * (tt - REFERENCE_MJD), e)
    cos, sin = np.cos(eccentric), np.sin(eccentric)
    place = p * (cos - e) + q * sin
    speed = (q * cos - p * sin) * (motion / (1 - e * cos))
    seen = place - earth[:, None]
    seen -= speed * (_length(seen) * LIGHT_DAY_PER_AU)
    distance, sun = _length(seen), _length(place)
    sight = seen / distance
    reach = SAFETY * _reach(sight, speed - earth_speed[:, None], distance, sun)
    unknown = ~(np.isfinite(reach) & (distance > CLOSE_TO_EARTH_AU) & (sun > CLOSE_TO_SUN_AU))
    return np.where(unknown, 0.0, sight), np.where(unknown, np.pi, np.minimum(reach, np.pi))


def _reach(sight: NDArray, speed: NDArray, distance: NDArray, sun: NDArray) -> NDArray:
    """Largest angle from a place within half a night: motion, how both orbits bend, and the observatory's parallax."""
    along = np.einsum("ij,ij->j", speed, sight)
    across = np.sqrt(np.maximum(np.einsum("ij,ij->j", speed, speed) - along**2, 0))
    bend = GAUSS_K**2 * (1 + 1 / sun**2) * HALF_NIGHT**2 / 2
    nearest = distance - np.abs(along) * HALF_NIGHT - bend - EARTH_RADIUS_AU
    sideways = across * HALF_NIGHT + bend + EARTH_RADIUS_AU
    return np.where(nearest > 0, np.arctan2(sideways, nearest), np.pi)


def _length(vectors: NDArray) -> NDArray:
    return np.sqrt(np.einsum("ij,ij->j", vectors, vectors))


def eccentric_anomaly(mean: NDArray, e: NDArray) -> NDArray:
    """Solve Kepler's equation for ellipses (rad); NaN where Newton's method does not settle.

    Examples
    --------
    >>> E = eccentric_anomaly(np.array([0.01, 3.0]), np.array([0.99, 0.2]))
    >>> bool(np.allclose(E - np.array([0.99, 0.2]) * np.sin(E), [0.01, 3.0]))
    True
    """
    mean = np.mod(mean + np.pi, 2 * np.pi) - np.pi
    anomaly = mean + np.copysign(0.85 * e, mean)
    step = np.full_like(mean, np.inf)
    for _ in range(30):
        step = (anomaly - e * np.sin(anomaly) - mean) / (1 - e * np.cos(anomaly))
        anomaly = anomaly - step
        if not np.any(np.abs(step) > 1e-6):
            break
    return np.where(np.abs(step) > 1e-6, np.nan, anomaly)
