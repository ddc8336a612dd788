"""Galaxy images: Sersic profiles through GalSim, convolved with the exposure's PSF."""

import galsim
import numpy as np
from numpy.typing import NDArray

from gotorb.simulate.psf import Psf, add_stamp, add_stars
from gotorb.simulate.sky import Galaxies

Array = NDArray[np.floating]
FAST = galsim.GSParams(folding_threshold=1e-2, maxk_threshold=1e-2, kvalue_accuracy=1e-3, maximum_fft_size=16384)
NUCLEUS = 0.06
"""Fraction of a galaxy's light in an unresolved nucleus, which real subtraction never quite removes."""


def add_galaxies(image: Array, x: Array, y: Array, flux: Array, galaxies: Galaxies, psf: Psf) -> None:
    """Draw galaxies into `image` (in place); x, y 0-based pixel centres, flux in electrons, arrays (n,)."""
    height, width = image.shape
    reach = stamp_half(galaxies, flux)
    inside = (x > -reach) & (x < width + reach) & (y > -reach) & (y < height + reach)
    local = psf.at(2 * x / width - 1, 2 * y / height - 1)
    for k in np.flatnonzero(inside):
        kernel = galsim.Moffat(beta=psf.beta, fwhm=float(local.fwhm[k]), gsparams=FAST)
        kernel = kernel.shear(g1=float(local.e1[k]), g2=float(local.e2[k]))
        body = _sersic(galaxies, int(k), float(flux[k]) * (1 - NUCLEUS))
        _add_one(image, galsim.Convolve(body, kernel, gsparams=FAST), float(x[k]), float(y[k]), int(reach[k]))
    add_stars(image, x[inside], y[inside], NUCLEUS * flux[inside], psf)


def stamp_half(galaxies: Galaxies, flux: Array) -> NDArray[np.intp]:
    """Half side of a galaxy's stamp [pixel]: wider for brighter and larger ones."""
    reach = galaxies.radius * np.clip(1.2 * np.log10(np.maximum(flux, 10)), 2, 6) + 8
    return np.ceil(reach).astype(np.intp)


def _sersic(galaxies: Galaxies, k: int, flux: float) -> galsim.GSObject:
    radius = float(galaxies.radius[k])
    body = galsim.Sersic(
        float(galaxies.sersic[k]), half_light_radius=radius, trunc=6 * radius, flux=flux, gsparams=FAST
    )
    return body.shear(q=float(galaxies.ratio[k]), beta=float(galaxies.angle[k]) * galsim.radians)


def _add_one(image: Array, profile: galsim.GSObject, x: float, y: float, half: int) -> None:
    column, row = round(x), round(y)
    side = 2 * half + 1
    offset = galsim.PositionD(x - column, y - row)
    stamp = profile.drawImage(nx=side, ny=side, scale=1, method="no_pixel", dtype=np.float32, offset=offset)
    add_stamp(image, stamp.array, row - half, column - half)
