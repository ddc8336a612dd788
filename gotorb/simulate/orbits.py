"""Two-body orbits about the Sun: elements to positions seen from an observatory, and back from a state vector.

Frames: heliocentric ecliptic J2000 for elements, ICRS for what is seen. Units: au, day, degree, MJD.
"""

from typing import NamedTuple, TypeVar

import erfa
import numpy as np
from numpy.typing import NDArray

from gotorb.core.constants import GAUSS_K, MJD_ZERO

Array = NDArray[np.floating]
Columns = TypeVar("Columns", bound=tuple[NDArray, ...])

OBLIQUITY_RAD = np.deg2rad(23.4392911)
LIGHT_DAY_PER_AU = 499.004784 / 86400
EARTH_RADIUS_AU = 6378.137 / 149_597_870.7
TT_MINUS_UTC_S = 69.184
"""Valid since 2017; the embedded survey lives in 2020."""


class Elements(NamedTuple):
    """Osculating elements, arrays of shape (n,): au, degrees; `epoch_mjd` is TT; `h`, `g` the magnitude law."""

    name: NDArray[np.str_]
    a: Array
    e: Array
    i: Array
    node: Array
    peri: Array
    mean_anomaly: Array
    epoch_mjd: Array
    h: Array
    g: Array

    def take(self, rows: NDArray) -> "Elements":
        """Elements of some rows.

        Parameters
        ----------
        rows : ndarray
            Row numbers, or a mask.

        Returns
        -------
        Elements
        """
        return Elements(*(column[rows] for column in self))


class Seen(NamedTuple):
    """Positions and brightness of orbits for an observer: degrees ICRS, V magnitude, distance from the Sun in au."""

    ra: Array
    dec: Array
    mag: Array
    sun_au: Array


def concatenate(parts: list[Columns]) -> Columns:
    """Rows of several tables after each other.

    Parameters
    ----------
    parts : list of named tuple
        Of one type, such as `Elements`; every field an array (n,).

    Returns
    -------
    Columns
    """
    return type(parts[0])(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def to_equator(vector: Array) -> Array:
    """Ecliptic to equatorial J2000; vectors on the last axis.

    Parameters
    ----------
    vector : ndarray (..., 3)
        Ecliptic.

    Returns
    -------
    ndarray
    """
    c, s = np.cos(OBLIQUITY_RAD), np.sin(OBLIQUITY_RAD)
    return vector @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])


def to_ecliptic(vector: Array) -> Array:
    """Equatorial J2000 to ecliptic; vectors on the last axis.

    Parameters
    ----------
    vector : ndarray (..., 3)
        Equatorial.

    Returns
    -------
    ndarray
    """
    c, s = np.cos(OBLIQUITY_RAD), np.sin(OBLIQUITY_RAD)
    return vector @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def observer_position(mjd_utc: float, observatory: tuple[float, float, float]) -> Array:
    """Heliocentric ICRS position [au] of an observatory (lon [deg East], rho cos phi', rho sin phi').

    Parameters
    ----------
    mjd_utc : float
        Time.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    ndarray
    """
    tt = mjd_utc + TT_MINUS_UTC_S / 86400
    earth = erfa.epv00(MJD_ZERO, tt)[0]["p"]
    lon, rho_cos, rho_sin = observatory
    angle = erfa.gst06a(MJD_ZERO, mjd_utc, MJD_ZERO, tt) + np.deg2rad(lon)
    of_date = EARTH_RADIUS_AU * np.array([rho_cos * np.cos(angle), rho_cos * np.sin(angle), rho_sin])
    return np.asarray(earth) + erfa.pnm06a(MJD_ZERO, tt).T @ of_date


def eccentric_anomaly(mean_anomaly: Array, e: Array) -> Array:
    """Solve Kepler's equation (radians) for ellipses.

    Parameters
    ----------
    mean_anomaly : ndarray (n,)
        [rad].
    e : ndarray (n,)
        Eccentricities below 1.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> float(np.round(eccentric_anomaly(np.array([1.0]), np.array([0.0]))[0], 6))
    1.0
    """
    mean = np.mod(mean_anomaly + np.pi, 2 * np.pi) - np.pi
    anomaly = mean + e * np.sin(mean)
    for _ in range(12):
        anomaly = anomaly - (anomaly - e * np.sin(anomaly) - mean) / (1 - e * np.cos(anomaly))
    return anomaly


def heliocentric(elements: Elements, mjd_tt: Array | float) -> Array:
    """Ecliptic positions (n, 3) [au] at a time (one, or one per orbit).

    Parameters
    ----------
    elements : Elements
        Orbits.
    mjd_tt : float or ndarray (n,)
        Times.

    Returns
    -------
    ndarray
    """
    mean = np.deg2rad(elements.mean_anomaly) + GAUSS_K * elements.a**-1.5 * (mjd_tt - elements.epoch_mjd)
    anomaly = eccentric_anomaly(mean, elements.e)
    along = elements.a * (np.cos(anomaly) - elements.e)
    across = elements.a * np.sqrt(1 - elements.e**2) * np.sin(anomaly)
    node, peri, i = np.deg2rad(elements.node), np.deg2rad(elements.peri), np.deg2rad(elements.i)
    cn, sn, cp, sp, ci, si = np.cos(node), np.sin(node), np.cos(peri), np.sin(peri), np.cos(i), np.sin(i)
    first = np.stack([cn * cp - sn * sp * ci, sn * cp + cn * sp * ci, sp * si], axis=-1)
    second = np.stack([-cn * sp - sn * cp * ci, -sn * sp + cn * cp * ci, cp * si], axis=-1)
    return along[:, None] * first + across[:, None] * second


def observe(elements: Elements, mjd_utc: float, observatory: tuple[float, float, float]) -> Seen:
    """Astrometric positions (light time, parallax of the observatory) and magnitudes at one UTC time.

    Parameters
    ----------
    elements : Elements
        Orbits.
    mjd_utc : float
        Time.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    Seen
    """
    observer = observer_position(mjd_utc, observatory)
    tt = mjd_utc + TT_MINUS_UTC_S / 86400
    delay: Array = np.zeros(len(elements.a))
    for _ in range(3):
        sun_vector = to_equator(heliocentric(elements, tt - delay))
        seen = sun_vector - observer
        distance = np.linalg.norm(seen, axis=1)
        delay = distance * LIGHT_DAY_PER_AU
    ra = np.mod(np.rad2deg(np.arctan2(seen[:, 1], seen[:, 0])), 360)
    dec = np.rad2deg(np.arcsin(seen[:, 2] / distance))
    sun = np.linalg.norm(sun_vector, axis=1)
    phase = _phase_dimming(np.einsum("ij,ij->i", seen, sun_vector) / (distance * sun), elements.g)
    return Seen(ra, dec, elements.h + 5 * np.log10(sun * distance) + phase, sun)


def _phase_dimming(cos_phase: Array, g: Array) -> Array:
    """Magnitudes lost to the phase angle in the IAU (H, G) law (Bowell et al. 1989)."""
    half = np.tan(np.arccos(np.clip(cos_phase, -1, 1)) / 2)
    bright = (1 - g) * np.exp(-3.33 * half**0.63) + g * np.exp(-1.87 * half**1.22)
    return -2.5 * np.log10(np.maximum(bright, 1e-6))


def from_state(position: Array, velocity: Array) -> dict[str, Array]:
    """Elements a, e, i, node, peri, mean_anomaly (au, deg) of bound ecliptic states (n, 3) [au, au/day].

    Parameters
    ----------
    position, velocity : ndarray (n, 3)
        Ecliptic heliocentric [au, au/day].

    Returns
    -------
    dict[str, ndarray]
    """
    mu = GAUSS_K**2
    r, v2 = np.linalg.norm(position, axis=1), np.einsum("ij,ij->i", velocity, velocity)
    spin = np.cross(position, velocity)
    e_vector = np.cross(velocity, spin) / mu - position / r[:, None]
    a, e = 1 / (2 / r - v2 / mu), np.linalg.norm(e_vector, axis=1)
    h = np.linalg.norm(spin, axis=1)
    node = np.arctan2(spin[:, 0], -spin[:, 1])
    i = np.arccos(spin[:, 2] / h)
    line = np.stack([np.cos(node), np.sin(node), np.zeros_like(node)], axis=1)
    normal = np.cross(spin / h[:, None], line)
    peri = np.arctan2(np.einsum("ij,ij->i", e_vector, normal), np.einsum("ij,ij->i", e_vector, line))
    cos_e, sin_e = 1 - r / a, np.einsum("ij,ij->i", position, velocity) / np.sqrt(mu * a)
    mean = np.arctan2(sin_e, cos_e) - sin_e
    angles = {"i": i, "node": np.mod(node, 2 * np.pi), "peri": np.mod(peri, 2 * np.pi)}
    angles["mean_anomaly"] = np.mod(mean, 2 * np.pi)
    return {"a": a, "e": e} | {name: np.rad2deg(value) for name, value in angles.items()}
