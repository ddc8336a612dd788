"""A data set made like another camera's: pre-training data for a camera with few stamps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gotorb.dataset.store import Dataset, open_dataset, write_dataset
from gotorb.errors import ConfigError, DataError
from gotorb.stamps.layers import MAD_TO_SIGMA

SKY_LAYERS = ("science", "template")
"""Layers that hold a sky level where a survey does not subtract it."""


def adapt_dataset(
    source_dir: Path | str,
    data_dir: Path | str,
    *,
    size: int,
    layers: Sequence[str],
    sky: tuple[float, float] | None = None,
    seed: int = 0,
) -> Path:
    """Write a data set's stamps cut smaller, in other layers, and with a sky level.

    Parameters
    ----------
    source_dir, data_dir : path
        The data set read, which stays as it is, and the one written.
    size : int
        Central pixels kept of each side.
    layers : sequence of str
        Layers kept, in this order.
    sky : tuple of float, optional
        Least and largest sky level in units of a stamp's own noise; each stamp gets one of its own in science image
        and template, for surveys that keep the sky. None adds nothing.
    seed : int
        Of the sky levels.

    Returns
    -------
    Path
        `data_dir`.

    Raises
    ------
    ConfigError
        If the data set is smaller than `size`, by an odd number of pixels, or the limits of `sky` are impossible.
    DataError
        If a layer is absent.
    """
    data = open_dataset(source_dir)
    border = data.size - size
    if border < 0 or border % 2 or (sky is not None and not 0 <= sky[0] <= sky[1]):
        raise ConfigError(f"stamps of {data.size} pixels cannot become {size}, or sky {sky} is impossible; fix it")
    absent = [name for name in layers if name not in data.layers]
    if absent:
        raise DataError(f"no layer {absent[0]!r} in {source_dir} (has {', '.join(data.layers)})")
    blocks = _adapt(data, size, tuple(layers), sky, np.random.default_rng(seed))
    write_dataset(data_dir, data.table, blocks, layers=layers)
    return Path(data_dir)


def _adapt(
    data: Dataset, size: int, layers: tuple[str, ...], sky: tuple[float, float] | None, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    first = (data.size - size) // 2
    inside = slice(first, first + size)
    for _, stamps in data.batches(layers=layers):
        block = stamps[:, inside, inside].astype(np.float32)
        if sky is not None:
            levels = rng.uniform(*sky, len(block)) * _noise(block[..., 0])
            for number, name in enumerate(layers):
                if name in SKY_LAYERS:
                    block[..., number] += levels[:, None, None]
        yield block


def _noise(plane: np.ndarray) -> np.ndarray:
    """Robust standard deviation of each stamp, (n,)."""
    middle = np.median(plane, axis=(1, 2), keepdims=True)
    return MAD_TO_SIGMA * np.median(np.abs(plane - middle), axis=(1, 2))
