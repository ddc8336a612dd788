"""Changes of stamps far from the source: hot pixels, cosmic rays, bright stars and masked areas.

None of them is part of the source, so a detection keeps its label. Networks and trees are trained with some of them,
and the evaluation counts the calls that they change.
"""

from collections.abc import Callable

import numpy as np

from gotorb.core.constants import MAD_TO_SIGMA, SIGMA_TO_FWHM

FAR_FWHM = 3.0
"""Distance from the source, in widths of the PSF, beyond which pixels are changed."""
USUAL_FWHM = 3.1
"""Full width of the PSF in pixels where it is not known."""
FAINTEST, FULL_WELL = 20.0, 10_000.0
"""Faintest and brightest light that is added, in units of the difference's noise."""
TRACK = (3, 16)
"""Length of a cosmic ray's track, pixels."""
STAR_RESIDUAL = 0.03
"""Largest fraction of a star that its subtraction leaves, of either sign."""
MASKED = (0.05, 0.5)
"""Side of a masked area over that of the stamp."""
Rng = np.random.Generator


def disturb_stamps(
    stamps: np.ndarray,
    layers: tuple[str, ...],
    kind: str | None = None,
    *,
    level: float | None = None,
    fwhm: float = USUAL_FWHM,
    rng: Rng,
) -> np.ndarray:
    """Disturb each stamp at a random place beyond three widths of the PSF.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    layers : tuple of str
        Names of the layers. Stars and masked areas are in all; hot pixels and cosmic rays not in the template.
    kind : {"hot_pixel", "cosmic_ray", "bright_star", "masked_area"}, optional
        A random one for each stamp when left out.
    level : float, optional
        Brightness in units of the noise of the difference (else of the first layer); up to full well, at random, when
        left out.
    fwhm : float
        Width of the PSF, pixels.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        A copy; pixels nearer than three widths are unchanged.
    """
    changed, size = stamps.copy(), stamps.shape[1]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    far = np.hypot(y, x) > min(FAR_FWHM * fwhm, size / 2 - 1)
    places = np.argwhere(far)
    noise = _measure_noise(stamps[..., layers.index("difference") if "difference" in layers else 0])
    for row in range(len(stamps)):
        name = str(rng.choice(KINDS)) if kind is None else kind
        height = np.exp(rng.uniform(np.log(FAINTEST), np.log(FULL_WELL))) if level is None else level
        shape = SHAPES[name](size, places[rng.integers(len(places))], fwhm, rng) * far
        if name == "masked_area":
            changed[row][shape > 0] = 0
        else:
            changed[row] += (noise[row] * height * shape[..., None] * _share(name, layers, rng)).astype(stamps.dtype)
    return changed


def _measure_noise(plane: np.ndarray) -> np.ndarray:
    flat = plane.reshape(len(plane), plane.shape[1] * plane.shape[2])  # there may be no stamp
    return MAD_TO_SIGMA * np.nanmedian(np.abs(flat - np.nanmedian(flat, axis=1, keepdims=True)), axis=1)


def _share(name: str, layers: tuple[str, ...], rng: Rng) -> np.ndarray:
    """Part of the light that each layer gets."""
    if name != "bright_star":
        return np.array([layer != "template" for layer in layers], float)
    residual = rng.uniform(-STAR_RESIDUAL, STAR_RESIDUAL)
    return np.array([{"difference": residual, "ptp": abs(residual)}.get(layer, 1.0) for layer in layers])


def _draw_pixel(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    shape = np.zeros((size, size))
    shape[tuple(place)] = 1
    return shape


def _draw_track(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    """A straight line of pixels of uneven brightness."""
    angle, steps = rng.uniform(0, np.pi), np.arange(rng.integers(*TRACK))
    ends = np.round(place[:, None] + np.outer((np.sin(angle), np.cos(angle)), steps)).astype(int)
    inside = ((ends >= 0) & (ends < size)).all(axis=0)
    shape = np.zeros((size, size))
    shape[tuple(ends[:, inside])] = rng.uniform(0.3, 1, int(inside.sum()))
    return shape


def _draw_star(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    y, x = np.ogrid[:size, :size]
    return np.asarray(np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 2 * (SIGMA_TO_FWHM / fwhm) ** 2))


def _draw_area(size: int, place: np.ndarray, fwhm: float, rng: Rng) -> np.ndarray:
    """A rectangle around the place."""
    half = rng.uniform(*MASKED, 2) * size / 2
    y, x = np.ogrid[:size, :size]
    return ((np.abs(y - place[0]) <= half[0]) & (np.abs(x - place[1]) <= half[1])).astype(float)


SHAPES: dict[str, Callable[[int, np.ndarray, float, Rng], np.ndarray]] = {
    "hot_pixel": _draw_pixel,
    "cosmic_ray": _draw_track,
    "bright_star": _draw_star,
    "masked_area": _draw_area,
}
KINDS = tuple(SHAPES)
