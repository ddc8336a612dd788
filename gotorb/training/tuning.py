"""Tuning: keras-tuner's oracles choose what is tried, and trials are trained like any other network.

An oracle is a pure function of its seed and of the results it was told, in order. An interrupted search therefore
resumes with a new oracle that is told the results on disk: finished trials are not trained again. Results are told in
the order of the trials' numbers, and trial k is asked for when exactly the results of the trials up to k - n_workers
are told, so the trials depend on no timing. A trial's training has a checkpoint like any other; Hyperband's trial that
continues an earlier one begins with that one's checkpoint.
"""

import json
import logging
import math
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from gotorb import layout
from gotorb.dataset.card import write_json
from gotorb.dataset.store import fsync, open_dataset
from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import keras, tf
from gotorb.training.checkpoint import Identity
from gotorb.training.data import Rows, Stream
from gotorb.training.fit import Fit, fit_network, prepare_process
from gotorb.training.meta import replace_file
from gotorb.training.networks import Shape, bayesian_vgg6, build_network
from gotorb.training.recipe import Recipe

LOG = logging.getLogger(__name__)
Values = dict[str, Any]
FIGURES = 4
"""Figures to which a hyperparameter is rounded when drawn, so that the value trained is the value written down."""
COMPLETED, FAILED = "completed", "failed"
METHODS = ("hyperband", "random", "bayesian")
OBJECTIVES = {
    "val_binary_crossentropy": "min",
    "val_loss": "min",
    "val_auc": "max",
    "val_average_precision": "max",
    "val_accuracy": "max",
}
"""Quantities of the validation rows that a trial may be compared by, and the better direction. The loss holds the L2
penalty, whose strength is itself searched; the cross-entropy does not."""
MAX_DRAWS = 50
"""Draws after which no configuration is small enough."""
NEVER = 10**9
MIN_RANDOM, MAX_RANDOM = 3, 24
"""Random trials with which the Bayesian search begins: a third of all within these limits."""
TRIES = 2
"""Times that a trial is begun whose process dies."""


class Range(NamedTuple):
    """Numbers between two limits, both included: whole ones in steps, or positive ones even on a log axis."""

    low: float
    high: float
    step: int | None = None


Limits = Range | tuple[str, ...]
SPACE: dict[str, Limits] = {
    "block1": Range(8, 32, 8),
    "scale_up": Range(0, 32, 8),
    "dense": Range(64, 512, 8),
    "initializer": ("he_uniform", "glorot_uniform"),
    "activation": ("relu", "leaky_relu", "elu"),
    "dropout": Range(0.01, 0.5),
    "l2": Range(1e-8, 1e-1),
    "learning_rate": Range(1e-5, 1e-2),
}
"""GOTO's limits for `bayesian_vgg6`; the second block has ``block1 + scale_up`` filters."""


def make_space(narrower: Mapping[str, Any] | None = None) -> dict[str, Limits]:
    """Narrow the limits of some hyperparameters.

    Parameters
    ----------
    narrower : mapping, optional
        Name -> [lowest, highest], or the names to choose from, or a single value.

    Returns
    -------
    dict
        Limits of every hyperparameter of `SPACE`.

    Raises
    ------
    ConfigError
        If a hyperparameter is unknown or a limit lies outside the space.

    Examples
    --------
    >>> make_space({"dense": [64, 128], "activation": "elu"})["dense"]
    Range(low=64, high=128, step=8)
    """
    narrower = dict(narrower or {})
    unknown = sorted(set(narrower) - set(SPACE))
    if unknown:
        raise ConfigError(f"no hyperparameter {unknown[0]!r} (has {', '.join(SPACE)}); name one of these in space")
    return {name: _narrow(name, limits, narrower.get(name)) for name, limits in SPACE.items()}


def _narrow(name: str, limits: Limits, wanted: Any) -> Limits:
    if wanted is None:
        return limits
    given = tuple(wanted) if isinstance(wanted, Sequence) and not isinstance(wanted, str) else (wanted,)
    if isinstance(limits, Range):
        allowed = f"[lowest, highest] within {limits.low:g} to {limits.high:g}"
        allowed += f" in steps of {limits.step}" if limits.step else ""
        inside = _within(limits, given)
    else:
        allowed, inside = " or ".join(limits), bool(given) and set(given) <= set(limits)
    if not inside:
        raise ConfigError(f"space has {name} = {wanted!r}; give {allowed}")
    return Range(given[0], given[-1], limits.step) if isinstance(limits, Range) else given


def _within(limits: Range, given: tuple[Any, ...]) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    if not numbers or len(given) not in (1, 2) or not limits.low <= given[0] <= given[-1] <= limits.high:
        return False
    return limits.step is None or all((value - limits.low) % limits.step == 0 for value in given)


def _hyperparameters(space: Mapping[str, Limits]) -> keras_tuner.HyperParameters:
    """Express the space as keras-tuner does."""
    hyperparameters = keras_tuner.HyperParameters()
    for name, limits in space.items():
        if not isinstance(limits, Range):
            hyperparameters.Choice(name, list(limits))
        elif limits.low == limits.high:
            hyperparameters.Fixed(name, limits.low)
        elif limits.step:
            hyperparameters.Int(name, limits.low, limits.high, step=limits.step)
        else:
            hyperparameters.Float(name, limits.low, limits.high, sampling="log")
    return hyperparameters


def read_values(drawn: Mapping[str, Any]) -> Values:
    """Read a point of the space, in the space's order and rounded, from the values of a keras-tuner trial.

    Parameters
    ----------
    drawn : mapping
        Values of the trial, keras-tuner's own notes among them.

    Examples
    --------
    >>> read_values({"tuner/epochs": 3, "dropout": 0.123456, "dense": 64})
    {'dense': 64, 'dropout': 0.1235}
    """
    return {name: _round(drawn[name]) for name in SPACE if name in drawn}


def _round(value: Any) -> Any:
    return float(f"{value:.{FIGURES}g}") if isinstance(value, float) else value


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


def count_parameters(input_shape: Shape, values: Mapping[str, Any]) -> int:
    """Count the parameters of the network at a point of the space.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    values : mapping
        Point of the space.
    """
    return _count(input_shape, values["block1"], values["block1"] + values["scale_up"], values["dense"])


@lru_cache(maxsize=4096)
def _count(input_shape: Shape, block1: int, block2: int, dense: int) -> int:
    return bayesian_vgg6(input_shape, block1=block1, block2=block2, dense=dense).count_params()


class _Limited(keras_tuner.Oracle):
    """Oracle that proposes only configurations with few enough parameters."""

    fits: Callable[[Values], bool]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose as the method does, and a random point in place of one that does not fit.

        One thread, because the Gaussian process solves thousands of tiny systems.
        """
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer = super().populate_space(trial_id)
        if answer["status"] != "RUNNING" or self.fits(read_values(answer["values"])):
            return answer
        return answer | {"values": answer["values"] | self.draw(trial_id)}

    def draw(self, trial_id: str) -> Values:
        """Draw a random point of the space that fits."""
        seeds = random.Random(f"{self.seed} {trial_id}")
        for _ in range(MAX_DRAWS):
            values = {one.name: one.random_sample(seeds.getrandbits(31)) for one in self.hyperparameters.space}
            if self.fits(read_values(values)):
                return values
        raise ConfigError(
            f"none of {MAX_DRAWS} configurations drawn has few enough parameters; raise max_parameters or narrow space"
        )


class _Hyperband(_Limited, HyperbandOracle):
    """Hyperband (Li et al. 2018, JMLR 18, 185): many short trials, of which the better ones continue."""


class _Random(_Limited, RandomSearchOracle):
    """Random search."""


class _Bayesian(_Limited, BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound, after some random trials."""


def check_search(
    method: str, objective: str, *, max_trials: int | None, max_epochs: int, factor: float, iterations: int
) -> None:
    """Refuse impossible options of a search; see `make_oracle`.

    Raises
    ------
    ConfigError
        If an option is impossible.
    """
    if method not in METHODS:
        raise ConfigError(f"no tuning method {method!r}; choose {', '.join(METHODS)}")
    if objective not in OBJECTIVES:
        raise ConfigError(f"no objective {objective!r} to tune for; choose {', '.join(OBJECTIVES)}")
    if max_trials is None and method != "hyperband":
        raise ConfigError(f"max_trials is None, but {method} has no end of its own; give a number (tune.max_trials)")
    least = {"max_trials": 1, "max_epochs": 1, "iterations": 1, "factor": 2}
    given = {"max_trials": max_trials, "max_epochs": max_epochs, "iterations": iterations, "factor": factor}
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise ConfigError(f"{name} is {value}; give {least[name]} or more")


def make_oracle(
    method: str,
    space: Mapping[str, Limits],
    objective: str,
    *,
    folder: Path,
    max_trials: int | None,
    max_epochs: int,
    factor: float = math.e,
    iterations: int = 2,
    seed: int = 0,
    fits: Callable[[Values], bool] = lambda values: True,
) -> keras_tuner.Oracle:
    """Build an oracle.

    Parameters
    ----------
    method : {"hyperband", "random", "bayesian"}
        How configurations are chosen.
    space : mapping
        Made by `make_space`.
    objective : str
        One of `OBJECTIVES`.
    folder : Path
        Where keras-tuner may write.
    max_trials : int, optional
        Trials at most; None lets Hyperband end by itself.
    max_epochs : int
        Epochs of the longest trial.
    factor : float
        Hyperband: ratio of the epochs, and of the numbers of trials, of one round to the next.
    iterations : int
        Hyperband: number of complete runs.
    seed : int
        Of the draws.
    fits : callable
        Returns whether a point of the space may be trained.

    Returns
    -------
    keras_tuner.Oracle
        A new one.

    Raises
    ------
    ConfigError
        If an option is impossible.
    """
    check_search(method, objective, max_trials=max_trials, max_epochs=max_epochs, factor=factor, iterations=iterations)
    options: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective, OBJECTIVES[objective]),
        "hyperparameters": _hyperparameters(space),
        "seed": seed + 1,  # keras-tuner takes 0 for none
        "max_consecutive_failed_trials": NEVER,
    }
    if method == "hyperband":
        oracle = _Hyperband(max_epochs=max_epochs, factor=factor, hyperband_iterations=iterations, **options)
    elif method == "bayesian":
        n_random = min(MAX_RANDOM, max(MIN_RANDOM, (max_trials or 0) // 3))
        oracle = _Bayesian(num_initial_points=n_random, **options)
    else:
        oracle = _Random(**options)
    oracle.max_trials, oracle.fits, oracle.verbose = max_trials, fits, 0
    BaseTuner(oracle, directory=str(folder), project_name="oracle", overwrite=True)  # tells the oracle its folder
    return oracle


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
class Trial:
    """Result of a trial.

    Attributes
    ----------
    number, values, continues
        As in `Task`.
    tuning : str
        Name of the tuning that it belongs to.
    status : {"completed", "failed"}
        A failed one has no objective, and `message` says why.
    objective : float, optional
        Best value over the epochs.
    best_epoch : int, optional
        Epoch, from 0, that had it.
    epochs : int
        Epochs trained, those of the trials that it continues included.
    parameters : int
        Of the network.
    history : dict
        Quantity -> its value after each epoch.
    message : str
        Reason of a failure.
    seconds : float
        Wall time.
    """

    number: int
    values: Values
    continues: int | None
    tuning: str
    status: str
    objective: float | None = None
    best_epoch: int | None = None
    epochs: int = 0
    parameters: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    message: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """``trial 07``."""
        return f"trial {self.number:02d}"


def run_trial(task: Task, setting: Setting) -> Trial:
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
    stream = Stream(data, setting.layers, setting.batch_size, setting.class_weights)
    state = _take_over(task, setting.folder), setting.identity | {"trial": str(task.first)}
    try:
        fitted = fit_network(network, stream, setting.rows, recipe, state=state)
    except (ModelError, tf.errors.ResourceExhaustedError) as error:
        found: dict[str, Any] = {"status": FAILED, "message": str(error).splitlines()[0]}
    else:
        if fitted.interrupted:
            raise KeyboardInterrupt
        found = _describe(fitted, setting.objective)
    found |= {"parameters": network.count_params(), "seconds": time.monotonic() - started}
    return _make_trial(task, setting, **found)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    if task.continues is not None and not path.exists():
        earlier = _checkpoint_path(folder, task.continues)
        if earlier.exists():
            replace_file(path, lambda part: shutil.copyfile(earlier, part))
    return path


def _checkpoint_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / layout.STATE_NPZ


def _describe(fitted: Fit, objective: str) -> dict[str, Any]:
    """Result of a training."""
    values = fitted.history[objective]
    best = (min if OBJECTIVES[objective] == "min" else max)(values)
    if not math.isfinite(best):
        return {"status": FAILED, "message": f"{objective} is {best}"}
    found = {"status": COMPLETED, "objective": best, "best_epoch": values.index(best)}
    return found | {"epochs": len(values), "history": fitted.history}


def _make_trial(task: Task, setting: Setting, **found: Any) -> Trial:
    about = {"number": task.number, "values": task.values, "continues": task.continues, "tuning": setting.tuning}
    return Trial(**about, **found)


def _find_trial(task: Task, setting: Setting) -> Trial | None:
    """Result of a trial that was finished before; None when there is none, or it is of another task."""
    try:
        found = json.loads(_result_path(setting.folder, task.number).read_text(encoding="utf-8"))
        trial = Trial(**(found["trial"] | {"tuning": setting.tuning, "values": task.values}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return trial if found["task"] == asdict(task) else None


def _keep_trial(task: Task, trial: Trial, setting: Setting) -> None:
    """Write a trial's result, whole or not at all."""
    fsync(write_json(_result_path(setting.folder, task.number), {"task": asdict(task), "trial": asdict(trial)}))


def _result_path(folder: Path, number: int) -> Path:
    return folder / f"trial_{number:02d}" / "result.json"


def run_trials(oracle: keras_tuner.Oracle, setting: Setting, *, max_epochs: int, n_workers: int = 1) -> Iterator[Trial]:
    """Yield the trials of a tuning, in order of their numbers, as they are finished.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        Made by `make_oracle`.
    setting : Setting
        Of the tuning.
    max_epochs : int
        Epochs of a trial when the oracle sets none.
    n_workers : int
        Trials at a time; 1 trains in this process, more in as many others.
    """
    window: deque[tuple[Any, Task, Future[Trial]]] = deque()
    firsts: dict[int, int] = {}
    with _open_workers(n_workers, setting) as submit:
        while True:
            while len(window) < n_workers and (asked := oracle.create_trial(f"worker {len(oracle.trials)}")):
                if asked.status != "RUNNING":
                    break
                task = read_task(asked, max_epochs, firsts)
                window.append((asked, task, _begin(task, setting, submit)))
            if not window:
                return
            asked, task, future = window.popleft()
            trial = future.result()
            _keep_trial(task, trial, setting)
            tell(oracle, asked, trial, setting.objective)
            yield trial


def _begin(task: Task, setting: Setting, submit: "Callable[[Task], Future[Trial]]") -> "Future[Trial]":
    found = _find_trial(task, setting)
    if found is None:
        begun = "" if task.continues is None else f", continuing trial {task.continues:02d}"
        LOG.info("trial %02d to epoch %d%s: %s", task.number, task.epochs, begun, task.values)
        return submit(task)
    LOG.info("trial %02d was finished before", task.number)
    return _finished(found)


def _finished(trial: Trial) -> "Future[Trial]":
    future: Future[Trial] = Future()
    future.set_result(trial)
    return future


def read_task(asked: Any, max_epochs: int, firsts: dict[int, int]) -> Task:
    """Read the task that an oracle's trial stands for.

    Parameters
    ----------
    asked : keras_tuner Trial
        Made by the oracle.
    max_epochs : int
        Epochs when the oracle sets none.
    firsts : dict
        Number of a trial -> number of the trial with which its training began; the new one is added.
    """
    values, number = asked.hyperparameters.values, int(asked.trial_id)
    continues = int(values["tuner/trial_id"]) if "tuner/trial_id" in values else None
    firsts[number] = number if continues is None else firsts[continues]
    return Task(number, read_values(values), values.get("tuner/epochs", max_epochs), continues, firsts[number])


def tell(oracle: keras_tuner.Oracle, asked: Any, trial: Trial, objective: str) -> None:
    """Tell the oracle the result of a trial.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        That asked for it.
    asked : keras_tuner Trial
        Made by the oracle.
    trial : Trial
        The result.
    objective : str
        One of `OBJECTIVES`.
    """
    if trial.status == COMPLETED:
        oracle.update_trial(asked.trial_id, {objective: trial.objective}, step=trial.best_epoch)
        asked.status = "COMPLETED"
    else:
        asked.status, asked.message = "FAILED", trial.message
    oracle.end_trial(asked)


def choose_best(trials: Sequence[Trial], direction: str) -> Trial | None:
    """Choose the best completed trial, the earliest of equals; None when none was completed.

    Parameters
    ----------
    trials : sequence of Trial
        In order of their numbers.
    direction : {"min", "max"}
        Better values of the objective.
    """
    sign = 1 if direction == "min" else -1
    completed = [trial for trial in trials if trial.status == COMPLETED]
    return min(completed, key=lambda trial: sign * (trial.objective or 0.0), default=None)


@contextmanager
def _open_workers(n_workers: int, setting: Setting) -> "Iterator[Callable[[Task], Future[Trial]]]":
    """Yield a function that trains a task: immediately when there is one worker, else in another process."""
    if n_workers == 1:
        yield lambda task: _finished(run_trial(task, setting))
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
        return _make_trial(task, self.setting, status=FAILED, message=f"its worker died {TRIES} times")

    def stop(self) -> None:
        """End the process; its task has a checkpoint of the last epoch."""
        self.stopped = True
        self.process.kill()
        self.process.join()


def _serve(pipe: Any, setting: Setting) -> None:
    """Train the tasks that come; leave Ctrl-C to the parent and end with it, for nothing may write to its folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
    while True:
        task = pipe.recv()
        try:
            pipe.send(run_trial(task, setting))
        except Exception as error:  # raised again by the parent
            pipe.send(error)
