"""Journal of a run: events are written to disk first, and delivered from there to the tracking store.

A journal is a folder: ``events.jsonl`` with one event a line, the files that events speak of, and ``sent.json`` with
the number of events that the tracking store has. Once all are sent the folder goes; ``gotorb sync`` sends what is left.
An event that is sent twice is in the store once. A line that was cut, by a kill or a full disk, costs that line alone.
"""

from __future__ import annotations

import errno
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

EVENTS, SENT, OWNER = "events.jsonl", "sent.json", "process.json"
FORSAKEN_S = 24 * 3600.0
"""Age of the last event at which the process of another machine counts as gone."""
Event = dict[str, Any]
CUT = "cut"
"""Kind of an event whose line was cut, by a kill or a full disk."""


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
        """Start a journal of this process in a folder of its own; later ones have later names.

        Parameters
        ----------
        parent : Path
            Folder of all journals.

        Returns
        -------
        Journal
            Without events.
        """
        journal = cls(parent / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        (journal.folder / OWNER).write_text(json.dumps(owner))
        return journal

    @property
    def owner_lives(self) -> bool:
        """True while the process that writes the journal is at work."""
        try:
            owner = json.loads((self.folder / OWNER).read_text())
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
        path = self.folder / EVENTS
        if self.owner_lives or not path.exists():  # the last of it has just been sent
            return
        if path.stat().st_size and self._last_kind() != "end":
            self.add("end", status="KILLED")

    def _last_kind(self) -> str:
        return next((event["kind"] for event in map(_parse, reversed(self._lines())) if event["kind"] != CUT), "")

    def _lines(self) -> list[str]:
        """Complete lines; of a process that is gone, also a last one that was cut."""
        path = self.folder / EVENTS
        # not splitlines(), which cuts at more than the end of a line
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
        return lines if lines[-1] and not self.owner_lives else lines[:-1]

    @property
    def n_cut(self) -> int:
        """Lines that were cut."""
        return sum(event["kind"] == CUT or "after_cut" in event for event in map(_parse, self._lines()))

    @property
    def key(self) -> str:
        """Name of the run in the tracking store, whichever id the store gives it."""
        return self.folder.name

    def add(self, kind: str, **content: Any) -> None:
        """Append an event; the time is that of the call.

        Parameters
        ----------
        kind : str
            One of `delivery.SENDERS`.
        **content
            Of the event; plain values.
        """
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000} | content, default=str)
        with (self.folder / EVENTS).open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            whole = file.read(1) in (b"", b"\n")  # else the line before was cut, and only that one is lost
            content_of_line = (line if whole else f"\n{line}").encode() + b"\n"
            if file.write(content_of_line) != len(content_of_line):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _place(self, name: str) -> Path:
        """New path in the journal for a file of an event; its folder is made.

        Parameters
        ----------
        name : str
            Of the file.

        Returns
        -------
        Path
        """
        path = self.folder / f"{uuid.uuid4().hex[:12]}" / Path(name).name
        path.parent.mkdir()
        return path

    def keep_file(self, file: Path | str, name: str = "") -> str:
        """Copy a file into the journal.

        Parameters
        ----------
        file : Path or str
            The file, or its text.
        name : str
            Of the copy; the file's own when empty.

        Returns
        -------
        str
            Path relative to the journal.
        """
        target = self._place(name or Path(file).name)
        if isinstance(file, Path):
            shutil.copyfile(file, target)
        else:
            target.write_text(file, encoding="utf-8")
        return str(target.relative_to(self.folder))

    def unsent(self) -> Iterator[Event]:
        """Events that the tracking store does not have; a line that was cut is an event of the kind `CUT`."""
        yield from map(_parse, self._lines()[self.sent["n"] :])

    @property
    def sent(self) -> dict[str, Any]:
        """Number of events that the tracking store has (n), and its name of the run (run_id)."""
        path = self.folder / SENT
        return json.loads(path.read_text()) if path.exists() else {"n": 0, "run_id": ""}

    def acknowledge(self, run_id: str) -> None:
        """Record that one more event is in the tracking store.

        Parameters
        ----------
        run_id : str
            The store's name of the run.
        """
        content = json.dumps({"n": self.sent["n"] + 1, "run_id": run_id})
        part = self.folder / f"{SENT}.part"
        part.write_text(content)
        part.replace(self.folder / SENT)

    def finish(self) -> None:
        """Remove the journal when all is sent."""
        if not any(True for _ in self.unsent()):
            # first what makes it a journal: no process may find it half removed and send it again
            (self.folder / EVENTS).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def _parse(line: str) -> Event:
    """The event of a line; one that was cut may have the next event behind it, which says so under "after_cut"."""
    for cut, start in ((False, 0), (True, line.rfind('{"kind": '))):
        try:
            event = json.loads(line[start:]) if start >= 0 else None
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict) and "kind" in event:
            return event | {"after_cut": True} if cut else event
    return {"kind": CUT}


def find_journals(parent: Path) -> list[Journal]:
    """Journals with unsent events, the oldest first.

    Parameters
    ----------
    parent : Path

    Returns
    -------
    list of Journal
    """
    folders = sorted(path for path in parent.glob("*") if (path / EVENTS).exists()) if parent.is_dir() else []
    return [Journal(path) for path in folders]
