"""The space that a tuning searches: what may vary, within which limits, and what a point of it means for training.

The limits are GOTO's, for `bayesian_vgg6`. A hyperparameter is rounded to four figures where it is drawn, so that
what is trained is what is written down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras_tuner

from gotorb.errors import ConfigError
from gotorb.training.networks import Shape, bayesian_vgg6

Values = dict[str, Any]
FIGURES = 4


@dataclass(frozen=True)
class Steps:
    """Whole numbers from low to high, both included, in steps."""

    low: int
    high: int
    step: int = 8


@dataclass(frozen=True)
class LogRange:
    """Positive numbers between two limits, even on a log axis."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """One of several names."""

    names: tuple[str, ...]


Limits = Steps | LogRange | Choice
SPACE: dict[str, Limits] = {
    "block1": Steps(8, 32),
    "scale_up": Steps(0, 32),
    "dense": Steps(64, 512),
    "initializer": Choice(("he_uniform", "glorot_uniform")),
    "activation": Choice(("relu", "leaky_relu", "elu")),
    "dropout": LogRange(0.01, 0.5),
    "l2": LogRange(1e-8, 1e-1),
    "learning_rate": LogRange(1e-5, 1e-2),
}
"""What is searched; the second block has ``block1 + scale_up`` filters."""


def make_space(narrower: Mapping[str, Any] | None = None) -> dict[str, Limits]:
    """The space, with narrower limits of some hyperparameters.

    Parameters
    ----------
    narrower : mapping, optional
        Name -> [lowest, highest], or the names to choose from, or a single value.

    Raises
    ------
    ConfigError
        If a hyperparameter is unknown or a limit lies outside the space.

    Examples
    --------
    >>> make_space({"dense": [64, 128], "activation": "elu"})["dense"]
    Steps(low=64, high=128, step=8)
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
    if isinstance(limits, Choice):
        inside = bool(given) and set(given) <= set(limits.names)
        allowed = " or ".join(limits.names)
    else:
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
        inside = numbers and len(given) in (1, 2) and limits.low <= given[0] <= given[-1] <= limits.high
        allowed = f"[lowest, highest] within {limits.low:g} to {limits.high:g}"
        if isinstance(limits, Steps):
            inside = inside and all((value - limits.low) % limits.step == 0 for value in given)
            allowed += f" in steps of {limits.step}"
    if not inside:
        raise ConfigError(f"space has {name} = {wanted!r}; give {allowed}")
    if isinstance(limits, Choice):
        return Choice(given)
    return Steps(int(given[0]), int(given[-1])) if isinstance(limits, Steps) else LogRange(given[0], given[-1])


def as_hyperparameters(space: Mapping[str, Limits]) -> keras_tuner.HyperParameters:
    """The space as keras-tuner knows it."""
    hyperparameters = keras_tuner.HyperParameters()
    for name, limits in space.items():
        if isinstance(limits, Choice):
            hyperparameters.Choice(name, list(limits.names))
        elif limits.low == limits.high:
            hyperparameters.Fixed(name, limits.low)
        elif isinstance(limits, Steps):
            hyperparameters.Int(name, limits.low, limits.high, step=limits.step)
        else:
            hyperparameters.Float(name, limits.low, limits.high, sampling="log")
    return hyperparameters


def read_values(drawn: Mapping[str, Any]) -> Values:
    """A point of the space, in the space's order: what a tuner has drawn, without its own notes, rounded.

    Examples
    --------
    >>> read_values({"tuner/epochs": 3, "dropout": 0.123456, "dense": 64})
    {'dense': 64, 'dropout': 0.1235}
    """
    return {name: _round(drawn[name]) for name in SPACE if name in drawn}


def _round(value: Any) -> Any:
    return float(f"{value:.{FIGURES}g}") if isinstance(value, float) else value


def training_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``classifier.train`` that a point of the space stands for.

    Returns
    -------
    dict
        model (a name), learning_rate, dropout, model_kwargs.
    """
    network = {name: values[name] for name in ("dense", "l2", "initializer", "activation")}
    network |= {"block1": values["block1"], "block2": values["block1"] + values["scale_up"]}
    return {
        "model": "bayesian_vgg6",
        "learning_rate": values["learning_rate"],
        "dropout": values["dropout"],
        "model_kwargs": network,
    }


def count_parameters(input_shape: Shape, values: Mapping[str, Any]) -> int:
    """Parameters of the network at a point of the space."""
    return _count(input_shape, values["block1"], values["block1"] + values["scale_up"], values["dense"])


@lru_cache(maxsize=4096)
def _count(input_shape: Shape, block1: int, block2: int, dense: int) -> int:
    return bayesian_vgg6(input_shape, block1=block1, block2=block2, dense=dense).count_params()
