"""Scene of one field: its stars, galaxies, supernovae and minor planets, and their changing light."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gotorb.simulate import orbits, plan
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import CAMERA, Field, Tan, Visit

Array = NDArray[np.floating]
STARS_PER_PIXEL = 1250 / 1024**2
CROWDING, PLANE_DEG = 2.5, 4.0
"""Stars in the galactic plane exceed those elsewhere by this factor, within this latitude."""
GALACTIC_POLE_DEG = 192.859, 27.128
GALAXIES_PER_PIXEL = 150 / 1024**2
SUPERNOVAE_PER_PIXEL = 4.5 / 1024**2
MIN_STARS = 330
"""A small image looks at a denser field, because a PSF-matching kernel needs a dozen clean stars."""
VARIABLE_FRACTION = 0.025
MARGIN = 40
TEMPLATE_AGE_DAY = 420.0
"""The template is this much older than the first night."""


class Stars(NamedTuple):
    """Stars, arrays (n,): deg ICRS at the survey's epoch, V magnitudes, colour (0 mean, 1 rms).

    `pm_ra`, `pm_dec` [arcsec/day]; `period` [day] is infinite for constant stars, `amplitude` [mag], `phase` [rad].
    """

    ra: Array
    dec: Array
    mag: Array
    colour: Array
    pm_ra: Array
    pm_dec: Array
    period: Array
    amplitude: Array
    phase: Array

    @property
    def is_variable(self) -> NDArray[np.bool_]:
        """True for variable stars, (n,)."""
        return np.isfinite(self.period)

    def mag_at(self, mjd: float) -> Array:
        """V magnitudes at a time.

        Parameters
        ----------
        mjd : float

        Returns
        -------
        ndarray
            (n,).
        """
        return self.mag + self.amplitude * np.sin(2 * np.pi * mjd / self.period + self.phase)

    def place_at(self, days: float) -> tuple[Array, Array]:
        """Positions at a time, with proper motion.

        Parameters
        ----------
        days : float
            Since the survey's epoch.

        Returns
        -------
        ra, dec : ndarray
            (n,) deg, ICRS.
        """
        ra = self.ra + self.pm_ra * days / 3600 / np.cos(np.deg2rad(self.dec))
        return ra, self.dec + self.pm_dec * days / 3600


class Galaxies(NamedTuple):
    """Galaxies, arrays (n,): deg ICRS, V magnitude, half-light radius [pixel], Sersic n, axis ratio, angle [rad]."""

    ra: Array
    dec: Array
    mag: Array
    radius: Array
    sersic: Array
    ratio: Array
    angle: Array
    colour: Array


class Supernovae(NamedTuple):
    """Supernovae, arrays (n,): deg ICRS, V at peak, peak time [MJD], width [day], host row (-1: none), offset."""

    ra: Array
    dec: Array
    peak_mag: Array
    peak_mjd: Array
    width: Array
    host: NDArray[np.intp]
    host_offset_arcsec: Array

    def mag_at(self, mjd: float) -> Array:
        """V magnitudes at a time: quick rise, slow decline.

        Parameters
        ----------
        mjd : float

        Returns
        -------
        ndarray
            (n,); 99 long before the peak.
        """
        age = (mjd - self.peak_mjd) / self.width
        faded = np.where(age < 0, (age / 0.45) ** 2, 1.1 * np.abs(age))
        return np.where(age < -1.2, 99.0, self.peak_mag + faded)


class Sky(NamedTuple):
    """Everything fixed in one field."""

    stars: Stars
    galaxies: Galaxies
    supernovae: Supernovae


class Points(NamedTuple):
    """Transient point sources of one exposure: ra, dec [deg], V magnitude."""

    ra: Array
    dec: Array
    mag: Array


NOTHING = Points(*np.zeros((3, 0)))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Sources that the visits of one field see; `asteroids` are true orbits, not those of the catalogue."""

    field: Field
    sky: Sky
    asteroids: Elements
    seed: int
    observatory: tuple[float, float, float]

    @property
    def epoch_mjd(self) -> float:
        """Time to which star positions refer: the first visit."""
        return self.field.visits[0].mjd_utc


def make_scene(field: Field, asteroids: Elements, seed: int, observatory: tuple[float, float, float]) -> Scene:
    """Scene of a field with its own random sky.

    Parameters
    ----------
    field : Field
        Pointing and visits.
    asteroids : Elements
        True orbits of the minor planets that may enter the images.
    seed : int
        Of the survey.
    observatory : tuple of float
        Longitude [deg East], rho cos phi', rho sin phi'.

    Returns
    -------
    Scene
    """
    return Scene(field=field, sky=draw_sky(field, seed), asteroids=asteroids, seed=seed, observatory=observatory)


class Injected(NamedTuple):
    """Sources whose light differs from the template, on the coadd's grid, arrays (n,).

    `flux` is the expected difference [electron], `kind` asteroid, supernova or variable; host columns are empty or NaN
    without host.
    """

    x: Array
    y: Array
    flux: Array
    mag: Array
    kind: NDArray[np.str_]
    name: NDArray[np.str_]
    host: NDArray[np.str_]
    host_offset_arcsec: Array


class Fixed(NamedTuple):
    """Static light that a poor subtraction leaves: stars and galaxies on the coadd's grid, arrays (n,)."""

    star_x: Array
    star_y: Array
    star_flux: Array
    galaxy_x: Array
    galaxy_y: Array
    galaxy_flux: Array
    galaxy_radius: Array


def draw_sky(field: Field, seed: int) -> Sky:
    """Random sky of one field, a little larger than its image.

    Parameters
    ----------
    field : Field
        Pointing and visits.
    seed : int
        Of the survey.

    Returns
    -------
    Sky
    """
    grid, size, first_mjd, rng = (
        field.grid,
        field.size,
        field.visits[0].mjd_utc,
        plan.stream(seed, field.index, plan.SKY),
    )
    stars = _draw_stars(grid, size, rng)
    galaxies = _draw_galaxies(grid, size, rng)
    return Sky(stars, galaxies, _draw_supernovae(grid, size, galaxies, first_mjd, rng))


def _places(grid: Tan, size: int, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    return grid.to_sky(rng.uniform(-MARGIN, size + MARGIN, n), rng.uniform(-MARGIN, size + MARGIN, n))


def _power_mags(low: float, high: float, slope: float, n: int, rng: np.random.Generator) -> Array:
    """Magnitudes with a number density of 10^(slope mag)."""
    return np.log10(rng.uniform(10 ** (slope * low), 10 ** (slope * high), n)) / slope


def _draw_stars(grid: Tan, size: int, rng: np.random.Generator) -> Stars:
    density = STARS_PER_PIXEL * np.exp(0.22 * rng.standard_normal()) * crowding(grid.ra, grid.dec)
    n = max(int(rng.poisson(density * (size + 2 * MARGIN) ** 2)), MIN_STARS)
    ra, dec = _places(grid, size, n, rng)
    mag = _power_mags(9.6, 21.6, 0.25, n, rng)
    varies = (rng.random(n) < VARIABLE_FRACTION) & (mag > 14) & (mag < 20)
    fast = rng.random(n) < 0.01
    speed = np.where(fast, rng.uniform(0.3, 1.0, n), 0.006 * np.abs(rng.standard_normal(n))) / 365.25
    heading = rng.uniform(0, 2 * np.pi, n)
    return Stars(
        ra,
        dec,
        mag,
        colour=rng.standard_normal(n),
        pm_ra=speed * np.cos(heading),
        pm_dec=speed * np.sin(heading),
        period=np.where(varies, 10 ** rng.uniform(-0.4, 2, n), np.inf),
        amplitude=np.where(varies, 10 ** rng.uniform(-1.4, -0.3, n), 0),
        phase=rng.uniform(0, 2 * np.pi, n),
    )


def crowding(ra: float, dec: float) -> float:
    """Number of stars relative to a field far from the galactic plane.

    Parameters
    ----------
    ra, dec : float
        Deg, ICRS.

    Returns
    -------
    float

    Examples
    --------
    >>> round(crowding(*GALACTIC_POLE_DEG), 3), round(crowding(93.3, 23.4), 1)
    (1.0, 2.6)
    """
    pole = np.deg2rad(GALACTIC_POLE_DEG)
    sine = np.sin(np.deg2rad(dec)) * np.sin(pole[1])
    sine += np.cos(np.deg2rad(dec)) * np.cos(pole[1]) * np.cos(np.deg2rad(ra) - pole[0])
    return float(1 + CROWDING * np.exp(-((np.rad2deg(np.arcsin(sine)) / PLANE_DEG) ** 2)))


def _draw_galaxies(grid: Tan, size: int, rng: np.random.Generator) -> Galaxies:
    n = int(rng.poisson(GALAXIES_PER_PIXEL * (size + 2 * MARGIN) ** 2))
    ra, dec = _places(grid, size, n, rng)
    bright = rng.random(n) < 0.2
    mag = np.where(bright, _power_mags(13.5, 17.4, 0.35, n, rng), _power_mags(17.0, 21.0, 0.4, n, rng))
    radius = np.clip(2.4 * 10 ** (-0.13 * (mag - 17)) * np.exp(0.3 * rng.standard_normal(n)), 0.6, 14)
    sersic = rng.choice([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0], n, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    return Galaxies(
        ra,
        dec,
        mag,
        radius,
        sersic,
        ratio=np.clip(rng.normal(0.7, 0.2, n), 0.25, 1),
        angle=rng.uniform(0, np.pi, n),
        colour=0.8 + 0.6 * rng.standard_normal(n),
    )


def _draw_supernovae(
    grid: Tan, size: int, galaxies: Galaxies, first_mjd: float, rng: np.random.Generator
) -> Supernovae:
    n = int(rng.poisson(SUPERNOVAE_PER_PIXEL * size**2))
    weight = 10 ** (-0.2 * galaxies.mag)
    hosts = rng.choice(len(weight), n, p=weight / weight.sum()) if len(weight) else np.full(n, -1)
    hosts = np.where(rng.random(n) < 0.08, -1, hosts)
    x, y = rng.uniform(5, size - 5, n), rng.uniform(5, size - 5, n)
    offset = np.zeros(n)
    with_host = hosts >= 0
    if with_host.any():
        chosen = hosts[with_host]
        reach = galaxies.radius[chosen] * np.minimum(rng.gamma(2.0, 0.6, len(chosen)), 4)
        turn = rng.uniform(0, 2 * np.pi, len(chosen))
        host_x, host_y = grid.to_pixel(galaxies.ra[chosen], galaxies.dec[chosen])
        x[with_host], y[with_host] = host_x + reach * np.cos(turn), host_y + reach * np.sin(turn)
        offset[with_host] = reach * grid.scale_deg * 3600
    ra, dec = grid.to_sky(x, y)
    return Supernovae(
        ra,
        dec,
        peak_mag=_power_mags(16.5, 20.2, 0.12, n, rng),
        peak_mjd=first_mjd + rng.uniform(-6, 14, n),
        width=rng.uniform(14, 28, n),
        host=np.asarray(hosts, dtype=np.intp),
        host_offset_arcsec=offset,
    )


def transients_at(scene: Scene, mjd: float) -> Points:
    """Asteroids and supernovae at one time.

    Parameters
    ----------
    scene : Scene
        Of one field.
    mjd : float
        Time [UTC].

    Returns
    -------
    Points
    """
    seen = orbits.observe(scene.asteroids, mjd, scene.observatory)
    new = scene.sky.supernovae
    return Points(
        np.concatenate([seen.ra, new.ra]),
        np.concatenate([seen.dec, new.dec]),
        np.concatenate([seen.mag, new.mag_at(mjd)]),
    )


def injected_sources(scene: Scene, visit: Visit, grid: Tan, template_mjd: float) -> Injected:
    """Every astrophysical change between template and visit, on the coadd's grid.

    Parameters
    ----------
    scene : Scene
        Of one field.
    visit : Visit
        Gives the time.
    grid : Tan
        Of the coadd.
    template_mjd : float
        Time of the template [UTC].

    Returns
    -------
    Injected
    """
    mjd = visit.mjd_utc
    seen = orbits.observe(scene.asteroids, mjd, scene.observatory)
    moving = _sources(
        grid, seen.ra, seen.dec, CAMERA.flux(seen.mag), seen.mag, kind="asteroid", names=scene.asteroids.name
    )
    new, first = scene.sky.supernovae, scene.field.index
    mag = new.mag_at(mjd)
    names = np.array([f"SN{first:03d}{k:02d}" for k in range(len(mag))], dtype=str)
    hosts = np.array([f"G{first:03d}{k:04d}" if k >= 0 else "" for k in new.host], dtype=str)
    supernovae = _sources(grid, new.ra, new.dec, CAMERA.flux(mag), mag, kind="supernova", names=names)
    supernovae = supernovae._replace(
        host=hosts, host_offset_arcsec=np.where(new.host >= 0, new.host_offset_arcsec, np.nan)
    )
    stars, rows = scene.sky.stars, np.flatnonzero(scene.sky.stars.is_variable)
    now = stars.mag_at(mjd)[rows]
    change = CAMERA.flux(now) - CAMERA.flux(stars.mag_at(template_mjd)[rows])
    names = np.array([variable_name(first, int(k)) for k in rows], dtype=str)
    variables = _sources(grid, stars.ra[rows], stars.dec[rows], change, now, kind="variable", names=names)
    return orbits.concatenate([moving, supernovae, variables])


def _sources(grid: Tan, ra: Array, dec: Array, flux: Array, mag: Array, *, kind: str, names: NDArray) -> Injected:
    x, y = grid.to_pixel(ra, dec)
    n = len(ra)
    blank = np.full(n, "", dtype="U16")
    return Injected(x, y, flux, mag, np.full(n, kind), names.astype(str), blank, np.full(n, np.nan))


def fixed_sources(scene: Scene, visit: Visit, grid: Tan) -> Fixed:
    """Static stars and galaxies on the coadd's grid.

    Parameters
    ----------
    scene : Scene
        Of one field.
    visit : Visit
        Gives the time.
    grid : Tan
        Of the coadd.

    Returns
    -------
    Fixed
    """
    stars, galaxies = scene.sky.stars, scene.sky.galaxies
    star_x, star_y = grid.to_pixel(*stars.place_at(visit.mjd_utc - scene.epoch_mjd))
    galaxy_x, galaxy_y = grid.to_pixel(galaxies.ra, galaxies.dec)
    flux = CAMERA.flux(stars.mag), CAMERA.flux(galaxies.mag)
    return Fixed(star_x, star_y, flux[0], galaxy_x, galaxy_y, flux[1], galaxies.radius)


def variable_name(field: int, row: int) -> str:
    """Name of a variable star of the embedded survey.

    Parameters
    ----------
    field, row : int
        Number of the field and row of the star.

    Returns
    -------
    str
    """
    return f"V{field:03d}{row:04d}"
