"""Image subtraction: choose stars, fit a kernel that varies over the field, convolve the sharper image.

The kernel is a least-squares fit of Gaussians times polynomials after Alard & Lupton (1998) and Alard (2000), written
for images whose kernel needs a few stamps and little time.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.fft
import sep
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.errors import SurveyError
from gotorb.simulate.plan import Camera

Array = NDArray[np.floating]
WIDTHS_AND_ORDERS = ((0.7, 4), (1.5, 2), (3.0, 1))
KERNEL_HALF, STAMP_HALF = 10, 13
MIN_STAMPS = 8
CLIP_ROUNDS = 3
MAX_STAMPS = 140
CELLS = 5
GROWN_MASK = 5
"""Pixels by which the area without data grows: the reach of the kernel's core."""


class Stamps(NamedTuple):
    """Cutouts around stars: `reference` (n, 47, 47) to be convolved, `target` (n, 27, 27), places u, v in -1..1."""

    reference: Array
    target: Array
    u: Array
    v: Array


class Kernel(NamedTuple):
    """A spatially varying kernel.

    Attributes
    ----------
    parts : ndarray (n_terms, 21, 21)
        The kernel at (u, v) is the sum of parts times the polynomial terms there.
    background : ndarray (3,)
        Constant and slopes of the background difference.
    order : int
        Spatial order.
    """

    parts: Array
    background: Array
    order: int

    def sum_at(self, u: Array, v: Array) -> Array:
        """Flux ratio target / reference at field positions.

        Parameters
        ----------
        u, v : ndarray
            (n,) or scalar, from -1 to 1 over the image.

        Returns
        -------
        ndarray
        """
        return _terms(u, v, self.order) @ self.parts.sum(axis=(1, 2))

    def at(self, u: Array, v: Array) -> Array:
        """Kernels at field positions.

        Parameters
        ----------
        u, v : ndarray
            (n,) from -1 to 1 over the image.

        Returns
        -------
        ndarray
            (n, 21, 21).
        """
        return np.tensordot(_terms(u, v, self.order), self.parts, axes=1)


class CleanStars(NamedTuple):
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
    kernel: Kernel
    stars: CleanStars


def robust_noise(image: Array) -> float:
    """Width of the pixel distribution from the median absolute deviation of a sample of finite pixels.

    Parameters
    ----------
    image : ndarray (h, w)
        NaN without data.

    Returns
    -------
    float
    """
    sample = image[::3, ::3]
    sample = sample[np.isfinite(sample)]
    return float(MAD_TO_SIGMA * np.median(np.abs(sample - np.median(sample))))


def find_stars(image: Array, camera: Camera, *, threshold: float = 9) -> CleanStars:
    """Bright, round, unsaturated, isolated sources of a sky-subtracted image without NaN.

    Parameters
    ----------
    image : ndarray (h, w)
        Sky-subtracted, finite everywhere [electron].
    camera : Camera
        Its full well.
    threshold : float
        In units of the noise.

    Returns
    -------
    CleanStars
    """
    noise = robust_noise(image)
    sep.set_extract_pixstack(max(300_000, image.size // 5))
    found = sep.extract(image, threshold, err=noise, minarea=6, deblend_cont=0.005)
    found = found[(found["flag"] == 0) & (found["peak"] < 0.75 * camera.full_well) & (found["b"] > 0.65 * found["a"])]
    if len(found) < MIN_STAMPS:
        raise SurveyError(f"only {len(found)} clean stars in the image, {MIN_STAMPS} needed; use a larger image")
    radius, _ = sep.flux_radius(image, found["x"], found["y"], np.full(len(found), 8.0), 0.5, subpix=5)
    typical = np.median(radius)
    good = (radius > 0.7 * typical) & (radius < 1.35 * typical)
    x, y, flux = found["x"][good], found["y"][good], found["flux"][good]
    return CleanStars(x, y, flux, 2 * radius[good])


def subtract(science: Array, template: Array, camera: Camera, *, swap: bool = False) -> Difference:
    """Science minus template, both sky-subtracted on one grid and zero point.

    Parameters
    ----------
    science, template : ndarray (h, w)
        NaN where there is no data.
    camera : Camera
        Gain and saturation of the images.
    swap : bool
        Convolve the wider image instead: a mistake that real pipelines make now and then.

    Returns
    -------
    Difference

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
    fitted = fit_kernel(stamps, noise=noise)
    matched = apply_kernel(reference, fitted)
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
    """Half side [pixel] of the windows that `seen_in_difference` needs: the reach of filter and kernel.

    Parameters
    ----------
    difference : Difference
        Result of `subtract`.

    Returns
    -------
    int
    """
    return len(_filter_taps(difference)) // 2 + 1 + KERNEL_HALF


def seen_in_difference(table: pd.DataFrame, light: Array, difference: Difference, *, of: str = "science") -> Array:
    """Light of one of the images as this subtraction leaves it in the difference.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y [pixel].
    light : ndarray (n, side, side)
        Windows about the detections, of half side `window_half(difference)` or more.
    difference : Difference
        The subtraction.
    of : {"science", "template"}
        The image that holds the light; the template's is subtracted.

    Returns
    -------
    ndarray (n, side - 20, side - 20)
    """
    if difference.convolved == of and len(table):
        x, y, (height, width) = table["x"].to_numpy(), table["y"].to_numpy(), difference.image.shape
        local = difference.kernel.at(2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1)
        seen = fftconvolve(light, local.astype(np.float32), mode="valid", axes=(1, 2))
    else:
        seen = light[:, KERNEL_HALF:-KERNEL_HALF, KERNEL_HALF:-KERNEL_HALF]
    sign = 1 if of == "science" else -1
    return sign * seen / (_mean_sum(difference.kernel) if difference.convolved == "science" else 1)


def match_filter(table: pd.DataFrame, windows: Array, difference: Difference) -> Array:
    """Matched-filtered value of windows of the difference at each detection.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y [pixel].
    windows : ndarray (n, side, side)
        About the nearest whole pixels; their middle counts.
    difference : Difference
        The subtraction.

    Returns
    -------
    ndarray (n,)
        [electron per pixel].
    """
    taps = _filter_taps(difference)
    inset = windows.shape[1] // 2 - (len(taps) // 2 + 1)
    middle = windows[:, inset : windows.shape[1] - inset, inset : windows.shape[2] - inset]
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    return ((middle @ _weights(taps, x)[:, :, None])[:, :, 0] * _weights(taps, y)).sum(axis=1)


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


def _mean_sum(fitted: Kernel) -> np.float32:
    grid = np.linspace(-1, 1, 9)
    u, v = np.meshgrid(grid, grid)
    return np.float32(np.mean(fitted.sum_at(u, v)))


def cut_stamps(reference: Array, target: Array, stars: CleanStars, empty: NDArray, camera: Camera) -> Stamps:
    """Stamps around the brightest good stars of each part of the image.

    Parameters
    ----------
    reference, target : ndarray (h, w)
        Image to convolve, image to match.
    stars : CleanStars
        Of the science image.
    empty : ndarray of bool (h, w)
        Pixels without data.
    camera : Camera
        Its full well.

    Returns
    -------
    Stamps
    """
    height, width = target.shape
    reach = STAMP_HALF + KERNEL_HALF
    column, row = np.rint(stars.x).astype(int), np.rint(stars.y).astype(int)
    inside = (column >= reach) & (column < width - reach) & (row >= reach) & (row < height - reach)
    windows, references, targets, places = _spread(stars, inside, (height, width)), [], [], []
    for k in windows:
        i, j = row[k], column[k]
        wide, tight = np.s_[i - reach : i + reach + 1, j - reach : j + reach + 1], STAMP_HALF
        if empty[wide].any() or max(reference[wide].max(), target[wide].max()) > 0.8 * camera.full_well:
            continue
        references.append(reference[wide])
        targets.append(target[i - tight : i + tight + 1, j - tight : j + tight + 1])
        places.append((2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1))
    if len(places) < MIN_STAMPS:
        raise SurveyError(f"only {len(places)} stars can be cut for the kernel, {MIN_STAMPS} needed")
    u, v = np.array(places).T
    return Stamps(np.array(references, dtype=float), np.array(targets, dtype=float), u, v)


def _spread(stars: CleanStars, inside: NDArray, shape: tuple[int, int]) -> list[int]:
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


def _terms(u: Array, v: Array, order: int) -> Array:
    """Polynomial terms u^i v^j with i + j <= order; shape (..., n_terms).

    >>> _terms(np.array(2.0), np.array(3.0), 1).tolist()
    [1.0, 3.0, 2.0]
    """
    return np.stack([u**i * v**j for i in range(order + 1) for j in range(order + 1 - i)], axis=-1)


def _filters() -> tuple[list[Array], list[tuple[int, int]]]:
    """One-dimensional filters, and the pairs of them that make the two-dimensional basis."""
    offsets = np.arange(-KERNEL_HALF, KERNEL_HALF + 1)
    lines: list[Array] = []
    pairs: list[tuple[int, int]] = []
    for width, order in WIDTHS_AND_ORDERS:
        start, scaled = len(lines), offsets / width
        lines += [scaled**p * np.exp(-0.5 * scaled**2) / width for p in range(order + 1)]
        pairs += [(start + p, start + q) for p in range(order + 1) for q in range(order + 1 - p)]
    return lines, pairs


def _convolved(reference: Array) -> Array:
    """Every stamp convolved with every basis kernel: (n, n_basis, 27 * 27)."""
    lines, pairs = _filters()
    side = 2 * STAMP_HALF + 1
    shift = np.arange(side)[:, None] + 2 * KERNEL_HALF - np.arange(2 * KERNEL_HALF + 1)[None, :]
    toeplitz = np.zeros((len(lines), side + 2 * KERNEL_HALF, side))
    for k, line in enumerate(lines):
        toeplitz[k, shift, np.arange(side)[:, None]] = line[None, :]
    across = [reference @ toeplitz[k] for k in range(len(lines))]
    both = [np.swapaxes(toeplitz[q].T @ across[p], 0, 0) for p, q in pairs]
    return np.stack(both, axis=1).reshape(len(reference), len(pairs), side * side)


def fit_kernel(stamps: Stamps, *, noise: float, order: int = 2) -> Kernel:
    """Fit the kernel that turns `reference` into `target`, clipping stamps that do not fit.

    Parameters
    ----------
    stamps : Stamps
        Stars of both images, and their places.
    noise : float
        Noise of an empty pixel of the difference; the Poisson and model errors of stars are added.
    order : int
        Spatial order; one lower is tried where the stamps are too few.

    Returns
    -------
    Kernel

    Raises
    ------
    SurveyError
        If fewer than eight stamps are left or the equations are singular.
    """
    design = _convolved(stamps.reference)
    target = stamps.target.reshape(len(design), -1)
    weight = 1 / (noise**2 + np.maximum(target, 0) + (0.01 * target) ** 2)
    design = np.concatenate([design, np.ones_like(design[:, :1])], axis=1)
    matrices = np.matmul(design * weight[:, None, :], design.transpose(0, 2, 1))
    vectors = np.einsum("nbp,np->nb", design, weight * target)
    keep = np.arange(len(design))
    for _ in range(CLIP_ROUNDS):
        while order and len(keep) < MIN_STAMPS * (order + 1):
            order -= 1
        if len(keep) < MIN_STAMPS:
            raise SurveyError(
                f"only {len(keep)} stars fit a PSF-matching kernel, {MIN_STAMPS} needed; use a larger image"
            )
        space = _terms(stamps.u[keep], stamps.v[keep], order), _terms(stamps.u[keep], stamps.v[keep], 1)
        solution = _solve(matrices[keep], vectors[keep], *space)
        model = np.einsum("nb,nbp->np", _local(solution, *space, design.shape[1] - 1), design[keep])
        misfit = np.mean(weight[keep] * (target[keep] - model) ** 2, axis=1)
        limit = np.median(misfit) + 4 * MAD_TO_SIGMA * np.median(np.abs(misfit - np.median(misfit)))
        fitting = keep[misfit <= limit]
        if len(fitting) == len(keep) or len(fitting) < MIN_STAMPS:
            break
        keep = fitting
    n_basis, n_terms = design.shape[1] - 1, space[0].shape[1]
    lines, pairs = _filters()
    basis = np.stack([np.outer(lines[q], lines[p]) for p, q in pairs])
    parts = np.tensordot(solution[:-3].reshape(n_basis, n_terms).T, basis, axes=1)
    return Kernel(parts, solution[-3:], order)


def _solve(matrices: Array, vectors: Array, space: Array, plane: Array) -> Array:
    """Coefficients: n_basis * n_terms of the kernel, then three of the background."""
    n_basis, n_terms = matrices.shape[1] - 1, space.shape[1]
    size = n_basis * n_terms
    normal, right = np.zeros((size + 3, size + 3)), np.zeros(size + 3)
    squares = space[:, :, None] * space[:, None, :]
    block = np.einsum("nbc,nij->bicj", matrices[:, :-1, :-1], squares, optimize=True)
    normal[:size, :size] = block.reshape(size, size)
    cross = np.einsum("nb,ni,nj->bij", matrices[:, :-1, -1], space, plane, optimize=True).reshape(size, 3)
    normal[:size, size:], normal[size:, :size] = cross, cross.T
    normal[size:, size:] = np.einsum("n,ni,nj->ij", matrices[:, -1, -1], plane, plane)
    right[:size] = np.einsum("nb,ni->bi", vectors[:, :-1], space).ravel()
    right[size:] = vectors[:, -1] @ plane
    normal[np.diag_indices_from(normal)] *= 1 + 1e-9
    try:
        return np.linalg.solve(normal, right)
    except np.linalg.LinAlgError:
        raise SurveyError("the PSF-matching kernel is undetermined; the stars are too few or too alike") from None


def _local(solution: Array, space: Array, plane: Array, n_basis: int) -> Array:
    """Coefficients of each basis function and of the constant at each stamp: (n, n_basis + 1)."""
    kernel = space @ solution[:-3].reshape(n_basis, space.shape[1]).T
    return np.concatenate([kernel, (plane @ solution[-3:])[:, None]], axis=1)


def apply_kernel(image: Array, kernel: Kernel) -> Array:
    """Convolve an image (finite everywhere) with the varying kernel and add the background; float32.

    Parameters
    ----------
    image : ndarray (h, w)
        Finite everywhere.
    kernel : Kernel
        Result of `fit_kernel`.

    Returns
    -------
    ndarray
    """
    height, width = image.shape
    shape = tuple(scipy.fft.next_fast_len(n + 2 * KERNEL_HALF, real=True) for n in image.shape)
    spectrum = scipy.fft.rfft2(image.astype(np.float32), shape)
    u = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    v = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    constant, along_v, along_u = kernel.background.astype(np.float32)
    result = (constant + along_v * v) + along_u * u
    powers = [(i, j) for i in range(kernel.order + 1) for j in range(kernel.order + 1 - i)]
    for (i, j), part in zip(powers, _spectra(kernel.parts, shape), strict=True):
        full = scipy.fft.irfft2(spectrum * part, shape, overwrite_x=True)[:height, :width]
        full *= v**j
        full *= u**i
        result += full
    return result


def _spectra(parts: Array, shape: tuple[int, ...]) -> Array:
    """Fourier transforms of kernels centred on the first pixel: for small ones a product is faster than an FFT."""
    offsets = np.arange(-KERNEL_HALF, KERNEL_HALF + 1)
    rows, columns = scipy.fft.fftfreq(shape[0]), scipy.fft.rfftfreq(shape[1])
    down, across = (np.exp(-2j * np.pi * f[:, None] * offsets).astype(np.complex64) for f in (rows, columns))
    return down @ parts.astype(np.complex64) @ across.T
