"""Trials of a tuning: a configuration trained for some epochs, its result on disk, and the processes that do it.

A trial's training has a checkpoint like any other, so an interrupted trial resumes. Hyperband's trial that continues an
earlier one begins with that one's checkpoint.
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
from gotorb.training.networks import bayesian_vgg6, build_network
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
"""Quantities of the validation rows that a trial may be compared by, and the better direction. The loss holds the L2
penalty, whose strength is itself searched; the cross-entropy does not."""
TRIES = 2
"""Times that a trial is begun whose process dies."""


def training_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a point of the space into options of ``classifier.train``.

    Parameters
    ----------
    values : mapping
        Point of the space.

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
    """Everything that the trials of a tuning share.

    Attributes
    ----------
    data_dir, layers, batch_size, class_weights
        The stream of stamps.
    rows : Rows
        Training and validation rows; no test rows.
    objective : str
        Quantity by which trials are compared.
    recipe : dict
        patience, augment and normalise, as ``classifier.train`` knows them.
    seed : int
        A trial's seed is this plus the number of the first trial that it continues.
    threads : int, optional
        CPU threads of a trial.
    folder : Path
        Where checkpoints and results are kept.
    tuning : str
        Name of the tuning, for records of its trials.
    identity : dict
        Everything that decides the result.
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
    """Configuration to be tried.

    Attributes
    ----------
    number : int
        Of the trial, from 0.
    values : dict
        Point of the space.
    epochs : int
        Epochs in all, those of the trials that it continues included.
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
        Name of the tuning that it belongs to.
    status : {"completed", "failed"}
        A failed one has no objective, and `message` says why.
    objective : float, optional
        Best value over the epochs.
    best_epoch : int, optional
        Epoch, from 0, that had it.
    epochs : int
        Epochs trained, those of the trials that it continues included; fewer than asked for when training stopped.
    parameters : int
        Of the network.
    history : dict
        Quantity -> its value after each epoch.
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
        """``trial 07``."""
        return f"trial {self.number:02d}"


def _run_trial(task: Task, setting: Setting) -> Trial:
    """Train one configuration; an interrupted one resumes.

    Parameters
    ----------
    task : Task
        The configuration.
    setting : Setting
        Of the tuning.

    Returns
    -------
    Trial
        The result; a failed one when training diverges or memory is short.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C ends it; its checkpoint stays.
    """
    started = time.monotonic()
    seed, data = setting.seed + task.first, open_dataset(setting.data_dir)
    prepare_process(seed, setting.threads)
    chosen = training_options(task.values)
    network = build_network(
        bayesian_vgg6, (data.size, data.size, len(setting.layers)), layers=setting.layers, dropout=chosen["dropout"],
        options=chosen["model_kwargs"], normalise=setting.recipe["normalise"],
    )  # fmt: skip
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
    """Make the recipe of a trial, at a constant learning rate because a later trial may continue it.

    Parameters
    ----------
    setting : Setting
        Of the tuning.
    epochs : int
        Epochs at most.
    learning_rate : float
        Of Adam.
    seed : int
        Of the trial.
    """
    precision = keras.metrics.AUC(curve="PR", name="average_precision")
    return Recipe(
        epochs=epochs, patience=setting.recipe["patience"], monitor=setting.objective, learning_rate=learning_rate,
        optimizer="adam", augment=setting.recipe["augment"], seed=seed, metrics=("binary_crossentropy", precision),
        monitor_mode=OBJECTIVES[setting.objective],
    )  # fmt: skip


def _take_over(task: Task, folder: Path) -> Path:
    """The file of a trial's checkpoint; it begins as that of the trial which it continues."""
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
    """Find the result of a trial that was finished before; None when there is none, or it is of another task.

    Parameters
    ----------
    task : Task
        Task of the trial.
    setting : Setting
        Of the tuning.
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
        The result.
    setting : Setting
        Of the tuning.
    """
    fsync(write_json(_result_path(setting.folder, task.number), {"task": asdict(task), "trial": asdict(trial)}))


def _result_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / "result.json"


def finished(trial: Trial) -> "Future[Trial]":
    """Wrap the result of a trial as a future.

    Parameters
    ----------
    trial : Trial
        The result.
    """
    future: Future[Trial] = Future()
    future.set_result(trial)
    return future


@contextmanager
def open_workers(n_workers: int, setting: Setting) -> "Iterator[Callable[[Task], Future[Trial]]]":
    """Yield a function that trains a task: immediately when there is one worker, else in another process.

    Parameters
    ----------
    n_workers : int
        Processes; 1 trains in this one.
    setting : Setting
        Of the tuning.
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
    """Process that trains one task after the other, and is replaced when it dies."""

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
        """Train a task; one whose process died twice is a failed trial."""
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
        """End the process; its task has a checkpoint of the last epoch."""
        self.stopped = True
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, setting: Setting) -> None:
    """Train the tasks that come; leave Ctrl-C to the parent and end with it, so that no orphan writes to its folder."""
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
