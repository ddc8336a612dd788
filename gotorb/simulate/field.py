"""One field: its sky, its template and, visit by visit, exposures, coadd, subtraction, detections and their truth."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.errors import SurveyError
from gotorb.simulate import coadd, detector, exposure, orbits, plan, sky, subtraction, truth
from gotorb.simulate.detection import Detections, detect
from gotorb.simulate.exposure import Air, Exposure, Points
from gotorb.simulate.orbits import Elements
from gotorb.simulate.plan import CAMERA, Field, Visit
from gotorb.simulate.projection import Tan
from gotorb.simulate.psf import Psf, draw_psf, vary_psf
from gotorb.simulate.subtraction import Difference

Array = NDArray[np.floating]
Labels = NDArray[np.uint8]
REGISTRATION_PIXEL, ALIGNMENT_PIXEL = 0.035, 0.04
BAD_WARP_CHANCE, BAD_WARP_PIXEL = 0.12, 0.3
SWAP_CHANCE, MEAN_CHANCE, STUCK_CHANCE = 0.06, 0.10, 0.15
DITHER_PIXEL = 9.0


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


class Habits(NamedTuple):
    """What goes wrong, or not, in one visit."""

    method: coadd.Method
    swap: bool
    warped: bool
    stuck: bool


class VisitResult(NamedTuple):
    """All of one visit: images on the first exposure's grid, detections and truth in the same row order."""

    visit: Visit
    exposures: list[Exposure]
    grid: Tan
    science: Array
    template: Array
    difference: Difference
    detections: Detections
    truth: pd.DataFrame
    labels: Labels
    method: str


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


def run_visit(world: World, visit: Visit) -> VisitResult:
    """Expose, coadd, subtract and detect one visit.

    Raises
    ------
    SurveyError
        If the visit has too few stars for a subtraction.
    """
    rng = plan.stream(world.seed, world.field.index, plan.VISIT, visit.number)
    habits = _draw_habits(rng)
    exposures = _expose_all(world, visit, habits, rng)
    grid = exposures[0].grid
    science, labels = coadd.coadd(exposures, CAMERA.image_zero_point, habits.method)
    template, labels = _align_template(world, grid, labels, habits, rng)
    difference = subtraction.subtract(science, template, CAMERA, swap=habits.swap)
    stars = subtraction.find_stars(np.nan_to_num(science, nan=0.0), CAMERA)
    detections = detect(difference, science, stars, grid=grid, camera=CAMERA)
    real = _injected(world, visit, grid)
    labels = detector.grow_labels(labels, 1)
    answer = truth.classify(
        detections.table, real, _fixed(world, visit, grid), labels, warped=habits.warped or habits.swap
    )
    return VisitResult(visit, exposures, grid, science, template, difference, detections, answer, labels, habits.method)


def _draw_habits(rng: np.random.Generator) -> Habits:
    chance = rng.random(4)
    return Habits(
        "mean" if chance[0] < MEAN_CHANCE else "median",
        bool(chance[1] < SWAP_CHANCE),
        bool(chance[2] < BAD_WARP_CHANCE),
        bool(chance[3] < STUCK_CHANCE),
    )


def exposure_times(visit: Visit, n_exposures: int) -> Array:
    """Mid times [MJD UTC] of a visit's exposures, evenly about the visit's middle."""
    step = (CAMERA.exposure_s + CAMERA.gap_s) / 86400
    return visit.mjd_utc + step * (np.arange(n_exposures) - (n_exposures - 1) / 2)


def _expose_all(world: World, visit: Visit, habits: Habits, rng: np.random.Generator) -> list[Exposure]:
    psf, air = draw_psf(rng), exposure.draw_air(rng)
    start = rng.normal(0, DITHER_PIXEL, 2)
    reach = 0.3 if habits.stuck else DITHER_PIXEL
    exposures = []
    for mjd in exposure_times(visit, world.field.n_exposures):
        grid = world.field.grid.shifted(*(float(part) for part in start + rng.normal(0, reach, 2)))
        exposures.append(_expose_one(world, float(mjd), grid, vary_psf(psf, rng), air, rng))
    return exposures


def _expose_one(world: World, mjd: float, grid: Tan, psf: Psf, air: Air, rng: np.random.Generator) -> Exposure:
    """One exposure whose header grid differs from the truth by the registration error."""
    true_grid = grid.shifted(*rng.normal(0, REGISTRATION_PIXEL, 2))
    light, labels = exposure.render(
        world.sky,
        transients_at(world, mjd),
        true_grid,
        world.field.size,
        mjd_utc=mjd,
        days=mjd - world.epoch_mjd,
        psf=psf,
        air=air,
        camera=CAMERA,
    )
    image, labels = exposure.expose(light, labels, world.chip, psf=psf, camera=CAMERA, rng=rng)
    zero_point = CAMERA.image_zero_point + 2.5 * float(np.log10(air.transparency)) + float(rng.normal(0, 0.004))
    return Exposure(image, labels, grid, mjd, psf, zero_point)


def transients_at(world: World, mjd: float) -> Points:
    """Asteroids and supernovae at one time."""
    seen = orbits.observe(world.asteroids, mjd, world.observatory)
    new = world.sky.supernovae
    return Points(
        np.concatenate([seen.ra, new.ra]),
        np.concatenate([seen.dec, new.dec]),
        np.concatenate([seen.mag, new.mag_at(mjd)]),
    )


def _align_template(
    world: World, grid: Tan, labels: Labels, habits: Habits, rng: np.random.Generator
) -> tuple[Array, Labels]:
    """The template on the visit's grid, and the visit's artefacts joined with the template's."""
    shape = (world.field.size, world.field.size)
    warp = coadd.smooth_warp(shape, BAD_WARP_PIXEL if habits.warped else ALIGNMENT_PIXEL, rng)
    source = world.template.grid
    template = coadd.resample(world.template.coefficients, source, grid, shape, warp)
    rows, columns = np.nonzero(world.template.labels)
    x, y = grid.to_pixel(*source.to_sky(columns.astype(float), rows.astype(float)))
    x, y = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    mark = world.template.labels[rows[inside], columns[inside]]
    old = labels[y[inside], x[inside]]
    labels[y[inside], x[inside]] = np.maximum(old, mark)
    return template, labels


def _injected(world: World, visit: Visit, grid: Tan) -> truth.Injected:
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


def _fixed(world: World, visit: Visit, grid: Tan) -> truth.Fixed:
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


def skip_reason(error: SurveyError, visit: Visit) -> str:
    """One line for a visit that could not be made."""
    return f"field {visit.field} visit {visit.number}: {error}"
