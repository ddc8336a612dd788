"""Plain scores, beside Keras' own predict."""

import numpy as np

from benchmarks.posterior import SHAPE, time_in_turns
from benchmarks.rows import Row

N_STAMPS, BATCH = 2048, 256


def measure() -> list[Row]:
    """Stamps per second."""
    from gotorb import models
    from gotorb.training.scoring import CompiledModel

    model = models.bayesian_vgg6(SHAPE)
    compiled = CompiledModel(model)
    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)
    ours, plain = time_in_turns(
        lambda: compiled.score(stamps), lambda: model.predict(stamps, batch_size=BATCH, verbose=0)
    )
    return [Row("score", N_STAMPS / ours, N_STAMPS / plain, "1/s")]
