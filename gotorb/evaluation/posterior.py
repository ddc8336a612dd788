"""Posterior samples: their mean, spread and confidence, and the choice of rows to label by them.

References
----------
Killestein et al. 2021, MNRAS 503, 4838: confidence of a Bayesian real/bogus score.
Houlsby et al. 2011 (arXiv:1112.5745): Bayesian active learning by disagreement (BALD).
Walmsley et al. 2020 (MNRAS 491, 1554): BALD for galaxy images.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from gotorb.core.params import AskParams
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.calibration import expit, logit


class Scale(NamedTuple):
    """Scale of probability on which the threshold of a model is one half, for measures of confidence.

    Scores of a network are overconfident and its threshold is rarely one half, so a detection near the threshold may
    look certain on the scale of the scores.

    Attributes
    ----------
    threshold : float
        Score at or above which a detection is called real.
    temperature : float
        Temperature of the calibration; 1 without calibration.
    """

    threshold: float = 0.5
    temperature: float = 1.0

    def convert(self, scores: np.ndarray) -> np.ndarray:
        """Convert scores to this scale.

        Parameters
        ----------
        scores : ndarray
            Scores or samples, of any shape.

        Returns
        -------
        ndarray
            Probabilities of the same shape.

        Examples
        --------
        >>> Scale(0.8, 2.0).convert(np.array([0.8, 0.98])).round(3).tolist()
        [0.5, 0.778]
        """
        if self == Scale():
            return scores
        return expit((logit(scores) - logit(self.threshold)) / self.temperature)


PLAIN = Scale()


@dataclass(frozen=True)
class Posterior:
    """Summaries of n posteriors, each of shape (n,).

    Attributes
    ----------
    mean : ndarray
        Mean of the samples: the real/bogus score.
    std : ndarray
        Standard deviation of the samples.
    p_real : ndarray
        Fraction of samples above the threshold.
    confidence : ndarray
        1 - mean binary entropy of the samples on the scale of the threshold, in bits: 1 certain, 0 a coin toss.
    bald : ndarray
        Mutual information of call and weights on the same scale, in bits: the expected gain from a label.
    """

    mean: np.ndarray
    std: np.ndarray
    p_real: np.ndarray
    confidence: np.ndarray
    bald: np.ndarray


def summarise_samples(samples: np.ndarray, scale: Scale = PLAIN) -> Posterior:
    """Reduce posterior samples to their summaries.

    Parameters
    ----------
    samples : ndarray
        (n, n_samples) scores between 0 and 1.
    scale : Scale
        Threshold and temperature of the model; default: threshold 0.5, no calibration.

    Returns
    -------
    Posterior

    Examples
    --------
    >>> torn = summarise_samples(np.array([[0.0, 1.0]]))
    >>> float(torn.mean[0]), float(torn.confidence[0]), float(torn.bald[0])
    (0.5, 1.0, 1.0)
    """
    relative = scale.convert(samples)
    mean_entropy = binary_entropy(relative).mean(axis=1)
    return Posterior(
        mean=samples.mean(axis=1, dtype=float),
        std=samples.std(axis=1, dtype=float),
        p_real=(samples > scale.threshold).mean(axis=1),
        confidence=1 - mean_entropy,
        bald=np.maximum(binary_entropy(relative.mean(axis=1, dtype=float)) - mean_entropy, 0.0),
    )


def binary_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a yes-or-no event.

    Parameters
    ----------
    probability : ndarray
        Probabilities, of any shape.

    Returns
    -------
    ndarray
        Entropies in bits, of the same shape; 0 for probabilities 0 and 1.

    Examples
    --------
    >>> binary_entropy(np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    from scipy.special import entr

    p = np.asarray(probability, float)
    return (entr(p) + entr(1 - p)) / np.log(2)


def posterior_density(samples: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Smooth density of one posterior on [0, 1].

    Each sample is a normal kernel, truncated at 0 and 1 and renormalised, so the curve integrates to one within the
    range of a score. The width follows Silverman's rule, 0.9 min(std, IQR / 1.34) n^(-1/5), and is at least 0.005.

    Parameters
    ----------
    samples : ndarray
        (n_samples,) scores of one stamp.
    grid : ndarray
        (m,) scores at which to compute the density.

    Returns
    -------
    ndarray
        (m,) density per unit of score.

    Examples
    --------
    >>> samples = np.array([0.4, 0.5, 0.6])
    >>> density = posterior_density(samples, np.linspace(0, 1, 101))
    >>> int(np.argmax(density))
    50
    """
    from scipy.special import ndtr

    quartiles = np.percentile(samples, [25, 75])
    spread = min(float(samples.std(ddof=1)), float(quartiles[1] - quartiles[0]) / 1.34)
    width = max(0.9 * spread * len(samples) ** -0.2, 0.005)
    centres = np.asarray(samples, float)[:, None]
    inside = ndtr((1 - centres) / width) - ndtr(-centres / width)
    kernels = np.exp(-0.5 * ((grid - centres) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return (kernels / inside).mean(axis=0)


Features = Callable[[np.ndarray], np.ndarray]
ASK = AskParams()
RANDOM = "random"
POOL_FACTOR = 5
"""The diverse choice is made among the highest-ranked rows, this many times the number wanted."""


def _rank_bald(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mutual information of label and weights, high where networks of the posterior disagree."""
    return summarise_samples(samples).bald


def _rank_margin(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Negative distance of the mean score from the threshold, one half on the scale of the samples."""
    return -np.abs(samples.mean(axis=1, dtype=float) - 0.5)


def _rank_random(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random order, the control."""
    return rng.random(len(samples))


METHODS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "bald": _rank_bald,
    "margin": _rank_margin,
    RANDOM: _rank_random,
}


def choose_rows(
    ids: np.ndarray,
    samples: np.ndarray,
    n: int,
    *,
    method: str = ASK.method,
    scale: Scale = PLAIN,
    taken: Collection[str] = (),
    features: Features | None = None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Choose rows to label, each at most once in all rounds.

    Parameters
    ----------
    ids : ndarray of str
        (m,) unique row ids of the pool.
    samples : ndarray
        (m, n_samples) posterior samples; not used by a random choice.
    n : int
        Number of rows to choose.
    method : {"bald", "margin", "random"}
        Measure by which rows are ranked.
    scale : Scale
        Threshold and temperature of the model, as in `summarise_samples`.
    taken : collection of str
        Ids that were chosen or labelled before, and are not chosen again.
    features : callable, optional
        Function from (k,) indices into the pool to latent vectors (k, d). With it each next row is the one, of the
        highest-ranked rows, that is farthest from all chosen ones. Not used by a random choice.
    rng : Generator
        Generator of random rows and ties.

    Returns
    -------
    DataFrame
        id, row (index into the pool) and value, in the order chosen; fewer than n rows if the pool is exhausted.

    Raises
    ------
    ConfigError
        If the method is unknown, or n is below 1.
    DataError
        If an id is a duplicate, or the arrays differ in length.

    Examples
    --------
    >>> samples = np.array([[0.5, 0.5], [0.1, 0.1], [0.9, 0.95]])
    >>> chosen = choose_rows(np.array(["a", "b", "c"]), samples, 1, method="margin", rng=np.random.default_rng(1))
    >>> chosen["id"].tolist()
    ['a']
    """
    if method not in METHODS:
        raise ConfigError(f"unknown acquisition {method!r}; choose one of {', '.join(METHODS)}")
    if n < 1:
        raise ConfigError(f"{n} rows cannot be chosen; ask for at least 1")
    if len(set(ids.tolist())) != len(ids) or len(samples) != len(ids):
        raise DataError(
            f"{len(samples)} posteriors for {len(ids)} rows of {len(set(ids.tolist()))} ids; give one for each id"
        )
    free = np.flatnonzero(~np.isin(ids, list(taken)))
    value = METHODS[method](scale.convert(samples), rng)
    ranked = free[np.lexsort((rng.random(len(free)), -value[free]))]
    plain = features is None or method == RANDOM or len(ranked) <= n
    chosen = ranked[:n] if features is None or plain else _spread(ranked[: POOL_FACTOR * n], features, n)
    return pd.DataFrame({"id": ids[chosen], "row": chosen, "value": value[chosen]})


def _spread(ranked: np.ndarray, features: Features, n: int) -> np.ndarray:
    """First row, then repeatedly the row farthest from all chosen ones (k-centre greedy; Sener & Savarese 2018)."""
    places = np.asarray(features(ranked), float)
    chosen = [0]
    distance = np.linalg.norm(places - places[0], axis=1)
    while len(chosen) < n:
        following = int(np.argmax(distance))
        chosen.append(following)
        distance = np.minimum(distance, np.linalg.norm(places - places[following], axis=1))
        distance[chosen] = -1
    return ranked[chosen]
