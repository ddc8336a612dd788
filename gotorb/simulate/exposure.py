"""One exposure: the sky seen through optics and atmosphere, noise, detector faults, flat and sky subtraction."""

from typing import NamedTuple

import numpy as np
import sep
from numpy.typing import NDArray

from gotorb.simulate import artefacts, detector
from gotorb.simulate.camera import Camera
from gotorb.simulate.detector import Detector, Labels
from gotorb.simulate.galaxies import add_galaxies
from gotorb.simulate.projection import Tan
from gotorb.simulate.psf import Psf, add_stars
from gotorb.simulate.sky import Galaxies, Sky, Stars

Array = NDArray[np.floating]
BACKGROUND_MESH = 128
TEMPLATE_EXPOSURES = 6
MEDIAN_LOSS = 1.25
"""Noise of a median relative to a mean of the same exposures."""


class Air(NamedTuple):
    """Atmosphere and optics of one visit: dispersion [pixel per unit colour], spike angle [rad], transparency."""

    dispersion_x: float
    dispersion_y: float
    spike_angle: float
    transparency: float


class Points(NamedTuple):
    """Transient point sources of one exposure: ra, dec [deg], V magnitude."""

    ra: Array
    dec: Array
    mag: Array


class Exposure(NamedTuple):
    """A calibrated exposure.

    `image` is sky-subtracted [electron, float32]; `change` the part of its light that the template has not; `labels`
    marks artefacts; `grid` is what the header says, which differs from the truth by the registration error;
    `zero_point` the magnitude of one electron.
    """

    image: Array
    change: Array
    labels: Labels
    grid: Tan
    mjd_utc: float
    psf: Psf
    zero_point: float


def draw_air(rng: np.random.Generator) -> Air:
    """Conditions of one visit."""
    dx, dy = rng.normal(0, 0.024, 2)
    return Air(float(dx), float(dy), float(rng.normal(0.7, 0.03)), float(np.clip(rng.normal(0.97, 0.03), 0.8, 1.0)))


def render(
    sky: Sky, points: Points, grid: Tan, size: int, *, mjd_utc: float, days: float, psf: Psf, air: Air, camera: Camera
) -> tuple[Array, Labels]:
    """Noise-free light [electron] of everything but the sky background, and the artefacts of bright stars.

    `grid` is the true grid; `days` is the time since the survey's epoch, for proper motion.
    """
    image, labels = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.uint8)
    star_x, star_y = _star_places(sky.stars, grid, days, air)
    star_flux = air.transparency * camera.flux(sky.stars.mag_at(mjd_utc))
    add_stars(image, star_x, star_y, star_flux, psf)
    point_x, point_y = grid.to_pixel(points.ra, points.dec)
    add_stars(image, point_x, point_y, air.transparency * camera.flux(points.mag), psf)
    _draw_galaxies(image, sky.galaxies, grid, psf, air, camera)
    artefacts.add_bright_star_optics(image, labels, star_x, star_y, star_flux, spike_angle=air.spike_angle)
    return image, labels


def render_change(
    sky: Sky,
    points: Points,
    grid: Tan,
    size: int,
    *,
    mjd_utc: float,
    template_mjd: float,
    days: float,
    psf: Psf,
    air: Air,
    camera: Camera,
) -> Array:
    """Noise-free light [electron] by which variable stars and transients differ from the template's time."""
    image = np.zeros((size, size), dtype=np.float32)
    rows = np.flatnonzero(sky.stars.is_variable)
    now, then = (camera.flux(sky.stars.mag_at(mjd)[rows]) for mjd in (mjd_utc, template_mjd))
    star_x, star_y = _star_places(sky.stars, grid, days, air)
    add_stars(image, star_x[rows], star_y[rows], air.transparency * (now - then), psf)
    point_x, point_y = grid.to_pixel(points.ra, points.dec)
    add_stars(image, point_x, point_y, air.transparency * camera.flux(points.mag), psf)
    return image


def _star_places(stars: Stars, grid: Tan, days: float, air: Air) -> tuple[Array, Array]:
    x, y = grid.to_pixel(*stars.place_at(days))
    return x + air.dispersion_x * stars.colour, y + air.dispersion_y * stars.colour


def _draw_galaxies(image: Array, galaxies: Galaxies, grid: Tan, psf: Psf, air: Air, camera: Camera) -> None:
    x, y = grid.to_pixel(galaxies.ra, galaxies.dec)
    x, y = x + air.dispersion_x * galaxies.colour, y + air.dispersion_y * galaxies.colour
    add_galaxies(image, x, y, air.transparency * camera.flux(galaxies.mag), galaxies, psf)


def expose(
    light: Array, labels: Labels, chip: Detector, *, psf: Psf, camera: Camera, rng: np.random.Generator
) -> tuple[Array, Labels]:
    """Turn noise-free light into one calibrated, sky-subtracted exposure [electron, float32] with its artefacts."""
    image = light + camera.sky_electrons * artefacts.sky_gradient(len(light), rng)
    artefacts.add_trail(image, labels, rng, psf)
    artefacts.add_glints(image, labels, rng, psf)
    image *= chip.flat_error
    noise = np.sqrt(np.maximum(image, 0) + camera.read_noise**2)
    image += noise * rng.standard_normal(image.shape, dtype=np.float32)
    artefacts.add_cosmic_rays(image, labels, rng)
    detector.add_faults(image, labels, chip, rng)
    detector.saturate(image, labels, camera)
    return subtract_sky(image), labels


def expose_template(light: Array, labels: Labels, chip: Detector, camera: Camera, rng: np.random.Generator) -> Array:
    """Turn noise-free light into a median of several exposures, which holds no trails, rays or hot pixels."""
    image = light + camera.sky_electrons * artefacts.sky_gradient(len(light), rng)
    image *= chip.flat_error
    noise = np.sqrt(np.maximum(image, 0) + camera.read_noise**2) * (MEDIAN_LOSS / np.sqrt(TEMPLATE_EXPOSURES))
    image += noise * rng.standard_normal(image.shape, dtype=np.float32)
    detector.saturate(image, labels, camera)
    return subtract_sky(image)


def subtract_sky(image: Array) -> Array:
    """Image minus its background on a coarse mesh, float32 in native byte order."""
    native = np.ascontiguousarray(image, dtype=np.float32)
    background = sep.Background(native, bw=BACKGROUND_MESH, bh=BACKGROUND_MESH, fw=3, fh=3)
    return native - background.back(dtype=np.float32)
