"""`gotorb score` from a stamp archive to the csv, compared with the bare network on arrays in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from benchmarks.posterior import N_SAMPLES, SHAPE, time_in_turns
from benchmarks.rows import Row
from gotorb.core.params import BATCH_SIZE

if TYPE_CHECKING:
    from gotorb.training.inference import CompiledModel

N_STAMPS = 2048
LAYERS = ("science", "template", "difference", "ptp")
BLOCK = 512
N_ALERTS, NIGHT_SECONDS = 1e7, 10 * 3600
"""A night of the Rubin Observatory."""


def measure() -> list[Row]:
    """Stamps per second for plain scores and for posteriors, ours and the bare network in turn in one run."""
    from gotorb import models
    from gotorb.classifier.scores import Scorer, score_source
    from gotorb.core.params import ArchiveParams
    from gotorb.training.inference import CompiledModel

    model = models.bayesian_vgg6(SHAPE)
    bare, scorer = CompiledModel(model), Scorer(model, LAYERS, "model", "1")
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "stamps.h5", Path(folder) / "scores.csv"
        stamps = write_archive(source)
        options = {"archive": ArchiveParams(layers=LAYERS)}
        seconds = time_in_turns(
            lambda: score_source(scorer, source, out, n_samples=0, **options),
            lambda: bare.score(stamps),
            lambda: score_source(scorer, source, out, n_samples=N_SAMPLES, **options),
            lambda: sample_blocks(bare, stamps),
        )
    rates = [N_STAMPS / taken for taken in seconds]
    night = N_ALERTS / NIGHT_SECONDS
    return [
        Row("archive_score", rates[0], rates[1], "1/s"),
        Row("archive_posterior", rates[2], rates[3], "1/s"),
        Row("night_plain", night, rates[0], "1/s"),
        Row("night_posterior", night, rates[2], "1/s"),
    ]


def sample_blocks(bare: CompiledModel, stamps: np.ndarray) -> None:
    """The very samples that the app draws: other masks would be other work."""
    for start in range(0, len(stamps), BATCH_SIZE):
        bare.sample(stamps[start : start + BATCH_SIZE], N_SAMPLES, seed=start)


def write_archive(path: Path) -> np.ndarray:
    """Write stamps with a sky level and their ids; they are returned too."""
    rng = np.random.default_rng(1)
    stamps = rng.normal(100, 1, (N_STAMPS, *SHAPE)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["candid"] = np.arange(N_STAMPS).astype("S")
        kept = file.create_dataset("stamps", stamps.shape, np.float32, chunks=(16, *SHAPE))
        for start in range(0, N_STAMPS, BLOCK):
            kept[start : start + BLOCK] = stamps[start : start + BLOCK]
    return stamps
