"""Soft labels: the probability that each row is real, from several labellers who err, and a weight for training.

A labeller gives a level to the rows that it knows: an annotator real or bogus, an earlier classifier the bin of its
score, the rule that made the row its metalabel. How often each labeller gives each level to real and to bogus rows is
found together with the probabilities, by expectation maximisation from the rows whose truth is known.

Source: Dawid & Skene 1979 (Applied Statistics 28, 20).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.params import DatasetParams
from gotorb.dataset.store import read_csv
from gotorb.errors import ConfigError, DataError

LOG = logging.getLogger(__name__)
METHOD = DatasetParams().soft_method
ANCHORS = {"mp": 0.99, "marshall": 0.98, "catalogued": 0.97, "syntransient": 1.0, "synfading": 1.0, "synvariable": 1.0,
           "glxresid": 0.02, "synflash": 0.0}  # fmt: skip
"""Probability that rows of these metalabels are real: catalogues and simulations know it better than any score."""
COPIED = ("proxy_real", "proxy_bogus", "lowscore")
"""Metalabels that scores gave: with scores among the labellers, they say nothing new."""
SCORE_BINS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98)
"""Limits of the levels that an earlier classifier's score is divided into."""
HOST_BINS = (1.0, 3.0, 8.0)
"""Limits of the distance from a galaxy's centre, arcsec."""
SMOOTHING = 2.0
"""Rows that are added to each labeller's counts, divided among its levels as all its rows are."""
START = (0.1, 0.9)
"""Probability of bogus and of real labels before the first step."""
OWN_SHARE = 0.5
"""Share of a decided label in its row's probability, the labellers having the rest; better out of fold than none."""
MOST_WEIGHT = 3.0
"""Weight of a row without a label whose scores are 0; of one whose scores are 1 it is 1."""
N_STEPS, TOLERANCE = 200, 1e-6
UNKNOWN_LEVEL = -1


@dataclass(frozen=True)
class Labellers:
    """Labellers and what is known of them.

    Attributes
    ----------
    names : tuple of str
    rates : tuple of ndarray
        For each labeller (2, n_levels): the fraction of bogus (0) and of real rows (1) that gets each level.
    real_fraction : float
        Of all rows.
    """

    names: tuple[str, ...]
    rates: tuple[np.ndarray, ...]
    real_fraction: float

    def probability(self, levels: np.ndarray) -> np.ndarray:
        """Probability that rows are real, by the levels that they got.

        Parameters
        ----------
        levels : ndarray of int
            (n, n_labellers), `UNKNOWN_LEVEL` where a labeller says nothing.

        Returns
        -------
        ndarray
            (n,).
        """
        logit = np.full(len(levels), np.log(self.real_fraction / (1 - self.real_fraction)))
        for place, rates in enumerate(self.rates):
            known = levels[:, place] >= 0
            logit[known] += np.log(rates[1] / rates[0])[levels[known, place]]
        return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def fit_labellers(
    names: Sequence[str], levels: np.ndarray, start: np.ndarray, anchors: np.ndarray
) -> tuple[Labellers, np.ndarray]:
    """Find how labellers err, and the probability that each row is real.

    Parameters
    ----------
    names : sequence of str
        Of the labellers.
    levels : ndarray of int
        (n, n_labellers), `UNKNOWN_LEVEL` where a labeller says nothing.
    start : ndarray
        (n,) probabilities before the first step.
    anchors : ndarray
        (n,) probabilities that stay as they are; NaN elsewhere.

    Returns
    -------
    labellers : Labellers
    probability : ndarray
        (n,).

    Raises
    ------
    DataError
        If there are no rows or no labellers.

    Examples
    --------
    >>> levels = np.array([[1, 1], [1, 1], [0, 0], [0, 0], [1, 0]])  # the second labeller misses a real one
    >>> start, anchors = np.array([0.9, 0.9, 0.1, 0.1, 0.5]), np.array([1.0, np.nan, 0.0, np.nan, 1.0])
    >>> fit_labellers(["ann", "bob"], levels, start, anchors)[1].round(2).tolist()
    [1.0, 0.88, 0.0, 0.21, 1.0]
    """
    if not levels.size:
        raise DataError(
            f"soft labels of {len(levels)} rows by {len(names)} labellers; give rows, scores or annotations"
        )
    free = np.isnan(anchors)
    now = np.where(free, start, anchors)
    for _ in range(N_STEPS):
        rates = tuple(_count(levels[:, place], now) for place in range(levels.shape[1]))
        labellers = Labellers(tuple(names), rates, float((now.sum() + 1) / (len(now) + 2)))
        after = np.where(free, labellers.probability(levels), anchors)
        moved, now = np.abs(after - now).max(), after
        if moved < TOLERANCE:
            break
    return labellers, now


def _count(levels: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Fraction of bogus and of real rows at each level, (2, n_levels)."""
    known, n = levels >= 0, int(levels.max(initial=0)) + 1
    counts = np.stack([np.bincount(levels[known], part[known], n) for part in (1 - real, real)]).astype(float)
    usual = counts.sum(axis=0) + 1e-3
    counts += SMOOTHING * usual / usual.sum()
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def soften_labels(
    table: pd.DataFrame, *, scores: Sequence[str] = (), votes: pd.DataFrame | None = None, method: str = METHOD
) -> pd.DataFrame:
    """Give each row of a data set its probability of being real, and a weight; undecided rows included.

    Parameters
    ----------
    table : DataFrame
        Rows of a data set: label, metalabel, and host_offset_arcsec where there is one.
    scores : sequence of str
        Columns of earlier classifiers' scores that may count as labellers.
    votes : DataFrame, optional
        Annotators' decisions: id, labeller, label ("real", "bogus"; others say nothing).
    method : {"labellers", "mean"}
        By a model of how each labeller errs, or by the mean of the row's scores and annotations. Scores that look at
        the same pixels err together, which the model does not know.

    Returns
    -------
    DataFrame
        The rows with `layout.PROBABILITY_COLUMN` and `layout.WEIGHT_COLUMN`: 1 for a row whose label is decided or on
        which a score or annotator spoke, else 0. With the mean, rows without a label weigh up to `MOST_WEIGHT`, the
        more the less real they are, because bogus labels are few.

    Raises
    ------
    DataError
        If a column is missing.

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> rows = soften_labels(open_dataset("data/dataset").table, scores=["realbogus"])
    >>> rows.groupby("label")["label_probability"].mean().round(2).to_dict()
    {0: 0.01, 1: 0.99}
    """
    absent = [name for name in scores if name not in table]
    if absent:
        raise DataError(
            f"no column {absent[0]!r} for soft labels (has {', '.join(table.columns)}); correct their names"
        )
    if method not in ("labellers", "mean"):
        raise ConfigError(f"unknown soft_method {method!r}; give labellers or mean")
    if method == "mean":
        return _soften_by_mean(table, scores, votes)
    labellers = {name: _bin(table[name], SCORE_BINS) for name in scores} | _read_votes(table["id"], votes)
    spoken = np.any([level >= 0 for level in labellers.values()] or [np.zeros(len(table), bool)], axis=0)
    if "host_offset_arcsec" in table:
        labellers["galaxy"] = _bin(table["host_offset_arcsec"], HOST_BINS)
    label = _read_labels(table)
    ruled = (label >= 0) & ~(table["metalabel"].isin(COPIED).to_numpy() & bool(scores))
    labellers["rule"] = np.where(ruled, pd.factorize(table["metalabel"], sort=True)[0], UNKNOWN_LEVEL)
    mean = _mean_score(table, scores)
    start = np.where(label >= 0, np.take(START, label), START[0] + (START[1] - START[0]) * mean)
    anchors = table["metalabel"].map(ANCHORS).to_numpy(float)
    labellers = {name: levels for name, levels in labellers.items() if (levels >= 0).any()}
    found, probability = fit_labellers(list(labellers), np.stack(list(labellers.values()), axis=1), start, anchors)
    LOG.info("soft labels by %s: %.1f %% real", ", ".join(found.names), 100 * probability.mean())
    mixed = OWN_SHARE * label + (1 - OWN_SHARE) * probability
    probability = np.where((label >= 0) & np.isnan(anchors), mixed, probability)
    weight = ((label >= 0) | spoken).astype(float)
    return table.assign(**{layout.PROBABILITY_COLUMN: probability.round(6), layout.WEIGHT_COLUMN: weight})


def _read_labels(table: pd.DataFrame) -> np.ndarray:
    return pd.to_numeric(table["label"], errors="coerce").fillna(layout.UNKNOWN).to_numpy(int)


def _soften_by_mean(table: pd.DataFrame, scores: Sequence[str], votes: pd.DataFrame | None) -> pd.DataFrame:
    label, spoken = _read_labels(table), table[list(scores)].apply(pd.to_numeric, errors="coerce").clip(0, 1)
    for name, levels in _read_votes(table["id"], votes).items():
        spoken[name] = np.where(levels >= 0, levels, np.nan)
    mean = spoken.mean(axis=1).to_numpy(float)
    own = np.where(label >= 0, label, mean)
    known = np.where(np.isfinite(mean), mean, own)
    weight = np.where(label >= 0, 1.0, MOST_WEIGHT - (MOST_WEIGHT - 1) * known).round(6)
    probability = np.nan_to_num(OWN_SHARE * own + (1 - OWN_SHARE) * known, nan=0.5).round(6)
    return table.assign(**{layout.PROBABILITY_COLUMN: probability, layout.WEIGHT_COLUMN: np.nan_to_num(weight)})


def _mean_score(table: pd.DataFrame, scores: Sequence[str]) -> np.ndarray:
    if not scores:
        return np.full(len(table), 0.5)
    numbers = table[list(scores)].apply(pd.to_numeric, errors="coerce")
    return numbers.clip(0, 1).mean(axis=1).fillna(0.5).to_numpy(float)


def _bin(values: pd.Series, limits: Sequence[float]) -> np.ndarray:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    return np.where(np.isfinite(numbers), np.digitize(numbers, limits), UNKNOWN_LEVEL)


def _read_votes(ids: pd.Series, votes: pd.DataFrame | None) -> dict[str, np.ndarray]:
    if votes is None:
        return {}
    known = votes[votes["label"].isin(("real", "bogus"))]
    wide = known.assign(level=(known["label"] == "real").astype(int)).pivot_table(
        index="id", columns="labeller", values="level", aggfunc="last"
    )
    wide = wide.reindex(ids.astype(str)).fillna(UNKNOWN_LEVEL)
    return {f"annotator {name}": wide[name].to_numpy(int) for name in wide}


def read_votes(data_dir: Path | str) -> pd.DataFrame | None:
    """Annotators' decisions that a data set exported from eyeball brings along.

    Parameters
    ----------
    data_dir : path

    Returns
    -------
    DataFrame or None
        id, labeller, label; None where there are none.

    Examples
    --------
    >>> print(read_votes("data/dataset"))  # no annotator decided anything
    None
    """
    path = Path(data_dir) / layout.EYEBALL_CSV
    return read_csv(path) if path.exists() else None


def find_softener(
    source_dir: Path | str, scores: Sequence[str] | None, method: str = METHOD
) -> Callable[[pd.DataFrame], pd.DataFrame] | None:
    """Function that adds soft labels to rows of a data set.

    Parameters
    ----------
    source_dir : path
        Data set whose annotators count as labellers.
    scores : sequence of str or None
        As in `soften_labels`; None makes no soft labels.
    method : {"labellers", "mean"}
        As in `soften_labels`.

    Returns
    -------
    callable or None

    Examples
    --------
    >>> from gotorb.dataset.store import open_dataset
    >>> soften = find_softener("data/dataset", ["realbogus"])
    >>> int(soften(open_dataset("data/dataset").table)["label_weight"].sum())
    20
    """
    return (
        None if scores is None else partial(soften_labels, scores=scores, votes=read_votes(source_dir), method=method)
    )
