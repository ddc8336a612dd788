"""Catalogues that the survey's users have: minor planets (XEphem csv), galaxies (GLADE in catsHTM's format), variables.

Like real ones they are incomplete and a little off.
"""

from pathlib import Path

import erfa
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb.catalogues.galaxies import write_glade
from gotorb.core import layout
from gotorb.core.files import write_csv, write_text
from gotorb.core.params import SurveyParams
from gotorb.errors import CatalogueError
from gotorb.simulate import orbits, plan, scene
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import Field, Tan
from gotorb.survey.sanity import separation_arcsec

Array = NDArray[np.floating]
MISSING_ASTEROIDS, MISSING_VARIABLES = 0.025, 0.2
GALAXY_ERROR_ARCSEC, STAR_ERROR_ARCSEC = 0.4, 0.2
B_MINUS_V = 0.7
CATALOGUE_REACH_DEG = 3.0
"""Objects of a user's catalogue further from every visit than this are left out of the survey's copy."""
GLADE_STREAM, VARIABLE_STREAM = 10, 11
SLOPE_G = 0.15
MAG_RANGE = (15.5, 21.6)
MAG_SLOPE = 0.16
"""Number of asteroids per magnitude grows as 10^(0.16 V): flatter than the sky, so that bright ones are not rare."""


def generate_asteroids(
    fields: list[Field], params: SurveyParams, seed: int, observatory: tuple[float, float, float]
) -> Elements:
    """A main belt that gives each visit its share of asteroids; one epoch for all elements.

    Parameters
    ----------
    fields : list of Field
        Pointings with their visits.
    params : SurveyParams
        Its `n_asteroids` counts per visit and 1024 x 1024 pixels.
    seed : int
        Of the survey.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    Elements
    """
    parts = []
    for field in fields:
        n = round(params.n_asteroids * field.size**2 / 1024**2)
        for visit in field.visits:
            rng = plan.stream(seed, field.index, plan.BELT, visit.number)
            part = generate_belt(field.grid, field.size, visit.mjd_utc, n, rng=rng, observatory=observatory)
            names = np.array([f"SIM{field.index:03d}{visit.number:02d}{k:03d}" for k in range(n)], dtype="U16")
            parts.append(at_epoch(part._replace(name=names), plan.FIRST_NIGHT_MJD + 15.0))
    return orbits.concatenate(parts)


def choose_asteroids(
    catalogue: Elements, fields: list[Field], observatory: tuple[float, float, float]
) -> tuple[list[NDArray[np.intp]], NDArray[np.intp]]:
    """Rows of a catalogue that may enter each field's images, and rows near any visit.

    Parameters
    ----------
    catalogue : Elements
        Any number of orbits.
    fields : list of Field
        Pointings with their visits.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    tuple[list[ndarray of int], ndarray of int]
    """
    inside, near = [], np.zeros(len(catalogue.a), dtype=bool)
    for field in fields:
        reach = 0.75 * plan.CAMERA.side_deg(field.size)
        hit = np.zeros(len(catalogue.a), dtype=bool)
        for visit in field.visits:
            seen = orbits.observe(catalogue, visit.mjd_utc, observatory)
            distance = separation_arcsec(seen.ra, seen.dec, field.ra, field.dec) / 3600
            hit |= distance < reach
            near |= distance < CATALOGUE_REACH_DEG + reach
        inside.append(np.flatnonzero(hit))
    return inside, np.flatnonzero(near)


def write_catalogues(out_dir: Path, fields: list[Field], known: Elements, seed: int) -> None:
    """Write xephem.csv, GLADE in catsHTM format and variables.csv.

    Parameters
    ----------
    out_dir : Path
        Folder of the survey.
    fields : list of Field
        Its pointings.
    known : Elements
        Minor planets near the survey; a few are left out.
    seed : int
        Of the survey.
    """
    folder = out_dir / layout.CATALOGUES_DIR
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.random.default_rng([seed, 0, plan.ORBIT]).random(len(known.a)) >= MISSING_ASTEROIDS
    write_xephem(known.take(np.flatnonzero(kept)), folder / layout.XEPHEM_CSV)
    skies = [(field, scene.draw_sky(field, seed)) for field in fields]
    write_glade(np.concatenate([_glade_rows(f, s.galaxies, seed) for f, s in skies]), folder)
    variables = pd.concat([_variable_rows(f, s.stars, seed) for f, s in skies], ignore_index=True)
    write_csv(folder / layout.VARIABLES_CSV, variables)


def _glade_rows(field: Field, galaxies: scene.Galaxies, seed: int) -> Array:
    """Galaxies as GLADE lists them: RA, Dec [rad], B, radius [arcsec], distance [Mpc]; faint ones mostly absent."""
    rng = plan.stream(seed, field.index, GLADE_STREAM)
    n = len(galaxies.ra)
    chance = np.clip(0.93 - 0.3 * (galaxies.mag - 17), 0.03, 0.93)
    error = GALAXY_ERROR_ARCSEC / 3600 * rng.standard_normal((2, n))
    ra = np.mod(galaxies.ra + error[0] / np.cos(np.deg2rad(galaxies.dec)), 360)
    blue = galaxies.mag + B_MINUS_V + 0.15 * rng.standard_normal(n)
    radius = galaxies.radius * plan.CAMERA.pixel_arcsec
    distance = 10 ** (0.2 * (galaxies.mag + 20.5) - 5) * np.exp(0.3 * rng.standard_normal(n))
    rows = np.stack([np.deg2rad(ra), np.deg2rad(galaxies.dec + error[1]), blue, radius, distance], axis=1)
    return rows[rng.random(n) < chance]


def _variable_rows(field: Field, stars: scene.Stars, seed: int) -> pd.DataFrame:
    rng = plan.stream(seed, field.index, VARIABLE_STREAM)
    rows = np.flatnonzero(stars.is_variable)
    error = STAR_ERROR_ARCSEC / 3600 * rng.standard_normal((2, len(rows)))
    table = pd.DataFrame(
        {
            "ra": np.round(stars.ra[rows] + error[0] / np.cos(np.deg2rad(stars.dec[rows])), 6),
            "dec": np.round(stars.dec[rows] + error[1], 6),
            "name": [scene.variable_name(field.index, int(k)) for k in rows],
            "type": np.where(stars.period[rows] < 1, "RR", np.where(stars.period[rows] < 20, "CEP", "LPV")),
        }
    )
    return table[rng.random(len(rows)) >= MISSING_VARIABLES]


def generate_belt(
    grid: Tan, size: int, mjd_utc: float, n: int, *, rng: np.random.Generator, observatory: tuple[float, float, float]
) -> Elements:
    """Elements of `n` main-belt objects that lie inside an image at one time.

    A place in the image and a heliocentric distance of 2.1-3.3 au fix where an object is; a nearly circular
    velocity, tilted by a few degrees out of the ecliptic direction, fixes its orbit. Epoch of the elements is that
    time (TT); names are left empty for the caller.

    Parameters
    ----------
    grid, size : Tan, int
        The image, `size` pixels a side.
    mjd_utc : float
        Time at which the objects are inside.
    n : int
        Number of objects.
    rng : Generator
        Random numbers.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    Elements
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
    return elements._replace(h=_draw_mags(rng, n) - seen.mag)


def _draw_mags(rng: np.random.Generator, n: int, *, slope: float = MAG_SLOPE) -> Array:
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
    """The same orbits with their mean anomalies moved to one common epoch (TT).

    Parameters
    ----------
    elements : Elements
        Orbits of any epochs.
    epoch_mjd : float
        New epoch [MJD TT].

    Returns
    -------
    Elements
    """
    motion = np.rad2deg(orbits.GAUSS_K * elements.a**-1.5)
    mean = np.mod(elements.mean_anomaly + motion * (epoch_mjd - elements.epoch_mjd), 360)
    return elements._replace(mean_anomaly=mean, epoch_mjd=np.full(len(mean), epoch_mjd))


def nudge(elements: Elements, rng: np.random.Generator, *, along_track_arcsec: float = 0.15) -> Elements:
    """True orbits behind a catalogue: mean anomalies off by an rms that looks like `along_track_arcsec` on the sky.

    Parameters
    ----------
    elements : Elements
        Catalogued orbits.
    rng : Generator
        Random numbers.
    along_track_arcsec : float
        Rms on the sky.

    Returns
    -------
    Elements
    """
    scale = along_track_arcsec / 3600 * (elements.a - 1) / elements.a
    return elements._replace(mean_anomaly=elements.mean_anomaly + scale * rng.standard_normal(len(elements.a)))


def decimal_year(mjd: Array) -> Array:
    """Decimal year as XEphem counts it: fraction of the calendar year.

    Parameters
    ----------
    mjd : ndarray (n,)
        Times.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> float(decimal_year(np.array([59215.0]))[0])
    2021.0
    """
    year = erfa.jd2cal(orbits.MJD_ZERO, np.asarray(mjd, dtype=float))[0]
    start = np.array([erfa.cal2jd(int(y), 1, 1)[1] for y in np.atleast_1d(year)])
    end = np.array([erfa.cal2jd(int(y) + 1, 1, 1)[1] for y in np.atleast_1d(year)])
    return year + (mjd - start) / (end - start)


def from_decimal_year(value: Array) -> Array:
    """MJD of a decimal year; the inverse of `decimal_year`.

    Parameters
    ----------
    value : ndarray (n,)
        Decimal years.

    Returns
    -------
    ndarray
    """
    year = np.floor(value).astype(int)
    starts = {int(y): erfa.cal2jd(int(y), 1, 1)[1] for y in np.unique(np.append(year, year + 1))}
    start = np.array([starts[int(y)] for y in year])
    end = np.array([starts[int(y) + 1] for y in year])
    return start + (value - year) * (end - start)


def write_xephem(elements: Elements, path: Path) -> None:
    """Write a catalogue that `pympc.minor_planet_check(xephem_filepath=...)` reads.

    Parameters
    ----------
    elements : Elements
        Orbits, one line each.
    path : Path
        The csv.
    """
    years = decimal_year(elements.epoch_mjd)
    motion = np.rad2deg(orbits.GAUSS_K * elements.a**-1.5)
    lines = [
        f"{r[0]},e,{r[2]:.8f},{r[3]:.8f},{r[4]:.8f},{r[5]:.8f},{r[6]:.8f},{r[7]:.8f},{r[8]:.8f},{r[1]:.8f},2000,"
        f"{r[9]:.4f},{r[10]:.4f}\n"
        for r in zip(
            elements.name, years, elements.i, elements.node, elements.peri, elements.a, motion, elements.e,
            elements.mean_anomaly, elements.h, elements.g, strict=True,
        )
    ]  # fmt: skip
    write_text(path, "".join(lines))


def read_xephem(path: Path) -> Elements:
    """Read the elliptical orbits of an XEphem csv; parabolic and hyperbolic comets are left out.

    Parameters
    ----------
    path : Path
        The csv.

    Returns
    -------
    Elements

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
