"""Image subtraction: choose stars, fit the kernel, convolve the sharper image, mask what has no data."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import sep
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from gotorb.errors import SurveyError
from gotorb.simulate import kernel
from gotorb.simulate.camera import Camera
from gotorb.simulate.coadd import cut_windows

Array = NDArray[np.floating]
MAX_STAMPS = 140
CELLS = 5
GROWN_MASK = 5
"""Pixels by which the area without data grows: the reach of the kernel's core."""


class Stars(NamedTuple):
    """Isolated, unsaturated stars of an image: x, y, flux, FWHM [pixel]."""

    x: Array
    y: Array
    flux: Array
    fwhm: Array


class Difference(NamedTuple):
    """A subtraction: difference image (NaN without data), FWHM and noise of its sources, and how it was made.

    `convolved` names the image convolved; `stars` are those of the science image.
    """

    image: Array
    fwhm: float
    noise: float
    convolved: str
    kernel: kernel.Kernel
    stars: Stars

    @property
    def n_stamps(self) -> int:
        """Stars to which the kernel was fitted."""
        return self.kernel.n_stamps


def robust_noise(image: Array) -> float:
    """Width of the pixel distribution from the median absolute deviation of a sample of finite pixels."""
    sample = image[::3, ::3]
    sample = sample[np.isfinite(sample)]
    return float(1.4826 * np.median(np.abs(sample - np.median(sample))))


def find_stars(image: Array, camera: Camera, *, threshold: float = 9) -> Stars:
    """Bright, round, unsaturated, isolated sources of a sky-subtracted image without NaN."""
    noise = robust_noise(image)
    sep.set_extract_pixstack(max(300_000, image.size // 5))
    found = sep.extract(image, threshold, err=noise, minarea=6, deblend_cont=0.005)
    found = found[(found["flag"] == 0) & (found["peak"] < 0.75 * camera.full_well) & (found["b"] > 0.65 * found["a"])]
    if len(found) < kernel.MIN_STAMPS:
        raise SurveyError(f"only {len(found)} clean stars in the image, {kernel.MIN_STAMPS} needed; use a larger image")
    radius, _ = sep.flux_radius(image, found["x"], found["y"], np.full(len(found), 8.0), 0.5, subpix=5)
    typical = np.median(radius)
    good = (radius > 0.7 * typical) & (radius < 1.35 * typical)
    x, y, flux = found["x"][good], found["y"][good], found["flux"][good]
    return Stars(x, y, flux, 2 * radius[good])


def subtract(science: Array, template: Array, camera: Camera, *, swap: bool = False) -> Difference:
    """Science minus template, both sky-subtracted on one grid and zero point.

    Parameters
    ----------
    science, template : ndarray (h, w)
        NaN where there is no data.
    swap : bool
        Convolve the wider image instead: a mistake that real pipelines make now and then.

    Raises
    ------
    SurveyError
        If too few stars fit.
    """
    empty = ~np.isfinite(science) | ~np.isfinite(template)
    science, template = (np.where(np.isfinite(image), image, 0).astype(np.float32) for image in (science, template))
    science_stars, template_stars = find_stars(science, camera), find_stars(template, camera)
    science_fwhm, template_fwhm = float(np.median(science_stars.fwhm)), float(np.median(template_stars.fwhm))
    convolve_template = (template_fwhm <= science_fwhm) != swap
    reference, target = (template, science) if convolve_template else (science, template)
    noise = float(np.hypot(robust_noise(science), robust_noise(template)))
    stamps = cut_stamps(reference, target, science_stars, empty, camera)
    fitted = kernel.fit_kernel(stamps, noise=noise)
    matched = kernel.apply_kernel(reference, fitted)
    difference = science - matched if convolve_template else (matched - template) / _mean_sum(fitted)
    difference[ndimage.binary_dilation(empty, iterations=GROWN_MASK)] = np.nan
    return Difference(
        difference.astype(np.float32),
        max(science_fwhm, template_fwhm) if not swap else science_fwhm if convolve_template else template_fwhm,
        robust_noise(difference),
        "template" if convolve_template else "science",
        fitted,
        science_stars,
    )


def window_half(difference: Difference) -> int:
    """Half side [pixel] of the windows that `share_of_change` needs: the reach of its filter and of the kernel."""
    return len(_filter_taps(difference)) // 2 + 1 + (kernel.KERNEL_HALF if difference.convolved == "science" else 0)


def share_of_change(table: pd.DataFrame, change: Array, difference: Difference) -> Array:
    """Share of each detection that the change makes: what this subtraction would find less at its place without it.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y [pixel].
    change : ndarray (n, side, side)
        Windows of the science image minus one without the change, of half side `window_half(difference)`.

    Returns
    -------
    ndarray (n,)
        Share of the matched-filtered difference; above 1 where the change covers a residual of the other sign.
    """
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    if difference.convolved == "science" and len(table):
        height, width = difference.image.shape
        local = difference.kernel.at(2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1)
        change = fftconvolve(change, local, mode="valid", axes=(1, 2)) / _mean_sum(difference.kernel)
    taps = _filter_taps(difference)
    whole = np.nan_to_num(cut_windows(difference.image, x, y, len(taps) // 2 + 1), nan=0.0)
    part, total = (np.einsum("nij,ni,nj->n", light, _weights(taps, y), _weights(taps, x)) for light in (change, whole))
    return part / np.where(total == 0, np.nan, total)


def _filter_taps(difference: Difference) -> Array:
    """Weights along one axis of the Gaussian that is the matched filter of a difference."""
    sigma = difference.fwhm / 2.355
    reach = int(3 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return taps / taps.sum()


def _weights(taps: Array, place: Array) -> Array:
    """Filter weights (n, len(taps) + 2) about the whole pixel nearest to each place, linear between pixels."""
    offset = (place - np.rint(place))[:, None]
    left, middle, right = (np.pad(taps, ends) for ends in ((0, 2), (1, 1), (2, 0)))
    return np.maximum(-offset, 0) * left + (1 - np.abs(offset)) * middle + np.maximum(offset, 0) * right


def _mean_sum(fitted: kernel.Kernel) -> np.float32:
    grid = np.linspace(-1, 1, 9)
    u, v = np.meshgrid(grid, grid)
    return np.float32(np.mean(fitted.sum_at(u, v)))


def cut_stamps(reference: Array, target: Array, stars: Stars, empty: NDArray, camera: Camera) -> kernel.Stamps:
    """Stamps around the brightest good stars of each part of the image."""
    height, width = target.shape
    reach = kernel.STAMP_HALF + kernel.KERNEL_HALF
    column, row = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    inside = (column >= reach) & (column < width - reach) & (row >= reach) & (row < height - reach)
    windows, references, targets, places = _spread(stars, inside, (height, width)), [], [], []
    for k in windows:
        i, j = row[k], column[k]
        wide, tight = np.s_[i - reach : i + reach + 1, j - reach : j + reach + 1], kernel.STAMP_HALF
        if empty[wide].any() or max(reference[wide].max(), target[wide].max()) > 0.8 * camera.full_well:
            continue
        references.append(reference[wide])
        targets.append(target[i - tight : i + tight + 1, j - tight : j + tight + 1])
        places.append((2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1))
    if len(places) < kernel.MIN_STAMPS:
        raise SurveyError(f"only {len(places)} stars can be cut for the kernel, {kernel.MIN_STAMPS} needed")
    u, v = np.array(places).T
    return kernel.Stamps(np.array(references, dtype=float), np.array(targets, dtype=float), u, v)


def _spread(stars: Stars, inside: NDArray, shape: tuple[int, int]) -> list[int]:
    """Rows of the brightest stars, at most a few per cell of the image."""
    cell = (CELLS * stars.y / shape[0]).astype(int) * CELLS + (CELLS * stars.x / shape[1]).astype(int)
    per_cell = MAX_STAMPS // CELLS**2 + 2
    order = [k for k in np.argsort(-stars.flux, kind="stable") if inside[k]]
    used: dict[int, int] = {}
    chosen = []
    for k in order:
        used[cell[k]] = used.get(cell[k], 0) + 1
        if used[cell[k]] <= per_cell:
            chosen.append(int(k))
    return chosen[:MAX_STAMPS]
