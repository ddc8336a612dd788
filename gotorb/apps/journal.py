"""The journal of decisions: an append-only SQLite file that a killed server leaves whole.

Each decision is an event with an id made by the page that saw the key. A page sends it again until the journal has
acknowledged it, and the same id twice is one event. Nothing is ever changed: taking back is an event too.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pandas as pd

from gotorb.errors import DataError

LABELS = ("real", "bogus", "unsure", "flag")
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, labeller TEXT NOT NULL, id TEXT NOT NULL,
    kind TEXT NOT NULL, target TEXT, blind INTEGER NOT NULL, sequence TEXT NOT NULL, model TEXT NOT NULL,
    shown_ms INTEGER, made_at TEXT NOT NULL, kept_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')));
CREATE INDEX IF NOT EXISTS events_target ON events (target) WHERE target IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_id ON events (id);
CREATE INDEX IF NOT EXISTS events_labeller ON events (labeller, number);
"""
CURRENT = """
SELECT labeller, id, kind AS label, blind, sequence, model, max(number) AS number FROM events AS event
WHERE kind != 'undo' AND NOT EXISTS (SELECT 1 FROM events WHERE target = event.uuid AND labeller = event.labeller)
{among} GROUP BY labeller, id ORDER BY labeller, number
"""
HISTORY = """
SELECT number, uuid, id, kind AS label FROM events AS event
WHERE labeller = ? AND number < ? AND kind != 'undo'
AND NOT EXISTS (SELECT 1 FROM events WHERE target = event.uuid AND labeller = event.labeller)
ORDER BY number DESC LIMIT ?
"""
LATEST = 2**62


@dataclass(frozen=True)
class Event:
    """One key press.

    Attributes
    ----------
    uuid : str
        Made by the page; the same event sent twice is one.
    labeller : str
        Who decided.
    id : str
        Id of the row.
    kind : str
        real, bogus, unsure, flag, or undo.
    target : str or None
        The uuid of the event that an undo takes back.
    blind : bool
        Whether labels and scores were hidden.
    sequence : str
        The order in which rows were shown.
    model : str
        Whose scores were there.
    shown_ms : int or None
        How long the stamp had been on screen.
    made_at : str
        The page's clock, ISO 8601.
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


class Journal:
    """The journal at a path, made when absent; several servers may write to it.

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
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")  # acknowledged means on disk
            self._connection.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise DataError(f"journal {self.path} cannot be used ({error}); mend its rights or name another") from None

    def append(self, events: Iterable[Event]) -> list[str]:
        """Keep events, all or none; known ids are passed over.

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
        insert = f"INSERT OR IGNORE INTO events ({', '.join(names)}) VALUES ({marks})"
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(insert, rows)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise DataError(f"{len(rows)} events not kept in {self.path} ({error}); free space") from None
        return [str(row[0]) for row in rows]

    def current(self) -> pd.DataFrame:
        """The last decision of each labeller on each row that was not taken back: labeller, id, label, blind, ..."""
        return self._table(CURRENT.format(among="")).astype({"blind": bool})

    def votes(self, ids: Sequence[str]) -> pd.DataFrame:
        """As `current`, of some rows only."""
        among = f"AND id IN ({', '.join('?' for _ in ids)})"
        return self._table(CURRENT.format(among=among), tuple(ids)).astype({"blind": bool})

    def count(self, labeller: str) -> int:
        """How many rows a labeller has decided on."""
        sql = f"SELECT count(*) AS n FROM ({CURRENT.format(among='AND labeller = ?')})"
        return int(self._table(sql, (labeller,))["n"].iloc[0])

    def history(self, labeller: str, *, before: int = LATEST, limit: int = 1000) -> pd.DataFrame:
        """A labeller's decisions that can be taken back, the newest first: number, uuid, id, label."""
        return self._table(HISTORY, (labeller, before, limit))

    def events(self) -> pd.DataFrame:
        """Everything, in order."""
        return self._table("SELECT * FROM events ORDER BY number")

    def _table(self, sql: str, values: tuple[object, ...] = ()) -> pd.DataFrame:
        with self._lock:
            found = self._connection.execute(sql, values)
            names = [column[0] for column in found.description]
            return pd.DataFrame(found.fetchall(), columns=names)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
