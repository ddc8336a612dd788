"""Whether errors sit where the network is unsure: what is left when the least confident rows go to people.

References
----------
Geifman & El-Yaniv 2017 (arXiv:1705.08500): risk against coverage and the area under it (AURC).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Retention:
    """Error rate of the rows that are kept, the most confident first.

    Attributes
    ----------
    kept : ndarray
        (n,) fraction of rows kept, ascending to 1.
    error : ndarray
        (n,) fraction of wrong calls among them; rows of equal confidence come in together.
    aurc : float
        Mean of `error`.
    random_aurc : float
        The same for rows in random order: the error rate of all.
    gain : float or None
        How many times smaller `aurc` is; None when no call is wrong.
    """

    kept: np.ndarray
    error: np.ndarray
    aurc: float
    random_aurc: float
    gain: float | None


def retention_curve(wrong: np.ndarray, confidence: np.ndarray) -> Retention:
    """Error rate against the fraction of rows kept.

    Parameters
    ----------
    wrong : ndarray of bool
        (n,) whether the call is wrong; n at least 1.
    confidence : ndarray
        (n,) how sure the network is.

    Examples
    --------
    >>> curve = retention_curve(np.array([True, False, False, False]), np.array([0.1, 0.9, 0.8, 0.7]))
    >>> curve.error.tolist(), curve.gain
    ([0.0, 0.0, 0.0, 0.25], 4.0)
    """
    order = np.argsort(-confidence, kind="stable")
    hits, sure = np.asarray(wrong, float)[order], confidence[order]
    group = np.cumsum(np.concatenate([[True], sure[1:] != sure[:-1]])) - 1
    hits = (np.bincount(group, hits) / np.bincount(group))[group]  # the order of equals says nothing
    kept = np.arange(1, len(hits) + 1)
    error = np.cumsum(hits) / kept
    aurc, everything = float(error.mean()), float(hits.mean())
    return Retention(kept / len(hits), error, aurc, everything, everything / aurc if aurc > 0 else None)
