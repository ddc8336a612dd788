"""What the visits of one field share: its sky, template, detector and asteroids, and what of it changes with time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate import detector, exposure, orbits, plan, sky, truth
from gotorb.simulate.exposure import Points
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import CAMERA, Field, Visit
from gotorb.simulate.projection import Tan
from gotorb.simulate.psf import draw_psf

Array = NDArray[np.floating]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Template:
    """The field's template: spline coefficients on its own grid, its artefacts, when and with which PSF."""

    coefficients: Array
    labels: Labels
    grid: Tan
    mjd_utc: float


@dataclass(frozen=True)
class World:
    """What the visits of one field share."""

    field: Field
    sky: sky.Sky
    asteroids: Elements
    template: Template
    chip: detector.Detector
    observatory: tuple[float, float, float]
    seed: int

    @property
    def epoch_mjd(self) -> float:
        """Time to which star positions refer: the first visit."""
        return self.field.visits[0].mjd_utc


def make_world(field: Field, asteroids: Elements, seed: int, observatory: tuple[float, float, float]) -> World:
    """Draw the field's sky, nudge the asteroids off their catalogued orbits and make the template."""
    content = sky.draw_sky(field.grid, field.size, field.visits[0].mjd_utc, plan.stream(seed, field.index, plan.SKY))
    rng = plan.stream(seed, field.index, plan.TEMPLATE)
    chip = detector.draw_detector(field.size, rng)
    template = _make_template(field, content, rng)
    return World(field, content, asteroids, template, chip, observatory, seed)


def _make_template(field: Field, content: sky.Sky, rng: np.random.Generator) -> Template:
    """An older, deeper image through other seeing, on a grid turned and moved against the visits'."""
    margin = 24
    size = field.size + 2 * margin
    base = field.grid.shifted(margin, margin)
    offset = rng.uniform(-6, 6, 2)
    grid = Tan(base.ra, base.dec, base.x0 + offset[0], base.y0 + offset[1], base.scale_deg, base.angle_deg + 0.15)
    mjd = field.visits[0].mjd_utc - sky.TEMPLATE_AGE_DAY + float(rng.uniform(-60, 60))
    nothing = Points(*(np.zeros(0) for _ in range(3)))
    psf, air = draw_psf(rng, 2.4), exposure.draw_air(rng)._replace(transparency=1.0)
    chip = detector.draw_detector(size, rng)
    days = mjd - field.visits[0].mjd_utc
    light, labels = exposure.render(
        content, nothing, grid, size, mjd_utc=mjd, days=days, psf=psf, air=air, camera=CAMERA
    )
    image = exposure.expose_template(light, labels, chip, CAMERA, rng)
    return Template(ndimage.spline_filter(image, order=3, output=np.float32), labels, grid, mjd)


def transients_at(world: World, mjd: float) -> Points:
    """Asteroids and supernovae at one time."""
    seen = orbits.observe(world.asteroids, mjd, world.observatory)
    new = world.sky.supernovae
    return Points(
        np.concatenate([seen.ra, new.ra]),
        np.concatenate([seen.dec, new.dec]),
        np.concatenate([seen.mag, new.mag_at(mjd)]),
    )


def injected_sources(world: World, visit: Visit, grid: Tan) -> truth.Injected:
    """Every astrophysical change between template and visit, on the coadd's grid."""
    mjd = visit.mjd_utc
    seen = orbits.observe(world.asteroids, mjd, world.observatory)
    moving = _sources(grid, seen.ra, seen.dec, CAMERA.flux(seen.mag), seen.mag, "asteroid", world.asteroids.name)
    new, first = world.sky.supernovae, world.field.index
    mag = new.mag_at(mjd)
    names = np.array([f"SN{first:03d}{k:02d}" for k in range(len(mag))], dtype=str)
    hosts = np.array([galaxy_name(first, k) if k >= 0 else "" for k in new.host], dtype=str)
    supernovae = _sources(grid, new.ra, new.dec, CAMERA.flux(mag), mag, "supernova", names)
    supernovae = supernovae._replace(
        host=hosts, host_offset_arcsec=np.where(new.host >= 0, new.host_offset_arcsec, np.nan)
    )
    stars, rows = world.sky.stars, np.flatnonzero(world.sky.stars.is_variable)
    now = stars.mag_at(mjd)[rows]
    change = CAMERA.flux(now) - CAMERA.flux(stars.mag_at(world.template.mjd_utc)[rows])
    names = np.array([variable_name(first, int(k)) for k in rows], dtype=str)
    variables = _sources(grid, stars.ra[rows], stars.dec[rows], change, now, "variable", names)
    return truth.join_injected([moving, supernovae, variables])


def _sources(grid: Tan, ra: Array, dec: Array, flux: Array, mag: Array, kind: str, names: NDArray) -> truth.Injected:
    x, y = grid.to_pixel(ra, dec)
    n = len(ra)
    blank = np.full(n, "", dtype="U16")
    return truth.Injected(x, y, flux, mag, np.full(n, kind), names.astype(str), blank, np.full(n, np.nan))


def fixed_sources(world: World, visit: Visit, grid: Tan) -> truth.Fixed:
    """Static stars and galaxies on the coadd's grid."""
    stars, galaxies = world.sky.stars, world.sky.galaxies
    star_x, star_y = grid.to_pixel(*stars.place_at(visit.mjd_utc - world.epoch_mjd))
    galaxy_x, galaxy_y = grid.to_pixel(galaxies.ra, galaxies.dec)
    moves = np.hypot(stars.pm_ra, stars.pm_dec) * sky.TEMPLATE_AGE_DAY > 0.25
    flux = CAMERA.flux(stars.mag)
    return truth.Fixed(star_x, star_y, flux, moves, galaxy_x, galaxy_y, galaxies.radius)


def galaxy_name(field: int, row: int) -> str:
    """Name of a galaxy of the embedded survey."""
    return f"G{field:03d}{row:04d}"


def variable_name(field: int, row: int) -> str:
    """Name of a variable star of the embedded survey."""
    return f"V{field:03d}{row:04d}"
