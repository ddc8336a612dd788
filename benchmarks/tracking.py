"""What a training's record costs: the same short training with and without it, each in a process of its own."""

import resource
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
from gotorb import layout
from gotorb.tracking import carrier
from gotorb.tracking.runs import wait_for_couriers

N_ROWS, N_EPOCHS, N_PAIRS = 3_325, 2, 4
KINDS = ("without", "with")
METRICS = ("loss", "auc", "accuracy", "val_loss", "val_auc", "val_accuracy")
LIMIT = 0.02
"""Fraction of the training that its record may take."""


def measure() -> list[Row]:
    """Seconds that the record adds; reference: the limit, a fraction of a training of `params.yaml`'s epochs.

    The record does not grow with the training but for the epochs, which are all recorded in the short one. The
    machine's other work only adds, so the least of each kind is compared.
    """
    from gotorb.dataset.store import write_dataset
    from gotorb.params import read_params

    with tempfile.TemporaryDirectory() as folder, fresh_store(Path(folder)):
        data_dir = write_dataset(Path(folder) / "data", make_table(N_ROWS), make_blocks(N_ROWS))
        pairs = [[_time(kind, data_dir, Path(folder) / f"{kind}{turn}") for kind in KINDS] for turn in range(N_PAIRS)]
        courier = _courier_cpu_seconds(data_dir, Path(folder) / "with0" / "model" / layout.MODEL_H5)
    without, recorded = zip(*pairs, strict=True)
    training = read_params(Path(layout.PARAMS_YAML)).train.epochs * min(epoch for _, epoch in without)
    return [
        Row("logging", min(recorded)[0] - min(without)[0], LIMIT * training, "s"),
        Row("logging_courier", courier, training, "CPU s"),
    ]


def _time(kind: str, data_dir: Path, out_dir: Path) -> tuple[float, float]:
    """Seconds of the whole process, and of an epoch of it."""
    started = time.perf_counter()
    call = [sys.executable, "-m", "benchmarks.tracking", kind, str(data_dir), str(out_dir)]
    ended = subprocess.run(call, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    wait_for_couriers()  # the next training is to have the machine for itself
    return seconds, float(ended.stdout.splitlines()[-1])


def _courier_cpu_seconds(data_dir: Path, model_path: Path) -> float:
    """What a courier spends, niced, after such a run."""
    from gotorb.dataset.card import make_card
    from gotorb.params import read_params
    from gotorb.tracking.runs import track_stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrier.Courier, "finish", lambda self: self.journal.release())
        params = read_params(Path(layout.PARAMS_YAML))
        with track_stage("train", params, beside=True) as run:
            run.log_data(data_dir, make_card(data_dir), context="training")
            for epoch in range(params.train.epochs):
                run.log_epoch(epoch, dict.fromkeys(METRICS, 0.5))
            run.log_model(model_path, tags={"network": "bayesian_vgg6"})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = [sys.executable, "-m", "gotorb.tracking.carrier", str(run.journal.folder)]
    subprocess.run(call, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(kind: str, data_dir: Path, out_dir: Path) -> None:
    """One short training as the stage ``train`` does it, with its record or without."""
    from gotorb import trainer
    from gotorb.dataset.card import make_card
    from gotorb.params import read_params
    from gotorb.tracking.runs import track_stage

    params, ticks = read_params(Path(layout.PARAMS_YAML)), []
    options: dict[str, Any] = params.train.model_dump(exclude={"models"}) | {"seed": params.seed, "epochs": N_EPOCHS}
    options |= {"out_dir": out_dir, "name": "model"}

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        ticks.append(time.perf_counter())

    if kind == "without":
        make_card(data_dir)
        trainer.train(data_dir, "bayesian_vgg6", on_epoch=on_epoch, **options)
    else:
        with track_stage("train", params, beside=True) as run:
            run.log_data(data_dir, make_card(data_dir), context="training")

            def record(epoch: int, values: dict[str, float]) -> None:
                on_epoch(epoch, values)
                for step in range(epoch, params.train.epochs, N_EPOCHS):  # as many as the whole training has
                    run.log_epoch(step, values)

            trainer.train(data_dir, "bayesian_vgg6", on_epoch=record, **options)
            run.log_model(out_dir / "model" / layout.MODEL_H5, tags={"network": "bayesian_vgg6"})
    print(min(b - a for a, b in pairwise(ticks)))


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
