"""Rows of a data set as the pages show them: values, filters and sort orders; stamps stay on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset, read_csv
from gotorb.errors import DataError
from gotorb.evaluation.posterior import posterior_density
from gotorb.eyeball.context import Context, make_links, night_of
from gotorb.eyeball.decisions import AGAIN
from gotorb.eyeball.inference import Opinions

Key = Callable[[pd.DataFrame], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Selection of the rows to show; empty means all.

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
    """Certainty of each row: its confidence, and without one the distance of its score from one half."""
    if "confidence" in rows:
        return rows["confidence"].to_numpy(float)
    return np.abs(rows["score"].to_numpy(float) - 0.5)


def _disagreement(rows: pd.DataFrame) -> np.ndarray:
    """|label - score| of each row; NaN where one of the two is unknown."""
    label = rows["label"].to_numpy(float)
    return np.where(label == layout.UNKNOWN, np.nan, np.abs(label - rows["score"].to_numpy(float)))


def _places(rows: pd.DataFrame) -> np.ndarray:
    """Place of each row in the file of ids, or in the data set without one."""
    return rows["given"].to_numpy(float) if "given" in rows else np.arange(len(rows), dtype=float)


ORDERS: dict[str, tuple[str, tuple[str, ...], Key]] = {
    "as_is": ("as they stand", (), _places),
    "uncertain": ("uncertain first", ("score",), _distance),
    "bald": ("most to learn from (BALD)", ("bald",), lambda rows: -rows["bald"].to_numpy(float)),
    "disagreement": ("model against label", ("score",), lambda rows: -_disagreement(rows)),
    "suspects": ("suspected label errors", ("doubt",), lambda rows: -rows["doubt"].to_numpy(float)),
    "random": ("random", (), lambda rows: np.zeros(len(rows))),
}
"""Name -> (text, columns needed, key that grows along the order)."""


def usable_orders(rows: pd.DataFrame) -> dict[str, bool]:
    """Orders that the columns of the rows allow.

    Parameters
    ----------
    rows : DataFrame

    Returns
    -------
    dict of bool
        By name in `ORDERS`.
    """
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

    Returns
    -------
    ndarray of int
        (m,) row numbers.
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
    """Select the rows that pass the filters.

    Parameters
    ----------
    rows : DataFrame
    filters : Filters
    current : DataFrame
        As `Journal.current`.
    labeller : str

    Returns
    -------
    ndarray of bool
        (n,).
    """
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


NUMBERS = (
    "mag",
    "fwhm",
    "snr",
    "ra",
    "dec",
    "x",
    "y",
    "jd",
    "realbogus",
    "cnn_realbogus",
    "n_seen",
    "missing_fraction",
)
TEXTS = ("image_name", "object_id", "host_id", "candidate_id", "rule", "ut", "split")
GRID = np.linspace(0, 1, 151)
"""Scores at which a posterior's curve is drawn."""
SCORES = ("score", "std", "p_real", "confidence", "bald", "doubt")
KEPT = ("id", "label", "metalabel", *NUMBERS, *TEXTS)
N_NEIGHBOURS = 12
FEATURES = ("mag", "fwhm", "snr", "realbogus", "cnn_realbogus", "score")
"""Columns in whose space rows are compared when there is no model."""
PLACE = ("ra", "dec", "x", "y", "jd")
N_DIGITS, PLACE_DIGITS = 6, 10
"""Significant digits of numbers that are sent; six of a right ascension would be two arcsec."""


GOLD_EVERY, GAP = 10, 40
"""One gold row comes among so many others, and a repeat at least so many rows after the first look."""


@dataclass(frozen=True)
class Probes:
    """Rows that test annotators: gold rows and repeats, hidden among the others.

    A repeat of row r of n has the number n + r, and its decision an id of its own (`decisions.AGAIN`).

    Attributes
    ----------
    n : int
        Rows of the data set.
    gold : tuple of int
        Rows whose label is known.
    repeated : float
        Fraction of the rows that are shown twice.
    """

    n: int
    gold: tuple[int, ...] = ()
    repeated: float = 0.0

    @property
    def hidden(self) -> bool:
        """True when there are any, so that labels, scores and numbers may not tell them."""
        return bool(self.gold) or self.repeated > 0

    @property
    def n_shown(self) -> int:
        """Numbers that rows can have."""
        return 2 * self.n if self.repeated else self.n

    def mix(self, ordered: np.ndarray, seed: int) -> np.ndarray:
        """Mix gold rows and repeats into an order.

        Parameters
        ----------
        ordered : ndarray of int
            Row numbers.
        seed : int

        Returns
        -------
        ndarray of int
            The same for the same order and seed.
        """
        rng = np.random.default_rng([seed, self.n, len(ordered)])
        gold = rng.permutation(np.array(self.gold, int))
        rest = ordered[~np.isin(ordered, gold)]
        at = (np.arange(len(gold)) * GOLD_EVERY + rng.integers(0, GOLD_EVERY, len(gold))).clip(max=len(rest))
        mixed = np.insert(rest, at, gold)
        n_again = int(max(len(mixed) - GAP, 0) * self.repeated)
        first = ((np.arange(n_again) + rng.random(n_again)) / (self.repeated or 1)).astype(int)
        at = (first + GAP + rng.integers(0, GAP, n_again)).clip(max=len(mixed))
        return np.insert(mixed, at, mixed[first] + self.n)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A data set's rows with what a model says of them.

    Attributes
    ----------
    data : Dataset
        The data set.
    opinions : Opinions
        Scores, samples and maps.
    links : mapping of str
        Name of a service to the template of its address (`context.make_links`).
    given : tuple of int
        Row numbers of a file of ids, in its order; empty for all rows.
    gold : tuple of int
        Rows whose label is known, mixed into the others.
    repeated : float
        Fraction of the rows that are shown twice.
    """

    data: Dataset
    opinions: Opinions
    links: Mapping[str, str] = field(default_factory=dict)
    given: tuple[int, ...] = ()
    gold: tuple[int, ...] = ()
    repeated: float = 0.0

    @cached_property
    def probes(self) -> Probes:
        """Gold rows and repeats."""
        return Probes(len(self.data), self.gold, self.repeated)

    @cached_property
    def context(self) -> Context:
        """Other detections, and flags."""
        return Context(self.data, self.table)

    def _brief(self, row: int) -> dict[str, Any]:
        """A row as a line of another row's history."""
        values = self.table.iloc[row]
        numbers = {name: plain_number(values[name]) for name in ("mag", "score") if name in values}
        jd = plain_number(values["jd"], n_digits=PLACE_DIGITS) if "jd" in values else None
        return numbers | {"row": row, "label": int(values["label"]), "night": night_of(jd)}

    @cached_property
    def digest(self) -> str:
        """Identity of the content."""
        return data_digest(self.data.data_dir)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Columns that are shown, with scores, and doubt from label_errors.csv where it is."""
        rows = self.data.table
        table = rows[[name for name in KEPT if name in rows]].copy()
        for name in NUMBERS:
            if name in table:
                table[name] = pd.to_numeric(table[name], errors="coerce")
        for name in TEXTS:
            if name in table:
                table[name] = table[name].fillna("").astype(str)
        for name in self.opinions.table:
            table[name] = self.opinions.table[name].to_numpy()
        if self.given:
            table["given"] = pd.Series(np.arange(len(self.given), dtype=float), index=list(self.given))
        doubt = _read_doubt(self.data.data_dir)
        return table if doubt is None else table.assign(doubt=doubt.reindex(table["id"]).to_numpy())

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Row number by id."""
        return {id_: row for row, id_ in enumerate(self.table["id"])}

    def row_of(self, id_: str) -> int | None:
        """Row number of an id, also of that of a repeat; None when there is none.

        Parameters
        ----------
        id_ : str

        Returns
        -------
        int or None
        """
        again = self.probes.repeated and id_.endswith(AGAIN)
        row = self.number_of.get(id_.removesuffix(AGAIN) if again else id_)
        return None if row is None else row + len(self.data) if again else row

    def describe(self, number: int) -> dict[str, Any]:
        """One row, or a repeat of it, as plain values for json; unknown numbers are None.

        Parameters
        ----------
        number : int

        Returns
        -------
        dict
            With ``name``, the number that the page shows: that of the row itself for a repeat, too.
        """
        row = number % len(self.data)
        told = self._describe(row)
        return told | {"row": number, "name": row, "id": told["id"] + AGAIN * (number != row), "shown_id": told["id"]}

    def _describe(self, row: int) -> dict[str, Any]:
        values = self.table.iloc[row]
        told: dict[str, Any] = {"row": row, "id": str(values["id"]), "label": int(values["label"])}
        told["metalabel"] = str(values["metalabel"])
        told |= {
            name: plain_number(values[name], n_digits=PLACE_DIGITS if name in PLACE else N_DIGITS)
            for name in (*NUMBERS, *SCORES)
            if name in values
        }
        told |= {name: str(values[name]) for name in TEXTS if name in values}
        told["plate"] = self.context.plate(row)
        told["links"] = make_links(told, self.links)
        told["night"] = night_of(told.get("jd"))
        told["others"] = [self._brief(other) for other in self.context.others(row)]
        if self.opinions.samples is not None:
            samples = self.opinions.samples[row].astype(float)
            told["samples"] = samples.round(4).tolist()
            told["density"] = posterior_density(samples, GRID).round(4).tolist()
        return told

    def values(self, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Quantities that colour the points of the explorer.

        Parameters
        ----------
        rows : ndarray of int, optional
            Row numbers; all when left out.

        Returns
        -------
        dict of ndarray
            (n,) float32 each, NaN where unknown; texts as codes, see `kinds`.
        """
        table = self.table if rows is None else self.table.iloc[rows]
        found = {"label": np.where(table["label"] == layout.UNKNOWN, np.nan, table["label"])}
        found |= {name: table[name].to_numpy(float) for name in ("score", "std", "confidence") if name in table}
        if "score" in table:
            found["disagreement"] = _disagreement(table)
        for name, names in self.kinds.items():
            found[name] = table[name].map({kind: code for code, kind in enumerate(names)}).to_numpy(float)
        return {name: values.astype(np.float32) for name, values in found.items()}

    @cached_property
    def kinds(self) -> dict[str, list[str]]:
        """Values of metalabel and split, in order."""
        return {
            name: sorted(set(self.table[name].astype(str))) for name in ("metalabel", "split") if name in self.table
        }

    @cached_property
    def vectors(self) -> np.ndarray:
        """Places of the rows among each other, (n, k): latent components, else standardised features."""
        if self.opinions.vectors is not None:
            return self.opinions.vectors
        columns = [self.table[name].to_numpy(float) for name in FEATURES if name in self.table]
        columns = [values for values in columns if np.isfinite(values).any()] or [np.zeros(len(self.table))]
        scaled = [(values - np.nanmean(values)) / (np.nanstd(values) or 1) for values in columns]
        return np.nan_to_num(np.stack(scaled, axis=1), posinf=0, neginf=0).astype(np.float32)

    def neighbours(self, row: int, *, n: int = N_NEIGHBOURS) -> list[int]:
        """Rows nearest in the space of latent components, without the row itself.

        Parameters
        ----------
        row : int
        n : int
            Largest number of neighbours.

        Returns
        -------
        list of int
            The nearest first, by latent vectors, or by `FEATURES` without a model.
        """
        vectors = self.vectors
        distance = ((vectors - vectors[row]) ** 2).sum(axis=1)
        distance[row] = np.inf
        n = min(n, len(vectors) - 1)
        nearest = np.argpartition(distance, n - 1)[:n] if n else np.array([], int)
        return [int(other) for other in nearest[np.argsort(distance[nearest], kind="stable")]]


def plain_number(value: Any, *, n_digits: int = N_DIGITS) -> float | None:
    """Number for json, to some significant digits; None for one that is not finite.

    Parameters
    ----------
    value : float
    n_digits : int

    Returns
    -------
    float or None

    Examples
    --------
    >>> plain_number(265.0903217), plain_number(265.0903217, n_digits=10), plain_number(float("nan"))
    (265.09, 265.0903217, None)
    """
    number = float(value)
    return float(f"{number:.{n_digits}g}") if abs(number) < 1e4 and np.isfinite(number) else (
        number if np.isfinite(number) else None
    )  # fmt: skip


def _read_doubt(data_dir: Path) -> pd.Series | None:
    """Doubt of suspected label errors by id, from `gotorb data errors`; None without its file."""
    path = data_dir / layout.LABEL_ERRORS_CSV
    if not path.exists():
        return None
    found = read_csv(path)
    if "suspect" in found:
        found = found[found["suspect"].astype(str) == "True"]
    return found.drop_duplicates("id").set_index("id")["doubt"].astype(float)


def read_gold(path: Path | str, table: pd.DataFrame) -> pd.Series:
    """Labels known to be right, of a csv with an id and a label (1 or real, 0 or bogus).

    Parameters
    ----------
    path : path
    table : DataFrame
        The rows.

    Returns
    -------
    Series
        Labels 1 and 0 by row number.

    Raises
    ------
    DataError
        If the file has no label, another one, or none of the rows.
    """
    rows, listed = find_given(path, table), read_csv(Path(path))
    name = next((name for name in ID_COLUMNS if name in listed), "id")
    if not {name, "label"} <= set(listed):
        raise DataError(f"no id and label in {path} (has {', '.join(listed.columns)}); give 1 or 0 for each id")
    words = listed["label"].astype(str).str.removesuffix(".0").map({"1": 1, "real": 1, "0": 0, "bogus": 0})
    if words.isna().any():
        bad = listed["label"][words.isna()].iloc[0]
        raise DataError(f"label {bad!r} in {path}; give 1 or real, 0 or bogus")
    label_of = dict(zip(listed[name].astype(str), words.astype(int), strict=True))
    ids = table["id" if name == "id" else "candidate_id"].astype(str)
    return pd.Series({row: label_of[ids.iloc[row]] for row in rows if ids.iloc[row] in label_of}, dtype=int)


ID_COLUMNS = ("id", "candidate_id", "photometry_id")


def find_given(path: Path | str, table: pd.DataFrame) -> tuple[int, ...]:
    """Row numbers of the ids in a csv, for instance of `gotorb ask`, `gotorb night` or `gotorb data errors`.

    Parameters
    ----------
    path : path
        csv with a column of `ID_COLUMNS`, or a file with one id on each line.
    table : DataFrame
        The rows, with id and perhaps candidate_id.

    Returns
    -------
    tuple of int
        In the order of the file; ids that are not in the table are left out, and duplicates stand once.

    Raises
    ------
    DataError
        If the file cannot be read, or knows none of the rows.
    """
    try:
        listed = read_csv(Path(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as csv ({str(error).strip()}); give a file of ids") from None
    name = next((name for name in ID_COLUMNS if name in listed), None)
    wanted = (
        [str(listed.columns[0]), *listed.iloc[:, 0].astype(str)] if name is None else list(listed[name].astype(str))
    )
    known: dict[str, int] = {}
    for column in ("candidate_id", "id"):
        if column in table:
            known |= {str(text): row for row, text in enumerate(table[column]) if str(text)}
    found = tuple(dict.fromkeys(known[text] for text in wanted if text in known))
    if not found:
        columns = ", ".join(map(str, listed.columns))
        raise DataError(f"{path} ({columns}) names none of the {len(table)} rows; give ids of this data set")
    return found
