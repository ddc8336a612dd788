"""Does memory grow with the data set? One epoch and an evaluation on few stamps and on ten times as many."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.rows import Row
from gotorb.core import layout
from gotorb.dataset.store import write_dataset

N_FEW, FACTOR, BLOCK, SIZE = 2_000, 10, 500, 55
N_PER_IMAGE = 25
LIMIT_SECONDS = 600
WORK = """
import sys
from pathlib import Path
from gotorb import classifier
data_dir = sys.argv[1]
model, meta = classifier.train(data_dir, name="model", epochs=1, seed=1)
classifier.evaluate(model, meta, data_dir, n_samples=2, n_bootstrap=10)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def measure() -> list[Row]:
    """Peak memory in MiB: ten times the stamps, compared with one time."""
    return [Row("memory_10x", peak_mib(N_FEW * FACTOR), peak_mib(N_FEW), "MiB")]


def peak_mib(n: int) -> float:
    """Peak memory of a fresh process that trains and evaluates on n stamps."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = write_dataset(Path(folder) / "data", make_table(n), make_blocks(n))
        done = subprocess.run(
            [sys.executable, "-c", WORK, str(data_dir)],
            stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT_SECONDS,
        )  # fmt: skip
    return int(done.stdout.split()[-1]) / 1024


def make_table(n: int) -> pd.DataFrame:
    """Rows of alternating label, spread over the sky so that the split has many groups."""
    rng = np.random.default_rng(1)
    table = pd.DataFrame(index=range(n), columns=list(layout.LABEL_COLUMNS))
    labels = np.arange(n) % 2
    return table.assign(
        id=[f"row-{row:06d}" for row in range(n)],
        image_id=[f"image-{row // N_PER_IMAGE:05d}" for row in range(n)],
        ra=rng.uniform(0, 360, n),
        dec=rng.uniform(-30, 30, n),
        mag=rng.uniform(16, 20, n),
        realbogus=rng.random(n),
        label=labels,
        metalabel=np.where(labels == 1, "mp", "randjunk"),
    )


def make_blocks(n: int) -> Iterator[np.ndarray]:
    """Noise with a bright centre where the label is 1, a block at a time."""
    rng = np.random.default_rng(2)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        stamps = rng.normal(0, 1, (len(rows), SIZE, SIZE, len(layout.LAYERS))).astype(np.float32)
        stamps[:, SIZE // 2, SIZE // 2, :] += 5 * (rows % 2)[:, None]
        yield stamps
