"""What a training's record costs: parameters, data, metrics of each epoch and the model, beside the training itself."""

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.memory import make_blocks, make_table
from benchmarks.rows import Row

N_ROWS, N_TIMED = 3_325, 2
LIMIT = 0.02
"""Fraction of the training that its record may take."""


def measure() -> list[Row]:
    """Seconds of the record of a run of `params.yaml`'s epochs; reference: the limit, a fraction of the training."""
    from gotorb import layout, trainer
    from gotorb.dataset.card import make_card
    from gotorb.dataset.store import write_dataset
    from gotorb.params import read_params

    logging.getLogger("gotorb").setLevel(logging.WARNING)
    params = read_params(Path(layout.PARAMS_YAML))
    recipe = params.train.model_dump(exclude={"models", "epochs"}) | {"seed": params.seed}
    with tempfile.TemporaryDirectory() as folder, fresh_store(Path(folder)):
        data_dir = write_dataset(Path(folder) / "data", make_table(N_ROWS), make_blocks(N_ROWS))
        card, ticks, out_dir = make_card(data_dir), [time.perf_counter()], Path(folder) / "models"
        numbers: list[dict[str, float]] = []

        def on_epoch(epoch: int, values: dict[str, float]) -> None:
            ticks.append(time.perf_counter())
            numbers.append(values)

        trainer.train(
            data_dir, "bayesian_vgg6", out_dir=out_dir, name="model", epochs=1 + N_TIMED, on_epoch=on_epoch, **recipe
        )
        training = params.train.epochs * min(b - a for a, b in pairwise(ticks[1:]))
        started = time.perf_counter()
        from gotorb.tracking.runs import track_stage  # MLflow's import is part of the cost

        with track_stage("train", params) as run:
            run.log_data(data_dir, card, context="training")
            for epoch in range(params.train.epochs):
                run.log_epoch(epoch, numbers[-1])
            run.log_model(out_dir / "model" / layout.MODEL_H5, tags={"network": "bayesian_vgg6"})
        return [Row("logging", time.perf_counter() - started, LIMIT * training, "s")]


@contextmanager
def fresh_store(folder: Path) -> Iterator[None]:
    """A store of this machine in a folder of its own; it has its tables already, as a project's after its first run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOTORB_MLRUNS", str(folder / "mlruns"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make = "from gotorb.tracking.store import open_experiment as make; make('gotorb')"
        subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
        yield
