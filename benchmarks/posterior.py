"""Posterior samples per stamp, beside a loop that calls the model with dropout on."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.rows import Row

N_STAMPS, N_SAMPLES, SHAPE, BATCH = 256, 20, (55, 55, 4), 32


def measure() -> list[Row]:
    """Milliseconds per stamp for 20 samples; both ways are warmed up first."""
    from gotorb import models
    from gotorb.classifier import dropout_pred

    model = models.bayesian_vgg6(SHAPE)
    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)

    def ours() -> None:
        dropout_pred(model, stamps, nsamples=N_SAMPLES, seed=1)

    def plain() -> None:
        for _ in range(N_SAMPLES):
            for start in range(0, N_STAMPS, BATCH):
                model(stamps[start : start + BATCH], training=True)

    ours_ms, plain_ms = (_seconds(work) * 1000 / N_STAMPS for work in (ours, plain))
    return [Row("posterior_milliseconds", ours_ms, plain_ms, "ms")]


def _seconds(work: Callable[[], None]) -> float:
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
