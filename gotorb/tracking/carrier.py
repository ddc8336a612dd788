"""Who brings a run's journal to the tracking store: the run's own process, or a courier beside it.

MLflow takes seconds to import and to write a model. A courier spends them on another core while the stage imports
TensorFlow and trains, so that a training waits only for what is left to send at its end.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gotorb.errors import TrackingError
from gotorb.logs import show_on_console
from gotorb.tracking.delivery import Delivery
from gotorb.tracking.journal import CARRIER, Journal

log = logging.getLogger(__name__)
LAST_SEND_S = 120.0
"""Seconds that a stage waits at its end for what its courier still has to send."""


class Carrier(Protocol):
    """Brings events to the store as they come."""

    @property
    def run_id(self) -> str:
        """The tracking store's name of the run; "" while it is not known."""

    def deliver(self) -> None:
        """Hand on what the store lacks; a store that fails is told of, and no more."""

    def finish(self) -> None:
        """Hand on what is left; the journal goes when the store has all of it."""


class Messenger:
    """Hands on within the process of the run; after a failure nothing more is tried until the end.

    Parameters
    ----------
    journal : Journal
        Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal, self._delivery, self._live = journal, Delivery(journal), True

    @property
    def run_id(self) -> str:
        """The tracking store's name of the run; "" while the store has not been reached."""
        return self._delivery.run_id

    def deliver(self) -> None:
        """Hand on what the store lacks."""
        if not self._live:
            return
        try:
            self._delivery.send()
        except TrackingError as error:
            self._live = False
            log.warning("%s; the run is recorded in %s, send it later with `gotorb sync`", error, self.journal.folder)

    def finish(self) -> None:
        """Hand on what is left, also after a failure."""
        self._live = True
        self.deliver()
        self.journal.release()
        self.journal.finish()


class Courier:
    """A process that hands on what the run writes, and goes on to the end when the run is killed.

    Parameters
    ----------
    journal : Journal
        Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal, self._run_id = journal, ""
        call = [sys.executable, "-m", __name__, str(journal.folder.resolve())]
        self._process = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        journal.claim(CARRIER, self._process.pid)

    @property
    def run_id(self) -> str:
        """The tracking store's name of the run; "" until the end."""
        return self._run_id

    def deliver(self) -> None:
        """Wake it."""
        with suppress(BrokenPipeError):  # told of at the end
            self._process.stdin.write("\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def finish(self) -> None:
        """Let it send what is left."""
        self.journal.release()
        try:
            told, _ = self._process.communicate(timeout=LAST_SEND_S)
            self._run_id = told.strip()
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode:
            log.warning("the run is recorded in %s, send it later with `gotorb sync`", self.journal.folder)


def main() -> None:
    """Carry the journal named on the command line; a line of input is an event, the end of it that of the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which has its end to tell
    show_on_console()
    journal = Journal(Path(sys.argv[1]))
    import mlflow  # noqa: F401  # the time that it takes is what the run is to be spared

    messenger = Messenger(journal)
    for _ in sys.stdin:
        messenger.deliver()
    journal.close()
    messenger.finish()
    print(messenger.run_id, flush=True)


if __name__ == "__main__":
    main()
