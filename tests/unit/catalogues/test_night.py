"""The screen changes what it costs to look for minor planets, never what is found."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pympc
import pytest

from gotorb.catalogues.minor_planets import COLUMNS, Field, Pympc
from gotorb.catalogues.orbits import HALF_NIGHT, eccentric_anomaly, lines_near, midnight, read_catalogue
from gotorb.core.settings import LA_PALMA
from gotorb.simulate import orbits
from gotorb.simulate.catalogues import write_xephem
from gotorb.simulate.orbits import concatenate
from tests.unit.catalogues.conftest import make_elements

N_ORBITS = 30_000
MIDNIGHT = 60020.05
PALOMAR, RUBIN = (243.14022, 0.836325, 0.546877), (289.25058, 0.864981, -0.500958)
COMETS = """C/2020 F3 (NEOWISE),h,7/3.68/2020,128.937,61.010,37.277,0.999178,0.29478,2000,12.5,3.2
C/1999 T1,p,12/13.5/2022,80.01,20.5,120.7,1.1,330.5,2000,5.5,4.0
P/Old equinox,e,10.1,80.3,72.9,2.7,0.214,0.07,266.8,2023.1,1950,9.0,0.15
Epoch as a date,e,10.1,80.3,72.9,2.7,0.214,0.07,266.8,2/15.5/2023,2000,9.0,0.15
"""


def reference(path: Path, field: Field, observatory: tuple[float, float, float] = LA_PALMA) -> pd.DataFrame:
    """Positions by pympc from the whole catalogue."""
    found = pympc.minor_planet_check(
        field.ra, field.dec, field.epoch_mjd, field.radius_deg * 3600, xephem_filepath=str(path),
        include_major_bodies=False, observatory=observatory, chunk_size=0,
    )  # fmt: skip
    return found[list(COLUMNS)].to_pandas()


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found["name"].tolist() == [str(name).strip() for name in expected["name"]]
    values = ["ra", "dec", "mag"]
    np.testing.assert_allclose(found[values].to_numpy(), expected[values].to_numpy(dtype=float), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orbits of all kinds, an object that passes the Earth at 0.01 au, comets."""
    path = tmp_path_factory.mktemp("orbits") / "all.csv"
    write_xephem(concatenate([make_elements(N_ORBITS, np.random.default_rng(1)), make_passer()]), path)
    path.write_text(path.read_text() + COMETS)
    return path


def make_passer(distance_au: float = 0.01) -> orbits.Elements:
    """An orbit that is at this distance from the Earth's centre at `MIDNIGHT` and moves by 20 degrees an hour."""
    earth = orbits.observer_position(MIDNIGHT, (0.0, 0.0, 0.0))
    position = orbits.to_ecliptic(earth + distance_au * np.array([0.6, 0.64, 0.48]))
    velocity = orbits.GAUSS_K * np.array([-position[1] * 0.9, position[0] * 1.1, 0.3])
    state = orbits.from_state(position[None], velocity[None])
    tt = MIDNIGHT + orbits.TT_MINUS_UTC_S / 86400
    return orbits.Elements(
        np.array(["Passer"]), **state, epoch_mjd=np.array([tt]), h=np.array([20.0]), g=np.array([0.15])
    )


ECLIPTIC = [(20.0, 8.5), (200.0, -9.0), (329.0, -12.0)]
ELSEWHERE = [(0.0, 0.0), (359.99, 3.0), (0.01, -4.0), (75.0, 89.95), (140.0, -89.9), (100.0, 55.0)]


@pytest.mark.parametrize("centre", [*ECLIPTIC, *ELSEWHERE])
def test_same_names_and_positions_as_pympc_all_over_the_sky_and_the_night(
    catalogue: Path, centre: tuple[float, float]
) -> None:
    provider = Pympc(str(catalogue), LA_PALMA)
    for hours, radius in ((-11.9, 1.8), (0.0, 0.2), (4.4, 3.0), (11.9, 1.8)):
        field = Field(*centre, radius, MIDNIGHT + hours / 24)
        assert_same(provider.find(field), reference(catalogue, field))


def test_fields_of_the_ecliptic_are_not_empty(catalogue: Path) -> None:
    provider = Pympc(str(catalogue), LA_PALMA)
    assert all(len(provider.find(Field(ra, dec, 3.0, MIDNIGHT))) > 20 for ra, dec in ECLIPTIC)


def test_whole_sky_is_found_in_one_field(catalogue: Path) -> None:
    field = Field(10.0, 20.0, 180.0, MIDNIGHT)
    assert_same(Pympc(str(catalogue), LA_PALMA).find(field), reference(catalogue, field))


@pytest.mark.parametrize("observatory", [PALOMAR, RUBIN])
def test_same_at_other_observatories(catalogue: Path, observatory: tuple[float, float, float]) -> None:
    field = Field(329.0, -12.0, 2.0, MIDNIGHT + 0.4)
    assert_same(Pympc(str(catalogue), observatory).find(field), reference(catalogue, field, observatory))


@pytest.mark.parametrize("hours", [-10.0, -1.0, 0.0, 1.0, 10.0])
def test_object_that_passes_the_earth_closely_is_found_wherever_it_is(catalogue: Path, hours: float) -> None:
    mjd = MIDNIGHT + hours / 24
    seen = orbits.observe(make_passer(), mjd, LA_PALMA)
    field = Field(float(seen.ra[0]), float(seen.dec[0]), 1.0, mjd)
    found = Pympc(str(catalogue), LA_PALMA).find(field)
    assert "Passer" in found["name"].tolist()
    assert_same(found, reference(catalogue, field))


def test_most_of_the_sky_is_screened_out(catalogue: Path) -> None:
    known = read_catalogue(catalogue)
    lines = lines_near(known, Field(100.0, 55.0, 1.8, MIDNIGHT), LA_PALMA[0])
    assert lines is not None
    assert lines.count(b"\n") < 0.02 * len(known)


@pytest.mark.parametrize("longitude", [0.0, 342.1, 289.25, 149.07, -155.5, 180.0])
def test_a_night_is_not_cut_between_dusk_and_dawn(longitude: float) -> None:
    east = ((longitude + 180) % 360 - 180) / 360
    local_midnight = 60000.0 - east
    during = {round(midnight(local_midnight + hours / 24, longitude), 9) for hours in range(-11, 12)}
    assert during == {round(local_midnight, 9)}
    assert all(abs(mjd - midnight(mjd, longitude)) <= HALF_NIGHT for mjd in np.linspace(60000, 60003, 200))


def test_keplers_equation_is_solved_for_all_ellipses() -> None:
    mean, e = (
        np.array(axis)
        for axis in zip(*itertools.product(np.linspace(-9, 9, 301), [0, 0.1, 0.7, 0.97, 0.9999]), strict=True)
    )
    anomaly = eccentric_anomaly(mean, e)
    wrapped = np.mod(mean + np.pi, 2 * np.pi) - np.pi
    settled = np.isfinite(anomaly)
    assert settled[e <= 0.97].all()
    np.testing.assert_allclose((anomaly - e * np.sin(anomaly))[settled], wrapped[settled], atol=1e-9)


@pytest.mark.parametrize(
    ("mpc", "detections", "observatory", "radius_arcsec", "n"),
    [
        ("mpcorb_extended_first5000_K172G.json.gz", "ztf_detections_2017Dec.csv", PALOMAR, 60, 44),
        ("rubin_sso_mpcorb_extended.json.gz", "rubin_sso.csv", RUBIN, 120, 14),
    ],
)
def test_real_detections_of_asteroids_are_identified(
    tmp_path: Path, real_dir: Path, mpc: str, detections: str, observatory: tuple, radius_arcsec: float, n: int
) -> None:
    path = pympc.generate_xephem_catalogue(str(real_dir / "mpc" / mpc), source="mpcorb", xephem_dir=str(tmp_path))
    seen = pd.read_csv(real_dir / "mpc" / detections)
    if "in_excerpt" in seen:
        seen = seen[seen["in_excerpt"] == 1].assign(mjd=seen["jd"] - 2_400_000.5)
        names = seen["ssnamenr"].str.replace(r"\(\d+\)", "", regex=True)
    else:
        tai_minus_utc = 37 / 86400
        seen = seen.assign(mjd=seen["midpointMjdTai"] - tai_minus_utc)
        names = seen["designation"]
    provider = Pympc(str(path), observatory)
    identified = []
    for name, row in zip(names, seen.itertuples(), strict=True):
        field = Field(row.ra, row.dec, radius_arcsec / 3600, row.mjd)
        found = provider.find(field)
        assert_same(found, reference(Path(path), field, observatory))
        identified.append(any(one.replace(" ", "") == name.replace(" ", "") for one in found["name"]))
    assert (len(identified), sum(identified)) == (n, n)
