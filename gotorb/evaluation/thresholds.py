"""Error rates at thresholds, and the choice of a threshold.

A row is called real when its score is at or above the threshold. FPR: bogus rows called real. FNR: real rows
called bogus (missed). MME: mean misclassification error, (FPR + FNR) / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import DecideParams
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.calibration import ConformalSets, fit_conformal
from gotorb.evaluation.intervals import ALPHA, Groups, count_by_score, fraction_interval

Metrics = dict[str, Any]
DECIDE = DecideParams()
GOALS = ("purity", "completeness", "per_night")


@dataclass(frozen=True)
class ErrorRates:
    """Error rates at each of m thresholds, ascending.

    Attributes
    ----------
    thresholds, fpr, fnr : ndarray
        (m,) thresholds and rates; rates are NaN where the class is absent.
    """

    thresholds: np.ndarray
    fpr: np.ndarray
    fnr: np.ndarray

    @property
    def mme(self) -> np.ndarray:
        """Mean misclassification error.

        Returns
        -------
        ndarray
            (m,) errors.
        """
        return (self.fpr + self.fnr) / 2


def error_rates(labels: np.ndarray, scores: np.ndarray) -> ErrorRates:
    """Error rates at each distinct score and at infinity, the thresholds at which they change.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.

    Returns
    -------
    ErrorRates

    Examples
    --------
    >>> rates = error_rates(np.array([0, 0, 1]), np.array([0.1, 0.6, 0.6]))
    >>> rates.fpr.tolist(), rates.fnr.tolist()
    ([1.0, 0.5, 0.0], [0.0, 0.0, 1.0])
    """
    distinct, n_bogus, n_real = count_by_score(labels, scores)
    return ErrorRates(np.append(distinct, np.inf), *rates_of_counts(n_bogus, n_real))


def rates_of_counts(n_bogus: np.ndarray, n_real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error rates from counts at each distinct score.

    Parameters
    ----------
    n_bogus, n_real : ndarray of int
        (m,) rows at each distinct score, ascending; counts may be 0.

    Returns
    -------
    fpr, fnr : ndarray
        (m + 1,) rates with each score, and infinity, as the threshold; NaN where the class is absent.

    Examples
    --------
    >>> rates = rates_of_counts(np.array([2, 0]), np.array([0, 2]))
    >>> rates[0].tolist()
    [1.0, 0.0, 0.0]
    """
    bogus_below, real_below = (np.concatenate([[0], np.cumsum(counts)]) for counts in (n_bogus, n_real))
    with np.errstate(invalid="ignore"):
        return (bogus_below[-1] - bogus_below) / bogus_below[-1], real_below / real_below[-1]


def choose_threshold(labels: np.ndarray, scores: np.ndarray, *, max_fpr: float | None = None) -> float:
    """Choose a threshold by the smallest MME or by the FPR.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels and scores of rows that were not used for training, both classes present.
    max_fpr : float, optional
        Largest FPR, for the lowest threshold that has it; default: the threshold of the smallest MME.

    Returns
    -------
    float
        Threshold halfway to the next lower score, so that rounding changes no call.

    Examples
    --------
    >>> round(choose_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9])), 3)
    0.5
    """
    rates = error_rates(labels, scores)
    chosen = int(np.argmin(rates.mme)) if max_fpr is None else first_within(rates.fpr, max_fpr)
    return _between(rates.thresholds, chosen)


def find_balance(labels: np.ndarray, scores: np.ndarray) -> float:
    """Threshold at which the larger of FPR and FNR is smallest.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.

    Returns
    -------
    float
        Threshold; 0.5 if a class is absent.

    Examples
    --------
    >>> find_balance(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.6, 0.9]))
    0.6
    """
    if len(set(labels.tolist())) < 2:
        return 0.5
    rates = error_rates(labels, scores)
    return float(rates.thresholds[int(np.argmin(np.maximum(rates.fpr, rates.fnr)))])


def first_within(fpr: np.ndarray, max_fpr: float) -> int:
    """Index of the lowest threshold whose FPR is at most `max_fpr`.

    Parameters
    ----------
    fpr : ndarray
        (m,) rates at ascending thresholds.
    max_fpr : float
        Largest FPR.

    Returns
    -------
    int
        Index into `fpr`.

    Examples
    --------
    >>> int(first_within(np.array([0.5, 0.1, 0.0]), 0.2))
    1
    """
    return int(np.argmax(fpr <= max_fpr + 1e-12))


def fnr_at_fpr(labels: np.ndarray, scores: np.ndarray, max_fpr: float) -> float:
    """Missed fraction at the lowest threshold whose FPR is at most `max_fpr`.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores.
    max_fpr : float
        Largest FPR.

    Returns
    -------
    float
        FNR.

    Examples
    --------
    >>> fnr_at_fpr(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9]), 0.01)
    0.5
    """
    rates = error_rates(labels, scores)
    return float(rates.fnr[first_within(rates.fpr, max_fpr)])


def measure_errors(labels: np.ndarray, scores: np.ndarray, threshold: float, *, groups: Groups = ()) -> Metrics:
    """Measure error rates at one threshold, with counts and 95 % Wilson intervals.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) labels 1 and 0, and scores.
    threshold : float
        Score at or above which a row is called real.
    groups : sequence of ndarray
        Groups of dependent rows (`intervals.find_groups`).

    Returns
    -------
    dict
        n_bogus, n_false_positive, fpr, fpr_low, fpr_high; n_real, n_false_negative, fnr, fnr_low, fnr_high; mme.

    Examples
    --------
    >>> found = measure_errors(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9]), 0.5)
    >>> found["fpr"], found["n_false_positive"], found["n_bogus"]
    (0.5, 1, 2)
    """
    called_real, bogus, real = scores >= threshold, labels == 0, labels == 1
    errors = _rate("fpr", called_real[bogus], [group[bogus] for group in groups])
    errors |= _rate("fnr", ~called_real[real], [group[real] for group in groups])
    both = errors["fpr"] is not None and errors["fnr"] is not None
    return errors | {"mme": (errors["fpr"] + errors["fnr"]) / 2 if both else None}


def _rate(name: str, wrong: np.ndarray, groups: Groups) -> Metrics:
    n_errors, n = int(wrong.sum()), len(wrong)
    low, high = fraction_interval(wrong, groups) or (None, None)
    of, errors = {"fpr": ("n_bogus", "n_false_positive"), "fnr": ("n_real", "n_false_negative")}[name]
    return {of: n, errors: n_errors, name: n_errors / n if n else None, f"{name}_low": low, f"{name}_high": high}


def make_bins(values: pd.Series, width: int) -> pd.Series:
    """Name the bin of each value, such as "18-19".

    Parameters
    ----------
    values : Series
        Numbers, or numbers as text.
    width : int
        Width of a bin, in the unit of the values.

    Returns
    -------
    Series
        Names; None where the value is unknown.

    Examples
    --------
    >>> make_bins(pd.Series([18.3, np.nan]), 1).tolist()
    ['18-19', None]
    """
    floor = np.floor(pd.to_numeric(values, errors="coerce").to_numpy(float) / width) * width
    return pd.Series([f"{int(v)}-{int(v) + width}" if np.isfinite(v) else None for v in floor], dtype=object)


@dataclass(frozen=True)
class Night:
    """Detections of a night.

    Attributes
    ----------
    real_fraction : float
        Fraction of real detections.
    n_detections : int
        Number of detections.
    """

    real_fraction: float = DECIDE.real_fraction
    n_detections: int = DECIDE.n_detections

    def expect(self, errors: Metrics) -> dict[str, float | None]:
        """Expected numbers of a night at given error rates.

        Parameters
        ----------
        errors : dict
            From `measure_errors`.

        Returns
        -------
        dict
            called_real, real_found, real_missed, bogus_accepted, purity (of the detections called real), purity_limit
            (purity at the `upper_limit` of the FPR) and completeness; empty if a class is absent.

        Examples
        --------
        >>> errors = measure_errors(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9]), 0.5)
        >>> expected = Night(real_fraction=0.5, n_detections=100).expect(errors)
        >>> expected["called_real"], round(expected["purity"], 3)
        (75.0, 0.667)
        """
        if errors["fpr"] is None or errors["fnr"] is None:
            return {}
        limit = float(upper_limit(errors["n_false_positive"], errors["n_bogus"]))
        worst = self._expect(limit, errors["fnr"])["purity"]
        return self._expect(errors["fpr"], errors["fnr"]) | {"purity_limit": worst}

    def _expect(self, fpr: float, fnr: float) -> dict[str, float | None]:
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


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Advised threshold, with its error rates.

    Attributes
    ----------
    threshold : float
        Score at or above which a detection is called real.
    goal, wanted : str, float
        Goal and its value.
    night : Night
        Detections of a night.
    validation, test : dict
        Error rates with counts and 95 % intervals on the rows of each part, fpr_limit (`upper_limit`), and under
        ``night`` the expected numbers (`Night.expect`).
    by_mag : dict
        Error rates of the test rows in bins of magnitude.
    """

    threshold: float
    goal: str
    wanted: float
    night: Night
    validation: dict[str, Any]
    test: dict[str, Any]
    by_mag: dict[str, Any]


def advise(predictions: pd.DataFrame, goal: str, wanted: float, night: Night) -> Advice:
    """Choose the lowest threshold that reaches a goal on the validation rows, and evaluate it on the test rows.

    A purity must be reached at the upper limit of the FPR: few bogus rows without a false positive prove little if real
    detections are rare. Rows labelled bogus that may be real (column ``suspect``) are left out.

    Parameters
    ----------
    predictions : DataFrame
        Predictions of an evaluation: label, score, split (validation and test), mag; suspect, if known.
    goal : {"purity", "completeness", "per_night"}
        Purity of the detections called real, fraction of real ones found (by the highest threshold), or number of a
        night's detections that may be called real.
    wanted : float
        Purity, completeness, or number.
    night : Night
        Real fraction and number of a night's detections.

    Returns
    -------
    Advice

    Raises
    ------
    ConfigError
        If the goal is impossible, or cannot be reached on the validation rows; the message gives the rows needed.
    DataError
        If a part has only one class.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "score": [0.1, 0.6, 0.5, 0.9], "mag": 18.0})
    >>> rows = pd.concat([rows.assign(split="validation"), rows.assign(split="test")])
    >>> round(advise(rows, "completeness", 0.9, Night()).threshold, 3)
    0.3
    """
    _check_goal(goal, wanted, night)
    parts = {name: _labelled(predictions, name) for name in ("validation", "test")}
    rates = error_rates(*parts["validation"][:2])
    place = _PLACES[goal](rates, int((parts["validation"][0] == layout.BOGUS).sum()), wanted, night)
    threshold = _between(rates.thresholds, place)
    measured = {name: measure_errors(labels, scores, threshold) for name, (labels, scores, _) in parts.items()}
    for errors in measured.values():
        errors["fpr_limit"] = float(upper_limit(errors["n_false_positive"], errors["n_bogus"]))
        errors["night"] = night.expect(errors)
    labels, scores, mags = parts["test"]
    bins = make_bins(mags, 1).to_numpy(object)
    names = sorted({name for name in bins if isinstance(name, str)})
    by_mag = {name: measure_errors(labels[bins == name], scores[bins == name], threshold) for name in names}
    return Advice(
        threshold=threshold, goal=goal, wanted=wanted, night=night,
        validation=measured["validation"], test=measured["test"], by_mag=by_mag,
    )  # fmt: skip


def keep_classes(predictions: pd.DataFrame, keep: float, night: Night) -> dict[str, Any]:
    """Find the range of scores for annotators on the validation rows, and measure it on the test rows.

    Parameters
    ----------
    predictions : DataFrame
        As for `advise`.
    keep : float
        Fraction of each class that is called right or goes to an annotator.
    night : Night
        Real fraction of a night's detections.

    Returns
    -------
    dict
        Values of `calibration.ConformalSets` and of its `measure`.

    Raises
    ------
    ConfigError
        If there are too few validation rows; the message gives the rows needed.
    DataError
        If a part has only one class.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": np.repeat([0, 1], 9), "score": np.linspace(0, 1, 18), "mag": 18.0})
    >>> rows = pd.concat([rows.assign(split="validation"), rows.assign(split="test")])
    >>> keep_classes(rows, 0.9, Night())["real_kept"]
    1.0
    """
    sets = fit_validation(predictions, keep)
    return asdict(sets) | sets.measure(*_labelled(predictions, "test")[:2], night.real_fraction)


def fit_validation(predictions: pd.DataFrame, keep: float) -> ConformalSets:
    """Find the range of scores for annotators on the validation rows of an evaluation, without suspects.

    Parameters
    ----------
    predictions : DataFrame
        As for `advise`.
    keep : float
        As for `keep_classes`.

    Returns
    -------
    ConformalSets

    Examples
    --------
    >>> rows = pd.DataFrame({"label": np.repeat([0, 1], 9), "score": np.linspace(0, 1, 18), "mag": 18.0})
    >>> round(fit_validation(rows.assign(split="validation"), 0.9).low, 3)
    0.529
    """
    return fit_conformal(*_labelled(predictions, "validation")[:2], keep)


def _check_goal(goal: str, wanted: float, night: Night) -> None:
    if goal not in GOALS:
        raise ConfigError(f"unknown goal {goal!r}; choose one of {', '.join(GOALS)}")
    if goal == "per_night" and not 0 < wanted <= night.n_detections:
        raise ConfigError(f"{wanted:g} of {night.n_detections} detections a night are impossible; give --detections")
    if goal != "per_night" and not 0 < wanted < 1:
        raise ConfigError(f"a {goal} of {wanted:g} is impossible; give one between 0 and 1, such as 0.95")
    if not 0 < night.real_fraction < 1:
        raise ConfigError(f"a real fraction of {night.real_fraction:g} is impossible; give one between 0 and 1")


def _labelled(predictions: pd.DataFrame, split: str) -> tuple[np.ndarray, np.ndarray, pd.Series]:
    rows = predictions[(predictions["split"] == split) & predictions["label"].isin((layout.REAL, layout.BOGUS))]
    if "suspect" in rows:
        rows = rows[rows["suspect"].astype(int) == 0]
    labels = rows["label"].to_numpy(int)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"the {len(rows)} labelled {split} rows are not of both classes; evaluate on more data")
    return labels, rows["score"].to_numpy(float), rows["mag"].reset_index(drop=True)


def upper_limit(n_hits: np.ndarray | int, n: int) -> np.ndarray:
    """One-sided upper 95 % limit of a fraction (Clopper & Pearson): about 3 / n without a hit.

    Parameters
    ----------
    n_hits : ndarray of int, or int
        Hits.
    n : int
        Trials.

    Returns
    -------
    ndarray
        Limits of the shape of `n_hits`; 1 if all trials are hits.

    Examples
    --------
    >>> float(upper_limit(0, 300).round(4))
    0.0099
    """
    from scipy.stats import beta

    hits = np.asarray(n_hits, float)
    return np.where(hits >= n, 1.0, beta.ppf(1 - ALPHA, hits + 1, np.maximum(n - hits, 1e-9)))


def _place_of_purity(rates: ErrorRates, n_bogus: int, wanted: float, night: Night) -> int:
    found = night.real_fraction * (1 - rates.fnr)
    limits = upper_limit(np.round(rates.fpr * n_bogus), n_bogus)
    purity = found / (found + (1 - night.real_fraction) * limits)
    best = int(np.argmax(purity))
    allowed = found[best] * (1 - wanted) / wanted / (1 - night.real_fraction)
    n_needed = int(np.ceil(np.log(ALPHA) / np.log1p(-min(allowed, 0.999)))) if allowed > 0 else 0
    reason = (
        f"{n_bogus} bogus rows prove at most {purity[best]:.4f}, with an FPR of at most {limits[best]:.2g}; it takes "
        f"an FPR of {allowed:.2g}, which at least {n_needed} bogus rows without a false positive prove"
    )
    return _first(purity >= wanted, f"purity {wanted:g}", reason)


def _place_of_completeness(rates: ErrorRates, n_bogus: int, wanted: float, night: Night) -> int:
    return int(np.flatnonzero(1 - rates.fnr >= wanted)[-1])  # the lowest threshold finds all


def _place_of_number(rates: ErrorRates, n_bogus: int, wanted: float, night: Night) -> int:
    called = night.n_detections * (night.real_fraction * (1 - rates.fnr) + (1 - night.real_fraction) * rates.fpr)
    return _first(called <= wanted, f"{wanted:g} a night", "")


_PLACES: dict[str, Callable[[ErrorRates, int, float, Night], int]] = {
    "purity": _place_of_purity,
    "completeness": _place_of_completeness,
    "per_night": _place_of_number,
}


def _first(reached: np.ndarray, goal: str, best: str) -> int:
    if not reached.any():
        raise ConfigError(f"no threshold reaches {goal} on the validation rows ({best}); ask for less")
    return int(np.argmax(reached))


def _between(thresholds: np.ndarray, place: int) -> float:
    """Threshold halfway to the next lower score, so that rounding changes no call; above all scores for infinity."""
    low, high = thresholds[max(place - 1, 0)], thresholds[place]
    return float(np.nextafter(low, np.inf) if np.isinf(high) else (low + high) / 2)
