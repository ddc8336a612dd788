"""The outbox of a stream: scores that are in the journal are published, and marked when the broker has them."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from gotorb.core.settings import Settings
from gotorb.errors import GotorbError
from gotorb.streams.clients import Health, kafka, make_producer
from gotorb.streams.journal import Journal

log = logging.getLogger(__name__)
AT_A_TIME = 500
"""Rows on their way to the broker."""
POLL_S = 0.2
DRAIN_S = 30.0
"""Longest wait for the rest at the end [s]."""


class Publisher(threading.Thread):
    """A thread that empties the outbox; only one runs for a folder.

    A row is marked after the broker has answered, so that a kill in between sends it again with the same key and the
    same bytes.

    Parameters
    ----------
    folder : Path
        Of the journal.
    settings : Settings
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(daemon=True, name="publisher")
        self.health, self.error = Health(), ""
        self.producer = make_producer(settings, self.health)
        self.folder, self.ending = folder, threading.Event()
        self.n_published = 0
        self._on_the_way: set[int] = set()
        self._arrived: list[int] = []

    def run(self) -> None:
        """Publish until `finish` is called and the outbox is empty."""
        try:
            journal = Journal(self.folder)
            try:
                while self._publish(journal) or not self.ending.is_set():
                    self.ending.wait(0 if self._on_the_way else POLL_S)
            finally:
                journal.close()
        except GotorbError as error:
            self.error = str(error)
            log.error("publishing stopped: %s", error)

    def finish(self) -> None:
        """Wait until the outbox is empty, for a while: what is left is published by the next start."""
        self.ending.set()
        self.join(DRAIN_S)

    def _publish(self, journal: Journal) -> bool:
        """Send what is new, and mark what has arrived; False when there is nothing to do."""
        room = AT_A_TIME - len(self._on_the_way)
        found = journal.unpublished(AT_A_TIME) if room > 0 else []
        for number, topic, key, value in found:
            if number not in self._on_the_way and number not in self._arrived and len(self._on_the_way) < AT_A_TIME:
                self._send(number, topic, key, value)
        self.producer.poll(POLL_S if self._on_the_way else 0)
        if self._arrived:
            journal.mark_published(self._arrived)
            self.n_published += len(self._arrived)
            self._arrived.clear()
        return bool(found or self._on_the_way)

    def _send(self, number: int, topic: str, key: str, value: bytes) -> None:
        def on_delivery(error: Any, _: Any) -> None:
            self._on_the_way.discard(number)
            if error is None:
                self._arrived.append(number)
            else:
                log.warning("alert %s is not published yet (%s)", key, error.str())

        with suppress(BufferError, kafka().KafkaException):
            self.producer.produce(topic, value=value, key=key, on_delivery=on_delivery)
            self._on_the_way.add(number)
