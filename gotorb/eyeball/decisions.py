"""Decisions of annotators: the append-only journal, agreement between annotators, and export to a new data set.

References
----------
Cohen 1960, Educ. Psychol. Meas. 20, 37: kappa.
Fleiss, Cohen & Everitt 1969, Psychol. Bull. 72, 323: its standard error.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.dataset.folder import is_finished, unfinished
from gotorb.dataset.store import open_dataset
from gotorb.dataset.versions import CHANGE_COLUMNS, flips, removals, write_version
from gotorb.errors import ConfigError, DataError
from gotorb.evaluation.intervals import Z_95, wilson_interval
from gotorb.survey.ids import is_blank

LABELS = ("real", "bogus", "unsure", "flag")
ARTEFACTS = ("dipole", "cosmic ray", "hot pixel", "satellite", "ghost", "spike", "bleed", "edge", "bad subtraction",
             "other")  # fmt: skip
SOURCES = ("point", "nuclear", "variable", "moving")
TAGS, NOTE = "tags", "note"
"""Kinds of events that add to a label: names of `ARTEFACTS` or `SOURCES` joined by commas, and free text."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, labeller TEXT NOT NULL, id TEXT NOT NULL,
    kind TEXT NOT NULL, target TEXT, blind INTEGER NOT NULL, sequence TEXT NOT NULL, model TEXT NOT NULL,
    shown_ms INTEGER, made_at TEXT NOT NULL, value TEXT NOT NULL DEFAULT '', batch TEXT NOT NULL DEFAULT '',
    kept_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE INDEX IF NOT EXISTS events_target ON events (target) WHERE target IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_id ON events (id);
CREATE INDEX IF NOT EXISTS events_labeller ON events (labeller, number);
"""
ADDED = {"value": "TEXT NOT NULL DEFAULT ''", "batch": "TEXT NOT NULL DEFAULT ''"}
"""Columns that older journals do not have."""
CURRENT = """
SELECT labeller, id, kind AS label, blind, sequence, model, max(number) AS number FROM events AS event
WHERE kind NOT IN ('undo', 'tags', 'note')
AND NOT EXISTS (SELECT 1 FROM events WHERE target = event.uuid AND labeller = event.labeller)
{among} GROUP BY labeller, id ORDER BY labeller, number
"""
MARKS = """
SELECT labeller, id, kind, value, max(number) AS number FROM events AS event
WHERE kind IN ('tags', 'note')
AND NOT EXISTS (SELECT 1 FROM events WHERE target = event.uuid AND labeller = event.labeller)
{among} GROUP BY labeller, id, kind ORDER BY labeller, number
"""
HISTORY = """
SELECT number, uuid, id, kind AS label, value, batch FROM events AS event
WHERE labeller = ? AND number < ? AND kind != 'undo'
AND NOT EXISTS (SELECT 1 FROM events WHERE target = event.uuid AND labeller = event.labeller)
ORDER BY number DESC LIMIT ?
"""
LATEST = 2**62
MOST_BYTES = 1 << 24
"""Bytes of a row of a journal that are read."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One key press.

    Attributes
    ----------
    uuid : str
        Made by the page; the same event sent twice is one.
    labeller : str
        Name of the labeller.
    id : str
        Id of the row.
    kind : str
        real, bogus, unsure, flag, tags, note, or undo.
    target : str or None
        The uuid of the event that an undo takes back.
    blind : bool
        True when labels and scores were hidden.
    sequence : str
        The order in which rows were shown.
    model : str
        Model whose scores were there.
    shown_ms : int or None
        Time for which the stamp had been on screen.
    made_at : str
        The page's clock, ISO 8601.
    value : str
        Tags joined by commas, or the note.
    batch : str
        Common to the events of one key press on several rows, which one undo takes back.
    """

    uuid: str
    labeller: str
    id: str
    kind: str
    target: str | None = None
    blind: bool = False
    sequence: str = "as_is"
    model: str = ""
    shown_ms: int | None = None
    made_at: str = ""
    value: str = ""
    batch: str = ""


class Journal:
    """The journal at a path, made when absent; several servers may write to it.

    Parameters
    ----------
    path : path
        SQLite file.

    Raises
    ------
    DataError
        If it cannot be opened or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
            self._check_plain()
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")  # acknowledged means on disk
            self._connection.executescript(SCHEMA)
            self._add_columns()
            self._check_types()
        except sqlite3.Error as error:
            raise DataError(
                f"journal {self.path} cannot be used ({error}); fix its permissions or name another"
            ) from None

    def _check_plain(self) -> None:
        """Refuse a journal that computes: one with triggers, views or columns made by expressions."""
        self._connection.execute("PRAGMA trusted_schema=OFF")
        columns = self._connection.execute("PRAGMA table_xinfo(events)")
        odd = [("generated column", column[1]) for column in columns if column[6]]
        odd += self._connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')")
        if odd:
            raise sqlite3.DatabaseError(f"it holds the {odd[0][0]} {odd[0][1]!r}")

    def _check_types(self) -> None:
        """Refuse a journal whose names and texts are bytes or numbers."""
        texts = ("uuid", "labeller", "id", "kind", "value", "batch")
        wrong = " OR ".join(f"typeof({name}) != 'text'" for name in texts)
        if self._connection.execute(f"SELECT 1 FROM events WHERE {wrong} LIMIT 1").fetchone():
            raise sqlite3.DatabaseError("it holds events whose names are no text")

    def _add_columns(self) -> None:
        """Add the missing columns to a journal of an older version; its events are kept."""
        self._connection.execute("BEGIN IMMEDIATE")
        known = {row[1] for row in self._connection.execute("PRAGMA table_info(events)")}
        for name, kind in ADDED.items():
            if name not in known:
                self._connection.execute(f"ALTER TABLE events ADD COLUMN {name} {kind}")
        self._connection.execute("COMMIT")

    def append(self, events: Iterable[Event]) -> list[str]:
        """Keep events, all or none; known ids are skipped.

        Parameters
        ----------
        events : iterable of Event

        Returns
        -------
        list of str
            The uuids, now on disk.

        Raises
        ------
        DataError
            If the disk is full or the journal broken; nothing is acknowledged then.
        """
        names = [field.name for field in fields(Event)]
        marks = ", ".join("?" for _ in names)
        rows = [astuple(event) for event in events]
        insert = f"INSERT INTO events ({', '.join(names)}) VALUES ({marks}) ON CONFLICT (uuid) DO NOTHING"
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(insert, rows)
                self._connection.execute("COMMIT")
            except (sqlite3.Error, OverflowError, ValueError, TypeError) as error:
                self._roll_back()
                raise DataError(f"{len(rows)} events not kept in {self.path} ({error}); free space") from None
            except BaseException:
                self._roll_back()
                raise
        return [str(row[0]) for row in rows]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def current(self) -> pd.DataFrame:
        """The last decision of each labeller on each row that was not taken back: labeller, id, label, blind, ..."""
        return self._table(CURRENT.format(among="")).astype({"blind": bool})

    def votes(self, ids: Sequence[str]) -> pd.DataFrame:
        """Current decisions, as `current`, of some rows only.

        Parameters
        ----------
        ids : sequence of str

        Returns
        -------
        DataFrame
        """
        among = f"AND id IN ({', '.join('?' for _ in ids)})"
        return self._table(CURRENT.format(among=among), tuple(ids)).astype({"blind": bool})

    def marks(self, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """The last tags and the last note of each labeller on each row.

        Parameters
        ----------
        ids : sequence of str, optional
            All rows when left out.

        Returns
        -------
        DataFrame
            labeller, id, kind (tags or note), value, number.
        """
        if ids is None:
            return self._table(MARKS.format(among=""))
        return self._table(MARKS.format(among=f"AND id IN ({', '.join('?' for _ in ids)})"), tuple(ids))

    def count(self, labeller: str) -> int:
        """Count the rows that a labeller has decided on.

        Parameters
        ----------
        labeller : str

        Returns
        -------
        int
        """
        sql = f"SELECT count(*) AS n FROM ({CURRENT.format(among='AND labeller = ?')})"
        return int(self._table(sql, (labeller,))["n"].iloc[0])

    def history(self, labeller: str, *, before: int = LATEST, limit: int = 1000) -> pd.DataFrame:
        """Decisions of a labeller that can be taken back, the newest first.

        Parameters
        ----------
        labeller : str
        before : int
            Number of an event; only older ones.
        limit : int
            Largest number of decisions.

        Returns
        -------
        DataFrame
            number, uuid, id, label (the kind of the event), value, batch.
        """
        return self._table(HISTORY, (labeller, before, limit))

    def events(self) -> pd.DataFrame:
        """All events in order."""
        return self._table("SELECT * FROM events ORDER BY number")

    def _table(self, sql: str, values: tuple[object, ...] = ()) -> pd.DataFrame:
        with self._lock:
            try:
                found = self._connection.execute(sql, values)
                names = [column[0] for column in found.description]
                return pd.DataFrame(found.fetchall(), columns=names)
            except (sqlite3.Error, OverflowError, ValueError) as error:
                raise DataError(f"journal {self.path} cannot be read ({error}); ask for less, or try again") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


DATA_SET, GOLD, ITSELF = "(data set)", "(gold rows)", "(itself, repeated)"
"""Stand for the labels that the rows came with, for labels known to be right, and for a labeller's second look."""
AGAIN = " (again)"
"""Ends the id under which a repeated row is decided on a second time; no row of a data set is called so."""
COLUMNS = ("first", "second", "n", "percent", "percent_low", "percent_high", "kappa", "kappa_low", "kappa_high")


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Cohen's kappa of two labellers and its 95 % interval; NaN where it is not defined.

    Parameters
    ----------
    first, second : ndarray
        (n,) labels of the same rows, of any kind.

    Returns
    -------
    kappa, low, high : float
        Kappa and the limits of its interval.

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


def compare_labellers(current: pd.DataFrame, known: pd.Series, gold: pd.Series | None = None) -> pd.DataFrame:
    """Agreement of every two labellers on rows that both called real or bogus, and of each with the data set.

    Parameters
    ----------
    current : DataFrame
        labeller, id, label (`Journal.current`).
    known : Series
        The data set's labels (1, 0, -1) by id.
    gold : Series, optional
        Labels (1, 0) by id that are known to be right: the percent is each labeller's accuracy.

    Returns
    -------
    DataFrame
        Columns of COLUMNS; percents with Wilson's interval. Labellers with repeated rows have a line of their own.
    """
    decided = current[current["label"].isin(("real", "bogus"))]
    votes = {name: part.set_index("id")["label"].eq("real").astype(int) for name, part in decided.groupby("labeller")}
    again = {name: own[own.index.str.endswith(AGAIN)] for name, own in votes.items()}
    again = {name: own.set_axis(own.index.str.removesuffix(AGAIN)) for name, own in again.items() if len(own)}
    first = {name: own[own.index.isin(known.index)] for name, own in votes.items()}
    lines = [_compare(a, b, first[a], first[b]) for a, b in combinations(first, 2)]
    lines += [_compare(name, DATA_SET, own, known[known.isin((0, 1))]) for name, own in first.items()]
    lines += [] if gold is None else [_compare(name, GOLD, own, gold) for name, own in first.items()]
    lines += [_compare(name, ITSELF, first[name], own) for name, own in again.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _compare(first: str, second: str, a: pd.Series, b: pd.Series) -> tuple[object, ...]:
    common = a.index.intersection(b.index)
    ours, theirs = a.loc[common].to_numpy(int), b.loc[common].to_numpy(int)
    n, hits = len(common), int((ours == theirs).sum())
    low, high = wilson_interval(hits, n) or (np.nan, np.nan)
    percent = 100 * hits / n if n else np.nan
    return (first, second, n, percent, 100 * low, 100 * high, *cohen_kappa(ours, theirs))


ACTIONS = ("keep", "remove")
METALABEL = "marshall"
JOURNAL_COLUMNS = ("id", "labeller", "label", "blind", "sequence", "model", "tags", "note")


def join_votes(current: pd.DataFrame) -> pd.DataFrame:
    """The verdict on each row: a flag by anyone, else what most call it, else unsure.

    Parameters
    ----------
    current : DataFrame
        `Journal.current`.

    Returns
    -------
    DataFrame
        By id: verdict (real, bogus, unsure, flag, or disputed where as many say one as the other), n_real, n_bogus
        and labellers, joined by commas.

    Examples
    --------
    >>> votes = pd.DataFrame([("ann", "a", "real"), ("bob", "a", "real"), ("cy", "a", "bogus")],
    ...                      columns=["labeller", "id", "label"])
    >>> join_votes(votes).loc["a", "verdict"]
    'real'
    """
    votes = current.assign(**{kind: current["label"].eq(kind) for kind in ("real", "bogus", "flag")})
    grouped = votes.sort_values("labeller").groupby("id", sort=True)
    rows = grouped[["real", "bogus", "flag"]].sum().rename(columns={"real": "n_real", "bogus": "n_bogus"})
    balance = (rows["n_real"] - rows["n_bogus"]).to_numpy(int)
    torn = np.where(rows["n_real"] > 0, "disputed", "unsure")
    verdict = np.where(balance > 0, "real", np.where(balance < 0, "bogus", torn))
    verdict = np.where(rows["flag"] > 0, "flag", verdict)
    rows = rows.assign(verdict=verdict, labellers=grouped["labeller"].agg(", ".join))
    return rows[["verdict", "n_real", "n_bogus", "labellers"]]


def _find_changes(table: pd.DataFrame, verdicts: pd.DataFrame, *, flagged: str, unsure: str) -> pd.DataFrame:
    """Rows that get another label, and those that go.

    Parameters
    ----------
    table : DataFrame
        The data set's rows.
    verdicts : DataFrame
        From `join_votes`.
    flagged, unsure : {"keep", "remove"}
        Treatment of rows with these verdicts; disputed rows keep their label.

    Raises
    ------
    ConfigError
        If an action is unknown.
    """
    for name, action in (("flagged", flagged), ("unsure", unsure)):
        if action not in ACTIONS:
            raise ConfigError(f"unknown action {action!r} for {name} rows; choose {' or '.join(ACTIONS)}")
    verdict = verdicts["verdict"].reindex(table["id"]).to_numpy(object)
    who = verdicts["labellers"].reindex(table["id"]).to_numpy(object)
    parts = [pd.DataFrame(columns=list(CHANGE_COLUMNS))]
    for kind, label in (("real", layout.REAL), ("bogus", layout.BOGUS)):
        differs = np.flatnonzero((verdict == kind) & (table["label"].to_numpy() != label))
        for people in sorted(set(who[differs])):
            rows = differs[who[differs] == people]
            parts.append(flips(rows, f"eyeball: {people}", label=label, metalabel=METALABEL))
    for kind, action in (("flag", flagged), ("unsure", unsure)):
        rows = np.flatnonzero(verdict == kind)
        if action == "remove" and len(rows):
            parts.append(removals(rows, f"eyeball: {kind}"))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def write_labelled(
    data_dir: Path,
    new_dir: Path,
    current: pd.DataFrame,
    marks: pd.DataFrame,
    *,
    flagged: str = "keep",
    unsure: str = "keep",
) -> Path:
    """Write a new version with the labellers' labels, changes.csv, and their single labels, tags, notes as eyeball.csv.

    Parameters
    ----------
    data_dir, new_dir : Path
    current, marks : DataFrame
        As `Journal.current` and `Journal.marks`.
    flagged, unsure : {"keep", "remove"}
        Treatment of rows with these verdicts.

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If there is no decision on any row of the data set.
    """
    table = open_dataset(data_dir).table
    known = current[current["id"].isin(table["id"])]
    if known.empty:
        raise DataError(f"no decision on any row of {data_dir} in its journal; run `gotorb eyeball {data_dir}` first")
    changes = _find_changes(table, join_votes(known), flagged=flagged, unsure=unsure)
    votes = join_marks(known, marks[marks["id"].isin(table["id"])])
    if is_finished(new_dir):
        write_version(data_dir, new_dir, changes)  # refuses another version; of the same one only votes can differ
    with unfinished(new_dir):
        write_version(data_dir, new_dir, changes)
        write_csv(new_dir / layout.EYEBALL_CSV, votes, inert=True)
    return new_dir


def join_marks(current: pd.DataFrame, marks: pd.DataFrame) -> pd.DataFrame:
    """Decisions with the tags and notes of the same labeller; rows that have only these get no label.

    Parameters
    ----------
    current, marks : DataFrame
        As `Journal.current` and `Journal.marks`.

    Returns
    -------
    DataFrame
        Columns of `JOURNAL_COLUMNS`.
    """
    given = marks[marks["value"] != ""]
    wide = given.pivot(index=["labeller", "id"], columns="kind", values="value").reindex(columns=[TAGS, NOTE])
    joined = current.merge(wide.reset_index(), on=["labeller", "id"], how="outer")
    texts = joined[["label", "sequence", "model", TAGS, NOTE]].astype(object).fillna("")
    joined = joined.assign(**{name: texts[name] for name in texts}, blind=joined["blind"].eq(True))
    return joined.sort_values(["id", "labeller"])[list(JOURNAL_COLUMNS)].reset_index(drop=True)


def list_labels(data_dir: Path, current: pd.DataFrame) -> pd.DataFrame:
    """Candidates with a verdict of real or bogus, as `clean_data.relabel` and `add_marshall_cands` read them.

    Synthetic rows, which carry the candidate id of a minor planet elsewhere, and rows without one are left out.

    Parameters
    ----------
    data_dir : Path
    current : DataFrame
        As `Journal.current`.

    Returns
    -------
    DataFrame
        photometry_id, image_id (a candidate's id may start again in each image) and label.
    """
    table = open_dataset(data_dir).table
    verdict = join_votes(current)["verdict"].reindex(table["id"]).to_numpy(object)
    blank = pd.Series("", index=table.index)
    candidate, image = (table.get(name, blank).astype(str) for name in ("candidate_id", "image_id"))
    usable = np.isin(verdict, ("real", "bogus")) & ~table["metalabel"].isin(layout.SYNTHETIC) & ~is_blank(candidate)
    columns = {"photometry_id": candidate[usable], "image_id": image[usable]}
    return pd.DataFrame(columns | {"label": (verdict[usable] == "real").astype(int)}).reset_index(drop=True)
