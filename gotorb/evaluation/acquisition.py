"""Choice of unlabelled rows for annotators: the most informative ones, and not all alike.

References
----------
Houlsby et al. 2011 (arXiv:1112.5745): BALD. Walmsley et al. 2020 (MNRAS 491, 1554): BALD for galaxy images.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from gotorb.core.params import AskParams
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.posterior import PLAIN, Scale, summarise_samples

Features = Callable[[np.ndarray], np.ndarray]
ASK = AskParams()
RANDOM = "random"
POOL_FACTOR = 5
"""The diverse choice is made among so many times the rows wanted, the most telling ones."""


def _rank_bald(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mutual information of label and weights: high where networks of the posterior disagree."""
    return summarise_samples(samples).bald


def _rank_margin(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Closeness of the mean score to the threshold, which is one half on the scale of the samples given."""
    return -np.abs(samples.mean(axis=1, dtype=float) - 0.5)


def _rank_random(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any order: the control that others must beat."""
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
        (m,) row ids of the pool, each once.
    samples : ndarray
        (m, n_samples) posterior samples; a random choice looks at none.
    n : int
        Rows wanted.
    method : {"bald", "margin", "random"}
        What makes a row telling.
    scale : Scale
        The model's threshold and temperature: rows close to the threshold are the uncertain ones.
    taken : collection of str
        Ids chosen or labelled before; never chosen again.
    features : callable, optional
        Gives the latent vectors (k, d) of k places in the pool: the guard against choosing the same thing many
        times. Among the most telling rows each next one is the farthest from those chosen. Random choice needs none.
    rng : Generator
        Breaks ties, and draws the random rows.

    Returns
    -------
    DataFrame
        id, row (place in the pool) and value, in the order chosen; fewer than n when the pool runs out.

    Raises
    ------
    ConfigError
        If the method is unknown, or n is below 1.
    DataError
        If an id is a duplicate, or the arrays do not belong together.

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
        raise ConfigError(f"{n} rows are to be chosen; ask for at least 1")
    if len(set(ids.tolist())) != len(ids) or len(samples) != len(ids):
        raise DataError(f"{len(samples)} posteriors for {len(set(ids.tolist()))} different ids of {len(ids)} rows")
    free = np.flatnonzero(~np.isin(ids, list(taken)))
    value = METHODS[method](scale.convert(samples), rng)
    ranked = free[np.lexsort((rng.random(len(free)), -value[free]))]
    plain = features is None or method == RANDOM or len(ranked) <= n
    chosen = ranked[:n] if features is None or plain else _spread(ranked[: POOL_FACTOR * n], features, n)
    return pd.DataFrame({"id": ids[chosen], "row": chosen, "value": value[chosen]})


def _spread(ranked: np.ndarray, features: Features, n: int) -> np.ndarray:
    """The first row, then always the one farthest from all chosen so far (k-centre greedy; Sener & Savarese 2018)."""
    places = np.asarray(features(ranked), float)
    chosen = [0]
    distance = np.linalg.norm(places - places[0], axis=1)
    while len(chosen) < n:
        following = int(np.argmax(distance))
        chosen.append(following)
        distance = np.minimum(distance, np.linalg.norm(places - places[following], axis=1))
        distance[chosen] = -1
    return ranked[chosen]
