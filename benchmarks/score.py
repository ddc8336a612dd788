"""Plain scores by TensorFlow and by onnxruntime, compared with Keras' own predict in a script and in this process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.posterior import SHAPE, time_in_turns
from benchmarks.rows import Row

N_STAMPS, BATCH = 2048, 256
SCRIPT = """
import sys
import keras
import numpy as np
model = keras.models.load_model(sys.argv[1])
stamps = np.load(sys.argv[2])
for _ in sys.stdin:
    scores = model.predict(stamps, batch_size=int(sys.argv[3]), verbose=0)
    print(float(scores.sum()), flush=True)
"""
"""What a user without gotorb writes: TensorFlow decides for itself then whether it uses oneDNN's kernels."""


def measure() -> list[Row]:
    """Stamps per second, all in turn in one run; the scores must be the same."""
    from gotorb import classifier, models
    from gotorb.training.inference import CompiledModel
    from gotorb.training.onnx import read_portable

    model = models.bayesian_vgg6(SHAPE)
    compiled = CompiledModel(model)
    stamps = np.random.default_rng(1).normal(size=(N_STAMPS, *SHAPE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = classifier.export(model, Path(folder) / "model.onnx", meta={"layers": list("abcd"), "threshold": 0.5})
        exported = read_portable(path)
        model.save(Path(folder) / "model.keras")
        np.save(Path(folder) / "stamps.npy", stamps)
        np.testing.assert_allclose(exported.score(stamps), compiled.score(stamps), atol=1e-6)
        with _script(Path(folder)) as in_script:
            assert abs(in_script() - float(compiled.score(stamps).sum())) < 1e-3 * N_STAMPS
            ours, onnx, plain, same = time_in_turns(
                lambda: compiled.score(stamps),
                lambda: exported.score(stamps),
                in_script,
                lambda: model.predict(stamps, batch_size=BATCH, verbose=0),
            )
    plain_rate = N_STAMPS / plain
    return [
        Row("score", N_STAMPS / ours, plain_rate, "1/s"),
        Row("score_onnx", N_STAMPS / onnx, plain_rate, "1/s"),
        Row("score_same_kernels", N_STAMPS / ours, N_STAMPS / same, "1/s"),
    ]


@contextmanager
def _script(folder: Path) -> Iterator[Callable[[], float]]:
    """Keras' predict in a process that does not know of us; a call gives the sum of the scores."""
    surroundings = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    call = [sys.executable, "-c", SCRIPT, str(folder / "model.keras"), str(folder / "stamps.npy"), str(BATCH)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(call, text=True, env=surroundings, **pipes) as process:  # type: ignore[call-overload]

        def predict() -> float:
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        yield predict
        process.stdin.close()
