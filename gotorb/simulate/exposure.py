"""One exposure: the sky seen through optics and atmosphere, its artefacts, noise, and sky subtraction."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import sep
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate.plan import Camera, Tan
from gotorb.simulate.psf import Psf, add_galaxies, add_stars
from gotorb.simulate.scene import Galaxies, Points, Sky, Stars

Array = NDArray[np.floating]
Labels = NDArray[np.uint8]
BACKGROUND_MESH = 128
TEMPLATE_EXPOSURES = 6
MEDIAN_LOSS = 1.25
"""Noise of a median relative to a mean of the same exposures."""
COSMIC_RAYS_PER_PIXEL = 14 / 1024**2
TRAIL_CHANCE, GLINT_CHANCE = 0.18, 0.07
CROSSTALK, CROSSTALK_FROM = 1e-3, 0.1
"""Typical light that one amplifier leaks into the other, and the share of full well from which it is drawn."""
EDGE_PIXELS = 20
FAINTEST = 1.0
"""Light of trails and ghosts below this [electron] is left out."""


class Artefact(IntEnum):
    """Cause of light that no source gives; the last three are causes without light of their own too."""

    NONE = 0
    GHOST = 1
    HALO = 2
    TRAIL = 3
    GLINT = 4
    BAD_COLUMN = 5
    HOT_PIXEL = 6
    COSMIC_RAY = 7
    SPIKE = 8
    CROSSTALK = 9
    BLEED = 10
    EDGE = 11
    MASK = 12


class Artefacts(NamedTuple):
    """Light [electron] that artefacts add to an image or take away, and the one that gives each pixel most of it."""

    light: Array
    labels: Labels

    def add(self, rows: NDArray[np.intp], columns: NDArray[np.intp], light: Array, kind: Artefact) -> None:
        """Add light to some pixels; places outside the image are dropped.

        Parameters
        ----------
        rows, columns : ndarray of int (n,)
            Pixels; they may repeat.
        light : ndarray (n,)
            [electron].
        kind : Artefact
            Cause of the light.
        """
        inside = (rows >= 0) & (rows < self.light.shape[0]) & (columns >= 0) & (columns < self.light.shape[1])
        rows, columns = rows[inside], columns[inside]
        before = self.light[rows, columns]
        np.add.at(self.light, (rows, columns), light[inside].astype(np.float32))
        most = np.abs(self.light[rows, columns] - before) > np.abs(before)
        self.labels[rows[most], columns[most]] = kind


def no_artefacts(size: int) -> Artefacts:
    """Artefacts of a clean image.

    Parameters
    ----------
    size : int
        Side [pixel].

    Returns
    -------
    Artefacts
    """
    return Artefacts(np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.uint8))


@dataclass(frozen=True)
class Detector:
    """Fixed faults of one

    Attributes
    ----------
    flat_error : ndarray (size, size)
        True response divided by the flat field used.
    hot : ndarray (n, 3)
        x, y and dark charge of hot pixels that the dark frame leaves behind [electron per exposure].
    columns : ndarray (n, 4)
        Column, first row, last row and offset [electron] of bad columns.
    edge_glow : ndarray (4,)
        Excess [electron] at the left, right, lower and upper edge.
    crosstalk : float
        Share of a pixel's charge that appears in its mirror image, read by the other amplifier at the same time.
    """

    flat_error: Array
    hot: Array
    columns: Array
    edge_glow: Array
    crosstalk: float


class Air(NamedTuple):
    """Atmosphere and optics of one visit: dispersion [pixel per unit colour], spike angle [rad], transparency."""

    dispersion_x: float
    dispersion_y: float
    spike_angle: float
    transparency: float


class View(NamedTuple):
    """Place, time and optics of an image: its true grid, side [pixel], time, PSF and air.

    `days` is the time since the survey's epoch, for proper motion.
    """

    grid: Tan
    size: int
    mjd_utc: float
    days: float
    psf: Psf
    air: Air


class Exposure(NamedTuple):
    """A calibrated exposure.

    `image` is sky-subtracted [electron, float32]; `static` its noise-free light of sources that the template has too,
    `change` of those that it has not; `grid` is what the header says, which differs from the truth by the registration
    error; `zero_point` the magnitude of one electron.
    """

    image: Array
    static: Array
    change: Array
    artefacts: Artefacts
    grid: Tan
    mjd_utc: float
    psf: Psf
    zero_point: float


def draw_air(rng: np.random.Generator) -> Air:
    """Conditions of one visit.

    Parameters
    ----------
    rng : Generator
        Random numbers.

    Returns
    -------
    Air
    """
    dx, dy = rng.normal(0, 0.024, 2)
    return Air(float(dx), float(dy), float(rng.normal(0.7, 0.03)), float(np.clip(rng.normal(0.97, 0.03), 0.8, 1.0)))


def render(sky: Sky, points: Points, view: View, camera: Camera) -> tuple[Array, Artefacts]:
    """Noise-free light [electron] of everything but the sky background, and that of bright stars in the optics.

    Parameters
    ----------
    sky, points : Sky, Points
        Static and transient sources.
    view : View
        True grid, time, PSF and air.
    camera : Camera
        Gives electrons.

    Returns
    -------
    tuple[ndarray, Artefacts]
    """
    image, artefacts = np.zeros((view.size, view.size), dtype=np.float32), no_artefacts(view.size)
    star_x, star_y = _star_places(sky.stars, view)
    star_flux = view.air.transparency * camera.flux(sky.stars.mag_at(view.mjd_utc))
    add_stars(image, star_x, star_y, star_flux, view.psf)
    _draw_points(image, points, view, camera)
    _draw_galaxies(image, sky.galaxies, view, camera)
    _add_bright_star_optics(artefacts, star_x, star_y, star_flux, spike_angle=view.air.spike_angle)
    return image, artefacts


def render_change(sky: Sky, points: Points, view: View, camera: Camera, *, template_mjd: float) -> Array:
    """Noise-free light [electron] by which variable stars and transients differ from the template's time.

    Parameters
    ----------
    sky, points : Sky, Points
        Static and transient sources.
    view : View
        True grid, time, PSF and air.
    camera : Camera
        Gives electrons.
    template_mjd : float
        Time of the template [MJD UTC].

    Returns
    -------
    ndarray
    """
    image = np.zeros((view.size, view.size), dtype=np.float32)
    rows = np.flatnonzero(sky.stars.is_variable)
    now, then = (camera.flux(sky.stars.mag_at(mjd)[rows]) for mjd in (view.mjd_utc, template_mjd))
    star_x, star_y = _star_places(sky.stars, view)
    add_stars(image, star_x[rows], star_y[rows], view.air.transparency * (now - then), view.psf)
    _draw_points(image, points, view, camera)
    return image


def _star_places(stars: Stars, view: View) -> tuple[Array, Array]:
    return _dispersed(*view.grid.to_pixel(*stars.place_at(view.days)), stars.colour, view.air)


def _dispersed(x: Array, y: Array, colour: Array, air: Air) -> tuple[Array, Array]:
    return x + air.dispersion_x * colour, y + air.dispersion_y * colour


def _draw_points(image: Array, points: Points, view: View, camera: Camera) -> None:
    x, y = view.grid.to_pixel(points.ra, points.dec)
    add_stars(image, x, y, view.air.transparency * camera.flux(points.mag), view.psf)


def _draw_galaxies(image: Array, galaxies: Galaxies, view: View, camera: Camera) -> None:
    x, y = _dispersed(*view.grid.to_pixel(galaxies.ra, galaxies.dec), galaxies.colour, view.air)
    add_galaxies(image, x, y, view.air.transparency * camera.flux(galaxies.mag), galaxies=galaxies, psf=view.psf)


def expose(
    light: Array, artefacts: Artefacts, chip: Detector, *, psf: Psf, camera: Camera, rng: np.random.Generator
) -> Array:
    """Turn noise-free light into one calibrated, sky-subtracted exposure [electron, float32].

    Parameters
    ----------
    light, artefacts : ndarray (size, size), Artefacts
        Result of `render`; the artefacts of the exposure are added (in place).
    chip : Detector
        Its faults.
    psf : Psf
        Of the exposure.
    camera : Camera
        Sky, noise and full well.
    rng : Generator
        Random numbers.

    Returns
    -------
    ndarray
    """
    sky = camera.sky_electrons * _sky_gradient(len(light), rng)
    _add_trail(artefacts, rng, psf)
    _add_glints(artefacts, rng, psf)
    image = light + sky
    image += artefacts.light
    image *= chip.flat_error
    noise = np.sqrt(np.maximum(image, 0) + camera.read_noise**2)
    image += noise * rng.standard_normal(image.shape, dtype=np.float32)
    image -= artefacts.light
    _add_cosmic_rays(artefacts, rng)
    _add_faults(artefacts, chip, rng)
    image += artefacts.light
    saturate(image, artefacts, camera)
    _add_crosstalk(image, artefacts, chip.crosstalk, camera)
    return _subtract_sky(image)


def expose_template(
    light: Array, artefacts: Artefacts, chip: Detector, camera: Camera, rng: np.random.Generator
) -> Array:
    """Turn noise-free light into a median of several exposures, which holds no trails, rays or hot pixels.

    Parameters
    ----------
    light, artefacts : ndarray (size, size), Artefacts
        Result of `render`; bleeding is added to the artefacts (in place).
    chip : Detector
        Its flat error.
    camera : Camera
        Sky, noise and full well.
    rng : Generator
        Random numbers.

    Returns
    -------
    ndarray
    """
    image = light + artefacts.light + camera.sky_electrons * _sky_gradient(len(light), rng)
    image *= chip.flat_error
    noise = np.sqrt(np.maximum(image, 0) + camera.read_noise**2) * (MEDIAN_LOSS / np.sqrt(TEMPLATE_EXPOSURES))
    image += noise * rng.standard_normal(image.shape, dtype=np.float32)
    saturate(image, artefacts, camera)
    return _subtract_sky(image)


def _subtract_sky(image: Array) -> Array:
    """Image minus its background on a coarse mesh, float32 in native byte order."""
    native = np.ascontiguousarray(image, dtype=np.float32)
    background = sep.Background(native, bw=BACKGROUND_MESH, bh=BACKGROUND_MESH, fw=3, fh=3)
    return native - background.back(dtype=np.float32)


def _add_cosmic_rays(artefacts: Artefacts, rng: np.random.Generator) -> None:
    """Straight short tracks of one to ten pixels, a few hundred to tens of thousands of electrons."""
    size = len(artefacts.light)
    for _ in range(int(rng.poisson(COSMIC_RAYS_PER_PIXEL * size**2))):
        length, angle = 1 + rng.exponential(2.5), rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, length, 0.5)
        x = np.rint(rng.uniform(0, size - 1) + steps * np.cos(angle)).astype(int)
        y = np.rint(rng.uniform(0, size - 1) + steps * np.sin(angle)).astype(int)
        charge = np.exp(rng.normal(7.2, 0.9)) * rng.gamma(4, 0.25, len(steps)) / np.sqrt(len(steps))
        artefacts.add(y, x, charge, Artefact.COSMIC_RAY)


def _add_trail(artefacts: Artefacts, rng: np.random.Generator, psf: Psf) -> None:
    """A satellite: a straight line as wide as the PSF, across the image or ending in it; in some exposures only."""
    if rng.random() > TRAIL_CHANCE:
        return
    across, along = _along_line(artefacts.light.shape, rng)
    sigma = psf.fwhm / 2.355 * rng.uniform(1.0, 1.6)
    light = np.exp(rng.normal(4.6, 0.9)) * np.exp(-0.5 * np.minimum(across / sigma, 12) ** 2)
    ends = np.sort(rng.uniform(-0.9, 0.9, 2)) * len(light)
    rows, columns = np.nonzero((light > FAINTEST) & (along > ends[0]) & (along < ends[1]))
    artefacts.add(rows, columns, light[rows, columns], Artefact.TRAIL)


def _add_glints(artefacts: Artefacts, rng: np.random.Generator, psf: Psf) -> None:
    """A tumbling satellite: star-like flashes of uneven brightness along a line; in few exposures."""
    if rng.random() > GLINT_CHANCE:
        return
    size, n = len(artefacts.light), int(rng.integers(4, 14))
    angle, spacing = rng.uniform(0, np.pi), rng.uniform(30, 90)
    along = spacing * (np.arange(n) - n / 2 + 0.08 * rng.standard_normal(n))
    x = rng.uniform(0.2, 0.8) * size + along * np.cos(angle)
    y = rng.uniform(0.2, 0.8) * size + along * np.sin(angle)
    light = np.zeros_like(artefacts.light)
    add_stars(light, x, y, np.exp(rng.normal(8.5, 0.7, n)), psf)
    rows, columns = np.nonzero(light)
    artefacts.add(rows, columns, light[rows, columns], Artefact.GLINT)


def _along_line(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, Array]:
    """Distance of every pixel from a random straight line through the image, and its place along the line."""
    angle = rng.uniform(0, np.pi)
    x0, y0 = rng.uniform(0.1, 0.9, 2) * shape[0]
    x, y = np.arange(shape[1], dtype=np.float32) - x0, np.arange(shape[0], dtype=np.float32) - y0
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.abs((sine * x)[None, :] - (cosine * y)[:, None]), (cosine * x)[None, :] + (sine * y)[:, None]


def _add_bright_star_optics(artefacts: Artefacts, x: Array, y: Array, flux: Array, *, spike_angle: float) -> None:
    """Spikes, halos and ghosts of stars brighter than half a million electrons."""
    for k in np.flatnonzero(flux > 5e5):
        _add_spikes(artefacts, float(x[k]), float(y[k]), flux=float(flux[k]), angle=spike_angle)
        if flux[k] > 1.5e6:
            light = 0.004 * float(flux[k])
            _add_disc(artefacts, float(x[k]), float(y[k]), light, radius=38, kind=Artefact.HALO)
            centre = (len(artefacts.light) - 1) / 2
            ghost_x, ghost_y = 2 * centre - x[k] + 9, 2 * centre - y[k] - 6
            _add_disc(artefacts, float(ghost_x), float(ghost_y), 3 * light, radius=26, kind=Artefact.GHOST)


def _add_spikes(artefacts: Artefacts, x: float, y: float, *, flux: float, angle: float) -> None:
    """Four arms, each with 0.16 % of the light, fading over a length that grows with brightness."""
    length = 9 * (flux / 5e5) ** 0.4
    radius = np.arange(3, 6 * length, 0.5)
    light = 0.0016 * flux * 0.5 * np.exp(-radius / length) / length
    for arm in range(4):
        turn = angle + arm * np.pi / 2
        _splat(artefacts, x + radius * np.cos(turn), y + radius * np.sin(turn), light)


def _splat(artefacts: Artefacts, x: Array, y: Array, light: Array) -> None:
    """Share light points of a spike among their four nearest pixels."""
    left, low = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            share = light * np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - low))
            artefacts.add(low + dy, left + dx, share, Artefact.SPIKE)


def _add_disc(artefacts: Artefacts, x: float, y: float, flux: float, *, radius: float, kind: Artefact) -> None:
    """A defocused pupil image: a soft disc; that of a ghost has a central hole."""
    reach, hole = int(radius * 1.3), 0.35 if kind == Artefact.GHOST else 0.0
    columns, rows = (round(at) + np.arange(-reach, reach + 1) for at in (x, y))
    r = np.hypot(columns[None, :] - x, rows[:, None] - y) / radius
    shape = 1 / (1 + np.exp((r - 1) * 18)) - hole / (1 + np.exp((r - hole) * 18))
    light = (flux * shape / (np.pi * radius**2)).ravel()
    rows, columns = (place.ravel() for place in np.meshgrid(rows, columns, indexing="ij"))
    artefacts.add(rows, columns, light, kind)


def _sky_gradient(size: int, rng: np.random.Generator) -> Array:
    """Relative brightness of the sky over the image: a slope and a bow of a few per cent (moon, clouds)."""
    u = np.linspace(-1, 1, size, dtype=np.float32)
    a, b, c = rng.normal(0, [0.02, 0.02, 0.008]).astype(np.float32)
    return (a * u + c * u**2)[None, :] + (1 + b * u + c * u**2)[:, None]


def draw_detector(size: int, rng: np.random.Generator) -> Detector:
    """A detector with about 45 hot pixels and 4 bad columns per megapixel.

    Parameters
    ----------
    size : int
        Side [pixel].
    rng : Generator
        Random numbers.

    Returns
    -------
    Detector
    """
    area = size**2 / 1024**2
    n_hot, n_columns = int(rng.poisson(45 * area)), 1 + int(rng.poisson(3 * size / 1024))
    coarse = 0.004 * rng.standard_normal((9, 9))
    place = np.clip((np.arange(size) + 0.5) * 9 / size - 0.5, 0, 8)
    line = np.maximum(1 - np.abs(place[:, None] - np.arange(9)), 0)  # linear interpolation along one axis
    pixels = np.float32(0.002) * rng.standard_normal((size, size), dtype=np.float32)
    first = rng.uniform(0, 0.8 * size, n_columns)
    offset = rng.choice([-1, 1], n_columns) * np.exp(rng.normal(3.4, 0.8, n_columns))
    last = np.minimum(first + rng.uniform(0.2, 1, n_columns) * size, size)
    hot = [*rng.integers(0, size, (2, n_hot)), np.exp(rng.normal(5.6, 0.8, n_hot))]
    return Detector(
        flat_error=1 + (line @ coarse @ line.T).astype(np.float32) + pixels,
        hot=np.stack(hot, axis=1).astype(float),
        columns=np.stack([rng.integers(0, size, n_columns), first, last, offset], axis=1),
        edge_glow=rng.normal(0, 9, 4),
        crosstalk=float(CROSSTALK * np.exp(0.4 * rng.standard_normal())),
    )


def _add_faults(artefacts: Artefacts, detector: Detector, rng: np.random.Generator) -> None:
    """Hot pixels, bad columns and edge glow of an exposure [electron]."""
    x, y = detector.hot[:, 0].astype(int), detector.hot[:, 1].astype(int)
    charge = detector.hot[:, 2] * (1 + 0.3 * rng.standard_normal(len(x)))
    artefacts.add(y, x, charge, Artefact.HOT_PIXEL)
    for column, first, last, offset in detector.columns:
        rows = np.arange(int(first), int(last))
        light = np.full(len(rows), offset * (1 + 0.3 * rng.standard_normal()))
        artefacts.add(rows, np.full(len(rows), int(column)), light, Artefact.BAD_COLUMN)
    _add_edges(artefacts, detector.edge_glow)


def _add_edges(artefacts: Artefacts, glow: Array) -> None:
    """Glow of the detector's edges, which fades inwards."""
    light, labels = artefacts
    fade = np.exp(-np.arange(EDGE_PIXELS) / 2.5).astype(np.float32)
    sides = (light[:, :EDGE_PIXELS], light[:, ::-1][:, :EDGE_PIXELS], light.T[:, :EDGE_PIXELS])
    for part, brightness in zip((*sides, light.T[:, ::-1][:, :EDGE_PIXELS]), glow, strict=True):
        part += brightness * fade
    for edge in (np.s_[:, :7], np.s_[:, -7:], np.s_[:7], np.s_[-7:]):
        labels[edge] = np.where(labels[edge], labels[edge], Artefact.EDGE)


def _add_crosstalk(image: Array, artefacts: Artefacts, share: float, camera: Camera) -> None:
    """Faint mirror images of bright stars, which the amplifier of the other half of the chip picks up (in place)."""
    rows, columns = np.nonzero(image > CROSSTALK_FROM * camera.full_well)
    light, mirrored = share * image[rows, columns], image.shape[1] - 1 - columns
    image[rows, mirrored] += light
    artefacts.add(rows, mirrored, light, Artefact.CROSSTALK)


def saturate(image: Array, artefacts: Artefacts, camera: Camera) -> None:
    """Clip at full well; the excess charge flows along the columns (in place).

    Parameters
    ----------
    image : ndarray (h, w)
        Exposure [electron].
    artefacts : Artefacts
        Of the exposure; what bleeding adds or takes away is added.
    camera : Camera
        Its full well.
    """
    full = camera.full_well
    for column in np.flatnonzero((image > full).any(axis=0)):
        strip = image[:, column]
        before = strip.copy()
        runs, n_runs = ndimage.label(strip > full)
        for where in ndimage.find_objects(runs, n_runs):
            _bleed(strip, where[0].start, where[0].stop, full)
        changed = np.flatnonzero(strip != before)
        artefacts.light[changed, column] += (strip - before)[changed]
        artefacts.labels[changed, column] = Artefact.BLEED


def _bleed(strip: Array, start: int, stop: int, full: float) -> None:
    """Spread the excess of rows start..stop equally up and down until it fits (in place)."""
    excess = float((strip[start:stop] - full).sum())
    strip[start:stop] = full
    for side in (strip[stop:], strip[:start][::-1]):
        room = np.cumsum(np.maximum(full - side, 0))
        last = int(np.searchsorted(room, excess / 2))
        side[:last] = full
        if last < len(side):
            before = float(room[last - 1]) if last else 0.0
            side[last] += min(excess / 2 - before, full)
