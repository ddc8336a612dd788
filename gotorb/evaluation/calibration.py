"""Calibration of scores: maps to probabilities, fitted on validation rows, and their shift to other real fractions.

A network's score ranks detections. After calibration a score of 0.9 is right nine times out of ten, for the fraction of
real detections in the rows of the fit. `shift_prior` converts it to the fraction of a night.

References
----------
Guo et al. 2017 (ICML, arXiv:1706.04599): temperature scaling. Zadrozny & Elkan 2002: isotonic regression.
Saerens et al. 2002 (Neural Computation 14, 21): another prior. Vovk, Gammerman & Shafer 2005 (Algorithmic Learning in
a Random World): conformal sets, here for each class separately.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gotorb.errors import ConfigError, DataError

TINY = 1e-7
"""Distance to which scores are clipped from 0 and 1, which a float32 sigmoid reaches."""
METHODS = ("temperature", "isotonic", "none")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Maps from scores to probabilities.

    Attributes
    ----------
    temperature, offset : float
        probability = sigmoid(logit(score) / temperature + offset).
    steps_x, steps_y : ndarray
        Scores and probabilities of the isotonic map, ascending, with linear interpolation between them.
    real_fraction : float
        Real fraction of the rows of the fit.
    n_rows : int
        Rows of the fit.
    """

    temperature: float
    offset: float
    steps_x: np.ndarray
    steps_y: np.ndarray
    real_fraction: float
    n_rows: int

    def apply(
        self, scores: np.ndarray, method: str = "temperature", *, real_fraction: float | None = None
    ) -> np.ndarray:
        """Probabilities that detections are real.

        Parameters
        ----------
        scores : ndarray
            (n,) scores or posterior means of the same model.
        method : {"temperature", "isotonic", "none"}
            Temperature and offset, which keep the order of scores, or the isotonic map, which needs thousands of rows.
        real_fraction : float, optional
            Real fraction of tonight's detections; default: that of the fit.

        Returns
        -------
        ndarray
            (n,) probabilities.

        Raises
        ------
        ConfigError
            If the method is unknown, or the fraction not between 0 and 1.
        """
        if method == "temperature":
            found = expit(logit(scores) / self.temperature + self.offset)
        elif method == "isotonic":
            found = np.interp(scores, self.steps_x, self.steps_y)
        elif method == "none":
            found = np.asarray(scores, float)
        else:
            raise ConfigError(f"unknown calibration {method!r}; choose one of {', '.join(METHODS)}")
        return found if real_fraction is None else shift_prior(found, self.real_fraction, real_fraction)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the model's meta; `from_dict` reads them back.

        Returns
        -------
        dict
            Numbers and (n_steps,) arrays by the names of the attributes.
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, known: dict[str, Any]) -> Calibration:
        """The inverse of `as_dict`.

        Parameters
        ----------
        known : dict
            Values by the names of the attributes.

        Returns
        -------
        Calibration
        """
        return cls(**known)


def fit_calibration(labels: np.ndarray, scores: np.ndarray) -> Calibration:
    """Fit both maps on rows that were not used for training.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus; both present.
    scores : ndarray
        (n,) scores between 0 and 1.

    Returns
    -------
    Calibration

    Raises
    ------
    DataError
        If a class is absent.

    Examples
    --------
    >>> found = fit_calibration(np.array([0, 0, 1, 1]), np.array([0.3, 0.4, 0.6, 0.7]))
    >>> found.real_fraction, bool(found.apply(np.array([0.7]))[0] > 0.7)
    (0.5, True)
    """
    labels, scores = np.asarray(labels, int), np.asarray(scores, float)
    if len(set(labels.tolist())) < 2:
        raise DataError(f"all {len(labels)} rows are of one class; give real and bogus rows to calibrate on")
    temperature, offset = _fit_sigmoid(labels, logit(scores))
    steps_x, steps_y = _fit_steps(labels, scores)
    return Calibration(
        temperature=temperature,
        offset=offset,
        steps_x=steps_x,
        steps_y=steps_y,
        real_fraction=float(labels.mean()),
        n_rows=len(labels),
    )


def _fit_sigmoid(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Temperature and offset of maximum likelihood, with the smoothed targets of Platt (1999)."""
    from scipy.optimize import minimize

    n_real, n_bogus = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (n_real + 1) / (n_real + 2), 1 / (n_bogus + 2))

    def loss(at: np.ndarray) -> float:
        z = logits * np.exp(at[0]) + at[1]
        return float((np.logaddexp(0, z) - targets * z).mean())

    slope, offset = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).x
    return float(np.exp(-slope)), float(offset)


def _fit_steps(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=TINY, y_max=1 - TINY, out_of_bounds="clip").fit(scores, labels)
    return np.asarray(fitted.X_thresholds_, float), np.asarray(fitted.y_thresholds_, float)


@dataclass(frozen=True, kw_only=True)
class ConformalSets:
    """Range of scores in which an annotator decides; rows outside it are called by their score.

    Attributes
    ----------
    keep : float
        Fraction of each class that is called right or goes to an annotator, on average over validation sets.
    low, high : float
        Limits, in either order: bogus below the lower one, real above the higher one, for an annotator between.
    n_real, n_bogus : int
        Rows of the fit.
    """

    keep: float
    low: float
    high: float
    n_real: int
    n_bogus: int

    def for_person(self, scores: np.ndarray) -> np.ndarray:
        """Mask of the rows that go to an annotator.

        Parameters
        ----------
        scores : ndarray
            (n,) scores.

        Returns
        -------
        ndarray of bool
            (n,) mask.
        """
        return (scores >= min(self.low, self.high)) & (scores <= max(self.low, self.high))

    def measure(self, labels: np.ndarray, scores: np.ndarray, real_fraction: float) -> dict[str, float | None]:
        """Measure how many rows of each class are kept, and how many go to an annotator.

        Parameters
        ----------
        labels, scores : ndarray
            (n,) 1 real, 0 bogus; both present.
        real_fraction : float
            Real fraction of a night's detections.

        Returns
        -------
        dict
            real_kept, bogus_kept (fraction called right or sent to an annotator), person_real, person_bogus (fraction
            of each class sent to an annotator), person (the same of a night's rows); None where a class is absent.
        """
        shown, real, bogus = self.for_person(scores), labels == 1, labels == 0
        if not (real.any() and bogus.any()):
            return dict.fromkeys(("real_kept", "bogus_kept", "person_real", "person_bogus", "person"))
        low, high = min(self.low, self.high), max(self.low, self.high)
        of_real, of_bogus = float(shown[real].mean()), float(shown[bogus].mean())
        return {
            "real_kept": float((scores[real] >= low).mean()), "bogus_kept": float((scores[bogus] <= high).mean()),
            "person_real": of_real, "person_bogus": of_bogus,
            "person": real_fraction * of_real + (1 - real_fraction) * of_bogus,
        }  # fmt: skip


def fit_conformal(labels: np.ndarray, scores: np.ndarray, keep: float) -> ConformalSets:
    """Find the range of scores that goes to an annotator, so that a fraction of each class is kept.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus, and scores, of rows that were not used for training.
    keep : float
        Fraction, such as 0.99.

    Returns
    -------
    ConformalSets

    Raises
    ------
    ConfigError
        If `keep` is not between 0 and 1, or a class has too few rows for it.

    Examples
    --------
    >>> sets = fit_conformal(np.repeat([0, 1], 9), np.linspace(0, 1, 18), 0.9)
    >>> round(sets.low, 3), round(sets.high, 3)
    (0.529, 0.471)
    """
    if not 0 < keep < 1:
        raise ConfigError(f"a fraction of {keep:g} cannot be kept; give one between 0 and 1, such as 0.99")
    parts = {"real": np.sort(scores[labels == 1]), "bogus": -np.sort(-scores[labels == 0])}
    ends = []
    for name, ordered in parts.items():
        place = int(np.floor((len(ordered) + 1) * (1 - keep) + 1e-9))
        if place < 1:
            n_needed = int(np.ceil(1 / (1 - keep) - 1e-9)) - 1
            raise ConfigError(
                f"{len(ordered)} {name} validation rows cannot prove that {100 * keep:g} % are kept, which takes "
                f"{n_needed}; keep less, or label more"
            )
        ends.append(float(ordered[place - 1]))
    return ConformalSets(keep=keep, low=ends[0], high=ends[1], n_real=len(parts["real"]), n_bogus=len(parts["bogus"]))


def shift_prior(probability: np.ndarray, fitted: float, wanted: float) -> np.ndarray:
    """Convert probabilities to another real fraction.

    Parameters
    ----------
    probability : ndarray
        (n,) probabilities at the real fraction `fitted`.
    fitted, wanted : float
        Fractions of real detections, between 0 and 1.

    Returns
    -------
    ndarray
        (n,) probabilities at `wanted`.

    Raises
    ------
    ConfigError
        If `wanted` is not between 0 and 1.

    Examples
    --------
    >>> shift_prior(np.array([0.5]), 0.5, 0.1).round(6).tolist()
    [0.1]
    """
    if not 0 < wanted < 1:
        raise ConfigError(f"a real fraction of {wanted} is impossible; give one between 0 and 1, such as 0.02")
    return expit(logit(probability) + logit(wanted) - logit(fitted))


def logit(probability: np.ndarray | float) -> np.ndarray:
    """Log odds of probabilities clipped just inside 0 and 1.

    Parameters
    ----------
    probability : ndarray or float
        Probabilities or scores.

    Returns
    -------
    ndarray
        Finite log odds of the same shape.

    Examples
    --------
    >>> float(logit(np.array([0.5]))[0])
    0.0
    """
    from scipy import special

    return special.logit(np.clip(np.asarray(probability, float), TINY, 1 - TINY))


def expit(z: np.ndarray) -> np.ndarray:
    """Inverse of `logit`.

    Parameters
    ----------
    z : ndarray
        Log odds.

    Returns
    -------
    ndarray
        Probabilities of the same shape.

    Examples
    --------
    >>> float(expit(np.array([0.0]))[0])
    0.5
    """
    from scipy import special

    return special.expit(np.asarray(z, float))
