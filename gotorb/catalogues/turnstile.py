"""One turnstile for all processes of a user on a machine: so many at once, and so much time between two starts.

Locks belong to open files: the kernel lets go of them when a process dies in whatever way.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

LONGEST_WAIT_S = 600.0
"""A later next start is not believed: somebody changed the clock, or a service wants to be left alone for ever."""
POLL_S = 0.03


@dataclass(frozen=True)
class Deadline:
    """A moment on this process's clock.

    Attributes
    ----------
    at : float
        `time.monotonic` of it.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left_s(self) -> float:
        """Seconds left; negative when it has passed."""
        return self.at - time.monotonic()


@dataclass(frozen=True)
class Turnstile:
    """Lets few through at once and one after the other.

    Attributes
    ----------
    folder : Path
        Where the lock files are; the same for all who share the turnstile.
    n_at_once : int
        Passes that may be held at a time.
    pause_s : float
        Least time between two starts.
    """

    folder: Path
    n_at_once: int
    pause_s: float

    @contextmanager
    def passing(self, deadline: Deadline) -> Iterator[None]:
        """Hold a pass while the block runs.

        Raises
        ------
        TimeoutError
            If the deadline comes first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._take_pass(deadline)
        try:
            self._wait_for_start(deadline)
            yield
        finally:
            lock.release()

    def postpone(self, seconds: float) -> None:
        """Let nobody start before so many seconds have gone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "start.lock"):
            self._write_next(max(self._read_next(), time.time() + min(seconds, LONGEST_WAIT_S)))

    def _take_pass(self, deadline: Deadline) -> FileLock:
        locks = [FileLock(self.folder / f"pass-{i}.lock", blocking=False) for i in range(self.n_at_once)]
        while True:
            for lock in locks:
                try:
                    lock.acquire()
                    return lock
                except Timeout:
                    pass
            if deadline.left_s <= 0:
                raise TimeoutError("other look-ups of this machine were before it all the time")
            time.sleep(POLL_S * random.uniform(0.5, 1.5))

    def _wait_for_start(self, deadline: Deadline) -> None:
        while True:
            with FileLock(self.folder / "start.lock"):  # held for a moment only
                now = time.time()
                wait = self._read_next() - now
                if not 0 < wait <= LONGEST_WAIT_S:
                    self._write_next(now + self.pause_s)
                    return
            if deadline.left_s <= wait:
                raise TimeoutError(f"the next request may start in {wait:.0f} s only")
            time.sleep(wait)

    def _read_next(self) -> float:
        """Earliest next start [seconds of the clock on the wall]; 0 where none is known."""
        try:
            return float((self.folder / "next").read_text())
        except (OSError, ValueError):
            return 0.0

    def _write_next(self, when: float) -> None:
        (self.folder / "next").write_text(repr(when))
