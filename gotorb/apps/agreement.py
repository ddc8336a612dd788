"""How far labellers agree, beyond what chance would give.

References
----------
Cohen 1960, Educ. Psychol. Meas. 20, 37: kappa.
Fleiss, Cohen & Everitt 1969, Psychol. Bull. 72, 323: its standard error.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from gotorb.evaluation.intervals import Z_95, wilson_interval

DATA_SET = "(data set)"
"""Stands for the labels that the rows came with."""
COLUMNS = ("first", "second", "n", "percent", "percent_low", "percent_high", "kappa", "kappa_low", "kappa_high")


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Cohen's kappa of two labellers and its 95 % interval; NaN where it is not defined.

    Parameters
    ----------
    first, second : ndarray
        (n,) labels of the same rows, of any kind.

    Examples
    --------
    >>> kappa, low, high = cohen_kappa(np.array([1, 1, 0, 0] * 25), np.array([1, 0, 0, 0] * 25))
    >>> round(kappa, 3), round(low, 3), round(high, 3)
    (0.5, 0.353, 0.647)
    """
    kinds, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    table = np.zeros((len(kinds), len(kinds)))
    np.add.at(table, (codes[: len(first)], codes[len(first) :]), 1)
    n = table.sum()
    if n == 0:
        return np.nan, np.nan, np.nan
    p = table / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, expected = float(np.trace(p)), float(rows @ columns)
    if expected == 1.0:  # both gave one and the same label throughout
        return np.nan, np.nan, np.nan
    kappa = (observed - expected) / (1 - expected)
    weights = columns[:, None] + rows[None, :]
    off = ~np.eye(len(kinds), dtype=bool)
    a = float(np.sum(np.diag(p) * (1 - np.diag(weights) * (1 - kappa)) ** 2))
    b = (1 - kappa) ** 2 * float(np.sum((p * weights**2)[off]))
    c = (kappa - expected * (1 - kappa)) ** 2
    error = np.sqrt(max(a + b - c, 0.0) / n) / (1 - expected)
    return float(kappa), float(max(kappa - Z_95 * error, -1.0)), float(min(kappa + Z_95 * error, 1.0))


def compare_labellers(current: pd.DataFrame, known: pd.Series) -> pd.DataFrame:
    """Agreement of every two labellers on rows that both called real or bogus, and of each with the data set.

    Parameters
    ----------
    current : DataFrame
        labeller, id, label (`Journal.current`).
    known : Series
        The data set's labels (1, 0, -1) by id.

    Returns
    -------
    DataFrame
        Columns of COLUMNS; percents with Wilson's interval.
    """
    decided = current[current["label"].isin(("real", "bogus"))]
    votes = {name: part.set_index("id")["label"].eq("real").astype(int) for name, part in decided.groupby("labeller")}
    votes[DATA_SET] = known[known.isin((0, 1))]
    pairs = combinations(votes, 2)
    return pd.DataFrame([_compare(a, b, votes[a], votes[b]) for a, b in pairs], columns=list(COLUMNS))


def _compare(first: str, second: str, a: pd.Series, b: pd.Series) -> tuple[object, ...]:
    common = a.index.intersection(b.index)
    ours, theirs = a.loc[common].to_numpy(int), b.loc[common].to_numpy(int)
    n, hits = len(common), int((ours == theirs).sum())
    low, high = wilson_interval(hits, n) or (np.nan, np.nan)
    percent = 100 * hits / n if n else np.nan
    return (first, second, n, percent, 100 * low, 100 * high, *cohen_kappa(ours, theirs))
