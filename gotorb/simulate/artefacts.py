"""What the optics, the sky and passing particles add to one exposure; each function works in place and marks pixels."""

import numpy as np
from numpy.typing import NDArray

from gotorb.simulate.detector import Artefact, Labels
from gotorb.simulate.psf import Psf, add_stars

Array = NDArray[np.floating]
COSMIC_RAYS_PER_PIXEL = 14 / 1024**2
TRAIL_CHANCE, GLINT_CHANCE = 0.12, 0.05
VISIBLE = 8.0
"""An artefact marks the pixels it changes by more than this [electron]: a third of the pixel noise."""


def add_cosmic_rays(image: Array, labels: Labels, rng: np.random.Generator) -> None:
    """Straight short tracks of one to ten pixels, a few hundred to tens of thousands of electrons."""
    size = len(image)
    for _ in range(int(rng.poisson(COSMIC_RAYS_PER_PIXEL * image.size))):
        length, angle = 1 + rng.exponential(2.5), rng.uniform(0, 2 * np.pi)
        steps = np.arange(0, length, 0.5)
        x = np.rint(rng.uniform(0, size - 1) + steps * np.cos(angle)).astype(int)
        y = np.rint(rng.uniform(0, size - 1) + steps * np.sin(angle)).astype(int)
        charge = np.exp(rng.normal(7.2, 0.9)) * rng.gamma(4, 0.25, len(steps)) / np.sqrt(len(steps))
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        np.add.at(image, (y[inside], x[inside]), charge[inside].astype(image.dtype))
        labels[y[inside], x[inside]] = Artefact.COSMIC_RAY


def add_trail(image: Array, labels: Labels, rng: np.random.Generator, psf: Psf) -> None:
    """A satellite: a straight line across the image, as wide as the PSF; in some exposures only."""
    if rng.random() > TRAIL_CHANCE:
        return
    distance = _line_distance(image.shape, rng)
    sigma = psf.fwhm / 2.355 * rng.uniform(1.0, 1.6)
    light = np.exp(rng.normal(5.0, 0.9)) * np.exp(-0.5 * np.minimum(distance / sigma, 12) ** 2)
    image += light.astype(image.dtype)
    labels[light > VISIBLE] = Artefact.TRAIL


def add_glints(image: Array, labels: Labels, rng: np.random.Generator, psf: Psf) -> None:
    """A tumbling satellite: star-like flashes of uneven brightness along a line; in few exposures."""
    if rng.random() > GLINT_CHANCE:
        return
    size, n = len(image), int(rng.integers(4, 14))
    angle, spacing = rng.uniform(0, np.pi), rng.uniform(30, 90)
    along = spacing * (np.arange(n) - n / 2 + 0.08 * rng.standard_normal(n))
    x = rng.uniform(0.2, 0.8) * size + along * np.cos(angle)
    y = rng.uniform(0.2, 0.8) * size + along * np.sin(angle)
    light = np.zeros_like(image)
    add_stars(light, x, y, np.exp(rng.normal(8.5, 0.7, n)), psf)
    image += light
    labels[light > VISIBLE] = Artefact.GLINT


def _line_distance(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Distance of every pixel from a random straight line through the image."""
    angle = rng.uniform(0, np.pi)
    x0, y0 = rng.uniform(0.1, 0.9, 2) * shape[0]
    x, y = np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32)
    return np.abs(np.sin(angle) * (x - x0)[None, :] - np.cos(angle) * (y - y0)[:, None])


def add_bright_star_optics(
    image: Array, labels: Labels, x: Array, y: Array, flux: Array, *, spike_angle: float
) -> None:
    """Spikes, halos and ghosts of stars brighter than half a million electrons."""
    for k in np.flatnonzero(flux > 5e5):
        _add_spikes(image, labels, float(x[k]), float(y[k]), float(flux[k]), spike_angle)
        if flux[k] > 1.5e6:
            _add_disc(image, labels, float(x[k]), float(y[k]), 0.004 * float(flux[k]), radius=38, hole=0.0)
            centre = (len(image) - 1) / 2
            ghost_x, ghost_y = 2 * centre - x[k] + 9, 2 * centre - y[k] - 6
            _add_disc(image, labels, float(ghost_x), float(ghost_y), 0.012 * float(flux[k]), radius=26, hole=0.35)


def _add_spikes(image: Array, labels: Labels, x: float, y: float, flux: float, angle: float) -> None:
    """Four arms, each with 0.16 % of the light, fading over a length that grows with brightness."""
    length = 9 * (flux / 5e5) ** 0.4
    radius = np.arange(3, 6 * length, 0.5)
    light = 0.0016 * flux * 0.5 * np.exp(-radius / length) / length
    for arm in range(4):
        turn = angle + arm * np.pi / 2
        _splat(image, labels, x + radius * np.cos(turn), y + radius * np.sin(turn), light)


def _splat(image: Array, labels: Labels, x: Array, y: Array, light: Array) -> None:
    """Share light points among their four nearest pixels and mark the visible ones as spike."""
    left, low = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            share = light * np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - low))
            column, row = left + dx, low + dy
            inside = (column >= 0) & (column < image.shape[1]) & (row >= 0) & (row < image.shape[0])
            np.add.at(image, (row[inside], column[inside]), share[inside].astype(image.dtype))
            seen = inside & (share > VISIBLE / 4)
            labels[row[seen], column[seen]] = Artefact.SPIKE


def _add_disc(image: Array, labels: Labels, x: float, y: float, flux: float, *, radius: float, hole: float) -> None:
    """A defocused pupil image: a soft disc with a central hole (fraction of the radius)."""
    reach = int(radius * 1.3)
    left, low = max(round(x) - reach, 0), max(round(y) - reach, 0)
    right, top = min(round(x) + reach, image.shape[1]), min(round(y) + reach, image.shape[0])
    if left >= right or low >= top:
        return
    r = np.hypot(np.arange(left, right)[None, :] - x, np.arange(low, top)[:, None] - y) / radius
    shape = 1 / (1 + np.exp((r - 1) * 18)) - hole / (1 + np.exp((r - hole) * 18))
    light = flux * shape / (np.pi * radius**2)
    image[low:top, left:right] += light.astype(image.dtype)
    window = labels[low:top, left:right]
    window[(light > VISIBLE) & (window < Artefact.GHOST)] = Artefact.GHOST


def sky_gradient(size: int, rng: np.random.Generator) -> Array:
    """Relative brightness of the sky over the image: a slope and a bow of a few per cent (moon, clouds)."""
    u = np.linspace(-1, 1, size, dtype=np.float32)
    a, b, c = rng.normal(0, [0.02, 0.02, 0.008]).astype(np.float32)
    return (a * u + c * u**2)[None, :] + (1 + b * u + c * u**2)[:, None]
