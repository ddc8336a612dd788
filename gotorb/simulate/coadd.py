"""Exposures and templates brought to one pixel grid, and their median."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gotorb.simulate.detector import Artefact, Labels
from gotorb.simulate.exposure import Exposure
from gotorb.simulate.projection import Tan

Array = NDArray[np.floating]
Method = Literal["median", "mean"]
MIN_EXPOSURES = 2
"""A coadd pixel needs this many exposures; others are NaN."""


def lanczos_taps(shift: float, order: int = 3) -> tuple[Array, int]:
    """Weights of a one-dimensional Lanczos shift and its whole-pixel part.

    >>> taps, whole = lanczos_taps(2.0)
    >>> whole, float(np.round(taps.sum(), 12)), int(np.argmax(taps))
    (2, 1.0, 3)
    """
    whole = round(shift)
    position = np.arange(-order, order + 1) + (shift - whole)
    weight = np.where(np.abs(position) < order, np.sinc(position) * np.sinc(position / order), 0)
    return weight / weight.sum(), whole


def shift_image(image: Array, dx: float, dy: float) -> Array:
    """Image moved by (dx, dy) pixels: a source at x goes to x + dx. NaN where nothing was seen."""
    moved = image
    for axis, shift in ((1, dx), (0, dy)):
        taps, whole = lanczos_taps(shift)
        moved = ndimage.correlate1d(moved, taps, axis=axis, mode="nearest", output=np.float32)
        moved = _roll(moved, whole, axis, fill=np.nan)
        moved = _blank_end(moved, shift - whole, axis)
    return moved


def _roll(array: NDArray, whole: int, axis: int, *, fill: float) -> NDArray:
    moved = np.roll(array, whole, axis=axis)
    lost = [slice(None)] * array.ndim
    if whole:
        lost[axis] = slice(None, whole) if whole > 0 else slice(whole, None)
        moved[tuple(lost)] = fill
    return moved


def _blank_end(image: Array, fraction: float, axis: int) -> Array:
    """Blank the last line on the side that a part of a pixel has left."""
    if abs(fraction) > 1e-9:
        where: list[slice | int] = [slice(None)] * image.ndim
        where[axis] = 0 if fraction > 0 else -1
        image[tuple(where)] = np.nan
    return image


def coadd(exposures: list[Exposure], zero_point: float, method: Method) -> tuple[Array, Labels]:
    """Median or mean on the first exposure's grid, scaled to `zero_point`, and the union of the artefact maps."""
    first = exposures[0].grid
    layers, marks = [], []
    for exposure in exposures:
        dx, dy = first.x0 - exposure.grid.x0, first.y0 - exposure.grid.y0
        scale = np.float32(10 ** (0.4 * (zero_point - exposure.zero_point)))
        layers.append(shift_image(exposure.image * scale, dx, dy))
        labels = _roll(_roll(exposure.labels, round(dx), 1, fill=0), round(dy), 0, fill=0)
        marks.append(labels)
    combined = combine(np.stack(layers), method)
    union = np.maximum.reduce(marks)
    union[ndimage.maximum_filter(~np.isfinite(combined), 13)] = Artefact.EDGE
    return combined, union


def combine(layers: Array, method: Method) -> Array:
    """Median or mean over the first axis that skips NaN; NaN where fewer than two layers have data."""
    n_seen = np.isfinite(layers).sum(axis=0)
    if method == "mean":
        total = np.where(np.isfinite(layers), layers, 0).sum(axis=0)
        combined = total / np.maximum(n_seen, 1)
    else:
        ordered = np.sort(layers, axis=0)
        low, high = np.maximum((n_seen - 1) // 2, 0), n_seen // 2
        middle = [np.take_along_axis(ordered, np.minimum(k, len(layers) - 1)[None], axis=0)[0] for k in (low, high)]
        combined = (middle[0] + middle[1]) / 2
    return np.where(n_seen >= MIN_EXPOSURES, combined, np.nan).astype(np.float32)


def smooth_warp(shape: tuple[int, int], rms_pixel: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """A smooth displacement field (dx, dy) [pixel] of given rms: what a poor astrometric solution leaves."""
    u = np.linspace(0, 1, shape[1], dtype=np.float32)[None, :]
    v = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    fields = []
    for _ in range(2):
        field = np.zeros(shape, dtype=np.float32)
        for _ in range(4):
            ku, kv, phase = rng.uniform(-9, 9), rng.uniform(-9, 9), rng.uniform(0, 2 * np.pi)
            field += np.float32(rng.normal()) * np.cos(np.float32(ku) * u + np.float32(kv) * v + np.float32(phase))
        fields.append(field * np.float32(rms_pixel / max(float(field.std()), 1e-3)))
    return fields[0], fields[1]


def resample(coefficients: Array, source: Tan, target: Tan, shape: tuple[int, int], warp: tuple[Array, Array]) -> Array:
    """Cubic-spline image (`ndimage.spline_filter` coefficients on `source`) on the grid `target`; NaN outside.

    Both grids share their reference point on the sky, so the map between them is affine, plus the `warp` [pixel].
    """
    matrix = np.linalg.inv(source.matrix) @ target.matrix
    x = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(target.x0) + warp[0]
    y = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(target.y0) + warp[1]
    source_x = np.float32(matrix[0, 0]) * x + np.float32(matrix[0, 1]) * y + np.float32(source.x0)
    source_y = np.float32(matrix[1, 0]) * x + np.float32(matrix[1, 1]) * y + np.float32(source.y0)
    return ndimage.map_coordinates(
        coefficients, np.stack([source_y, source_x]), order=3, prefilter=False, mode="constant", cval=np.nan
    ).astype(np.float32)
