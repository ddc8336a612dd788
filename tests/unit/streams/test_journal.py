"""The journal: a batch whole or not at all, each alert once, every offset accounted for."""

import random
import threading
from pathlib import Path

import pytest

from gotorb.errors import DataError, JournalFailed, StreamError
from gotorb.streams.consumer import choose_start
from gotorb.streams.journal import Batch, DeadLetter, Journal, Place, Row

PART = ("t", 0)


def row(offset: int, alert_id: str | None = None, score: float | None = 0.5, part: int = 0) -> Row:
    place = Place("t", part, offset)
    return Row(place=place, survey="ztf", alert_id=alert_id or f"{part}-{offset}", object_id="o", ra=1.0, dec=2.0,
               mjd=6e4, score=score)  # fmt: skip


def letter(offset: int) -> DeadLetter:
    return DeadLetter(place=Place("t", 0, offset), kind="unreadable", reason="broken", key=None, value=b"x")


def batch(*offsets: int) -> Batch:
    return Batch([Place("t", 0, one) for one in offsets], [row(one) for one in offsets])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path, ("m", "1", "d"))
    made.move(PART, 0, run="r", reason="")
    return made


def test_messages_that_were_passed_are_refused(journal: Journal) -> None:
    assert journal.write(batch(0, 1, 2)).ends == {PART: 3}
    again = journal.write(batch(1, 2, 3))  # a worker that wakes up, or a broker that sends again
    assert (again.counts["redelivered"], again.counts["scored"]) == (2, 1)
    assert journal.ledger()[0]["balanced"]
    assert journal.read("SELECT count(*) FROM scores") == [(4,)]


def test_two_journals_of_one_folder_exclude_each_other(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path, ("m", "1", "d"))
    rng, ends = random.Random(1), 0
    for _ in range(60):
        start = rng.randint(max(0, ends - 5), ends)
        written = rng.choice((journal, other)).write(batch(*range(start, start + rng.randint(1, 6))))
        ends = max(ends, written.ends[PART])
    assert journal.read("SELECT count(*), max(off) FROM scores") == [(ends, ends - 1)]
    assert journal.ledger()[0]["balanced"]


def test_holes_duplicates_and_several_alerts_of_a_message_add_up(journal: Journal) -> None:
    places = [Place("t", 0, one) for one in (0, 1, 5, 6)]
    rows = [row(0), row(0, "second"), row(5, "0-0"), row(6, score=None)]
    counts = journal.write(Batch(places, rows, [letter(1)])).counts
    assert counts == {"scored": 2, "duplicates": 1, "bare": 1, "dead": 1, "gaps": 3}
    (entry,) = journal.ledger()
    assert (entry["consumed"], entry["extra"], entry["gaps"], entry["balanced"]) == (7, 1, 3, True)


def test_a_lost_row_is_seen_in_the_ledger(journal: Journal) -> None:
    journal.write(batch(0, 1))
    journal.read("DELETE FROM scores WHERE off = 1")
    assert not journal.ledger()[0]["balanced"]


def test_the_ledger_adds_up_while_others_write(journal: Journal, tmp_path: Path) -> None:
    def write() -> None:
        other = Journal(tmp_path, ("m", "1", "d"))
        for start in range(0, 900, 3):
            other.write(Batch([Place("t", 0, start + one) for one in range(3)], [row(start), row(start + 1)],
                              [letter(start + 2)]))  # fmt: skip
        other.close()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    while thread.is_alive():
        (entry,) = journal.ledger()
        seen.append(entry["balanced"])
    thread.join()
    assert len(seen) > 3 and all(seen)


def test_a_full_disk_writes_nothing_of_a_batch(journal: Journal) -> None:
    journal.write(batch(0))
    (pages,) = journal.read("PRAGMA page_count")[0]
    journal.read(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(JournalFailed, match="full"):
        journal.write(batch(*range(1, 5000)))
    assert journal.positions()[PART][:2] == (0, 1)
    assert journal.read("SELECT count(*) FROM scores") == [(1,)]


def test_a_folder_keeps_its_model(journal: Journal, tmp_path: Path) -> None:
    journal.claim(model="sha256:a", group="g")
    journal.claim(model="sha256:a")
    with pytest.raises(DataError, match="sha256:b"):
        Journal(tmp_path).claim(model="sha256:b")


def test_dead_letters_are_revived_once(journal: Journal) -> None:
    journal.write(Batch([Place("t", 0, 0), Place("t", 0, 1)], [row(0, "part")], [letter(0), letter(1)]))
    found = journal.dead_letters()
    assert [one.place.offset for _, one in found] == [0, 1]
    counts = journal.revive([found[0][0]], Batch([], [row(0, "part"), row(0, "rest")]))
    assert counts == {"scored": 1}
    assert journal.revive([found[1][0]], Batch([], [], [letter(1)])) == {"dead": 1}
    (entry,) = journal.ledger()
    assert (entry["scored"], entry["dead"], entry["balanced"]) == (2, 1, True)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalFailed, match=r"stream\.db"):
        Journal(tmp_path / "file")


@pytest.mark.parametrize(
    ("rule", "committed", "timed", "known", "first", "steps"),
    [
        ("committed", None, None, None, 10, []),
        ("committed", 15, None, None, 15, []),
        ("committed", 15, None, 18, 18, []),  # the journal is ahead
        ("committed", 18, None, 15, 15, [(18, "read elsewhere")]),  # the group is ahead
        ("committed", 5, None, 7, 7, [(10, "expired at the broker")]),
        ("committed", 5, None, None, 5, [(10, "expired at the broker")]),
        ("earliest", 15, None, None, 10, []),
        ("earliest", 15, None, 12, 12, []),
        ("latest", 15, None, None, 30, []),
        ("latest", 15, None, 12, 12, [(30, "left out by --from")]),
        ("latest", None, None, 5, 5, [(10, "expired at the broker"), (30, "left out by --from")]),
        ("2026-01-01", None, 20, None, 20, []),
        ("2026-01-01", None, None, None, 30, []),
    ],
)
def test_a_partition_begins_where_nothing_is_lost_unseen(
    rule: str, committed: int | None, timed: int | None, known: int | None, first: int, steps: list[tuple[int, str]]
) -> None:
    assert choose_start(rule, (10, 30), committed=committed, timed=timed, known=known) == (first, steps)


def test_a_topic_made_anew_is_refused() -> None:
    with pytest.raises(StreamError, match="another --group"):
        choose_start("committed", (0, 30), committed=None, timed=None, known=500)
