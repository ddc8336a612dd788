"""Tuning: keras-tuner's oracles choose configurations, which are trained like any other network.

An oracle is a pure function of its seed and of the sequence of results passed to it. An interrupted search resumes with
a new oracle and the results on disk, so finished trials are not trained again. Results are passed in the order of the
trials' numbers, and trial k is requested after exactly the results up to k - n_workers, so trials do not depend on
timing.
"""

# imported first, because keras-tuner would import TensorFlow with all its messages
import gotorb.training.backend  # noqa: F401

# isort: split
import logging
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from gotorb.core.logs import list_values
from gotorb.core.params import SEED, TuneParams
from gotorb.errors import ConfigError
from gotorb.training.networks import Shape, bayesian_vgg6
from gotorb.training.trials import (
    COMPLETED,
    OBJECTIVES,
    Setting,
    Task,
    Trial,
    Values,
    find_trial,
    finished,
    keep_trial,
    open_workers,
)

LOG = logging.getLogger(__name__)
TUNE = TuneParams()
FIGURES = 4
"""Significant figures to which hyperparameters are rounded, so that recorded and trained values agree."""
METHODS = ("hyperband", "random", "bayesian")
MAX_DRAWS = 50
"""Most draws of a configuration that is small enough."""
NEVER = 10**9
MIN_RANDOM, MAX_RANDOM = 3, 24
"""Limits of the number of random trials at the start of a Bayesian search, a third of all trials."""


class Range(NamedTuple):
    """Range of numbers, limits included: whole numbers in steps, or positive numbers on a logarithmic scale."""

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
        Name -> [lowest, highest], or names to choose from, or a single value.

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
        raise ConfigError(f"no hyperparameter {unknown[0]!r}; name some of {', '.join(SPACE)} in space")
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
    """Convert the space to keras-tuner's hyperparameters."""
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


def _read_values(drawn: Mapping[str, Any]) -> Values:
    """Point of the space, in its order and rounded, from the values of a keras-tuner trial.

    >>> _read_values({"tuner/epochs": 3, "dropout": 0.123456, "dense": 64})
    {'dense': 64, 'dropout': 0.1235}
    """
    return {name: _round(drawn[name]) for name in SPACE if name in drawn}


def _round(value: Any) -> Any:
    return float(f"{value:.{FIGURES}g}") if isinstance(value, float) else value


def count_parameters(input_shape: Shape, values: Mapping[str, Any]) -> int:
    """Count the parameters of the network at a point of the space.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    values : mapping
        Point of the space.

    Returns
    -------
    int
    """
    return _count(input_shape, values["block1"], values["block1"] + values["scale_up"], values["dense"])


@lru_cache(maxsize=4096)
def _count(input_shape: Shape, block1: int, block2: int, dense: int) -> int:
    return bayesian_vgg6(input_shape, block1=block1, block2=block2, dense=dense).count_params()


class _Limited(keras_tuner.Oracle):
    """Oracle that proposes only configurations with few enough parameters."""

    fits: Callable[[Values], bool]

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose a point by the method, or a random point if that one does not fit.

        A single thread is used, because the Gaussian process solves thousands of tiny systems.
        """
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer = super().populate_space(trial_id)
        if answer["status"] != "RUNNING" or self.fits(_read_values(answer["values"])):
            return answer
        return answer | {"values": answer["values"] | self.draw(trial_id)}

    def draw(self, trial_id: str) -> Values:
        """Draw a random point of the space that fits."""
        seeds = random.Random(f"{self.seed} {trial_id}")
        for _ in range(MAX_DRAWS):
            values = {one.name: one.random_sample(seeds.getrandbits(31)) for one in self.hyperparameters.space}
            if self.fits(_read_values(values)):
                return values
        raise ConfigError(
            f"none of {MAX_DRAWS} random configurations has few enough parameters; raise max_parameters or narrow space"
        )


class _Hyperband(_Limited, HyperbandOracle):
    """Hyperband (Li et al. 2018, JMLR 18, 185): many short trials, the better of which continue."""


class _Random(_Limited, RandomSearchOracle):
    """Random search."""


class _Bayesian(_Limited, BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound, after random trials."""


def check_search(
    method: str, objective: str, *, max_trials: int | None, max_epochs: int, factor: float, iterations: int
) -> None:
    """Refuse impossible options of a search; see `make_oracle`.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    objective : str
        One of `OBJECTIVES`.
    max_trials : int or None
        Largest number of trials; None, for hyperband only, sets no limit.
    max_epochs, iterations : int
        As for `make_oracle`.
    factor : float
        As for `make_oracle`, at least 2.

    Raises
    ------
    ConfigError
        If an option is impossible.
    """
    if method not in METHODS:
        raise ConfigError(f"no tuning method {method!r}; choose {', '.join(METHODS)}")
    if objective not in OBJECTIVES:
        raise ConfigError(f"no objective {objective!r}; choose {', '.join(OBJECTIVES)}")
    if max_trials is None and method != "hyperband":
        raise ConfigError(f"max_trials is None, without which {method} does not end; give a number (tune.max_trials)")
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
    factor: float = TUNE.factor,
    iterations: int = TUNE.iterations,
    seed: int = SEED,
    fits: Callable[[Values], bool] = lambda values: True,
) -> keras_tuner.Oracle:
    """Build an oracle.

    Parameters
    ----------
    method : {"hyperband", "random", "bayesian"}
        Search method.
    space : mapping
        From `make_space`.
    objective : str
        One of `OBJECTIVES`.
    folder : Path
        Folder for files of keras-tuner.
    max_trials : int, optional
        Largest number of trials; None: Hyperband's own number.
    max_epochs : int
        Epochs of the longest trial.
    factor : float
        Hyperband: ratio of epochs, and of numbers of trials, between successive rounds.
    iterations : int
        Hyperband: number of complete runs.
    seed : int
        Seed of the draws.
    fits : callable
        Test of a point of the space, True if it may be trained.

    Returns
    -------
    keras_tuner.Oracle

    Raises
    ------
    ConfigError
        If an option is impossible.
    """
    check_search(method, objective, max_trials=max_trials, max_epochs=max_epochs, factor=factor, iterations=iterations)
    options: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective, OBJECTIVES[objective]),
        "hyperparameters": _hyperparameters(space),
        "seed": seed + 1,  # keras-tuner treats 0 as no seed
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
    BaseTuner(oracle, directory=str(folder), project_name="oracle", overwrite=True)  # sets the oracle's folder
    return oracle


def run_trials(
    oracle: keras_tuner.Oracle, setting: Setting, *, max_epochs: int, n_workers: int = TUNE.n_workers
) -> Iterator[Trial]:
    """Run the trials of a tuning.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        From `make_oracle`.
    setting : Setting
        Settings of the tuning.
    max_epochs : int
        Epochs of a trial if the oracle sets none.
    n_workers : int
        Trials at a time; 1 trains in this process, more in as many worker processes.

    Yields
    ------
    Trial
        Finished trials, in the order of their numbers.
    """
    window: deque[tuple[Any, Task, Future[Trial]]] = deque()
    firsts: dict[int, int] = {}
    with open_workers(n_workers, setting) as submit:
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
            keep_trial(task, trial, setting)
            tell(oracle, asked, trial, setting.objective)
            yield trial


def _begin(task: Task, setting: Setting, submit: "Callable[[Task], Future[Trial]]") -> "Future[Trial]":
    found = find_trial(task, setting)
    if found is None:
        begun = "" if task.continues is None else f", continuing trial {task.continues:02d}"
        LOG.info("trial %02d to epoch %d%s: %s", task.number, task.epochs, begun, list_values(task.values))
        return submit(task)
    LOG.info("trial %02d is already finished", task.number)
    return finished(found)


def read_task(asked: Any, max_epochs: int, firsts: dict[int, int]) -> Task:
    """Read the task of an oracle's trial.

    Parameters
    ----------
    asked : keras_tuner Trial
        Trial made by the oracle.
    max_epochs : int
        Epochs if the oracle sets none.
    firsts : dict
        Number of a trial -> number of the trial with which its training began; the new trial is added.

    Returns
    -------
    Task
    """
    values, number = asked.hyperparameters.values, int(asked.trial_id)
    continues = int(values["tuner/trial_id"]) if "tuner/trial_id" in values else None
    firsts[number] = number if continues is None else firsts[continues]
    return Task(number, _read_values(values), values.get("tuner/epochs", max_epochs), continues, firsts[number])


def tell(oracle: keras_tuner.Oracle, asked: Any, trial: Trial, objective: str) -> None:
    """Pass the result of a trial to its oracle.

    Parameters
    ----------
    oracle : keras_tuner.Oracle
        Oracle of the trial.
    asked : keras_tuner Trial
        Trial made by the oracle.
    trial : Trial
        Result.
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
    """Choose the best completed trial, the earliest of ties.

    Parameters
    ----------
    trials : sequence of Trial
        Trials in the order of their numbers.
    direction : {"min", "max"}
        Direction in which the objective improves.

    Returns
    -------
    Trial or None
        None without a completed trial.
    """
    sign = 1 if direction == "min" else -1
    completed = [trial for trial in trials if trial.status == COMPLETED]
    return min(completed, key=lambda trial: sign * (trial.objective or 0.0), default=None)
