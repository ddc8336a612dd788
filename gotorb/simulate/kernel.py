"""PSF-matching kernel: a least-squares fit of Gaussians times polynomials that varies over the field.

After Alard & Lupton (1998) and Alard (2000); written for images whose kernel needs a few stamps and little time.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gotorb.errors import SurveyError

Array = NDArray[np.floating]
WIDTHS_AND_ORDERS = ((0.7, 4), (1.5, 2), (3.0, 1))
KERNEL_HALF, STAMP_HALF = 10, 13
MIN_STAMPS = 8
CLIP_ROUNDS = 3


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
    n_stamps : int
        Stamps that survived clipping.
    """

    parts: Array
    background: Array
    order: int
    n_stamps: int

    def sum_at(self, u: Array, v: Array) -> Array:
        """Flux ratio target / reference at field positions."""
        return terms(u, v, self.order) @ self.parts.sum(axis=(1, 2))

    def at(self, u: Array, v: Array) -> Array:
        """Kernels (n, 21, 21) at field positions (n,)."""
        return np.tensordot(terms(u, v, self.order), self.parts, axes=1)


def terms(u: Array, v: Array, order: int) -> Array:
    """Polynomial terms u^i v^j with i + j <= order; shape (..., n_terms).

    >>> terms(np.array(2.0), np.array(3.0), 1).tolist()
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


def _basis_kernels() -> Array:
    lines, pairs = _filters()
    return np.stack([np.outer(lines[q], lines[p]) for p, q in pairs])


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
    noise : float
        Noise of an empty pixel of the difference; the Poisson and model errors of stars are added.
    order : int
        Spatial order; one lower is tried where the stamps are too few.

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
        space = terms(stamps.u[keep], stamps.v[keep], order), terms(stamps.u[keep], stamps.v[keep], 1)
        solution = _solve(matrices[keep], vectors[keep], *space)
        model = np.einsum("nb,nbp->np", _local(solution, *space, design.shape[1] - 1), design[keep])
        misfit = np.mean(weight[keep] * (target[keep] - model) ** 2, axis=1)
        limit = np.median(misfit) + 4 * 1.4826 * np.median(np.abs(misfit - np.median(misfit)))
        n_used, fitting = len(keep), keep[misfit <= limit]
        if len(fitting) == n_used or len(fitting) < MIN_STAMPS:
            break
        keep = fitting
    n_basis, n_terms = design.shape[1] - 1, space[0].shape[1]
    parts = np.tensordot(solution[:-3].reshape(n_basis, n_terms).T, _basis_kernels(), axes=1)
    return Kernel(parts, solution[-3:], order, n_used)


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
    """Convolve an image (finite everywhere) with the varying kernel and add the background; float32."""
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
