"""Stamps as pictures inside a page: all layers side by side in one small PNG."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gotorb.apps.strips import encode_png
from gotorb.evaluation.stretch import stretch_limits

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
    greys = stretch(np.ascontiguousarray(np.moveaxis(planes, -1, 1)))
    n, k, size, _ = greys.shape
    strips = np.zeros((n, size, k * (size + 1) - 1), np.uint8)
    for plane in range(k):
        strips[:, :, plane * (size + 1) : plane * (size + 1) + size] = greys[:, plane, ::-1]
    return [f"data:image/png;base64,{base64.b64encode(encode_png(strip)).decode()}" for strip in strips]


def stretch(stamps: np.ndarray) -> np.ndarray:
    """Greys (..., size, size) of stamps between the limits of `evaluation.stretch.stretch_limits`."""
    low, high = (limit[..., None, None] for limit in stretch_limits(stamps))
    steps = np.floor(np.clip((stamps - low) / (high - low), 0, 1) * (N_GREYS - 1) + 0.5)
    return (steps * (255 / (N_GREYS - 1))).astype(np.uint8)
