"""A minor planet's light, cut out of its stamp and added to the stamp of a galaxy, a star or an empty place."""

import numpy as np

from gotorb import layout
from gotorb.stamps.layers import Planes

DIFFERENCE = layout.LAYERS.index("difference")
WHOLE_FWHM, NOTHING_FWHM = 2.0, 3.5
"""A minor planet's stamp is taken whole to the first radius and not at all beyond the second: its neighbours and the
noise of its sky stay behind. A network would know pasted light by them, which it is to know by its shape."""
EVERY_EXPOSURE = -1
"""Stands for no flash."""


def cut_out(planets: Planes, fwhm: np.ndarray) -> Planes:
    """The planets alone: zero where a stamp shows only what is around them, in between less and less.

    Parameters
    ----------
    planets : Planes
        Stamps (n, size, size, ...) with the planets in the middle.
    fwhm : ndarray (n,)
        Of the planets, which are of one image [pixel]; their median counts, NaN is left out.
    """
    known = fwhm[fwhm > 0]
    if len(known) == 0:  # nothing tells how wide they are
        return planets
    side = np.arange(planets.stacked.shape[1]) - planets.stacked.shape[1] // 2
    radius = np.hypot(side[:, None], side) / np.median(known)
    outer = np.clip((radius - WHOLE_FWHM) / (NOTHING_FWHM - WHOLE_FWHM), 0, 1)
    window = (0.5 + 0.5 * np.cos(np.pi * outer)).astype(np.float32)[..., None]
    whole = (planets.stacked, planets.exposures)
    return Planes(*(np.where(window > 0, window * planes, np.float32(0)) for planes in whole))


def add_light(hosts: Planes, planets: Planes, lit: np.ndarray, *, fading: np.ndarray, flash: np.ndarray) -> None:
    """Add the planets' images to their hosts'; of a fading transient the light was there and is gone.

    What a planet brought is its difference image: for a fading one that goes into the template, and negative
    into the difference, while science image and exposures stay the host's. A flash has all of it in one exposure.
    """
    new_light = planets.stacked[..., DIFFERENCE]
    brought = planets.stacked.copy()
    brought[fading] = np.stack([0 * new_light, new_light, -new_light], axis=-1)[fading]
    hosts.stacked[lit] += brought
    light = np.where(fading[:, None, None, None], np.float32(0), planets.exposures)
    flashing = np.flatnonzero(flash != EVERY_EXPOSURE)
    light[flashing] = 0
    whole = light.shape[-1] * new_light  # whose mean over the exposures is what was pasted
    light[flashing, :, :, flash[flashing]] = whole[flashing]
    hosts.exposures[lit] += light
