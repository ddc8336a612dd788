"""Minor planets: a generated main belt through a field, and catalogues in pympc's XEphem csv."""

from pathlib import Path

import erfa
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb.core.files import write_text
from gotorb.errors import CatalogueError
from gotorb.simulate import orbits
from gotorb.simulate.orbits import Elements
from gotorb.simulate.projection import Tan

Array = NDArray[np.floating]
SLOPE_G = 0.15
MAG_RANGE = (15.5, 21.6)
MAG_SLOPE = 0.16
"""Number of asteroids per magnitude grows as 10^(0.16 V): flatter than the sky, so that bright ones are not rare."""


def generate_belt(
    grid: Tan, size: int, mjd_utc: float, n: int, *, rng: np.random.Generator, observatory: tuple[float, float, float]
) -> Elements:
    """Elements of `n` main-belt objects that lie inside an image at one time.

    A place in the image and a heliocentric distance of 2.1-3.3 au fix where an object is; a nearly circular
    velocity, tilted by a few degrees out of the ecliptic direction, fixes its orbit. Epoch of the elements is that
    time (TT); names are left empty for the caller.
    """
    ra, dec = grid.to_sky(rng.uniform(0, size - 1, n), rng.uniform(0, size - 1, n))
    sun_au = rng.uniform(2.1, 3.3, n)
    position, delay = _place(ra, dec, sun_au, orbits.observer_position(mjd_utc, observatory))
    velocity = _velocity(position, rng)
    epoch = mjd_utc + orbits.TT_MINUS_UTC_S / 86400
    state = orbits.from_state(position, velocity)
    motion = np.rad2deg(orbits.GAUSS_K * state["a"] ** -1.5)
    state["mean_anomaly"] = np.mod(state["mean_anomaly"] + motion * delay, 360)
    blank = np.zeros(n)
    elements = Elements(
        name=np.full(n, "", dtype="U12"), **state, epoch_mjd=np.full(n, epoch), h=blank, g=np.full(n, SLOPE_G)
    )
    seen = orbits.observe(elements, mjd_utc, observatory)
    return elements._replace(h=draw_mags(rng, n) - seen.mag)


def draw_mags(rng: np.random.Generator, n: int, *, slope: float = MAG_SLOPE) -> Array:
    """V magnitudes with a number density of 10^(slope V) inside the usual range."""
    low, high = 10 ** (slope * np.asarray(MAG_RANGE))
    return np.log10(rng.uniform(low, high, n)) / slope


def _place(ra: Array, dec: Array, sun_au: Array, observer: Array) -> tuple[Array, Array]:
    """Ecliptic heliocentric positions on the lines of sight at given solar distances, and the light time [day]."""
    ra, dec = np.deg2rad(ra), np.deg2rad(dec)
    sight = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
    along = sight @ observer
    distance = -along + np.sqrt(along**2 - observer @ observer + sun_au**2)
    position = orbits.to_ecliptic(observer + distance[:, None] * sight)
    return position, distance * orbits.LIGHT_DAY_PER_AU


def _velocity(position: Array, rng: np.random.Generator) -> Array:
    """Nearly circular prograde velocities [au/day] at ecliptic positions."""
    n = len(position)
    radius = np.linalg.norm(position, axis=1, keepdims=True)
    outward = position / radius
    east = np.cross([0.0, 0.0, 1.0], outward)
    east /= np.linalg.norm(east, axis=1, keepdims=True)
    north = np.cross(outward, east)
    tilt = np.deg2rad(rng.normal(0, 7, (n, 1)))
    circular = orbits.GAUSS_K / np.sqrt(radius)
    around = (np.cos(tilt) * east + np.sin(tilt) * north) * (1 + 0.05 * rng.standard_normal((n, 1)))
    return circular * (around + 0.08 * rng.standard_normal((n, 1)) * outward)


def at_epoch(elements: Elements, epoch_mjd: float) -> Elements:
    """The same orbits with their mean anomalies moved to one common epoch (TT)."""
    motion = np.rad2deg(orbits.GAUSS_K * elements.a**-1.5)
    mean = np.mod(elements.mean_anomaly + motion * (epoch_mjd - elements.epoch_mjd), 360)
    return elements._replace(mean_anomaly=mean, epoch_mjd=np.full(len(mean), epoch_mjd))


def nudge(elements: Elements, rng: np.random.Generator, *, along_track_arcsec: float = 0.15) -> Elements:
    """True orbits behind a catalogue: mean anomalies off by an rms that looks like `along_track_arcsec` on the sky."""
    scale = along_track_arcsec / 3600 * (elements.a - 1) / elements.a
    return elements._replace(mean_anomaly=elements.mean_anomaly + scale * rng.standard_normal(len(elements.a)))


def concatenate(parts: list[Elements]) -> Elements:
    """Rows of several catalogues after each other."""
    return Elements(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def decimal_year(mjd: Array) -> Array:
    """Decimal year as XEphem counts it: fraction of the calendar year.

    >>> float(decimal_year(np.array([59215.0]))[0])
    2021.0
    """
    year = erfa.jd2cal(orbits.MJD_ZERO, np.asarray(mjd, dtype=float))[0]
    start = np.array([erfa.cal2jd(int(y), 1, 1)[1] for y in np.atleast_1d(year)])
    end = np.array([erfa.cal2jd(int(y) + 1, 1, 1)[1] for y in np.atleast_1d(year)])
    return year + (mjd - start) / (end - start)


def from_decimal_year(value: Array) -> Array:
    """MJD of a decimal year; the inverse of `decimal_year`."""
    year = np.floor(value).astype(int)
    starts = {int(y): erfa.cal2jd(int(y), 1, 1)[1] for y in np.unique(np.append(year, year + 1))}
    start = np.array([starts[int(y)] for y in year])
    end = np.array([starts[int(y) + 1] for y in year])
    return start + (value - year) * (end - start)


def write_xephem(elements: Elements, path: Path) -> None:
    """Write a catalogue that `pympc.minor_planet_check(xephem_filepath=...)` reads."""
    years = decimal_year(elements.epoch_mjd)
    motion = np.rad2deg(orbits.GAUSS_K * elements.a**-1.5)
    lines = [
        f"{r[0]},e,{r[2]:.8f},{r[3]:.8f},{r[4]:.8f},{r[5]:.8f},{r[6]:.8f},{r[7]:.8f},{r[8]:.8f},{r[1]:.8f},2000,"
        f"{r[9]:.4f},{r[10]:.4f}\n"
        for r in zip(
            elements.name,
            years,
            elements.i,
            elements.node,
            elements.peri,
            elements.a,
            motion,
            elements.e,
            elements.mean_anomaly,
            elements.h,
            elements.g,
            strict=True,
        )
    ]
    write_text(path, "".join(lines))


def read_xephem(path: Path) -> Elements:
    """Read the elliptical orbits of an XEphem csv; parabolic and hyperbolic comets are left out.

    Raises
    ------
    CatalogueError
        If the file is missing or holds no elliptical orbit.
    """
    try:
        table = pd.read_csv(path, header=None, names=list(range(14)), dtype=str, comment="#", on_bad_lines="skip")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CatalogueError(f"cannot read minor planets from {path} ({error}); give a csv in XEphem format") from None
    table = table[table[1] == "e"]
    number = {k: pd.to_numeric(table[k].str.lstrip("HhGg"), errors="coerce") for k in (2, 3, 4, 5, 7, 8, 9, 11, 12)}
    whole = pd.concat(number.values(), axis=1).notna().all(axis=1).to_numpy()
    if not whole.any():
        raise CatalogueError(f"no elliptical orbit in {path}; give a csv in XEphem format (pympc writes one)")
    value = {k: column.to_numpy(dtype=float)[whole] for k, column in number.items()}
    name = table[0].to_numpy(dtype=str)[whole]
    epoch = from_decimal_year(value[9])
    return Elements(name, value[5], value[7], value[2], value[3], value[4], value[8], epoch, value[11], value[12])
