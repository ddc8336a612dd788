"""Summaries of posterior samples: mean, spread and confidence.

References
----------
Killestein et al. 2021, MNRAS 503, 4838: confidence of a Bayesian real/bogus score.
Houlsby et al. 2011: Bayesian active learning by disagreement (BALD).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gotorb.evaluation.calibration import expit, logit


class Scale(NamedTuple):
    """Scale of probability on which one half is the threshold of a model: what "sure" and "unsure" are measured on.

    A network's scores are too sure, and its threshold is rarely one half: on the scale of the scores a detection near
    the threshold may look certain.

    Attributes
    ----------
    threshold : float
        Score at or above which a detection is called real.
    temperature : float
        Of the calibration; 1 without one.
    """

    threshold: float = 0.5
    temperature: float = 1.0

    def convert(self, scores: np.ndarray) -> np.ndarray:
        """Scores on this scale.

        Parameters
        ----------
        scores : ndarray
            Scores or samples, of any shape.

        Returns
        -------
        ndarray
            Of the same shape.

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
        1 - mean binary entropy of the samples on the scale of the threshold, in bits: 1 sure, 0 a coin toss.
    bald : ndarray
        Mutual information of call and weights on the same scale, in bits: what a label would teach.
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
        The model's threshold and temperature; calls at one half of plain scores when left out.

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
    """Entropy in bits of an event of this probability.

    Parameters
    ----------
    probability : ndarray
        Probabilities, of any shape.

    Returns
    -------
    ndarray
        Entropies of the same shape; 0 for probabilities 0 and 1.

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

    Each sample is a normal kernel cut off at 0 and 1 and renormalised there, so the curve integrates to one
    and does not leak out of the range of a score. The width follows Silverman's rule, 0.9 min(std,
    IQR / 1.34) n^(-1/5), at least 0.005.

    Parameters
    ----------
    samples : ndarray
        (n_samples,) scores of one stamp.
    grid : ndarray
        (m,) scores at which the density is wanted.

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
