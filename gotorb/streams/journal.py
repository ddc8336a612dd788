"""Journal of a stream: one SQLite file with scores, dead letters, gaps and offsets, from which all else is derived.

A batch is one transaction. Messages before a partition's next offset are refused. So a frozen worker that wakes up, or
a broker that sends a message again, cannot duplicate a row.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gotorb.core import layout
from gotorb.errors import DataError, JournalFailed

BUSY_S = 60.0
"""Wait for other workers' transactions [s]."""
TABLES = """
CREATE TABLE IF NOT EXISTS about(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scores(
    survey TEXT NOT NULL, alert_id TEXT NOT NULL, image_id TEXT, object_id TEXT,
    ra REAL, dec REAL, mjd REAL, survey_score REAL,
    score REAL, mean REAL, std REAL, confidence REAL, called INTEGER, reason TEXT,
    model TEXT NOT NULL, version TEXT NOT NULL, model_digest TEXT NOT NULL, packet_sha256 BLOB,
    topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, t_event REAL, t_scored REAL NOT NULL,
    PRIMARY KEY(survey, alert_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offsets(
    topic TEXT NOT NULL, part INTEGER NOT NULL, first INTEGER NOT NULL, next INTEGER NOT NULL, run TEXT NOT NULL,
    extra INTEGER NOT NULL DEFAULT 0, redelivered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(topic, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead(
    topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL,
    key BLOB, value BLOB, t_event REAL, t REAL NOT NULL, PRIMARY KEY(topic, part, off));
CREATE TABLE IF NOT EXISTS duplicates(
    topic TEXT NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL, survey TEXT NOT NULL, alert_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS gaps(
    topic TEXT NOT NULL, part INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, reason TEXT NOT NULL,
    t REAL NOT NULL);
CREATE TABLE IF NOT EXISTS outbox(
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, t REAL NOT NULL,
    published INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS unpublished ON outbox(number) WHERE published = 0;
"""
EXPIRED, HOLE, SKIPPED, ELSEWHERE = "expired at the broker", "no message", "left out by --from", "read elsewhere"
"""Reasons of gaps. Holes are normal: transactions and compaction of a topic leave them."""


class Place(NamedTuple):
    """Place of a message."""

    topic: str
    part: int
    offset: int

    @property
    def partition(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.part


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scored alert, or one without cut-outs and the reason; `inputs` (mag, fwhm, snr) are not in the journal."""

    place: Place
    survey: str
    alert_id: str
    image_id: str = ""
    object_id: str
    ra: float
    dec: float
    mjd: float
    survey_score: float | None = None
    score: float | None = None
    mean: float | None = None
    std: float | None = None
    confidence: float | None = None
    called: int | None = None
    reason: str | None = None
    packet_sha256: bytes = b""
    t_event: float | None = None
    published: tuple[str, bytes] | None = None
    inputs: tuple[float | None, ...] = (None, None, None)


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that cannot be used, with its bytes."""

    place: Place
    kind: str
    reason: str
    key: bytes | None
    value: bytes | None
    t_event: float | None = None


@dataclass(frozen=True)
class Batch:
    """Results of some messages: every place has at least one row or dead letter."""

    places: list[Place] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True)
class Written:
    """Counts of a written batch, and the next offset of each of its partitions."""

    counts: Counter[str]
    ends: dict[tuple[str, int], int]


class Journal:
    """The journal of one folder, opened by one process.

    Parameters
    ----------
    folder : Path
        Made when absent.
    model : tuple of str, optional
        Name, version and digest for new rows.
    """

    def __init__(self, folder: Path, model: tuple[str, str, str] = ("", "", "")) -> None:
        self.path, self.model = Path(folder) / layout.STREAM_DB, model
        with self._told():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")
            self.db.executescript(TABLES)

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of the disk and of SQLite into one with an instruction."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise JournalFailed(
                f"the journal {self.path} cannot be used ({error}); free space or fix the permissions, then start "
                "again: offsets of unwritten rows are not committed"
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction: all of it is on disk afterwards, or nothing.

        Raises
        ------
        JournalFailed
            If the disk is full or the file cannot be written.
        """
        with self._told():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of the block see the same state while workers write."""
        with self._told():
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                self.db.execute("COMMIT")

    def read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query.

        Parameters
        ----------
        query : str
        *values
            Values for its question marks.

        Returns
        -------
        list of tuple
        """
        with self._told():
            return self.db.execute(query, values).fetchall()

    def claim(self, **about: str) -> None:
        """Bind the folder to a model, a group and a cluster.

        Parameters
        ----------
        **about
            Names and values; an empty value is not compared.

        Raises
        ------
        DataError
            If the folder belongs to another one.
        """
        with self.transaction() as db:
            for name, value in about.items():
                if value:
                    db.execute("INSERT OR IGNORE INTO about VALUES(?, ?)", (name, value))
            known = dict(db.execute("SELECT name, value FROM about").fetchall())
        for name, value in about.items():
            if value and known[name] != value:
                raise DataError(
                    f"{self.path.parent} belongs to the {name} {known[name]}, not {value}; give another --out folder"
                )

    def note(self, **about: str) -> None:
        """Store values that may change from run to run.

        Parameters
        ----------
        **about
            Names and values.
        """
        with self.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO about VALUES(?, ?)", about.items())

    def positions(self) -> dict[tuple[str, int], tuple[int, int, str]]:
        """First and next offset of each partition, and the run that found its beginning."""
        found = self.read("SELECT topic, part, first, next, run FROM offsets")
        return {(topic, part): (first, end, run) for topic, part, first, end, run in found}

    def move(self, partition: tuple[str, int], start: int, *, run: str, reason: str, first: int | None = None) -> int:
        """Move a partition forward, and record the skipped offsets as a gap.

        Parameters
        ----------
        partition : tuple
            Topic and partition.
        start : int
            Offset to continue from, if the partition is not beyond it.
        run : str
            Id of the run that decided.
        reason : str
            Of the gap.
        first : int, optional
            First offset that counts, of a partition that is new here; `start` when left out.

        Returns
        -------
        int
            Next offset.
        """
        with self.transaction() as db:
            self._open_partition(db, partition, start if first is None else first, run)
            end = self._next(db, partition)
            if start > end:
                self._leave_out(db, partition, end, start, reason)
            db.execute("UPDATE offsets SET run = ? WHERE topic = ? AND part = ?", (run, *partition))
            return max(start, end)

    def _open_partition(self, db: sqlite3.Connection, partition: tuple[str, int], first: int, run: str) -> None:
        db.execute(
            "INSERT OR IGNORE INTO offsets(topic, part, first, next, run) VALUES(?, ?, ?, ?, ?)",
            (*partition, first, first, run),
        )

    def _next(self, db: sqlite3.Connection, partition: tuple[str, int]) -> int:
        found = db.execute("SELECT next FROM offsets WHERE topic = ? AND part = ?", partition).fetchone()
        if found is None:
            raise DataError(f"partition {partition} is not in {self.path}; call Journal.move first")
        return int(found[0])

    def _leave_out(self, db: sqlite3.Connection, partition: tuple[str, int], end: int, start: int, reason: str) -> None:
        db.execute("INSERT INTO gaps VALUES(?, ?, ?, ?, ?, ?)", (*partition, end, start - 1, reason, time.time()))
        db.execute("UPDATE offsets SET next = ? WHERE topic = ? AND part = ?", (start, *partition))

    def write(self, batch: Batch) -> Written:
        """Write a batch in one transaction; messages before a partition's next offset are left out.

        Parameters
        ----------
        batch : Batch

        Returns
        -------
        Written
            Counts: scored, bare (no cut-outs), dead, duplicates, redelivered, gaps.

        Raises
        ------
        JournalFailed
            If the disk is full or the file cannot be written; nothing of the batch is written then.
        """
        counts: Counter[str] = Counter()
        with self.transaction() as db:
            ends, accepted = self._pass(db, batch.places, counts)
            outcomes = Counter(row.place for row in batch.rows) + Counter(letter.place for letter in batch.dead)
            for row in batch.rows:
                if row.place in accepted:
                    counts[self._insert(db, row)] += 1
            for letter in batch.dead:
                if letter.place in accepted:
                    self._bury(db, letter)
                    counts["dead"] += 1
            for place in accepted:
                if extra := outcomes[place] - 1:
                    self._add(db, "extra", place.partition, extra)
        return Written(counts, ends)

    def _pass(
        self, db: sqlite3.Connection, places: Iterable[Place], counts: Counter[str]
    ) -> tuple[dict[tuple[str, int], int], set[Place]]:
        """Move the partitions behind the places; the ends, and the places that had not been passed."""
        by_partition: dict[tuple[str, int], list[Place]] = defaultdict(list)
        for place in places:
            by_partition[place.partition].append(place)
        ends, accepted = {}, set()
        for partition, found in by_partition.items():
            end = self._next(db, partition)
            for place in sorted(found):
                if place.offset < end:
                    counts["redelivered"] += 1
                    self._add(db, "redelivered", partition, 1)
                    continue
                if place.offset > end:
                    self._leave_out(db, partition, end, place.offset, HOLE)
                    counts["gaps"] += place.offset - end
                accepted.add(place)
                end = place.offset + 1
            db.execute("UPDATE offsets SET next = ? WHERE topic = ? AND part = ?", (end, *partition))
            ends[partition] = end
        return ends, accepted

    def _add(self, db: sqlite3.Connection, name: str, partition: tuple[str, int], n: int) -> None:
        db.execute(f"UPDATE offsets SET {name} = {name} + ? WHERE topic = ? AND part = ?", (n, *partition))

    def _insert(self, db: sqlite3.Connection, row: Row) -> str:
        """Insert a row once, and return the name of its count."""
        values = (
            row.survey, row.alert_id, row.image_id, row.object_id, row.ra, row.dec, row.mjd, row.survey_score,
            row.score, row.mean, row.std, row.confidence, row.called, row.reason, *self.model, row.packet_sha256,
            *row.place, row.t_event, time.time(),
        )  # fmt: skip
        marks = ", ".join("?" * len(values))
        if db.execute(f"INSERT INTO scores VALUES({marks}) ON CONFLICT DO NOTHING", values).rowcount == 0:
            db.execute("INSERT INTO duplicates VALUES(?, ?, ?, ?, ?)", (*row.place, row.survey, row.alert_id))
            return "duplicates"
        if row.published is not None:
            topic, value = row.published
            db.execute("INSERT INTO outbox(topic, key, value, t) VALUES(?, ?, ?, ?)",
                       (topic, row.alert_id, value, time.time()))  # fmt: skip
        return "bare" if row.score is None else "scored"

    def _bury(self, db: sqlite3.Connection, one: DeadLetter) -> None:
        values = (*one.place, one.kind, one.reason, one.key, one.value, one.t_event, time.time())
        db.execute("INSERT INTO dead VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def dead_letters(self, after: int = 0, n: int = 100) -> list[tuple[int, DeadLetter]]:
        """Dead letters in the order in which they were written.

        Parameters
        ----------
        after : int
            Number of the letter before the first.
        n : int
            Largest number of letters.

        Returns
        -------
        list of tuple
            (number, letter).
        """
        found = self.read(
            "SELECT rowid, topic, part, off, kind, reason, key, value, t_event FROM dead WHERE rowid > ? "
            "ORDER BY rowid LIMIT ?", after, n,
        )  # fmt: skip
        return [
            (number, DeadLetter(place=Place(topic, part, off), kind=kind, reason=reason, key=key, value=value,
                                t_event=t_event))
            for number, topic, part, off, kind, reason, key, value, t_event in found
        ]  # fmt: skip

    def revive(self, numbers: Iterable[int], batch: Batch) -> Counter[str]:
        """Replace dead letters by the results of reading them again.

        Parameters
        ----------
        numbers : iterable of int
            Letters that are read again, by `dead_letters`.
        batch : Batch
            Rows, and letters that are dead again.

        Returns
        -------
        Counter of str
            As for `write`.
        """
        counts: Counter[str] = Counter()
        outcomes = Counter(row.place for row in batch.rows) + Counter(letter.place for letter in batch.dead)
        with self.transaction() as db:
            for number in numbers:
                db.execute("DELETE FROM dead WHERE rowid = ?", (number,))
            for row in batch.rows:
                if self._holds(db, row):
                    outcomes[row.place] -= 1  # of a message that was read in part
                    continue
                counts[self._insert(db, row)] += 1
            for letter in batch.dead:
                self._bury(db, letter)
                counts["dead"] += 1
            for place, n in outcomes.items():
                self._add(db, "extra", place.partition, n - 1)
        return counts

    def _holds(self, db: sqlite3.Connection, row: Row) -> bool:
        """True for an alert of the same message that is in the journal already."""
        known = "SELECT 1 FROM {} WHERE survey = ? AND alert_id = ? AND topic = ? AND part = ? AND off = ?"
        where = (row.survey, row.alert_id, *row.place)
        return any(db.execute(known.format(table), where).fetchone() for table in ("scores", "duplicates"))

    def unpublished(self, n: int) -> list[tuple[int, str, str, bytes]]:
        """First rows of the outbox that are not published: number, topic, key, value.

        Parameters
        ----------
        n : int

        Returns
        -------
        list of tuple
        """
        return self.read("SELECT number, topic, key, value FROM outbox WHERE published = 0 ORDER BY number LIMIT ?", n)

    def mark_published(self, numbers: Iterable[int]) -> None:
        """Mark rows of the outbox that the broker has.

        Parameters
        ----------
        numbers : iterable of int
        """
        with self.transaction() as db:
            db.executemany("UPDATE outbox SET published = 1 WHERE number = ?", [(number,) for number in numbers])

    def ledger(self) -> list[dict[str, Any]]:
        """Offsets of each partition and the counts of their outcomes, taken from the rows themselves.

        Returns
        -------
        list of dict
            topic, part, first, next, consumed, scored, bare, dead, duplicates, gaps, redelivered, extra (alerts beyond
            the first of a message) and balanced: consumed + extra = scored + bare + dead + duplicates + gaps.
        """
        with self.snapshot():
            return self._ledger()

    def _ledger(self) -> list[dict[str, Any]]:
        groups = "FROM {} GROUP BY topic, part"
        scored = self._count("SELECT topic, part, count(score) " + groups.format("scores"))
        rows = self._count("SELECT topic, part, count(*) " + groups.format("scores"))
        dead = self._count("SELECT topic, part, count(*) " + groups.format("dead"))
        duplicates = self._count("SELECT topic, part, count(*) " + groups.format("duplicates"))
        gaps = self._count("SELECT topic, part, sum(last - first + 1) " + groups.format("gaps"))
        found = self.read("SELECT topic, part, first, next, extra, redelivered FROM offsets ORDER BY topic, part")
        return [
            balance({
                "topic": topic, "part": part, "first": first, "next": end, "consumed": end - first, "extra": extra,
                "redelivered": redelivered, "scored": scored.get((topic, part), 0),
                "bare": rows.get((topic, part), 0) - scored.get((topic, part), 0), "dead": dead.get((topic, part), 0),
                "duplicates": duplicates.get((topic, part), 0), "gaps": gaps.get((topic, part), 0),
            })
            for topic, part, first, end, extra, redelivered in found
        ]  # fmt: skip

    def _count(self, query: str) -> dict[tuple[str, int], int]:
        return {(topic, part): n for topic, part, n in self.read(query)}


def balance(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Add ``balanced``: the counts of a partition sum to its messages.

    Parameters
    ----------
    entry : mapping
        Counts, see `Journal.ledger`.

    Returns
    -------
    dict
        The same with ``balanced``.

    Examples
    --------
    >>> counts = dict(consumed=3, extra=0, scored=1, bare=0, dead=1, duplicates=0, gaps=1)
    >>> balance(counts)["balanced"]
    True
    """
    outcomes = sum(entry[name] for name in ("scored", "bare", "dead", "duplicates", "gaps"))
    return {**entry, "balanced": entry["consumed"] + entry["extra"] == outcomes}


def open_existing(folder: Path) -> Journal:
    """Open the journal of a stream that has run.

    Parameters
    ----------
    folder : Path
        ``--out`` of `gotorb stream`.

    Returns
    -------
    Journal

    Raises
    ------
    DataError
        If there is none.
    """
    if not (Path(folder) / layout.STREAM_DB).is_file():
        raise DataError(f"no {layout.STREAM_DB} in {folder}; give the --out folder of a `gotorb stream`")
    return Journal(folder)
