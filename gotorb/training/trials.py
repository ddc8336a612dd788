"""One trial of a tuning: a configuration trained for some epochs, and its result on disk.

A trial's training is kept after each epoch like any other (`gotorb.training.state`). So a trial that was killed goes
on, and Hyperband's trial that goes on from another one takes over that one's state.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from gotorb import layout
from gotorb.dataset.card import write_json
from gotorb.dataset.store import fsync, open_dataset
from gotorb.errors import ModelError
from gotorb.training.building import build_network
from gotorb.training.files import replace_file
from gotorb.training.fit import Fit, fit_network
from gotorb.training.networks import bayesian_vgg6
from gotorb.training.oracle import OBJECTIVES
from gotorb.training.process import prepare_process
from gotorb.training.recipe import Recipe
from gotorb.training.rows import Rows
from gotorb.training.space import Values, training_options
from gotorb.training.state import Identity
from gotorb.training.stream import Stream

LOG = logging.getLogger(__name__)
COMPLETED, FAILED = "completed", "failed"


@dataclass(frozen=True)
class Setting:
    """What all trials of a tuning share.

    Attributes
    ----------
    data_dir, layers, batch_size, class_weights
        The stream of stamps.
    rows : Rows
        What is learned from and what judges; no test rows.
    objective : str
        By what a trial is judged.
    recipe : dict
        patience, augment and normalise, as ``classifier.train`` knows them.
    seed : int
        A trial's seed is this and the number of the first trial that it goes on from.
    threads : int, optional
        CPU threads of a trial.
    folder : Path
        Where states and results are kept.
    tuning : str
        Names the tuning, for whoever keeps record of its trials.
    identity : dict
        What decides the result.
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
    folder: Path
    tuning: str
    identity: Identity


@dataclass(frozen=True)
class Task:
    """What is to be tried.

    Attributes
    ----------
    number : int
        Of the trial, from 0.
    values : dict
        Point of the space.
    epochs : int
        Epochs in all, those of the trials before it included.
    continues : int, optional
        Number of the trial that it goes on from.
    first : int
        Number of the trial with which this training began.
    """

    number: int
    values: Values
    epochs: int
    continues: int | None
    first: int


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes
    ----------
    number, values, continues
        As in `Task`.
    status : {"completed", "failed"}
        A failed one has no objective, and `message` says why.
    objective : float, optional
        Best value over the epochs.
    best_epoch : int, optional
        Epoch, from 0, that had it.
    epochs : int
        Epochs trained, those of the trials before it included.
    parameters : int
        Of the network.
    history : dict
        Quantity -> its value after each epoch.
    message : str
        Why it failed.
    seconds : float
        Time it took.
    tuning : str
        Names the tuning that it belongs to.
    """

    number: int
    values: Values
    continues: int | None
    status: str
    objective: float | None
    best_epoch: int | None
    epochs: int
    parameters: int
    history: dict[str, list[float]]
    message: str
    seconds: float
    tuning: str

    @property
    def name(self) -> str:
        """``trial 07``."""
        return f"trial {self.number:02d}"


def run_trial(task: Task, setting: Setting) -> Trial:
    """Train one configuration; it goes on where it was killed.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C ends it; its state stays.
    """
    started = time.monotonic()
    seed = setting.seed + task.first
    prepare_process(seed, setting.threads)
    data = open_dataset(setting.data_dir)
    chosen = training_options(task.values)
    network = build_network(
        bayesian_vgg6, (data.size, data.size, len(setting.layers)), layers=setting.layers, dropout=chosen["dropout"],
        options=chosen["model_kwargs"], normalise=setting.recipe["normalise"],
    )  # fmt: skip
    recipe = make_recipe(setting, task.epochs, chosen["learning_rate"], seed)
    stream = Stream(data, setting.layers, setting.batch_size, setting.class_weights)
    state = take_over(task, setting.folder)
    identity = setting.identity | {"trial": str(task.first)}
    try:
        fitted = fit_network(network, stream, setting.rows, recipe, state=(state, identity))
    except (ModelError, tf.errors.ResourceExhaustedError) as error:
        found = describe_failure(str(error).splitlines()[0])
    else:
        if fitted.interrupted:
            raise KeyboardInterrupt
        found = describe_fit(fitted, setting.objective)
    return make_trial(task, setting, found, network.count_params(), time.monotonic() - started)


def make_recipe(setting: Setting, epochs: int, learning_rate: float, seed: int) -> Recipe:
    """How a trial is fitted: at a constant learning rate, for it may have to go on."""
    precision = keras.metrics.AUC(curve="PR", name="average_precision")
    return Recipe(
        epochs, setting.recipe["patience"], setting.objective, learning_rate, "adam", setting.recipe["augment"], seed,
        metrics=("binary_crossentropy", precision),
    )  # fmt: skip


def take_over(task: Task, folder: Path) -> Path:
    """The file of a trial's state; it begins as that of the trial which it goes on from."""
    path = state_path(folder, task.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    if task.continues is not None and not path.exists():
        earlier = state_path(folder, task.continues)
        if earlier.exists():

            def copy(part: Path) -> None:
                shutil.copyfile(earlier, part)

            replace_file(path, copy)
    return path


def state_path(folder: Path, number: int) -> Path:
    """Where the state of a trial's training is kept."""
    return folder / f"trial_{number:02d}" / layout.STATE_NPZ


def describe_fit(fitted: Fit, objective: str) -> dict[str, Any]:
    """Result of a training."""
    values = fitted.history[objective]
    best = (min if OBJECTIVES[objective] == "min" else max)(values)
    if not math.isfinite(best):
        return describe_failure(f"{objective} is {best}")
    return {
        "status": COMPLETED,
        "objective": best,
        "best_epoch": values.index(best),
        "epochs": len(values),
        "history": fitted.history,
        "message": "",
    }


def describe_failure(reason: str) -> dict[str, Any]:
    """Result of a training that came to nothing."""
    return {
        "status": FAILED, "objective": None, "best_epoch": None, "epochs": 0, "history": {}, "message": reason,
    }  # fmt: skip


def make_trial(task: Task, setting: Setting, found: dict[str, Any], parameters: int, seconds: float) -> Trial:
    """Put together what was asked and what came of it."""
    return Trial(
        task.number, task.values, task.continues, parameters=parameters, seconds=seconds, tuning=setting.tuning, **found
    )


def find_trial(task: Task, setting: Setting) -> Trial | None:
    """Result of a trial that was done before; None when there is none, or it is of something else."""
    try:
        found = json.loads(_result_path(setting.folder, task.number).read_text(encoding="utf-8"))
        trial = Trial(**(found["trial"] | {"tuning": setting.tuning, "values": task.values}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return trial if found["task"] == asdict(task) else None


def keep_trial(task: Task, trial: Trial, setting: Setting) -> None:
    """Write a trial's result, whole or not at all."""
    fsync(write_json(_result_path(setting.folder, task.number), {"task": asdict(task), "trial": asdict(trial)}))


def _result_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / "result.json"


OnTrial = Callable[[Trial], None]
