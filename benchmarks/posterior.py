"""Posterior samples, compared with a loop that calls the model with dropout on, and with as many plain passes."""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.rows import Row

N_SAMPLES, SHAPE, LOOP_BATCH, N_TIMES = 20, (55, 55, 4), 128, 3
N_STAMPS, N_LOOP_STAMPS = 512, 128
RATES = {"posterior_p01": 0.01, "posterior_p05": 0.05, "posterior_p20": 0.2}


def measure() -> list[Row]:
    """Stamps per second for 20 samples at three rates of dropout."""
    return [row for name, rate in RATES.items() for row in _measure(name, rate)]


def _measure(name: str, rate: float) -> list[Row]:
    from gotorb import models
    from gotorb.training.inference import CompiledModel

    model = models.bayesian_vgg6(SHAPE, rate)
    compiled = CompiledModel(model)
    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)

    def ours() -> None:
        compiled.sample(stamps, N_SAMPLES, seed=1)

    def loop() -> None:
        for _ in range(N_SAMPLES):
            for start in range(0, N_LOOP_STAMPS, LOOP_BATCH):
                model(stamps[start : start + LOOP_BATCH], training=True)

    def passes() -> None:
        for _ in range(N_SAMPLES):
            compiled.score(stamps[:N_LOOP_STAMPS])

    seconds = time_in_turns(ours, loop, passes)
    fast, plain, bare = N_STAMPS / seconds[0], N_LOOP_STAMPS / seconds[1], N_LOOP_STAMPS / seconds[2]
    return [Row(name, fast, plain, "1/s"), Row(f"{name}_compiled", fast, bare, "1/s")]


def time_in_turns(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, warmed up, one after the other so that a busy machine slows all alike."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(N_TIMES + 1):
        for work, times in zip(works, taken, strict=True):
            started = time.perf_counter()
            work()
            if turn:
                times.append(time.perf_counter() - started)
    return [median(times) for times in taken]
