"""Exposures and templates brought to one pixel grid, and their median."""

from typing import Literal, NamedTuple

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


def _roll(array: NDArray, whole: int, axis: int, *, fill: float = 0) -> NDArray:
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


class Coadd(NamedTuple):
    """Exposures on one grid: their combination, the union of their artefacts, and the `layers` (n, h, w) combined."""

    image: Array
    labels: Labels
    layers: Array


def coadd(exposures: list[Exposure], zero_point: float, method: Method) -> Coadd:
    """Combine exposures on the first one's grid.

    Parameters
    ----------
    exposures : list of Exposure
        Of one visit; their grids differ by shifts.
    zero_point : float
        Magnitude of one count of the result.
    method : {"median", "mean"}
        Combination of the layers.
    """
    moves = [_move(exposure, exposures[0], zero_point) for exposure in exposures]
    layers = np.stack([shift_image(one.image * m.scale, m.dx, m.dy) for one, m in zip(exposures, moves, strict=True)])
    combined = combine(layers, method)
    marks = (_roll(_roll(e.labels, round(m.dx), 1), round(m.dy), 0) for e, m in zip(exposures, moves, strict=True))
    union = np.maximum.reduce(list(marks))
    union[ndimage.maximum_filter(~np.isfinite(combined), 13)] = Artefact.EDGE
    return Coadd(combined, union, layers)


def change_windows(
    exposures: list[Exposure], coadded: Coadd, x: Array, y: Array, *, half: int, zero_point: float, method: Method
) -> Array:
    """Windows of a coadd minus one of the same exposures without their `change`.

    Parameters
    ----------
    exposures, coadded : list of Exposure, Coadd
        Arguments and result of `coadd`; `zero_point` and `method` as there.
    x, y : ndarray (n,)
        Places [pixel]; windows are centred on the nearest whole pixel.
    half : int
        Half side of a window [pixel].

    Returns
    -------
    ndarray (n, 2 half + 1, 2 half + 1)
        Zero where the coadd has no data.
    """
    still = []
    for exposure, layer in zip(exposures, coadded.layers, strict=True):
        dx, dy, scale = _move(exposure, exposures[0], zero_point)
        (taps_x, whole_x), (taps_y, whole_y) = lanczos_taps(dx), lanczos_taps(dy)
        reach = half + len(taps_x) // 2
        light = cut_windows(exposure.change, x - whole_x, y - whole_y, reach) * scale
        inner = slice(reach - half, reach + half + 1)
        for axis, taps in ((2, taps_x), (1, taps_y)):
            light = ndimage.correlate1d(light, taps, axis=axis, mode="constant")
        still.append(cut_windows(layer, x, y, half) - light[:, inner, inner])
    return np.nan_to_num(cut_windows(coadded.image, x, y, half) - combine(np.stack(still), method), nan=0.0)


class _Move(NamedTuple):
    """Shift [pixel] and factor that bring an exposure onto the grid and zero point of a coadd."""

    dx: float
    dy: float
    scale: np.float32


def _move(exposure: Exposure, first: Exposure, zero_point: float) -> _Move:
    scale = np.float32(10 ** (0.4 * (zero_point - exposure.zero_point)))
    return _Move(first.grid.x0 - exposure.grid.x0, first.grid.y0 - exposure.grid.y0, scale)


def cut_windows(image: Array, x: Array, y: Array, half: int) -> Array:
    """Windows (n, 2 half + 1, 2 half + 1) of an image about the whole pixels nearest to places; zero outside."""
    pad, side = 2 * half + 1, np.arange(2 * half + 1)
    padded = np.pad(image, pad)
    row, column = (np.rint(at).astype(int) for at in (y, x))
    row, column = (np.clip(k + half + 1, 0, n + pad) for k, n in zip((row, column), image.shape, strict=True))
    return padded[row[:, None, None] + side[None, :, None], column[:, None, None] + side[None, None, :]]


def combine(layers: Array, method: Method) -> Array:
    """Median or mean over the first axis that skips NaN; NaN where fewer than two layers have data."""
    seen = np.isfinite(layers)
    n_seen = seen.sum(axis=0, dtype=np.int8)
    if method == "mean":
        combined = np.where(seen, layers, 0).sum(axis=0) / np.maximum(n_seen, 1)
    else:
        ordered = _sorted(np.where(seen, layers, np.float32(np.inf)))
        n = len(layers)
        combined = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        partly = (n_seen < n) & (n_seen >= MIN_EXPOSURES)
        few, rest = n_seen[partly], ordered[:, partly]
        low, high = (np.take_along_axis(rest, k[None], axis=0)[0] for k in ((few - 1) // 2, few // 2))
        combined[partly] = (low + high) / 2
    combined[n_seen < MIN_EXPOSURES] = np.nan
    return combined.astype(np.float32)


def _sorted(layers: Array) -> Array:
    """Layers sorted along the first axis (in place) by exchanges of neighbours: for few layers faster than a sort."""
    for turn in range(len(layers)):
        for k in range(turn % 2, len(layers) - 1, 2):
            low = np.minimum(layers[k], layers[k + 1])
            np.maximum(layers[k], layers[k + 1], out=layers[k + 1])
            layers[k] = low
    return layers


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
