"""Orbits: two-body motion, what an observatory sees, and agreement with an independent ephemeris."""

from pathlib import Path

import numpy as np
import pympc
import pytest

from gotorb.core.settings import LA_PALMA
from gotorb.errors import CatalogueError
from gotorb.simulate import catalogues, orbits
from gotorb.simulate.plan import Tan

MJD = 59160.123
GRID = Tan(ra=35.0, dec=14.0, x0=511.5, y0=511.5, scale_deg=1.24 / 3600, angle_deg=20.0)


@pytest.fixture(scope="module")
def belt() -> orbits.Elements:
    made = catalogues.generate_belt(GRID, 1024, MJD, 60, rng=np.random.default_rng(3), observatory=LA_PALMA)
    return made._replace(name=np.array([f"SIM{k}" for k in range(60)]))


def test_generated_asteroids_lie_in_the_image_and_in_the_main_belt(belt: orbits.Elements) -> None:
    seen = orbits.observe(belt, MJD, LA_PALMA)
    x, y = GRID.to_pixel(seen.ra, seen.dec)
    assert ((x > -0.5) & (x < 1023.5) & (y > -0.5) & (y < 1023.5)).all()
    assert ((belt.a > 1.8) & (belt.a < 4.2)).all()
    assert belt.e.max() < 0.45
    assert (seen.mag > 15.4).all() and (seen.mag < 21.7).all()


def test_asteroids_near_opposition_move_backwards_at_the_rate_of_the_main_belt(belt: orbits.Elements) -> None:
    now, later = (orbits.observe(belt, MJD + dt, LA_PALMA) for dt in (0, 1 / 24))
    east = (later.ra - now.ra) * np.cos(np.deg2rad(now.dec)) * 3600
    assert (east < 0).all()
    assert (np.hypot(east, (later.dec - now.dec) * 3600) < 60).all()


def test_elements_of_a_state_give_the_state_back(belt: orbits.Elements) -> None:
    step = 1e-4
    place = orbits.heliocentric(belt, MJD)
    speed = (orbits.heliocentric(belt, MJD + step) - orbits.heliocentric(belt, MJD - step)) / (2 * step)
    again = orbits.from_state(place, speed)
    assert np.allclose(again["a"], belt.a, rtol=1e-6)
    assert np.allclose(again["e"], belt.e, atol=1e-6)
    assert np.allclose(again["i"], belt.i, atol=1e-4)


def test_pympc_finds_every_generated_asteroid_where_we_put_it(belt: orbits.Elements, tmp_path: Path) -> None:
    moved = catalogues.at_epoch(belt, MJD + 15)
    catalogues.write_xephem(moved, tmp_path / "xephem.csv")
    found = pympc.minor_planet_check(
        GRID.ra,
        GRID.dec,
        MJD,
        3600,
        xephem_filepath=str(tmp_path / "xephem.csv"),
        include_major_bodies=False,
        observatory=LA_PALMA,
        chunk_size=0,
    )
    place = {str(row["name"]): (row["ra"], row["dec"], row["mag"]) for row in found}
    seen = orbits.observe(belt, MJD, LA_PALMA)
    assert len(place) == 60
    ra, dec, mag = np.array([place[name] for name in belt.name]).T
    offset = np.hypot((ra - seen.ra) * np.cos(np.deg2rad(dec)), dec - seen.dec) * 3600
    # pympc counts the epoch and the Earth's place a little differently: a common offset of 0.2 to 0.4 arcsec
    assert offset.max() < 0.5
    assert np.abs(mag - seen.mag).max() < 0.02


def test_catalogue_survives_a_round_trip_and_skips_comets(belt: orbits.Elements, tmp_path: Path) -> None:
    path = tmp_path / "xephem.csv"
    catalogues.write_xephem(belt, path)
    path.write_text("# made by hand\nComet,h,04/16.9/2020,50.1,30,60,1.001,0.9,2000,6.0,4.0\n" + path.read_text())
    again = catalogues.read_xephem(path)
    assert list(again.name) == list(belt.name)
    assert np.allclose(again.epoch_mjd, belt.epoch_mjd, atol=1e-5)
    assert np.allclose(again.mean_anomaly, belt.mean_anomaly, atol=1e-7)


@pytest.mark.parametrize("text", ["", "no orbit here\n"])
def test_a_file_without_orbits_is_refused_in_words(text: str, tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(text)
    with pytest.raises(CatalogueError, match=r"empty\.csv"):
        catalogues.read_xephem(path)


@pytest.mark.parametrize("mjd", [58849.0, 58908.5, 59214.99, 59215.0])
def test_decimal_year_inverts_in_leap_years_too(mjd: float) -> None:
    assert catalogues.from_decimal_year(catalogues.decimal_year(np.array([mjd])))[0] == pytest.approx(mjd, abs=1e-6)


def test_projection_agrees_with_astropy() -> None:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    x, y = np.meshgrid([0.0, 300.5, 1023.0], [0.0, 511.5, 1023.0])
    ra, dec = GRID.to_sky(x, y)
    wcs = WCS(Header(GRID.cards()))
    assert np.allclose(wcs.all_pix2world(x, y, 0), (ra, dec), atol=1e-10)
    assert np.allclose(GRID.to_pixel(ra, dec), (x, y), atol=1e-6)
