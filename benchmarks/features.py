"""Measured features, and scores and posteriors by a fusion of trees and network, compared with the network alone."""

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.posterior import N_SAMPLES, SHAPE, time_in_turns
from benchmarks.rows import Row

if TYPE_CHECKING:
    from gotorb.training.measured import Measured

N_STAMPS, N_ROWS, N_TREES = 512, 2000, 400
LIMIT_MS = 1.0
LAYERS = ("science", "template", "difference", "ptp")


def make_measured(size: int, layers: tuple[str, ...]) -> "Measured":
    """Trees on random features: of the usual number and depth, and of no use but to be timed."""
    from gotorb.features import FeatureSet
    from gotorb.training.measured import Measured, Sigmoid
    from gotorb.training.trees import fit_trees

    rng, features = np.random.default_rng(1), FeatureSet(size, layers)
    rows = rng.normal(size=(N_ROWS, len(features.names))).astype(np.float32)
    targets = (rows[:, :9].sum(axis=1) + rng.normal(size=N_ROWS) > 0).astype(float)
    trees = fit_trees(rows, targets, np.ones(N_ROWS), n_trees=N_TREES, seed=0)
    units = {"mean": rows.mean(axis=0), "spread": rows.std(axis=0)}
    return Measured(features=features, trees=trees, calibration=Sigmoid(), **units)


def measure() -> list[Row]:
    """Milliseconds per stamp and core, and stamps per second of the fusion and of its network in turn."""
    from gotorb import models
    from gotorb.training.inference import CompiledModel
    from gotorb.training.measured import Fusion, Sigmoid

    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)
    measured = make_measured(SHAPE[0], LAYERS)
    features, network = measured.features, CompiledModel(models.bayesian_vgg6(SHAPE))
    fusion = CompiledModel(
        Fusion(measured=measured, network=network, network_file=b"", weight=0.3, calibration=Sigmoid(), orientations=1)
    )
    alone, scored, plain, sampled, samples = time_in_turns(
        lambda: features.measure(stamps, threads=1),
        lambda: fusion.score(stamps),
        lambda: network.score(stamps),
        lambda: fusion.sample(stamps, N_SAMPLES, seed=1),
        lambda: network.sample(stamps, N_SAMPLES, seed=1),
    )
    return [
        Row("features", 1000 * alone / N_STAMPS, LIMIT_MS, "ms"),
        Row("score_fusion", N_STAMPS / scored, N_STAMPS / plain, "1/s"),
        Row("posterior_fusion", N_STAMPS / sampled, N_STAMPS / samples, "1/s"),
    ]
