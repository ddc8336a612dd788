"""The journal keeps each decision once, whatever is sent how often, and takes back by adding."""

import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest

from gotorb.errors import DataError
from gotorb.eyeball.decisions import Event, Journal


def press(id_: str, kind: str = "real", *, by: str = "ann", target: Event | None = None) -> Event:
    return Event(uuid=str(uuid.uuid4()), labeller=by, id=id_, kind=kind, target=target.uuid if target else None)


def labels(journal: Journal) -> dict[tuple[str, str], str]:
    return {(row.labeller, row.id): row.label for row in journal.current().itertuples()}


def test_the_same_event_sent_twice_is_one(tmp_path: Path) -> None:
    journal, event = Journal(tmp_path / "j"), press("a")
    assert journal.append([event]) == [event.uuid]
    assert journal.append([event, press("b")])[0] == event.uuid
    assert journal.events()["id"].tolist() == ["a", "b"]


def test_the_last_decision_holds_and_undo_brings_back_the_one_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    first, second = press("a", "real"), press("a", "bogus")
    journal.append([first, second, press("a", "unsure", by="bob")])
    assert labels(journal) == {("ann", "a"): "bogus", ("bob", "a"): "unsure"}
    journal.append([press("a", "undo", target=second)])
    assert labels(journal)["ann", "a"] == "real"
    journal.append([press("a", "undo", target=first)])
    assert labels(journal) == {("bob", "a"): "unsure"}
    assert len(journal.events()) == 5


def test_nobody_takes_back_anothers_decision(tmp_path: Path) -> None:
    journal, event = Journal(tmp_path / "j"), press("a")
    journal.append([event, press("a", "undo", by="bob", target=event)])
    assert labels(journal) == {("ann", "a"): "real"}


def test_history_is_paged_from_the_newest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    events = [press(str(number)) for number in range(7)]
    journal.append(events)
    journal.append([press("6", "undo", target=events[6])])
    page = journal.history("ann", limit=4)
    assert page["id"].tolist() == ["5", "4", "3", "2"]
    assert journal.history("ann", before=int(page["number"].iloc[-1]))["id"].tolist() == ["1", "0"]
    assert journal.count("ann") == 6
    assert journal.votes(["1", "6"])["id"].tolist() == ["1"]


def test_two_servers_write_to_one_journal(tmp_path: Path) -> None:
    one, two = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    for number in range(20):
        (one if number % 2 else two).append([press(str(number))])
    assert len(one.current()) == 20
    assert sqlite3.connect(tmp_path / "j").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match="cannot be used"):
        Journal(tmp_path / "j")


@pytest.mark.parametrize(
    "change", [{"shown_ms": 2**70}, {"labeller": "\ud800"}, {"id": object()}, {"kind": None}, {"sequence": ["list"]}]
)
def test_any_failure_rolls_back(change: dict[str, Any], tmp_path: Path) -> None:
    journal, other = Journal(tmp_path / "j.sqlite"), Journal(tmp_path / "j.sqlite")
    good = {"labeller": "ann", "id": "row", "kind": "real"}
    with pytest.raises(DataError):
        journal.append([Event(uuid="1", **good), Event(uuid="2", **good | change)])
    assert journal.current().empty
    assert other.append([Event(uuid="3", **good)]) == ["3"]
    assert journal.current()["id"].tolist() == ["row"]
    with pytest.raises(DataError):
        journal.history("ann", before=2**70)


def test_a_journal_of_an_older_version_gets_its_columns_and_keeps_its_events(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "j")
    old.execute(
        "CREATE TABLE events (number INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE,"
        " labeller TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, target TEXT,"
        " blind INTEGER NOT NULL, sequence TEXT NOT NULL,"
        " model TEXT NOT NULL, shown_ms INTEGER, made_at TEXT NOT NULL, kept_at TEXT NOT NULL DEFAULT 'then')"
    )
    row = (
        "INSERT INTO events (uuid, labeller, id, kind, blind, sequence, model, made_at)"
        " VALUES (?, 'ann', ?, ?, 0, '', '', '')"
    )
    old.executemany(row, [("u1", "a", "real"), ("u2", "b", "bogus")])
    old.commit()
    old.close()
    for _ in range(2):
        journal = Journal(tmp_path / "j")
        assert labels(journal) == {("ann", "a"): "real", ("ann", "b"): "bogus"}
        assert journal.history("ann")[["id", "value", "batch"]].to_numpy().tolist() == [["b", "", ""], ["a", "", ""]]
        journal.close()
    journal = Journal(tmp_path / "j")
    journal.append([mark("a", "tags", "ghost")])
    assert journal.marks()["value"].tolist() == ["ghost"] and journal.events()["kept_at"].tolist()[:2] == [
        "then",
        "then",
    ]


def mark(id_: str, kind: str, value: str, *, by: str = "ann") -> Event:
    return Event(uuid=str(uuid.uuid4()), labeller=by, id=id_, kind=kind, value=value)


def test_tags_and_notes_stand_next_to_the_label_and_are_taken_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    first, second = mark("a", "tags", "dipole"), mark("a", "tags", "dipole,edge")
    journal.append(
        [press("a", "bogus"), first, second, mark("a", "note", 'odd, "very"'), mark("b", "tags", "ghost", by="bob")]
    )
    assert labels(journal) == {("ann", "a"): "bogus"} and journal.count("ann") == 1
    found = {(row.labeller, row.id, row.kind): row.value for row in journal.marks().itertuples()}
    assert found == {
        ("ann", "a", "tags"): "dipole,edge",
        ("ann", "a", "note"): 'odd, "very"',
        ("bob", "b", "tags"): "ghost",
    }
    journal.append([press("a", "undo", target=second)])
    assert journal.marks(["a"]).set_index("kind")["value"].to_dict() == {"tags": "dipole", "note": 'odd, "very"'}
