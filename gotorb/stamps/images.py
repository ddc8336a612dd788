"""Stamps as grey pictures: stretches, and all layers of a stamp next to each other in one small PNG."""

from __future__ import annotations

import base64
import io
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gotorb.dataset.store import Dataset


PERCENTILES = (1.0, 50.0, 99.5)
MIDDLE_SHARE = 0.4
"""Fraction of the way from the sky to the extremes in a stamp's middle that the stretch covers at least."""


def stretch_limits(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values drawn black and white: the 1st and 99.5th percentile, wider where the middle of a stamp needs it.

    Percentiles alone would hide a single hot pixel in the noise.

    Parameters
    ----------
    stamps : ndarray
        (..., size, size), finite.

    Returns
    -------
    low, high : ndarray
        (...); high is above low, also for a stamp of one value.
    """
    half, reach = stamps.shape[-1] // 2, max(stamps.shape[-1] // 8, 1)
    middle = stamps[..., half - reach : half + reach + 1, half - reach : half + reach + 1]
    low, sky, high = np.percentile(stamps.reshape(*stamps.shape[:-2], -1), PERCENTILES, axis=-1)
    low = np.minimum(low, sky + MIDDLE_SHARE * (middle.min(axis=(-2, -1)) - sky))
    high = np.maximum(high, sky + MIDDLE_SHARE * (middle.max(axis=(-2, -1)) - sky))
    return low, np.where(high > low, high, low + 1)


CENTRAL_PERCENTILES = (0.5, 99.5)
ASINH_SOFTENING = 0.1
MAX_CACHED = 2048


def _stretch_percentile(layer: np.ndarray) -> np.ndarray:
    """Linear between two percentiles of the central pixels, 0 to 1: a bright star at the edge does not dim the rest."""
    margin = layer.shape[0] // 4
    low, high = np.percentile(
        layer[margin : layer.shape[0] - margin, margin : layer.shape[1] - margin], CENTRAL_PERCENTILES
    )
    return _linear(layer, low, high) if high > low else _stretch_asinh(layer)


def _stretch_zscale(layer: np.ndarray) -> np.ndarray:
    """Linear between the limits of IRAF's zscale, 0 to 1: faint sources against the sky."""
    from astropy.visualization import ZScaleInterval

    return _linear(layer, *ZScaleInterval().get_limits(layer))


def _stretch_asinh(layer: np.ndarray) -> np.ndarray:
    """Inverse hyperbolic sine between minimum and maximum, 0 to 1: faint and bright together."""
    scaled = _linear(layer, float(layer.min()), float(layer.max()))
    return np.arcsinh(scaled / ASINH_SOFTENING) / np.arcsinh(1 / ASINH_SOFTENING)


STRETCHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "percentile": _stretch_percentile,
    "zscale": _stretch_zscale,
    "asinh": _stretch_asinh,
}


def _linear(layer: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((layer - low) / (high - low), 0, 1) if high > low else np.zeros_like(layer)


def draw_strip(stamp: np.ndarray, stretch: str) -> np.ndarray:
    """Grey values of a stamp's layers side by side, north up where y grows northward.

    Parameters
    ----------
    stamp : ndarray
        (size, size, n_layers).
    stretch : str
        A name of STRETCHES.

    Returns
    -------
    ndarray
        (size, size * n_layers) uint8.
    """
    apply = STRETCHES[stretch]
    layers = [apply(np.ascontiguousarray(stamp[::-1, :, number])) for number in range(stamp.shape[-1])]
    return (np.hstack(layers) * 255).round().astype(np.uint8)


def _encode_png(grey: np.ndarray) -> bytes:
    """PNG of a grey picture; without a search for repetitions, which noise does not have."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(grey).save(file, "png", compress_type=zlib.Z_HUFFMAN_ONLY)
    return file.getvalue()


class Strips:
    """Strips of a data set by row number; the latest are kept, no stamp is."""

    def __init__(self, data: Dataset, *, max_cached: int = MAX_CACHED) -> None:
        self.data, self.max_cached = data, max_cached
        self._cache: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._lock = Lock()

    def png(self, row: int, stretch: str) -> bytes:
        """PNG of the strip of a row.

        Parameters
        ----------
        row : int
        stretch : str
            One of `STRETCHES`.

        Returns
        -------
        bytes
        """
        key = row, stretch
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        png = _encode_png(draw_strip(self.data.read_stamps([row])[0], stretch))
        with self._lock:
            self._cache[key] = png
            while len(self._cache) > self.max_cached:
                self._cache.popitem(last=False)
        return png


N_GREYS = 48
"""The eye sees no more in noise, and the file is half as large as with 256."""
BLOCK = 32
"""Detections drawn at a time, so that they stay in the processor's cache."""


def draw_strips(planes: np.ndarray) -> list[str]:
    """One ``data:`` address of a PNG for each detection, its planes side by side, row 0 at the bottom.

    Parameters
    ----------
    planes : ndarray
        (n, size, size, k), finite.
    """
    if planes.size == 0:
        return [""] * len(planes)
    blocks = [planes[start : start + BLOCK] for start in range(0, len(planes), BLOCK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # sorting and deflating leave Python's lock
        return [strip for strips in pool.map(_draw_block, blocks) for strip in strips]


def _draw_block(planes: np.ndarray) -> list[str]:
    greys = _to_grey(np.ascontiguousarray(np.moveaxis(planes, -1, 1)))
    n, k, size, _ = greys.shape
    strips = np.zeros((n, size, k * (size + 1) - 1), np.uint8)
    for plane in range(k):
        strips[:, :, plane * (size + 1) : plane * (size + 1) + size] = greys[:, plane, ::-1]
    return [f"data:image/png;base64,{base64.b64encode(_encode_png(strip)).decode()}" for strip in strips]


def _to_grey(stamps: np.ndarray) -> np.ndarray:
    """Greys (..., size, size) of stamps between the limits of `evaluation.stretch.stretch_limits`."""
    low, high = (limit[..., None, None] for limit in stretch_limits(stamps))
    steps = np.floor(np.clip((stamps - low) / (high - low), 0, 1) * (N_GREYS - 1) + 0.5)
    return (steps * (255 / (N_GREYS - 1))).astype(np.uint8)
