"""Stamps as pictures: all layers of a row side by side in one small PNG, each stretched by itself."""

from __future__ import annotations

import io
import zlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np

from gotorb.dataset.store import Dataset

PERCENTILES = (0.5, 99.5)
ASINH_SOFTENING = 0.1
MAX_CACHED = 2048


def stretch_percentile(layer: np.ndarray) -> np.ndarray:
    """Linear between two percentiles of the central pixels, 0 to 1: a bright star at the edge dims nothing."""
    margin = layer.shape[0] // 4
    low, high = np.percentile(layer[margin : layer.shape[0] - margin, margin : layer.shape[1] - margin], PERCENTILES)
    return _linear(layer, low, high) if high > low else stretch_asinh(layer)


def stretch_zscale(layer: np.ndarray) -> np.ndarray:
    """Linear between the limits of IRAF's zscale, 0 to 1: faint things beside the sky."""
    from astropy.visualization import ZScaleInterval

    return _linear(layer, *ZScaleInterval().get_limits(layer))


def stretch_asinh(layer: np.ndarray) -> np.ndarray:
    """Inverse hyperbolic sine between minimum and maximum, 0 to 1: faint and bright at once."""
    scaled = _linear(layer, float(layer.min()), float(layer.max()))
    return np.arcsinh(scaled / ASINH_SOFTENING) / np.arcsinh(1 / ASINH_SOFTENING)


STRETCHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "percentile": stretch_percentile,
    "zscale": stretch_zscale,
    "asinh": stretch_asinh,
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


def encode_png(grey: np.ndarray) -> bytes:
    """PNG of a grey picture; noise repeats nothing, so looking for repetitions takes time and saves no bytes."""
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
        """PNG of a row."""
        key = row, stretch
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        png = encode_png(draw_strip(self.data.read_stamps([row])[0], stretch))
        with self._lock:
            self._cache[key] = png
            while len(self._cache) > self.max_cached:
                self._cache.popitem(last=False)
        return png
