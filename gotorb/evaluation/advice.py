"""Which threshold to use: chosen on validation rows for what a night needs, judged on test rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb import layout
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.metrics import make_bins, measure_errors
from gotorb.evaluation.thresholds import ErrorRates, error_rates
from gotorb.params import DecideParams

DECIDE = DecideParams()
GOALS = ("purity", "completeness", "per_night")


@dataclass(frozen=True)
class Night:
    """What a night brings.

    Attributes
    ----------
    real_fraction : float
        Of all detections.
    n_detections : int
        How many there are.
    """

    real_fraction: float = DECIDE.real_fraction
    n_detections: int = DECIDE.n_detections

    def expect(self, fpr: float, fnr: float) -> dict[str, float | None]:
        """Expected numbers of a night at these error rates, and the purity of what is called real."""
        n_real = self.n_detections * self.real_fraction
        found, false = n_real * (1 - fnr), (self.n_detections - n_real) * fpr
        called = found + false
        return {
            "called_real": called,
            "real_found": found,
            "real_missed": n_real - found,
            "bogus_accepted": false,
            "purity": found / called if called else None,
            "completeness": 1 - fnr,
        }


@dataclass(frozen=True)
class Advice:
    """A threshold and what it costs.

    Attributes
    ----------
    threshold : float
        Score at or above which a detection is called real.
    goal, wanted : str, float
        What was asked for.
    night : Night
        What a night brings.
    validation, test : dict
        Error rates with counts and 95 % intervals on the rows of each part, and under ``night`` what is expected.
    by_mag : dict
        The test rows' error rates in bins of magnitude.
    """

    threshold: float
    goal: str
    wanted: float
    night: Night
    validation: dict[str, Any]
    test: dict[str, Any]
    by_mag: dict[str, Any]


def advise(predictions: pd.DataFrame, goal: str, wanted: float, night: Night) -> Advice:
    """Choose the lowest threshold that reaches a goal on the validation rows, and judge it on the test rows.

    Parameters
    ----------
    predictions : DataFrame
        Of an evaluation: label, score, split (validation and test), mag.
    goal : {"purity", "completeness", "per_night"}
        Purity of what is called real, fraction of real ones found (here the highest threshold), or how many
        detections of a night may be called real.
    wanted : float
        The purity, the completeness, or the number.
    night : Night
        Real fraction and number of a night's detections.

    Raises
    ------
    ConfigError
        If the goal is impossible or cannot be reached on the validation rows.
    DataError
        If a part lacks a class.
    """
    _check_goal(goal, wanted, night)
    parts = {name: _labelled(predictions, name) for name in ("validation", "test")}
    rates = error_rates(*parts["validation"][:2])
    place = _PLACES[goal](rates, wanted, night)
    threshold = _between(rates.thresholds, place)
    judged = {name: measure_errors(labels, scores, threshold) for name, (labels, scores, _) in parts.items()}
    for errors in judged.values():
        errors["night"] = night.expect(errors["fpr"], errors["fnr"])
    labels, scores, mags = parts["test"]
    bins = make_bins(mags, 1).to_numpy(object)
    names = sorted({name for name in bins if isinstance(name, str)})
    by_mag = {name: measure_errors(labels[bins == name], scores[bins == name], threshold) for name in names}
    return Advice(threshold, goal, wanted, night, judged["validation"], judged["test"], by_mag)


def _check_goal(goal: str, wanted: float, night: Night) -> None:
    if goal not in GOALS:
        raise ConfigError(f"unknown goal {goal!r}; choose one of {', '.join(GOALS)}")
    if goal == "per_night" and not 0 < wanted <= night.n_detections:
        raise ConfigError(f"{wanted:g} of {night.n_detections} detections a night are impossible; give --detections")
    if goal != "per_night" and not 0 < wanted < 1:
        raise ConfigError(f"a {goal} of {wanted:g} is impossible; give one between 0 and 1, as 0.95")
    if not 0 < night.real_fraction < 1:
        raise ConfigError(f"a real fraction of {night.real_fraction:g} is impossible; give one between 0 and 1")


def _labelled(predictions: pd.DataFrame, split: str) -> tuple[np.ndarray, np.ndarray, pd.Series]:
    rows = predictions[(predictions["split"] == split) & predictions["label"].isin((layout.REAL, layout.BOGUS))]
    labels = rows["label"].to_numpy(int)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"the {len(rows)} labelled {split} rows lack real or bogus ones; evaluate on more data")
    return labels, rows["score"].to_numpy(float), rows["mag"].reset_index(drop=True)


def _place_of_purity(rates: ErrorRates, wanted: float, night: Night) -> int:
    found = night.real_fraction * (1 - rates.fnr)
    called = found + (1 - night.real_fraction) * rates.fpr
    purity = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
    return _first(purity >= wanted, f"purity {wanted:g}", f"the best is {purity.max():.4f}")


def _place_of_completeness(rates: ErrorRates, wanted: float, night: Night) -> int:
    return int(np.flatnonzero(1 - rates.fnr >= wanted)[-1])  # at the lowest threshold all are found


def _place_of_number(rates: ErrorRates, wanted: float, night: Night) -> int:
    called = night.n_detections * (night.real_fraction * (1 - rates.fnr) + (1 - night.real_fraction) * rates.fpr)
    return _first(called <= wanted, f"{wanted:g} a night", "")


_PLACES: dict[str, Callable[[ErrorRates, float, Night], int]] = {
    "purity": _place_of_purity,
    "completeness": _place_of_completeness,
    "per_night": _place_of_number,
}


def _first(reached: np.ndarray, goal: str, best: str) -> int:
    if not reached.any():
        raise ConfigError(f"no threshold reaches {goal} on the validation rows ({best}); ask for less")
    return int(np.argmax(reached))


def _between(thresholds: np.ndarray, place: int) -> float:
    """Halfway to the next lower score, so that rounding moves no row across."""
    low, high = thresholds[max(place - 1, 0)], thresholds[place]
    return float(np.nextafter(low, np.inf) if np.isinf(high) else (low + high) / 2)
