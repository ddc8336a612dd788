"""Plain scores by TensorFlow and, exported, by onnxruntime, beside Keras' own predict."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.posterior import SHAPE, time_in_turns
from benchmarks.rows import Row

N_STAMPS, BATCH = 2048, 256


def measure() -> list[Row]:
    """Stamps per second, the three in turn in one run; the scores must be the same."""
    from gotorb import classifier, models
    from gotorb.portable import read_portable
    from gotorb.training.scoring import CompiledModel

    model = models.bayesian_vgg6(SHAPE)
    compiled = CompiledModel(model)
    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = classifier.export(model, Path(folder) / "model.onnx", meta={"layers": list("abcd"), "threshold": 0.5})
        exported = read_portable(path)
    np.testing.assert_allclose(exported.score(stamps), compiled.score(stamps), atol=1e-6)
    ours, onnx, plain = time_in_turns(
        lambda: compiled.score(stamps),
        lambda: exported.score(stamps),
        lambda: model.predict(stamps, batch_size=BATCH, verbose=0),
    )
    rates = {"score": N_STAMPS / ours, "score_onnx": N_STAMPS / onnx}
    return [Row(name, rate, N_STAMPS / plain, "1/s") for name, rate in rates.items()]
