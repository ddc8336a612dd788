"""The point-spread function, a sheared Moffat with coma and trefoil that vary over the field, and its sources.

Stars are drawn pixel by pixel; galaxies are Sersic profiles convolved in Fourier space, many at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import optimize, special

from gotorb.simulate.scene import Galaxies

Array = NDArray[np.floating]
BETAS = (2.5, 3.0, 3.5, 4.0)
HALF_SIZES = np.array([8, 14, 24, 48, 100, 200])
SMALL_HALF = 14
"""Stamps up to this half side are added all at a time: a loop over them would cost more than their pixels."""
COMA_FRACTION = 0.12
COMA_WIDTH = 1.3
NUCLEUS = 0.06
"""Fraction of a galaxy's light in an unresolved nucleus, which real subtraction never quite removes."""
TRUNCATION = 6.0
"""Radius [half-light radius] at which a galaxy ends."""
FFT_STEP, FFT_MARGIN = 16, 24
"""Sides of Fourier grids are multiples of the one; the other keeps periodic images of the wings out of a stamp."""
CHUNK_PIXELS = 200_000


class LocalPsf(NamedTuple):
    """PSF at some positions; arrays of one shape."""

    fwhm: Array
    e1: Array
    e2: Array
    coma_x: Array
    coma_y: Array
    trefoil_x: Array
    trefoil_y: Array


@dataclass(frozen=True, kw_only=True)
class Psf:
    """PSF of one exposure. Positions u, v run from -1 to 1 over the image.

    Attributes
    ----------
    fwhm : float
        At the centre [pixel].
    beta : float
        Moffat index.
    bend : tuple of float
        Relative change of the FWHM along u, v and with the squared radius.
    shear : tuple of float
        e1, e2 at the centre and their slopes along u and v.
    coma : tuple of float
        Offset [FWHM] of a fainter, wider second Moffat at the centre and its slope with the radius.
    trefoil : tuple of float
        Three-fold stretch of the profile at the centre, its two parts, and its slope with the radius.
    ripple : tuple of float
        Amplitude of a wave in the shear that a smooth kernel cannot follow, its wave numbers along u, v, and its phase.
    """

    fwhm: float
    beta: float
    bend: tuple[float, float, float]
    shear: tuple[float, float, float, float]
    coma: tuple[float, float, float]
    trefoil: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ripple: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def at(self, u: Array, v: Array) -> LocalPsf:
        """PSF at field positions.

        Parameters
        ----------
        u, v : ndarray
            From -1 to 1 over the image; places far outside count as near ones.

        Returns
        -------
        LocalPsf
            FWHM in pixels.
        """
        u, v = np.clip(u, -1.5, 1.5), np.clip(v, -1.5, 1.5)
        fwhm = self.fwhm * (1 + self.bend[0] * u + self.bend[1] * v + self.bend[2] * (u**2 + v**2))
        wave = self.ripple[1] * u + self.ripple[2] * v + self.ripple[3]
        e1 = self.shear[0] + self.shear[2] * u + self.ripple[0] * np.sin(wave)
        e2 = self.shear[1] + self.shear[3] * v + self.ripple[0] * np.cos(wave)
        coma_x, coma_y = fwhm * (self.coma[0] + self.coma[2] * u), fwhm * (self.coma[1] + self.coma[2] * v)
        trefoil_x, trefoil_y = self.trefoil[0] + self.trefoil[2] * u, self.trefoil[1] + self.trefoil[2] * v
        return LocalPsf(fwhm, e1, e2, coma_x, coma_y, trefoil_x, trefoil_y)


def draw_psf(rng: np.random.Generator, median_fwhm: float = 2.55) -> Psf:
    """A night's PSF: FWHM lognormal around the median [pixel], one of four Moffat indices.

    Parameters
    ----------
    rng : Generator
        Random numbers.
    median_fwhm : float
        [pixel].

    Returns
    -------
    Psf
    """
    return Psf(
        fwhm=float(np.clip(median_fwhm * np.exp(0.12 * rng.standard_normal()), 2.0, 3.9)),
        beta=float(rng.choice(BETAS)),
        bend=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.02)), float(abs(rng.normal(0.03, 0.02)))),
        shear=tuple(float(x) for x in rng.normal(0, [0.03, 0.03, 0.02, 0.02])),  # type: ignore[arg-type]
        coma=tuple(float(x) for x in rng.normal(0, [0.10, 0.10, 0.08])),  # type: ignore[arg-type]
        trefoil=tuple(float(x) for x in rng.normal(0, [0.03, 0.03, 0.05])),  # type: ignore[arg-type]
        ripple=tuple(float(x) for x in (rng.normal(0, 0.015), *rng.uniform(-6, 6, 3))),  # type: ignore[arg-type]
    )


def vary_psf(psf: Psf, rng: np.random.Generator) -> Psf:
    """The same night a minute later: 5 % in width, a little in shape.

    Parameters
    ----------
    psf : Psf
        Of the night.
    rng : Generator
        Random numbers.

    Returns
    -------
    Psf
    """
    shear = np.add(psf.shear, rng.normal(0, [0.012, 0.012, 0.004, 0.004]))
    coma = np.add(psf.coma, rng.normal(0, [0.04, 0.04, 0.02]))
    return replace(
        psf,
        fwhm=float(np.clip(psf.fwhm * (1 + 0.05 * rng.standard_normal()), 1.9, 4.2)),
        shear=(float(shear[0]), float(shear[1]), float(shear[2]), float(shear[3])),
        coma=(float(coma[0]), float(coma[1]), float(coma[2])),
    )


def moffat_width(fwhm: Array, beta: float) -> Array:
    """Scale radius of a Moffat profile of that FWHM.

    Parameters
    ----------
    fwhm : ndarray
        [pixel].
    beta : float
        Moffat index.

    Returns
    -------
    ndarray
    """
    return fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1))


def _moffat(dx: Array, dy: Array, local: LocalPsf, beta: float, *, factor: float = 1.0, trefoil: bool = False) -> Array:
    """Unit-flux sheared Moffat at offsets of shape (n, h, w); `local` arrays of shape (n, 1, 1)."""
    width = moffat_width(local.fwhm * factor, beta)
    stretched_x = (1 - local.e1) * dx - local.e2 * dy
    stretched_y = (1 + local.e1) * dy - local.e2 * dx
    norm = (beta - 1) * (1 - local.e1**2 - local.e2**2) / (np.pi * width**2)
    square_x, square_y = stretched_x**2, stretched_y**2
    square = (square_x + square_y) / width**2
    if trefoil:
        along = local.trefoil_x * stretched_x * (square_x - 3 * square_y)
        along += local.trefoil_y * stretched_y * (3 * square_x - square_y)
        square *= 1 + along / (width**3 * _power(1 + square, 1.5))
    return norm / _power(1 + square, beta)


def _power(base: Array, exponent: float) -> Array:
    """Power with a multiple of a half: products are many times as fast as `**`."""
    power = np.sqrt(base) if exponent % 1 else np.ones_like(base)
    for _ in range(int(exponent)):
        power *= base
    return power


def profile(dx: Array, dy: Array, local: LocalPsf, beta: float) -> Array:
    """Unit-flux PSF at pixel offsets from the source's position, which is the PSF's centroid.

    Parameters
    ----------
    dx, dy : ndarray (n, h, w)
        Offsets [pixel].
    local : LocalPsf
        PSF at the sources, arrays (n, 1, 1).
    beta : float
        Moffat index.

    Returns
    -------
    ndarray
    """
    mean_x, mean_y = COMA_FRACTION * local.coma_x, COMA_FRACTION * local.coma_y
    main = _moffat(dx + mean_x, dy + mean_y, local, beta, trefoil=True)
    second = _moffat(dx + mean_x - local.coma_x, dy + mean_y - local.coma_y, local, beta, factor=COMA_WIDTH)
    return (1 - COMA_FRACTION) * main + COMA_FRACTION * second


def _stamp_half_size(flux: Array, psf: Psf, *, floor: float = 1.5) -> NDArray[np.intp]:
    """Half side [pixel] beyond which a star gives less than `floor` electrons per pixel."""
    width = float(moffat_width(np.asarray(psf.fwhm), psf.beta))
    peak = (psf.beta - 1) * np.abs(flux) / (np.pi * width**2)
    radius = width * np.sqrt(np.maximum((np.maximum(peak, floor) / floor) ** (1 / psf.beta) - 1, 0))
    index = np.minimum(np.searchsorted(HALF_SIZES, radius), len(HALF_SIZES) - 1)
    return HALF_SIZES[index]


def add_stars(image: Array, x: Array, y: Array, flux: Array, psf: Psf) -> None:
    """Draw point sources into `image` (in place). Positions are 0-based pixel centres, flux in electrons.

    Parameters
    ----------
    image : ndarray (h, w)
        [electron], changed in place.
    x, y : ndarray (n,)
        0-based pixel centres.
    flux : ndarray (n,)
        [electron].
    psf : Psf
        Of the exposure.
    """
    halves = _stamp_half_size(flux, psf)
    for half in np.unique(halves):
        rows = np.flatnonzero(halves == half)
        chunk = max(1, 400_000 // (2 * int(half) + 1) ** 2)
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            _add_group(image, x[part], y[part], flux[part], psf=psf, half=int(half))


def _add_group(image: Array, x: Array, y: Array, flux: Array, *, psf: Psf, half: int) -> None:
    height, width = image.shape
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    offsets = np.arange(-half, half + 1, dtype=np.float32)
    local = psf.at(2 * x / width - 1, 2 * y / height - 1)
    of_each = (part.astype(np.float32)[:, None, None] for part in (x - column, y - row, flux, *local))
    from_x, from_y, flux, *rest = of_each
    shape = profile(offsets[None, None, :] - from_x, offsets[None, :, None] - from_y, LocalPsf(*rest), psf.beta)
    stamps = (flux * shape).astype(image.dtype)
    if half > SMALL_HALF:
        for stamp, i, j in zip(stamps, row, column, strict=True):
            add_stamp(image, stamp, i - half, j - half)
        return
    side = np.arange(-half, half + 1)
    rows, columns = row[:, None, None] + side[:, None], column[:, None, None] + side
    stamps[((rows < 0) | (rows >= height) | (columns < 0) | (columns >= width))] = 0
    places = np.clip(rows, 0, height - 1) * width + np.clip(columns, 0, width - 1)
    np.add.at(image.reshape(-1), places.ravel(), stamps.ravel())  # a view: images are contiguous


def add_stamp(image: Array, stamp: Array, row: int, column: int) -> None:
    """Add a stamp whose first pixel is (row, column); parts outside the image are dropped.

    Parameters
    ----------
    image : ndarray (h, w)
        Changed in place.
    stamp : ndarray (a, b)
        Light to add.
    row, column : int
        Place of the stamp's first pixel.
    """
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + stamp.shape[0], image.shape[0]), min(column + stamp.shape[1], image.shape[1])
    if top < bottom and left < right:
        image[top:bottom, left:right] += stamp[top - row : bottom - row, left - column : right - column]


def cut_windows(image: Array, x: Array, y: Array, half: int) -> Array:
    """Windows (n, 2 half + 1, 2 half + 1) of an image about the whole pixels nearest to places; zero outside.

    Parameters
    ----------
    image : ndarray (h, w)
        Any.
    x, y : ndarray (n,)
        0-based pixel centres.
    half : int
        Half side [pixel].

    Returns
    -------
    ndarray
    """
    side = np.arange(-half, half + 1)
    row, column = (np.rint(at).astype(int)[:, None] + side for at in (y, x))
    windows = image[np.clip(row, 0, image.shape[0] - 1)[:, :, None], np.clip(column, 0, image.shape[1] - 1)[:, None, :]]
    windows[(row < 0) | (row >= image.shape[0])] = 0
    windows.swapaxes(1, 2)[(column < 0) | (column >= image.shape[1])] = 0
    return windows


class _Ellipse(NamedTuple):
    """Elliptical radii: the square of a radius in Fourier space is xx kx^2 + xy kx ky + yy ky^2, arrays (n,)."""

    xx: Array
    xy: Array
    yy: Array

    def square(self, kx: Array, ky: Array) -> Array:
        """Squared radii (n, len(ky), len(kx)) on a grid of frequencies."""
        xx, xy, yy = (part[:, None, None] for part in self)
        return xx * kx**2 + (xy * kx) * ky[:, None] + yy * ky[:, None] ** 2


def add_galaxies(image: Array, x: Array, y: Array, flux: Array, *, galaxies: Galaxies, psf: Psf) -> None:
    """Draw galaxies into `image` (in place); x, y 0-based pixel centres, flux in electrons, arrays (n,).

    Parameters
    ----------
    image : ndarray (h, w)
        [electron], changed in place.
    x, y : ndarray (n,)
        0-based pixel centres.
    flux : ndarray (n,)
        [electron].
    galaxies : Galaxies
        Their shapes.
    psf : Psf
        Of the exposure; its coma and trefoil are left out.
    """
    height, width = image.shape
    half = _stamp_half(galaxies, flux)
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


def _stamp_half(galaxies: Galaxies, flux: Array) -> NDArray[np.intp]:
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
    node, weight = _quadrature(300)
    t = (node + 1) / 2  # radius = TRUNCATION * t^index: the integrand has no cusp at the centre
    radius = TRUNCATION * t**index
    mass = weight * radius**2 / t * np.exp(-slope * edge * t)
    frequency = np.sinh(np.linspace(0, 8.2, 600)) / 12
    return frequency**2, special.j0(frequency[:, None] * radius) @ mass / mass.sum()


_quadrature = lru_cache(np.polynomial.legendre.leggauss)


@lru_cache
def _moffat_table(beta: float) -> tuple[Array, Array]:
    """Squared frequency [1 / scale radius] and Fourier transform of a Moffat profile of unit flux."""
    frequency = np.linspace(0, 24, 2000)
    order = beta - 1
    with np.errstate(invalid="ignore"):
        value = 2 * (frequency / 2) ** order * special.kv(order, frequency) / special.gamma(order)
    value[0] = 1.0
    return frequency**2, value
