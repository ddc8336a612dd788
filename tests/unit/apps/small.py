"""A data set of small stamps, and a model's answers to it as if it had been run."""

from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.dataset.store import write_dataset
from gotorb.eyeball.inference import kept_path, write_opinions

SIZE = 9


def make_small(
    data_dir: Path, *, n: int = 40, ids: list[str] | None = None, metalabels: list[str] | None = None
) -> Path:
    """Write n rows of 9 x 9 x 6 stamps; the row's number is the brightest pixel's place."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame(index=range(n), columns=list(layout.LABEL_COLUMNS))
    labels = np.arange(n) % 2
    table = table.assign(
        id=ids or [f"row-{row:04d}" for row in range(n)],
        image_id=[f"image-{row % 7}" for row in range(n)],
        candidate_id=[str(9000 + row) for row in range(n)],
        ut=[str(row % 3 + 1) for row in range(n)],
        ra=rng.uniform(0, 360, n),
        dec=rng.uniform(-30, 30, n),
        mag=np.linspace(16, 20, n),
        realbogus=rng.random(n),
        cnn_realbogus=rng.random(n),
        label=labels,
        metalabel=metalabels or np.where(labels == 1, "mp", "randjunk"),
        split=np.where(np.arange(n) % 5 == 0, "test", "train"),
    )
    stamps = rng.normal(size=(n, SIZE, SIZE, 6)).astype(np.float32)
    stamps[np.arange(n), np.arange(n) % SIZE, np.arange(n) // SIZE % SIZE] += 30
    return write_dataset(data_dir, table, [stamps])


def write_answers(
    data_dir: Path, labels: np.ndarray, rng: np.random.Generator, *, name: str = "model", threshold: float | None = None
) -> Path:
    """Answers of a model file that only has bytes: scores near the labels, and a map of two clouds.

    With a threshold it is calibrated, too: real with 0.97 or 0.03.
    """
    model = data_dir / name
    model.write_bytes(b"stands for a network whose answers are known")
    n = len(labels)
    score = np.clip(labels * 0.8 + 0.1 + rng.normal(0, 0.05, n), 0, 1)
    vectors = rng.normal(0, 1, (n, 5))
    vectors[:, 0] += 12 * labels
    path = kept_path(data_dir, str(model), 20, 0)
    path.parent.mkdir()
    samples = np.clip(score[:, None] + rng.normal(0, 0.02, (n, 20)), 0, 1)
    probability = None if threshold is None else np.where(score >= 0.5, 0.97, 0.03)
    write_opinions(
        path, score=score, samples=samples, places={"pca": vectors[:, :2]}, vectors=vectors, threshold=threshold,
        probability=probability,
    )  # fmt: skip
    return model
