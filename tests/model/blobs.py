"""A data set that a network learns in seconds: round blobs are real; dipoles and hot pixels are bogus."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.dataset.store import write_dataset

SIZE = 55
N_IMAGES = 40


def small_network(input_shape: tuple[int, int, int], dropout: float = 0.1) -> Any:
    """One convolution, whose maps are dropped, and a score: quick to build, train, save and read."""
    from keras import Input, Model, layers

    stamps = Input(input_shape, name="stamps")
    maps = layers.Conv2D(4, 5, strides=3, activation="relu", name="conv")(layers.Rescaling(0.01, name="scale")(stamps))
    flat = layers.Flatten(name="latent")(layers.SpatialDropout2D(dropout, name="drop")(maps))
    return Model(stamps, layers.Dense(1, activation="sigmoid", name="score")(flat), name="small_network")


def make_blobs(data_dir: Path, *, n: int = 400, seed: int = 1, size: int = SIZE) -> Path:
    """Write n rows of size x size x 6 stamps, half of them real."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    stamps = np.stack([_stamp(int(label), size, rng) for label in labels]) if n else np.empty((0, size, size, 6))
    return write_dataset(data_dir, make_table(labels, rng), [stamps.astype(np.float32)])


def make_table(labels: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Rows with all the columns of a data set."""
    n = len(labels)
    table = pd.DataFrame(index=range(n), columns=list(layout.LABEL_COLUMNS))
    table["id"] = [f"row-{row:05d}" for row in range(n)]
    table["image_id"] = [f"image-{row % N_IMAGES:02d}" for row in range(n)]
    table["ra"], table["dec"] = rng.uniform(0, 360, n), rng.uniform(-30, 30, n)
    table["mag"] = np.where(rng.random(n) < 0.05, np.nan, rng.uniform(16, 20, n))
    table["realbogus"] = np.clip(labels * 0.4 + rng.normal(0.3, 0.2, n), 0, 1)
    table["label"] = labels
    table["metalabel"] = np.where(labels == 1, rng.choice(["mp", "syntransient"], n), "randjunk")
    return table


def _stamp(label: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, size, 6) layers around a sky of 0 and noise of 1."""
    flux = rng.uniform(30, 100)
    template = rng.normal(0, 1, (size, size))
    source = _blob(size, 0, 0, flux) if label else _artefact(size, flux, rng)
    exposures = [template + source + rng.normal(0, 1, (size, size)) for _ in range(3)]
    science = np.median(exposures, axis=0)
    return np.stack(
        [science, template, science - template, np.ptp(exposures, axis=0), np.min(exposures, 0), np.max(exposures, 0)],
        axis=-1,
    )


def _artefact(size: int, flux: float, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.5:
        hot = np.zeros((size, size))
        hot[size // 2, size // 2] = flux
        return hot
    return _blob(size, -2, 0, flux) - _blob(size, 2, 0, flux)


def _blob(size: int, dx: float, dy: float, flux: float) -> np.ndarray:
    y, x = np.indices((size, size)) - size // 2
    return flux / 8 * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * 1.4**2))
