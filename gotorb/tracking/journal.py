"""What a run has to tell, on disk before any server hears of it, so that no server can lose or slow a run.

A journal is a folder: ``events.jsonl`` with one event a line, the files that events speak of, and ``sent.json`` with
the number of events that the tracking store has. Once all are sent the folder goes; ``gotorb sync`` sends what is left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

EVENTS, SENT, OWNER, CARRIER = "events.jsonl", "sent.json", "process.json", "courier.json"
FORSAKEN_S = 24 * 3600.0
"""Age of the last event at which the process of another machine counts as gone."""
Event = dict[str, Any]


class Journal:
    """The events of one run, in order.

    Parameters
    ----------
    folder : Path
        Made when it is new.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def new(cls, parent: Path) -> Journal:
        """Start a journal in a folder of its own; later ones have later names."""
        journal = cls(parent / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}")
        journal.claim(OWNER, os.getpid())
        return journal

    def claim(self, role: str, pid: int) -> None:
        """Note that a process is at work on the journal: who writes it (OWNER), or brings it to the store (CARRIER)."""
        known = {"host": socket.gethostname(), "pid": pid, "started": psutil.Process(pid).create_time()}
        (self.folder / role).write_text(json.dumps(known))

    @property
    def owner_lives(self) -> bool:
        """Whether a process is still at work on the journal."""
        return any(self._lives(role) for role in (OWNER, CARRIER))

    @property
    def is_underway(self) -> bool:
        """Whether its run has ended and a courier is bringing the rest of it to the store."""
        return not self._lives(OWNER) and self._lives(CARRIER)

    def _lives(self, role: str) -> bool:
        try:
            owner = json.loads((self.folder / role).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if owner["host"] != socket.gethostname():
            return time.time() - (self.folder / EVENTS).stat().st_mtime < FORSAKEN_S
        try:  # another process may have got the number since
            process = psutil.Process(owner["pid"])
            return abs(process.create_time() - owner["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def release(self) -> None:
        """Say that no more will be written, though the process lives on."""
        (self.folder / OWNER).unlink(missing_ok=True)

    def close_if_orphaned(self) -> None:
        """End a run whose process was killed before it could."""
        if not self.owner_lives:
            self.close()

    def close(self) -> None:
        """End a run whose writer is gone, unless it has told its end."""
        path = self.folder / EVENTS
        if not path.exists():  # its courier has just come back
            return
        content = path.read_bytes()  # the cut may be inside a letter
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the kill came while a line was written
            path.write_bytes(whole)
        if whole and self._last_kind() != "end":
            self.add("end", status="KILLED")

    def _last_kind(self) -> str:
        return next((event["kind"] for event in map(_parse, reversed(self._lines())) if event), "")

    def _lines(self) -> list[str]:
        path = self.folder / EVENTS
        # not splitlines(), which cuts at more than the end of a line
        return path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []

    @property
    def key(self) -> str:
        """Name by which the tracking store knows the run, whichever of its own it gives it."""
        return self.folder.name

    def add(self, kind: str, **content: Any) -> None:
        """Append an event; the time is that of the call."""
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000} | content, default=str)
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def place(self, name: str) -> Path:
        """Where a file that an event speaks of is to be put."""
        path = self.folder / f"{uuid.uuid4().hex[:12]}" / Path(name).name
        path.parent.mkdir()
        return path

    def keep_file(self, path: Path, name: str = "") -> str:
        """Copy a file into the journal, under another name where one is given; gives its place there."""
        target = self.place(name or path.name)
        shutil.copyfile(path, target)
        return str(target.relative_to(self.folder))

    def unsent(self) -> Iterator[Event]:
        """Events that the tracking store does not have; a line cut off by a kill is the last, and left out."""
        for line in self._lines()[self.sent["n"] :]:
            event = _parse(line)
            if event is None:
                return
            yield event

    @property
    def sent(self) -> dict[str, Any]:
        """How many events the tracking store has (n), and its name of the run (run_id)."""
        path = self.folder / SENT
        return json.loads(path.read_text()) if path.exists() else {"n": 0, "run_id": ""}

    def acknowledge(self, run_id: str) -> None:
        """One more event is in the tracking store."""
        content = json.dumps({"n": self.sent["n"] + 1, "run_id": run_id})
        part = self.folder / f"{SENT}.part"
        part.write_text(content)
        part.replace(self.folder / SENT)

    def finish(self) -> None:
        """Remove the journal when all is sent."""
        if not any(True for _ in self.unsent()):
            # first what makes it a journal: nobody is to find it half removed and send it again
            (self.folder / EVENTS).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def _parse(line: str) -> Event | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def find_journals(parent: Path) -> list[Journal]:
    """Journals with something unsent, the oldest first."""
    folders = sorted(path for path in parent.glob("*") if (path / EVENTS).exists()) if parent.is_dir() else []
    return [Journal(path) for path in folders]
