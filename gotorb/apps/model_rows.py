"""Run a model on all rows of a data set: scores, posterior samples, latent components and maps, into one npz.

Called as a process: ``python -m gotorb.apps.model_rows MODEL DATA_DIR OUT N_SAMPLES SEED``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gotorb.apps.opinions import write_opinions
from gotorb.apps.scoring import Scorer, fit_stamps, load_scorer, tell_middle
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import GotorbError, ModelError
from gotorb.evaluation.latent import make_maps, principal_axes
from gotorb.training.onnx import PortableModel

BATCH = 256
N_COMPONENTS = 30


def run_model(model: str, data_dir: Path, out_path: Path, *, n_samples: int, seed: int) -> Path:
    """Write what a model says of every row; memory does not grow with the latent vectors, which go to disk.

    Raises
    ------
    ModelError
        If the model cannot be loaded, nothing names its layers, or it is an exported one.
    DataError
        If the stamps do not fit the model; of larger ones it gets the middle, which is told on stdout.
    """
    from gotorb.training.inference import CompiledModel, latent_vectors

    scorer, data = load_scorer(model), open_dataset(data_dir)
    if isinstance(scorer.model, PortableModel):
        raise ModelError(f"{model} is an exported model, which has no posterior and no map; give the model itself")
    compiled = CompiledModel(scorer.model)
    score = compiled.score(_blocks(scorer, data))
    samples = compiled.sample(_blocks(scorer, data), n_samples, seed=seed) if compiled.dropouts else None
    with tempfile.TemporaryDirectory(dir=out_path.parent) as folder:
        first = latent_vectors(scorer.model, _blocks(scorer, data, np.array([0])))
        vectors = np.memmap(Path(folder) / "vectors", np.float32, "w+", shape=(len(data), first.shape[1]))
        for start in range(0, len(data), BATCH * 16):
            rows = np.arange(start, min(start + BATCH * 16, len(data)))
            vectors[rows] = latent_vectors(scorer.model, _blocks(scorer, data, rows))
        mean, axes = principal_axes(vectors, n_components=N_COMPONENTS)
        components = np.concatenate([(vectors[at : at + 4096] - mean) @ axes for at in range(0, len(data), 4096)])
        del vectors
    print(tell_middle(scorer, data.size, data_dir))
    return write_opinions(
        out_path, score=score, samples=samples, places=make_maps(components, seed=seed), vectors=components
    )


def _blocks(scorer: Scorer, data: Dataset, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    for _, stamps in data.batches(rows, batch=BATCH):
        yield fit_stamps(scorer, stamps, data.layers, data.data_dir)


def main() -> int:
    """Run on the arguments; an error is one line."""
    model, data_dir, out_path, n_samples, seed = sys.argv[1:]
    try:
        run_model(model, Path(data_dir), Path(out_path), n_samples=int(n_samples), seed=int(seed))
    except GotorbError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
