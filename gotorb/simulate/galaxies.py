"""Galaxy images: Sersic profiles convolved with the exposure's PSF in Fourier space, many at a time."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import optimize, special

from gotorb.simulate.psf import Psf, add_stamp, add_stars, moffat_width
from gotorb.simulate.sky import Galaxies

Array = NDArray[np.floating]
NUCLEUS = 0.06
"""Fraction of a galaxy's light in an unresolved nucleus, which real subtraction never quite removes."""
TRUNCATION = 6.0
"""Radius [half-light radius] at which a galaxy ends."""
FFT_STEP, FFT_MARGIN = 16, 24
"""Sides of Fourier grids are multiples of the one; the other keeps periodic images of the wings out of a stamp."""
CHUNK_PIXELS = 200_000


class _Ellipse(NamedTuple):
    """Elliptical radii: the square of a radius in Fourier space is xx kx^2 + xy kx ky + yy ky^2, arrays (n,)."""

    xx: Array
    xy: Array
    yy: Array

    def square(self, kx: Array, ky: Array) -> Array:
        """Squared radii (n, len(ky), len(kx)) on a grid of frequencies."""
        xx, xy, yy = (part[:, None, None] for part in self)
        return xx * kx**2 + (xy * kx) * ky[:, None] + yy * ky[:, None] ** 2


def add_galaxies(image: Array, x: Array, y: Array, flux: Array, galaxies: Galaxies, psf: Psf) -> None:
    """Draw galaxies into `image` (in place); x, y 0-based pixel centres, flux in electrons, arrays (n,)."""
    height, width = image.shape
    half = stamp_half(galaxies, flux)
    inside = (x > -half) & (x < width + half) & (y > -half) & (y < height + half)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    local = psf.at(2 * x / width - 1, 2 * y / height - 1)
    seeing = _ellipse(moffat_width(local.fwhm, psf.beta), local.e1, local.e2)
    shear = (1 - galaxies.ratio) / (1 + galaxies.ratio)
    body = _ellipse(galaxies.radius, shear * np.cos(2 * galaxies.angle), shear * np.sin(2 * galaxies.angle))
    for side, rows in _groups(half, galaxies.sersic, inside):
        kx, ky = 2 * np.pi * scipy.fft.rfftfreq(side), 2 * np.pi * scipy.fft.fftfreq(side)
        light = np.interp(_rows(body, rows).square(kx, ky), *_sersic_table(float(galaxies.sersic[rows[0]])))
        light *= np.interp(_rows(seeing, rows).square(kx, ky), *_moffat_table(psf.beta))
        light *= ((1 - NUCLEUS) * flux[rows])[:, None, None]
        to_x, to_y = (side // 2 + at[rows] - near[rows] for at, near in ((x, column), (y, row)))
        phase = np.exp(-1j * to_x[:, None] * kx)[:, None, :] * np.exp(-1j * to_y[:, None] * ky)[:, :, None]
        stamps = scipy.fft.irfft2((light * phase).astype(np.complex64), (side, side))
        for stamp, k in zip(stamps, rows, strict=True):
            cut = slice(side // 2 - half[k], side // 2 + half[k] + 1)
            add_stamp(image, stamp[cut, cut], row[k] - half[k], column[k] - half[k])
    add_stars(image, x[inside], y[inside], NUCLEUS * flux[inside], psf)


def stamp_half(galaxies: Galaxies, flux: Array) -> NDArray[np.intp]:
    """Half side of a galaxy's stamp [pixel]: wider for brighter and larger ones."""
    reach = galaxies.radius * np.clip(1.2 * np.log10(np.maximum(flux, 10)), 2, 6) + 8
    return np.ceil(reach).astype(np.intp)


def _groups(half: NDArray[np.intp], sersic: Array, inside: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Side of the Fourier grid and rows of the galaxies that are drawn together: of one grid and Sersic index."""
    sides = -(-(2 * half + 1 + FFT_MARGIN) // FFT_STEP) * FFT_STEP
    for side, index in np.unique(np.stack([sides[inside], sersic[inside]]), axis=1).T:
        rows = np.flatnonzero(inside & (sides == side) & (sersic == index))
        step = max(1, CHUNK_PIXELS // int(side) ** 2)
        for start in range(0, len(rows), step):
            yield int(side), rows[start : start + step]


def _rows(ellipse: _Ellipse, rows: NDArray[np.intp]) -> _Ellipse:
    return _Ellipse(*(part[rows] for part in ellipse))


def _ellipse(radius: Array, g1: Array, g2: Array) -> _Ellipse:
    """Fourier-space radii of a round profile of that radius under an area-preserving reduced shear."""
    scale = radius**2 / (1 - g1**2 - g2**2)
    return _Ellipse(scale * ((1 + g1) ** 2 + g2**2), scale * 4 * g2, scale * ((1 - g1) ** 2 + g2**2))


@lru_cache
def _sersic_table(index: float) -> tuple[Array, Array]:
    """Squared frequency [1 / half-light radius] and Fourier transform of a truncated Sersic profile of unit flux."""
    edge, power = TRUNCATION ** (1 / index), 2 * index
    slope = optimize.brentq(
        lambda b: 2 * special.gammainc(power, b) - special.gammainc(power, b * edge), 0.1, 3 * index
    )
    node, weight = _quadrature()
    t = (node + 1) / 2  # radius = TRUNCATION * t^index: the integrand has no cusp at the centre
    radius = TRUNCATION * t**index
    mass = weight * radius**2 / t * np.exp(-slope * edge * t)
    frequency = np.sinh(np.linspace(0, 8.2, 600)) / 12
    return frequency**2, special.j0(frequency[:, None] * radius) @ mass / mass.sum()


@lru_cache
def _quadrature() -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(300)


@lru_cache
def _moffat_table(beta: float) -> tuple[Array, Array]:
    """Squared frequency [1 / scale radius] and Fourier transform of a Moffat profile of unit flux."""
    frequency = np.linspace(0, 24, 2000)
    order = beta - 1
    with np.errstate(invalid="ignore"):
        value = 2 * (frequency / 2) ** order * special.kv(order, frequency) / special.gamma(order)
    value[0] = 1.0
    return frequency**2, value
