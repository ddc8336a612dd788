"""Who says which hyperparameters are tried next: keras-tuner's oracles, kept below a number of parameters.

An oracle is a pure function of its seed and of the results it was told, in order. So nothing of it is kept on disk:
a tuning that goes on asks a new oracle and tells it the results that are there.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.oracles import BayesianOptimizationOracle, HyperbandOracle, RandomSearchOracle
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from gotorb.errors import ConfigError
from gotorb.training.space import Limits, as_hyperparameters, read_values

Fits = Callable[[Mapping[str, Any]], bool]
METHODS = ("hyperband", "random", "bayesian")
MAX_DRAWS = 50
"""Draws after which no configuration is small enough."""
NEVER = 10**9
MIN_RANDOM, MAX_RANDOM = 3, 24
"""Random trials with which the Bayesian search begins: a third of all within these limits."""
OBJECTIVES = {
    "val_binary_crossentropy": "min",
    "val_loss": "min",
    "val_auc": "max",
    "val_average_precision": "max",
    "val_accuracy": "max",
}
"""By what a configuration may be judged, on the validation rows, and which way is better. The loss holds the L2
penalty, whose strength is itself searched; the cross-entropy does not."""


class Limited(keras_tuner.Oracle):
    """Draws only configurations that fit, and writes nothing."""

    fits: Fits

    def _random_values(self) -> dict[str, Any] | None:
        for _ in range(MAX_DRAWS):
            values = super()._random_values()
            if values is None or self.fits(read_values(values)):
                return values
        raise ConfigError(
            f"none of {MAX_DRAWS} configurations drawn has few enough parameters; raise max_parameters or narrow space"
        )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Answer as the method does, unless the answer is too large a network."""
        answer = super().populate_space(trial_id)
        if answer["status"] != TrialStatus.RUNNING or self.fits(read_values(answer["values"])):
            return answer
        return answer | {"values": self._random_values()}

    def save(self) -> None:
        """Keep nothing; the results are on disk."""

    def _save_trial(self, trial: Trial) -> None:
        """Keep nothing; the results are on disk."""


class LimitedHyperband(Limited, HyperbandOracle):
    """Hyperband (Li et al. 2018, JMLR 18, 185): many short trials, the better ones go on."""


class LimitedRandom(Limited, RandomSearchOracle):
    """Random search."""


class LimitedBayesian(Limited, BayesianOptimizationOracle):
    """Gaussian process with an upper confidence bound, after some random trials."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Answer quickly, for thousands of tiny matrices are slower on several threads, and quietly."""
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return super().populate_space(trial_id)


def make_oracle(
    method: str,
    space: Mapping[str, Limits],
    objective: str,
    *,
    max_trials: int | None,
    max_epochs: int,
    factor: float = math.e,
    iterations: int = 2,
    seed: int = 0,
    fits: Fits = lambda values: True,
) -> Limited:
    """Build an oracle.

    Parameters
    ----------
    method : {"hyperband", "random", "bayesian"}
        How configurations are chosen.
    space : mapping
        Made by `gotorb.training.space.make_space`.
    objective : str
        One of `OBJECTIVES`.
    max_trials : int, optional
        Trials at most; None lets Hyperband end by itself.
    max_epochs : int
        Epochs of the longest trial.
    factor : float
        Hyperband: ratio of the epochs, and of the numbers of trials, of one round to the next.
    iterations : int
        Hyperband: how often it starts over.
    seed : int
        Of the draws.
    fits : callable
        Whether a point of the space may be trained.

    Raises
    ------
    ConfigError
        If an option is impossible.
    """
    check_search(method, objective, max_trials=max_trials, max_epochs=max_epochs, factor=factor, iterations=iterations)
    options: dict[str, Any] = {
        "objective": keras_tuner.Objective(objective, OBJECTIVES[objective]),
        "hyperparameters": as_hyperparameters(space),
        "seed": seed + 1,  # keras-tuner takes 0 for none
        "max_consecutive_failed_trials": NEVER,
    }
    if method == "hyperband":
        options |= {"max_epochs": max_epochs, "factor": factor, "hyperband_iterations": iterations}
        oracle = LimitedHyperband(**options)
    elif method == "bayesian":
        n_random = min(MAX_RANDOM, max(MIN_RANDOM, (max_trials or 0) // 3))
        oracle = LimitedBayesian(max_trials=max_trials, num_initial_points=n_random, **options)
    else:
        oracle = LimitedRandom(max_trials=max_trials, **options)
    oracle.max_trials, oracle.fits, oracle.verbose = max_trials, fits, 0
    return oracle


def check_search(
    method: str, objective: str, *, max_trials: int | None, max_epochs: int, factor: float, iterations: int
) -> None:
    """Refuse impossible options of a search."""
    if method not in METHODS:
        raise ConfigError(f"no tuning method {method!r}; choose {', '.join(METHODS)}")
    if objective not in OBJECTIVES:
        raise ConfigError(f"no objective {objective!r} to tune for; choose {', '.join(OBJECTIVES)}")
    if max_trials is None and method != "hyperband":
        raise ConfigError(f"max_trials is None, but {method} has no end of its own; give a number (tune.max_trials)")
    for name, value, least in (
        ("max_trials", max_trials, 1),
        ("max_epochs", max_epochs, 1),
        ("iterations", iterations, 1),
        ("factor", factor, 2),
    ):
        if value is not None and value < least:
            raise ConfigError(f"{name} is {value}; give {least} or more")
