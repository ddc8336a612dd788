"""Trials of a tuning: training of a configuration, its result on disk, and the worker processes.

The training of a trial has a checkpoint, so an interrupted trial resumes. A trial of Hyperband that continues an
earlier one starts from its checkpoint.
"""

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from gotorb.core import layout
from gotorb.core.files import fsync, whole_file, write_json
from gotorb.dataset.store import open_dataset
from gotorb.errors import ModelError
from gotorb.training.backend import keras, tf
from gotorb.training.checkpoint import Identity
from gotorb.training.data import Rows, Stream
from gotorb.training.fit import Fit, fit_network, prepare_process
from gotorb.training.networks import bayesian_vgg6, build_network, crop_input, seen_shape
from gotorb.training.recipe import Recipe

LOG = logging.getLogger(__name__)
Values = dict[str, Any]
COMPLETED, FAILED = "completed", "failed"
OBJECTIVES = {
    "val_binary_crossentropy": "min",
    "val_loss": "min",
    "val_auc": "max",
    "val_average_precision": "max",
    "val_accuracy": "max",
}
"""Objective on the validation rows -> better direction. The loss includes the L2 penalty, which is itself a
hyperparameter; the cross-entropy does not."""
TRIES = 2
"""Attempts at a trial whose process dies."""


def training_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a point of the search space to options of ``classifier.train``.

    Parameters
    ----------
    values : mapping
        Point of the search space.

    Returns
    -------
    dict
        model (a name), learning_rate, dropout, model_kwargs.
    """
    network = {name: values[name] for name in ("dense", "l2", "initializer", "activation")}
    network |= {"block1": values["block1"], "block2": values["block1"] + values["scale_up"]}
    trained = {name: values[name] for name in ("learning_rate", "dropout")}
    return {"model": "bayesian_vgg6", **trained, "model_kwargs": network}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings shared by the trials of a tuning.

    Attributes
    ----------
    data_dir, layers, batch_size, class_weights
        Options of the stream of stamps.
    rows : Rows
        Training and validation rows; no test rows.
    objective : str
        Quantity by which trials are compared.
    recipe : dict
        patience, augment and normalise, as for ``classifier.train``.
    seed : int
        Seed; a trial adds to it the number of the trial with which its training began.
    threads : int, optional
        CPU threads of a trial.
    folder : Path
        Folder of checkpoints and results.
    tuning : str
        Name of the tuning, for records of its trials.
    identity : dict
        Everything that determines the result.
    """

    data_dir: Path
    layers: tuple[str, ...]
    batch_size: int
    class_weights: dict[int, float]
    rows: Rows
    objective: str
    recipe: dict[str, Any]
    seed: int
    threads: int | None
    folder: Path = Path()
    tuning: str = ""
    identity: Identity = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Configuration to train.

    Attributes
    ----------
    number : int
        Number of the trial, from 0.
    values : dict
        Point of the search space.
    epochs : int
        Total epochs, those of the trials that it continues included.
    continues : int, optional
        Number of the trial that it continues.
    first : int
        Number of the trial with which this training began.
    """

    number: int
    values: Values
    epochs: int
    continues: int | None
    first: int


@dataclass(frozen=True, kw_only=True)
class Trial(Task):
    """Finished task and its result.

    Attributes
    ----------
    tuning : str
        Name of its tuning.
    status : {"completed", "failed"}
        Outcome; a failed trial has no objective, and the reason in `message`.
    objective : float, optional
        Best value over the epochs.
    best_epoch : int, optional
        Epoch of this value, from 0.
    epochs : int
        Epochs trained, those of the trials that it continues included; fewer than in the task after an early stop.
    parameters : int
        Number of parameters of the network.
    history : dict
        Quantity -> value after each epoch.
    message : str
        Reason of a failure.
    seconds : float
        Wall time.
    """

    tuning: str
    status: str
    objective: float | None = None
    best_epoch: int | None = None
    parameters: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Name of the trial, such as ``trial 07``."""
        return f"trial {self.number:02d}"


def _run_trial(task: Task, setting: Setting) -> Trial:
    """Train one configuration, or resume its training; the trial fails if training diverges or memory is short.

    Ctrl-C leaves the checkpoint.
    """
    started = time.monotonic()
    seed, data = setting.seed + task.first, open_dataset(setting.data_dir)
    prepare_process(seed, setting.threads)
    chosen = training_options(task.values)
    shape = seen_shape((data.size, data.size, len(setting.layers)), setting.recipe["crop"])
    network = build_network(
        bayesian_vgg6, shape, layers=setting.layers, dropout=chosen["dropout"], options=chosen["model_kwargs"],
        normalise=setting.recipe["normalise"],
    )  # fmt: skip
    network = crop_input(network, data.size)
    recipe = make_recipe(setting, task.epochs, chosen["learning_rate"], seed)
    stream = Stream(
        data=data, layers=setting.layers, batch_size=setting.batch_size, class_weights=setting.class_weights
    )
    state = _take_over(task, setting.folder), setting.identity | {"trial": str(task.first)}
    try:
        fitted = fit_network(network, stream, setting.rows, recipe, state=state)
    except (ModelError, tf.errors.ResourceExhaustedError) as error:
        found = _describe_failure(str(error).splitlines()[0])
    else:
        if fitted.interrupted:
            raise KeyboardInterrupt
        found = _describe(fitted, setting.objective)
    found |= {"parameters": network.count_params(), "seconds": time.monotonic() - started}
    return _make_trial(task, setting, found)


def make_recipe(setting: Setting, epochs: int, learning_rate: float, seed: int) -> Recipe:
    """Make the recipe of a trial, with a constant learning rate because a later trial may continue it.

    Parameters
    ----------
    setting : Setting
        Settings of the tuning.
    epochs : int
        Largest number of epochs.
    learning_rate : float
        Learning rate of Adam.
    seed : int
        Seed of the trial.

    Returns
    -------
    Recipe
    """
    precision = keras.metrics.AUC(curve="PR", name="average_precision")
    return Recipe(
        epochs=epochs, patience=setting.recipe["patience"], monitor=setting.objective, learning_rate=learning_rate,
        optimizer="adam", augment=setting.recipe["augment"], seed=seed, metrics=("binary_crossentropy", precision),
        monitor_mode=OBJECTIVES[setting.objective],
    )  # fmt: skip


def _take_over(task: Task, folder: Path) -> Path:
    """File of a trial's checkpoint, first copied from the trial that it continues."""
    path = _checkpoint_path(folder, task.number)
    if task.continues is not None and not path.exists():
        earlier = _checkpoint_path(folder, task.continues)
        if earlier.exists():
            with whole_file(path) as part:
                shutil.copyfile(earlier, part)
    return path


def _checkpoint_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / layout.STATE_NPZ


def _describe(fitted: Fit, objective: str) -> dict[str, Any]:
    """Result of a training."""
    values = fitted.history[objective]
    best = (min if OBJECTIVES[objective] == "min" else max)(values)
    if not math.isfinite(best):
        return _describe_failure(f"{objective} is {best}")
    found = {"status": COMPLETED, "objective": best, "best_epoch": values.index(best)}
    return found | {"epochs": len(values), "history": fitted.history}


def _describe_failure(reason: str) -> dict[str, Any]:
    return {"status": FAILED, "message": reason, "epochs": 0}


def _make_trial(task: Task, setting: Setting, found: dict[str, Any]) -> Trial:
    return Trial(**asdict(task) | {"tuning": setting.tuning} | found)


def find_trial(task: Task, setting: Setting) -> Trial | None:
    """Find the result of a finished trial.

    Parameters
    ----------
    task : Task
        Task of the trial.
    setting : Setting
        Settings of the tuning.

    Returns
    -------
    Trial or None
        None without a result, or if it belongs to another task.
    """
    try:
        found = json.loads(_result_path(setting.folder, task.number).read_text(encoding="utf-8"))
        trial = Trial(**(found["trial"] | {"tuning": setting.tuning, "values": task.values}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return trial if found["task"] == asdict(task) else None


def keep_trial(task: Task, trial: Trial, setting: Setting) -> None:
    """Write a trial's result, whole or not at all.

    Parameters
    ----------
    task : Task
        Task of the trial.
    trial : Trial
        Result.
    setting : Setting
        Settings of the tuning.
    """
    fsync(write_json(_result_path(setting.folder, task.number), {"task": asdict(task), "trial": asdict(trial)}))


def _result_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / "result.json"


def finished(trial: Trial) -> "Future[Trial]":
    """Wrap the result of a trial as a future.

    Parameters
    ----------
    trial : Trial
        Result.

    Returns
    -------
    Future of Trial
    """
    future: Future[Trial] = Future()
    future.set_result(trial)
    return future


@contextmanager
def open_workers(n_workers: int, setting: Setting) -> "Iterator[Callable[[Task], Future[Trial]]]":
    """Open worker processes, and yield a function that submits a task.

    Parameters
    ----------
    n_workers : int
        Number of processes; 1 trains in this process, immediately.
    setting : Setting
        Settings of the tuning.

    Yields
    ------
    callable
        Function from a task to the future of its trial.
    """
    if n_workers == 1:
        yield lambda task: finished(_run_trial(task, setting))
        return
    workers = [_Worker(setting) for _ in range(n_workers)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def work(task: Task) -> Trial:
        worker = idle.get()
        try:
            return worker.run(task)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(n_workers) as threads:
        try:
            yield lambda task: threads.submit(work, task)
        finally:
            for worker in workers:
                worker.stop()


class _Worker:
    """Process that trains one task after another, and is replaced if it dies."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.stopped = setting, False
        self._start()

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, self.setting), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, task: Task) -> Trial:
        """Train a task; the trial fails if its process dies `TRIES` times."""
        for _ in range(TRIES):
            try:
                self.pipe.send(task)
                answer = self.pipe.recv()
            except (EOFError, OSError):
                if self.stopped:
                    raise KeyboardInterrupt from None
                LOG.warning("the worker of trial %d died", task.number)
                self._start()
            else:
                if isinstance(answer, BaseException):
                    raise answer
                return answer
        return _make_trial(task, self.setting, _describe_failure(f"its worker died {TRIES} times"))

    def stop(self) -> None:
        """Kill the process; its task keeps the checkpoint of the last epoch."""
        self.stopped = True
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, setting: Setting) -> None:
    """Train tasks from a pipe; ignore Ctrl-C, which the parent handles, and exit with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    while True:
        task = pipe.recv()
        try:
            pipe.send(_run_trial(task, setting))
        except Exception as error:  # raised again by the parent
            pipe.send(error)
