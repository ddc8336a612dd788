"""Cost of a stage's record: the same work with and without it, each in a process of its own."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import make_blocks, make_table
from benchmarks.rows import Row
from gotorb.core import layout

N_ROWS, N_EPOCHS, N_PAIRS = 3_325, 2, 3
METRICS = ("loss", "auc", "accuracy", "val_loss", "val_auc", "val_accuracy")
LIMIT = 0.02
"""Fraction of the training that its record may take."""
STAGE_LIMIT_S = 6.0
"""Seconds that the record may add to a stage, however short the stage is."""


def measure() -> list[Row]:
    """Seconds that the record adds to a training and to a stage that does nothing; references: the limits.

    The record does not grow with the training but for the epochs, which are all recorded in the short one. The
    machine's other work only adds, so the least of each kind is compared.
    """
    from gotorb.core.params import read_params
    from gotorb.dataset.store import write_dataset

    with tempfile.TemporaryDirectory() as folder, fresh_store(Path(folder)):
        data_dir = write_dataset(Path(folder) / "data", make_table(N_ROWS), make_blocks(N_ROWS))
        times = {kind: [_time(kind, data_dir, Path(folder) / f"{kind}{turn}") for turn in range(N_PAIRS)]
                 for kind in ("plain", "recorded")}  # fmt: skip
        model = Path(folder) / "plain0" / "model" / layout.MODEL_H5
        stage = {
            kind: min(_time(kind, data_dir, model)[0] for _ in range(N_PAIRS)) for kind in ("idle", "idle-recorded")
        }
    training = read_params(Path(layout.PARAMS_YAML)).train.epochs * min(epoch for _, epoch in times["plain"])
    return [
        Row("logging", min(times["recorded"])[0] - min(times["plain"])[0], LIMIT * training, "s"),
        Row("logging_stage_s", stage["idle-recorded"] - stage["idle"], STAGE_LIMIT_S, "s"),
    ]


def _time(kind: str, data_dir: Path, path: Path) -> tuple[float, float]:
    """Seconds of the whole process, and of an epoch of it."""
    started = time.perf_counter()
    call = [sys.executable, "-m", "benchmarks.tracking", kind, str(data_dir), str(path)]
    ended = subprocess.run(call, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, float(ended.stdout.splitlines()[-1])


def main(kind: str, data_dir: Path, path: Path) -> None:
    """A short training, or no work at all, as a stage does it: with its record or without."""
    if kind.startswith("idle"):
        work_not(data_dir, path, recorded=kind != "idle")
        print(0.0)
    else:
        print(train(data_dir, path, recorded=kind == "recorded"))


def work_not(data_dir: Path, model_path: Path, *, recorded: bool) -> None:
    """Record a training's parameters, data set, epochs and model, with no work next to it."""
    from gotorb.core.params import read_params
    from gotorb.dataset.card import make_card
    from gotorb.tracking.runs import track_stage

    params, card = read_params(Path(layout.PARAMS_YAML)), make_card(data_dir)
    if not recorded:
        return
    with track_stage("train", params) as run:
        run.log_data(data_dir, card, context="training")
        for epoch in range(params.train.epochs):
            run.log_epoch(epoch, dict.fromkeys(METRICS, 0.5))
        run.log_model(model_path, tags={"network": "bayesian_vgg6"})


def train(data_dir: Path, out_dir: Path, *, recorded: bool) -> float:
    """One short training as the stage ``train`` does it; seconds of its quickest epoch."""
    from gotorb.classifier import training as classifier_train
    from gotorb.core.params import read_params
    from gotorb.dataset.card import make_card
    from gotorb.tracking.runs import track_stage

    params, ticks = read_params(Path(layout.PARAMS_YAML)), []
    options: dict[str, Any] = params.train.model_dump(exclude={"models"}) | {"seed": params.seed, "epochs": N_EPOCHS}
    options |= {"out_dir": out_dir, "name": "model"}

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        ticks.append(time.perf_counter())

    if not recorded:
        make_card(data_dir)
        classifier_train.train(data_dir, "bayesian_vgg6", on_epoch=on_epoch, **options)
    else:
        with track_stage("train", params) as run:
            run.log_data(data_dir, make_card(data_dir), context="training")

            def record(epoch: int, values: dict[str, float]) -> None:
                on_epoch(epoch, values)
                for step in range(epoch, params.train.epochs, N_EPOCHS):  # as many as the whole training has
                    run.log_epoch(step, values)

            classifier_train.train(data_dir, "bayesian_vgg6", on_epoch=record, **options)
            run.log_model(out_dir / "model" / layout.MODEL_H5, tags={"network": "bayesian_vgg6"})
    return min(b - a for a, b in pairwise(ticks))


@contextmanager
def fresh_store(folder: Path) -> Iterator[None]:
    """A store of this machine in a folder of its own; it has its tables already, as a project's after its first run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOTORB_MLRUNS", str(folder / "mlruns"))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        make = "from gotorb.tracking.store import open_experiment as make; make('gotorb')"
        subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
        yield


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
