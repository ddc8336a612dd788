"""Who brings a run's journal to the tracking store: the run's own process, or a courier beside it.

MLflow takes seconds to import and to write a model, and no core is idle while a network trains. So a stage does not
wait for its courier: it sets out when the stage ends, or after some minutes, to show the progress of a long one.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from gotorb.errors import TrackingError
from gotorb.logs import show_on_console
from gotorb.settings import project_root
from gotorb.tracking.delivery import Delivery
from gotorb.tracking.journal import CARRIER, Journal
from gotorb.tracking.store import answers, shown_uri

log = logging.getLogger(__name__)
LIVE_AFTER_S = 240.0
"""Seconds after which a run is followed live: those that a courier takes to start are few beside so long a run."""
COURIER_LOG = "courier.log"
NICENESS = 10


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
    """A process that hands on what the run writes, and outlives it.

    Parameters
    ----------
    journal : Journal
        Of the run.
    """

    run_id = ""
    """Known to the courier only."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self._begun = journal, time.monotonic()
        self._process: subprocess.Popen[str] | None = None

    def deliver(self) -> None:
        """Wake the courier of a long run."""
        if self._process is None and time.monotonic() - self._begun < LIVE_AFTER_S:
            return
        process = self._process or self._send_out()
        with suppress(BrokenPipeError):  # it was killed; the journal waits for the next
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

    def finish(self) -> None:
        """Leave the rest to it."""
        process = self._process or self._send_out()
        self.journal.release()
        with suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        process.returncode = 0  # it goes on alone: Python is not to ask for its end
        if not answers():
            log.warning(
                "tracking server %s does not answer; the run is recorded in %s, send it later with `gotorb sync`",
                shown_uri(), self.journal.folder,
            )  # fmt: skip

    def _send_out(self) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", __name__, str(self.journal.folder.resolve())]
        with (self.journal.folder / COURIER_LOG).open("a") as told:
            # a session of its own: Ctrl-C is for the run, which has its end to tell; and the folder of an
            # experiment's run may go before the courier is back
            self._process = subprocess.Popen(
                call, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=told, text=True,
                start_new_session=True, cwd=project_root(),
            )  # fmt: skip
        self.journal.claim(CARRIER, self._process.pid)
        return self._process


def main() -> None:
    """Carry the journal named on the command line; a line of input is an event, the end of it that of the run."""
    os.nice(NICENESS)
    show_on_console()
    journal = Journal(Path(sys.argv[1]))
    messenger = Messenger(journal)
    for _ in sys.stdin:
        messenger.deliver()
    journal.close()
    messenger.finish()


if __name__ == "__main__":
    main()
