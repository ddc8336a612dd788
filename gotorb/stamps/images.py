"""Stamps as pictures: one stretch in units of the sky's noise, for pages and figures alike."""

import base64
import io
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_opening

from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.survey.pixels import LARGEST, layer_medians

SOFTENING = 3.0
"""Sigma at which the stretch turns from linear to logarithmic."""
LOWEST, LEAST_HIGH, PEAK_SHARE = -2.0, 25.0, 0.8
"""Black, and white at least, in sigma above the sky; white grows with this share of the middle's peak."""
LEAST_REACH = 10.0
"""Black and white of a difference image, in sigma on each side of its sky, at least."""
SYMMETRIC = ("difference",)
"""Layers whose sky is mid-grey."""
MIDDLE_PART = 8
"""The middle reaches from the central pixel over the stamp's side divided by this."""
HATCH_STEP, HATCH_GROUND, HATCH_LINE = 6, (42, 30, 14), (128, 90, 36)
"""Pattern of missing pixels: distance of its diagonal lines, pixels, and its colours, which no grey has."""
SMALLEST_GAPS = ((2, 3), (3, 2), (1, 6), (6, 1))
"""Zeros count as missing pixels in blocks of at least one of these shapes: the noise has single zeros, too."""
FEWEST_ZEROS = 6
LARGEST_Z = 60_000.0
"""Sigma at which values are cut, since half precision ends there."""


@dataclass(frozen=True)
class Scaled:
    """Stamps in units of their noise.

    Attributes
    ----------
    z : ndarray
        (n, size, size, n_layers) float16: sigma above the sky, NaN for missing pixels.
    sky, sigma : ndarray
        (n, n_layers) float32: median of each layer, and its noise by the median absolute deviation.
    """

    z: np.ndarray
    sky: np.ndarray
    sigma: np.ndarray


def stretch_constants() -> dict[str, Any]:
    """Constants of the stretch, as the pages get them.

    Examples
    --------
    >>> sorted(stretch_constants())[:3]
    ['hatch', 'least_high', 'least_reach']
    """
    return {
        "softening": SOFTENING, "lowest": LOWEST, "least_high": LEAST_HIGH, "peak_share": PEAK_SHARE,
        "least_reach": LEAST_REACH, "symmetric": list(SYMMETRIC), "middle_part": MIDDLE_PART,
        "hatch": {"step": HATCH_STEP, "ground": list(HATCH_GROUND), "line": list(HATCH_LINE)},
    }  # fmt: skip


def find_missing(stamps: np.ndarray) -> np.ndarray:
    """Find the pixels without data: no number, or blocks of exactly 0, which data sets hold in their place.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).

    Returns
    -------
    ndarray of bool
        The same shape.

    Examples
    --------
    >>> stamps = np.ones((1, 5, 5, 1))
    >>> stamps[0, 2, 2, 0] = np.nan
    >>> int(find_missing(stamps).sum())
    1
    """
    with np.errstate(invalid="ignore"):
        missing = ~(np.abs(stamps) < LARGEST)
    zero = stamps == 0
    rows, layers = np.nonzero(zero.sum(axis=(1, 2)) >= FEWEST_ZEROS)
    if len(rows):
        planes = zero[rows, :, :, layers]
        missing[rows, :, :, layers] |= np.any(
            [binary_opening(planes, np.ones((1, *shape), bool)) for shape in SMALLEST_GAPS], axis=0
        )
    return missing


def scale_stamps(stamps: np.ndarray) -> Scaled:
    """Express stamps in sigma above their sky, each layer by the pixels that hold data.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).

    Returns
    -------
    Scaled

    Examples
    --------
    >>> noise = np.random.default_rng(1).normal(100, 5, (1, 55, 55, 1))
    >>> scaled = scale_stamps(noise)
    >>> bool(abs(scaled.sky[0, 0] - 100) < 1), bool(abs(scaled.sigma[0, 0] - 5) < 0.5)
    (True, True)
    """
    values = np.where(find_missing(stamps), np.float32(np.nan), stamps).astype(np.float32)
    sky = layer_medians(values)
    above = values - sky
    sigma = MAD_TO_SIGMA * layer_medians(np.abs(above))
    sigma = np.where(sigma > 0, sigma, _spread(above))
    z = np.clip(above / sigma, -LARGEST_Z, LARGEST_Z).astype(np.float16)
    return Scaled(z, sky[:, 0, 0].astype(np.float32), sigma[:, 0, 0].astype(np.float32))


def _spread(above: np.ndarray) -> np.ndarray:
    """Standard deviation of each layer, for those of which most pixels are equal; 1 where all are."""
    n = np.maximum(np.isfinite(above).sum(axis=(1, 2), keepdims=True), 1)
    spread = np.sqrt(np.nansum(np.square(above, dtype=np.float64), axis=(1, 2), keepdims=True) / n)
    return np.where(spread > 0, spread, 1.0)


def stretch_limits(z: np.ndarray, layers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Values drawn black and white.

    Parameters
    ----------
    z : ndarray
        (n, size, size, n_layers), sigma above the sky; NaN for missing pixels.
    layers : sequence of str
        Names of the layers.

    Returns
    -------
    low, high : ndarray
        (n, n_layers), sigma.

    Examples
    --------
    >>> z = np.random.default_rng(1).normal(size=(1, 21, 21, 2))
    >>> low, high = stretch_limits(z, ["science", "difference"])
    >>> bool(low[0, 1] == -high[0, 1])  # a difference is drawn symmetrically
    True
    """
    size = z.shape[1]
    half, reach = size // 2, max(size // MIDDLE_PART, 1)
    around = slice(max(half - reach, 0), half + reach + 1)
    middle = z[:, around, around].astype(np.float64)
    held = np.isfinite(middle)
    high = np.where(held, middle, 0).max(axis=(1, 2)) * PEAK_SHARE
    reached = np.where(held, np.abs(middle), 0).max(axis=(1, 2)) * PEAK_SHARE
    symmetric = np.array([name in SYMMETRIC for name in layers], bool)
    high = np.where(symmetric, np.maximum(reached, LEAST_REACH), np.maximum(high, LEAST_HIGH))
    return np.where(symmetric, -high, LOWEST), high


def to_grey(z: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Greys of stamps, asinh between their limits; the sky of a difference is mid-grey.

    Parameters
    ----------
    z, layers
        As for `stretch_limits`.

    Returns
    -------
    ndarray
        (n, size, size, n_layers) uint8; 0 for missing pixels.

    Examples
    --------
    >>> sky = np.zeros((1, 5, 5, 1), np.float16)
    >>> int(to_grey(sky, ["difference"])[0, 0, 0, 0])
    128
    """
    low, high = (np.arcsinh(limit / SOFTENING)[:, None, None] for limit in stretch_limits(z, layers))
    part = (np.arcsinh(z.astype(np.float64) / SOFTENING) - low) / (high - low)
    return np.floor(np.where(np.isfinite(part), np.clip(part, 0, 1), 0) * 255 + 0.5).astype(np.uint8)


def paint_stamps(stamps: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Paint stamps as colour pictures, missing pixels hatched.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    layers : sequence of str
        Names of the layers.

    Returns
    -------
    ndarray
        (n, n_layers, size, size, 3) uint8, the first row at the bottom of the stamp.

    Examples
    --------
    >>> paint_stamps(np.ones((2, 55, 55, 3)), ["science", "template", "difference"]).shape
    (2, 3, 55, 55, 3)
    """
    z = scale_stamps(stamps).z
    grey = np.moveaxis(to_grey(z, layers), -1, 1)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    missing, lines = np.moveaxis(np.isnan(z), -1, 1), hatch_lines(z.shape[1])
    picture[missing & lines] = HATCH_LINE
    picture[missing & ~lines] = HATCH_GROUND
    return picture


def hatch_lines(size: int) -> np.ndarray:
    """Pixels on the diagonal lines of the hatch.

    Parameters
    ----------
    size : int
        Side of the stamp, pixels.

    Returns
    -------
    ndarray of bool
        (size, size).

    Examples
    --------
    >>> hatch_lines(6).astype(int)[0].tolist()
    [1, 0, 0, 0, 0, 0]
    """
    y, x = np.indices((size, size))
    return (x + y) % HATCH_STEP == 0


def draw_strip(stamp: np.ndarray, layers: Sequence[str]) -> np.ndarray:
    """Picture of a stamp's layers side by side, y upwards.

    Parameters
    ----------
    stamp : ndarray
        (size, size, n_layers).
    layers : sequence of str
        Names of the layers.

    Returns
    -------
    ndarray
        (size, size * n_layers, 3) uint8.

    Examples
    --------
    >>> draw_strip(np.random.default_rng(1).normal(size=(21, 21, 2)), ["science", "difference"]).shape
    (21, 42, 3)
    """
    return np.hstack(list(paint_stamps(stamp[None], layers)[0, :, ::-1]))


def pack_pixels(stamps: np.ndarray) -> bytes:
    """Pack stamps for a page: sky and sigma of each layer (float32), then the layers one after the other (float16).

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).

    Returns
    -------
    bytes
        Little-endian; all sky and sigma come before the pixels.

    Examples
    --------
    >>> stamps = np.random.default_rng(1).normal(size=(1, 21, 21, 2)).astype(np.float32)
    >>> len(pack_pixels(stamps)) == 2 * 2 * 4 + 2 * 21 * 21 * 2  # sky and sigma, then the pixels
    True
    """
    scaled = scale_stamps(stamps)
    heads = np.stack([scaled.sky, scaled.sigma], axis=1).astype("<f4")
    return heads.tobytes() + np.ascontiguousarray(np.moveaxis(scaled.z, -1, 1)).astype("<f2").tobytes()


N_GREYS, FEW_GREYS, MANY_PLANES = 24, 8, 6
"""Greys of pictures in pages, and of those with more planes than this: fewer greys of noise make a smaller file."""
BLOCK = 32
"""Detections drawn at a time, so that they stay in the processor's cache."""


def draw_strips(planes: np.ndarray, layers: Sequence[str]) -> list[str]:
    """One ``data:`` address of a PNG for each detection, its planes side by side, row 0 at the bottom.

    Parameters
    ----------
    planes : ndarray
        (n, size, size, k).
    layers : sequence of str
        (k,) names of the planes.

    Returns
    -------
    list of str

    Examples
    --------
    >>> draw_strips(np.random.default_rng(1).normal(size=(1, 21, 21, 2)), ["science", "difference"])[0][:22]
    'data:image/png;base64,'
    """
    if planes.size == 0:
        return [""] * len(planes)
    blocks = [planes[start : start + BLOCK] for start in range(0, len(planes), BLOCK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # sorting and deflating leave Python's lock
        return [strip for strips in pool.map(lambda block: _draw_block(block, layers), blocks) for strip in strips]


def _draw_block(planes: np.ndarray, layers: Sequence[str]) -> list[str]:
    z = scale_stamps(planes).z
    n_greys = N_GREYS if len(layers) <= MANY_PLANES else FEW_GREYS
    codes = np.floor(to_grey(z, layers) * ((n_greys - 1) / 255) + 0.5).astype(np.uint8)
    codes = np.where(np.isnan(z), n_greys + hatch_lines(z.shape[1])[:, :, None], codes)
    n, size, _, k = codes.shape
    strips = np.zeros((n, size, k * (size + 1) - 1), np.uint8)
    for plane in range(k):
        strips[:, :, plane * (size + 1) : plane * (size + 1) + size] = codes[:, ::-1, :, plane]
    return [f"data:image/png;base64,{base64.b64encode(_encode_png(strip, n_greys)).decode()}" for strip in strips]


def _encode_png(codes: np.ndarray, n_greys: int) -> bytes:
    """PNG of greys and hatch by number; without a search for repetitions, which noise does not have."""
    from PIL import Image

    greys = np.repeat(np.floor(np.arange(n_greys) * (255 / (n_greys - 1)) + 0.5).astype(np.uint8), 3)
    image = Image.fromarray(codes)
    image.putpalette(greys.tobytes() + bytes(HATCH_GROUND) + bytes(HATCH_LINE))
    file = io.BytesIO()
    image.save(file, "png", compress_type=zlib.Z_HUFFMAN_ONLY)
    return file.getvalue()
