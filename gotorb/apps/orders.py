"""In which order rows are shown, and which of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from gotorb import layout

Key = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True)
class Filters:
    """Which rows are shown; empty means all.

    Attributes
    ----------
    metalabels, telescopes : tuple of str
        Values wanted of metalabel and of ut.
    min_mag, max_mag : float or None
        Limits of the magnitude; a row without one is outside.
    who : str
        all; mine_left: not yet decided by the labeller; second: decided by others only; disputed: others differ;
        mine: decided by the labeller.
    rows : tuple of int
        Row numbers, in their order: a selection from the explorer.
    """

    metalabels: tuple[str, ...] = ()
    telescopes: tuple[str, ...] = ()
    min_mag: float | None = None
    max_mag: float | None = None
    who: str = "all"
    rows: tuple[int, ...] = field(default=())


def _distance(rows: pd.DataFrame) -> np.ndarray:
    """How certain a row is: its confidence, and without one the distance of its score from one half."""
    if "confidence" in rows:
        return rows["confidence"].to_numpy(float)
    return np.abs(rows["score"].to_numpy(float) - 0.5)


def disagreement(rows: pd.DataFrame) -> np.ndarray:
    """|label - score| of each row; NaN where one of the two is unknown."""
    label = rows["label"].to_numpy(float)
    return np.where(label == layout.UNKNOWN, np.nan, np.abs(label - rows["score"].to_numpy(float)))


ORDERS: dict[str, tuple[str, tuple[str, ...], Key]] = {
    "as_is": ("as they stand", (), lambda rows: np.arange(len(rows), dtype=float)),
    "uncertain": ("uncertain first", ("score",), _distance),
    "bald": ("most to learn from (BALD)", ("bald",), lambda rows: -rows["bald"].to_numpy(float)),
    "disagreement": ("model against label", ("score",), lambda rows: -disagreement(rows)),
    "suspects": ("suspected label errors", ("doubt",), lambda rows: -rows["doubt"].to_numpy(float)),
    "random": ("random", (), lambda rows: np.zeros(len(rows))),
}
"""Name -> (text, columns needed, key that grows along the order)."""


def usable_orders(rows: pd.DataFrame) -> dict[str, bool]:
    """Which orders the rows' columns allow."""
    return {
        name: all(column in rows and rows[column].notna().any() for column in needed)
        for name, (_, needed, _) in ORDERS.items()
    }


def order_rows(rows: pd.DataFrame, order: str, kept: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Row numbers in an order.

    Parameters
    ----------
    rows : DataFrame
        All rows: label, and where known score, confidence, bald, doubt.
    order : str
        A name of ORDERS; rows whose key is unknown come last (suspects: are left out).
    kept : ndarray of bool
        Which rows are shown, (n,).
    seed : int
        Of the order random.
    """
    if order == "random":
        shuffled = np.random.default_rng([seed, len(rows)]).permutation(len(rows))
        return shuffled[kept[shuffled]]
    key = ORDERS[order][2](rows)
    if order == "suspects":
        kept = kept & np.isfinite(key)
    ranked = np.argsort(key, kind="stable")  # NaN last
    return ranked[kept[ranked]]


def keep_rows(rows: pd.DataFrame, filters: Filters, current: pd.DataFrame, labeller: str) -> np.ndarray:
    """Which rows pass the filters, (n,) of bool; `current` is `Journal.current`."""
    kept = np.ones(len(rows), bool)
    if filters.metalabels:
        kept &= rows["metalabel"].isin(filters.metalabels).to_numpy()
    if filters.telescopes and "ut" in rows:
        kept &= rows["ut"].isin(filters.telescopes).to_numpy()
    if filters.min_mag is not None and "mag" in rows:
        kept &= rows["mag"].to_numpy(float) >= filters.min_mag
    if filters.max_mag is not None and "mag" in rows:
        kept &= rows["mag"].to_numpy(float) <= filters.max_mag
    if filters.rows:
        chosen = np.zeros(len(rows), bool)
        chosen[[row for row in filters.rows if row < len(rows)]] = True
        kept &= chosen
    return kept & _by_labellers(rows["id"], filters.who, current, labeller)


def _by_labellers(ids: pd.Series, who: str, current: pd.DataFrame, labeller: str) -> np.ndarray:
    if who == "all":
        return np.ones(len(ids), bool)
    own = current["labeller"] == labeller
    mine = ids.isin(current.loc[own, "id"]).to_numpy()
    if who == "disputed":
        kinds = current.groupby("id")["label"].nunique()
        return ids.isin(kinds.index[kinds > 1]).to_numpy()
    if who == "second":
        return ids.isin(current.loc[~own, "id"]).to_numpy() & ~mine
    return mine if who == "mine" else ~mine
