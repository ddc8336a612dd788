"""What a training's record costs: parameters, data, metrics of each epoch and the model, beside the training itself."""

import logging
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import make_blocks, make_table
from benchmarks.rows import Row

N_ROWS, N_EPOCHS = 3_325, 4
"""Rows of the embedded survey's data set; a few of its epochs, the first of which is not like the others."""
LIMIT = 0.02
"""Fraction of the training that its record may take."""


def measure() -> list[Row]:
    """Seconds that the record of a training of `params.yaml` takes; reference: the limit, a fraction of the training.

    What it takes is the seconds in which the training waits for it, and its thread's share of the processor at other
    times. The difference of a training with and one without a record would drown in the machine's own ups and downs.
    """
    from gotorb import layout, trainer
    from gotorb.dataset.card import make_card
    from gotorb.dataset.store import write_dataset
    from gotorb.params import read_params
    from gotorb.tracking.runs import Run, track_stage

    logging.getLogger("gotorb").setLevel(logging.WARNING)
    params = read_params(Path(layout.PARAMS_YAML))
    recipe = params.train.model_dump(exclude={"models", "epochs"}) | {"seed": params.seed}
    with tempfile.TemporaryDirectory() as folder, fresh_store(Path(folder)), pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        for name in ("record", "finish"):
            patch.setattr(Run, name, clock.while_waiting(getattr(Run, name)))
        for module, name in (("delivery.Delivery", "send"), ("runs", "open_store")):
            place = f"gotorb.tracking.{module}.{name}"
            patch.setattr(place, clock.in_thread(pkgutil.resolve_name(place)))
        data_dir = write_dataset(Path(folder) / "data", make_table(N_ROWS), make_blocks(N_ROWS))
        card, ticks, out_dir = make_card(data_dir), [time.perf_counter()], Path(folder) / "models"
        with track_stage("train", params, beside=True) as run:
            run.log_data(data_dir, card, context="training")

            def on_epoch(epoch: int, values: dict[str, float]) -> None:
                ticks.append(time.perf_counter())
                run.log_epoch(epoch, values)

            trainer.train(
                data_dir, "bayesian_vgg6", out_dir=out_dir, name="model", epochs=N_EPOCHS, on_epoch=on_epoch, **recipe
            )
            for epoch in range(N_EPOCHS, params.train.epochs):
                run.log_epoch(epoch, {"loss": 0.1, "val_loss": 0.1})
            run.log_model(out_dir / "model" / layout.MODEL_H5, tags={"network": "bayesian_vgg6"})
        training = params.train.epochs * min(b - a for a, b in pairwise(ticks[1:]))
        return [Row("logging", clock.seconds, LIMIT * training, "s")]


class Clock:
    """What a record takes from a training on this machine's cores."""

    def __init__(self) -> None:
        self.seconds, self._waits = 0.0, False

    def while_waiting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Time a call of the training's own thread."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._waits:
                return call(*args, **kwargs)
            self._waits, started = True, time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started
                self._waits = False

        return timed

    def in_thread(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Time a call that the record's thread makes, unless the training waits for it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                if not self._waits:
                    self.seconds += (time.thread_time() - started) / (os.cpu_count() or 1)

        return timed


@contextmanager
def fresh_store(folder: Path) -> Iterator[None]:
    """A store of this machine in a folder of its own; it has its tables already, as a project's after its first run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOTORB_MLRUNS", str(folder / "mlruns"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        make = "from gotorb.tracking.store import open_experiment as make; make('gotorb')"
        subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
        yield
