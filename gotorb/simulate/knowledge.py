"""What the survey's users may know of its sky: catalogues of minor planets, galaxies and variable stars.

Like real ones they are incomplete and a little off.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb import layout
from gotorb.core.files import write_csv
from gotorb.params import SurveyParams
from gotorb.simulate import asteroids, glade, orbits, plan, sky
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import Field
from gotorb.simulate.world import variable_name

Array = NDArray[np.floating]
MISSING_ASTEROIDS, MISSING_VARIABLES = 0.025, 0.2
GALAXY_ERROR_ARCSEC, STAR_ERROR_ARCSEC = 0.4, 0.2
B_MINUS_V = 0.7
CATALOGUE_REACH_DEG = 3.0
"""Objects of a user's catalogue further from every visit than this are left out of the survey's copy."""
GLADE_STREAM, VARIABLE_STREAM = 10, 11


def generate_asteroids(
    fields: list[Field], params: SurveyParams, seed: int, observatory: tuple[float, float, float]
) -> Elements:
    """A main belt that gives each visit its share of asteroids; one epoch for all elements."""
    parts = []
    for field in fields:
        n = round(params.n_asteroids * field.size**2 / 1024**2)
        for visit in field.visits:
            rng = plan.stream(seed, field.index, plan.BELT, visit.number)
            part = asteroids.generate_belt(field.grid, field.size, visit.mjd_utc, n, rng=rng, observatory=observatory)
            names = np.array([f"SIM{field.index:03d}{visit.number:02d}{k:03d}" for k in range(n)], dtype="U16")
            parts.append(asteroids.at_epoch(part._replace(name=names), plan.FIRST_NIGHT_MJD + 15.0))
    return asteroids.concatenate(parts)


def choose_asteroids(
    catalogue: Elements, fields: list[Field], observatory: tuple[float, float, float]
) -> tuple[list[NDArray[np.intp]], NDArray[np.intp]]:
    """Rows of a catalogue that may enter each field's images, and rows near any visit."""
    inside, near = [], np.zeros(len(catalogue.a), dtype=bool)
    for field in fields:
        reach = 0.75 * plan.CAMERA.side_deg(field.size)
        hit = np.zeros(len(catalogue.a), dtype=bool)
        for visit in field.visits:
            seen = orbits.observe(catalogue, visit.mjd_utc, observatory)
            distance = _distance_deg(seen.ra, seen.dec, field.ra, field.dec)
            hit |= distance < reach
            near |= distance < CATALOGUE_REACH_DEG + reach
        inside.append(np.flatnonzero(hit))
    return inside, np.flatnonzero(near)


def _distance_deg(ra: Array, dec: Array, ra0: float, dec0: float) -> Array:
    dra, ddec = np.deg2rad(ra - ra0) / 2, np.deg2rad(dec - dec0) / 2
    square = np.sin(ddec) ** 2 + np.cos(np.deg2rad(dec)) * np.cos(np.deg2rad(dec0)) * np.sin(dra) ** 2
    return np.rad2deg(2 * np.arcsin(np.sqrt(square)))


def write_catalogues(out_dir: Path, fields: list[Field], known: Elements, seed: int) -> None:
    """Write xephem.csv, GLADE in catsHTM format and variables.csv."""
    folder = out_dir / layout.CATALOGUES_DIR
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.random.default_rng([seed, 0, plan.ORBIT]).random(len(known.a)) >= MISSING_ASTEROIDS
    asteroids.write_xephem(known.take(np.flatnonzero(kept)), folder / layout.XEPHEM_CSV)
    skies = [
        (field, sky.draw_sky(field.grid, field.size, field.visits[0].mjd_utc, plan.stream(seed, field.index, plan.SKY)))
        for field in fields
    ]
    glade.write_glade(np.concatenate([_glade_rows(f, s.galaxies, seed) for f, s in skies]), folder)
    variables = pd.concat([_variable_rows(f, s.stars, seed) for f, s in skies], ignore_index=True)
    write_csv(folder / layout.VARIABLES_CSV, variables)


def _glade_rows(field: Field, galaxies: sky.Galaxies, seed: int) -> Array:
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


def _variable_rows(field: Field, stars: sky.Stars, seed: int) -> pd.DataFrame:
    rng = plan.stream(seed, field.index, VARIABLE_STREAM)
    rows = np.flatnonzero(stars.is_variable)
    error = STAR_ERROR_ARCSEC / 3600 * rng.standard_normal((2, len(rows)))
    table = pd.DataFrame(
        {
            "ra": np.round(stars.ra[rows] + error[0] / np.cos(np.deg2rad(stars.dec[rows])), 6),
            "dec": np.round(stars.dec[rows] + error[1], 6),
            "name": [variable_name(field.index, int(k)) for k in rows],
            "type": np.where(stars.period[rows] < 1, "RR", np.where(stars.period[rows] < 20, "CEP", "LPV")),
        }
    )
    return table[rng.random(len(rows)) >= MISSING_VARIABLES]
