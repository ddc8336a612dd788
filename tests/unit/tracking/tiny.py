"""Data sets and models so small that no training is needed: real stamps are brighter, models weigh pixels."""

from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import Params
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import write_dataset

SIZE = 9
LAYERS = ("science", "template", "difference", "ptp")
SHARP = {"vgg6": SIZE, "bayesian_vgg6": 1}
"""Pixels along a side that a model looks at: all of them, or the one in the centre, which tells less."""


def make_params(*models: str) -> Params:
    """Parameters under which the named models stand for promotion."""
    train = {"models": list(models or ["vgg6"]), "layers": list(LAYERS)}
    return Params.model_validate({"seed": 1, "train": train, "evaluate": {"n_bootstrap": 20}})


def make_data(data_dir: Path, *, n: int = 120, size: int = SIZE, seed: int = 5) -> Path:
    """Write a divided data set whose real stamps are brighter by half the noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    stamps = rng.normal(0, 1, (n, size, size, len(layout.LAYERS))) + 0.5 * labels[:, None, None, None]
    table = pd.DataFrame({"id": [f"row{i:03d}" for i in range(n)], "image_id": "im1", "label": labels})
    table = table.assign(metalabel=np.where(labels == 1, "mp", "randjunk"))
    table[layout.SPLIT_COLUMN] = np.array(["train", "validation", "test"])[np.arange(n) // 2 % 3]
    return write_dataset(data_dir, table, [stamps.astype(np.float32)])


def make_model(side: int = SIZE, *, size: int = SIZE):
    """A keras model: sigmoid of the mean over the central `side` x `side` pixels of all layers."""
    import keras

    stamps = keras.Input((size, size, len(LAYERS)), name="stamps")
    dense = keras.layers.Dense(1, activation="sigmoid", name="score")
    model = keras.Model(stamps, dense(keras.layers.Flatten()(stamps)), name="tiny")
    inside = np.abs(np.arange(size) - size // 2) <= side // 2
    weights = np.multiply.outer(np.outer(inside, inside), np.ones(len(LAYERS))).reshape(-1, 1)
    dense.set_weights([weights / weights.sum(), np.zeros(1)])
    return model


def write_model(models_dir: Path, name: str, data_dir: Path, *, side: int | None = None, size: int = SIZE) -> Path:
    """Write a model's folder as the train stage does."""
    from gotorb.training.model_files import write_training

    run_dir = models_dir / name
    run_dir.mkdir(parents=True, exist_ok=True)
    meta = {"model": name, "layers": list(LAYERS), "threshold": 0.5, "data_digest": data_digest(data_dir)}
    write_training(run_dir, make_model(side or SHARP[name], size=size), meta)
    return run_dir
