"""A server on this machine that answers like SkyBoT, also with faults, and records the requests."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

from gotorb.catalogues import skybot

NOTHING = b"# Flag: 0\n# No solar system object was found in the requested FOV\n"
GOOD = b"""<?xml version="1.0" encoding="UTF-8"?>
<vot:VOTABLE version="1.3" xmlns:vot="http://www.ivoa.net/xml/VOTable/v1.3"><vot:RESOURCE>
<vot:INFO name="QUERY_STATUS" value="OK"/><vot:TABLE>
<vot:FIELD ID="name" name="Name" datatype="char" arraysize="32"/>
<vot:FIELD ID="magV" name="Mv" datatype="float"/>
<vot:FIELD ID="ra" name="_RAJ2000" datatype="double" unit="deg"/>
<vot:FIELD ID="dec" name="_DECJ2000" datatype="double" unit="deg"/>
<vot:DATA><vot:TABLEDATA>
<vot:TR><vot:TD>Ceres</vot:TD><vot:TD>8.5</vot:TD><vot:TD>81.123456789</vot:TD><vot:TD>4.5</vot:TD></vot:TR>
<vot:TR><vot:TD>2007 TE366</vot:TD><vot:TD></vot:TD><vot:TD>81.2</vot:TD><vot:TD>-0.25</vot:TD></vot:TR>
</vot:TABLEDATA></vot:DATA></vot:TABLE></vot:RESOURCE></vot:VOTABLE>
"""
ROWS_FROM, ROWS_TO = GOOD.index(b"<vot:TR>"), GOOD.index(b"</vot:TABLEDATA>")
NO_ROWS = GOOD[:ROWS_FROM] + GOOD[ROWS_TO:]
ERROR_FLAG = NO_ROWS.replace(b'value="OK"/>', b'value="ERROR">Wrong epoch</vot:INFO>')


class FakeSkybot(ThreadingHTTPServer):
    """The states of successive answers (the last one is repeated), and the requests with their times."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *moods: str, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.moods, self.delay_s = list(moods), delay_s
        self.asked: list[str] = []
        self.starts: list[float] = []
        self.most_at_once, self.at_once = 0, 0
        self.lock, self.closed = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        """Address to give as GOTORB_SKYBOT_URL."""
        return f"http://127.0.0.1:{self.server_port}/"

    def next_mood(self, path: str) -> str:
        """Note a request."""
        with self.lock:
            self.asked.append(path)
            self.starts.append(time.monotonic())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            return self.moods.pop(0) if len(self.moods) > 1 else self.moods[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the play."""


@contextmanager
def serving(*moods: str, delay_s: float = 0.0) -> Iterator[FakeSkybot]:
    """A server in these states while the block runs."""
    with FakeSkybot(*moods, delay_s=delay_s) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.closed.set()
            server.shutdown()


class _Answer(BaseHTTPRequestHandler):
    server: FakeSkybot

    def do_GET(self) -> None:
        mood = self.server.next_mood(self.path)
        try:
            self.server.closed.wait(self.server.delay_s)
            getattr(self, f"_{mood}")()
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def _send(self, body: bytes, status: int = 200, *, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _drip_bytes(self, text: bytes) -> None:
        for byte in text * 100:
            if self.server.closed.wait(0.1):
                return
            self.wfile.write(bytes([byte]))
            self.wfile.flush()

    def _good(self) -> None:
        self._send(GOOD)

    def _nothing(self) -> None:
        self._send(NOTHING)

    def _too_many(self) -> None:
        self._send(b"slow down", 429, Retry_After="1")

    def _too_many_for_long(self) -> None:
        self._send(b"slow down", 429, Retry_After="3600")

    def _too_many_until(self) -> None:
        self._send(b"", 503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))

    def _overloaded(self) -> None:
        self._send(b"broken", 503)

    def _internal(self) -> None:
        self._send(b"broken", 500)

    def _forbidden(self) -> None:
        self._send(b"", 403)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _hang(self) -> None:
        self.server.closed.wait(30)

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self._drip_bytes(GOOD)

    def _drip_header(self) -> None:
        self._drip_bytes(b"HTTP/1.0 200 OK\r\nServer: slow\r\n")

    def _half(self) -> None:
        self._send(GOOD[: len(GOOD) // 2], length=len(GOOD))

    def _half_without_length(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(GOOD[: len(GOOD) // 2])

    def _blocked(self) -> None:
        self._send(b"<!DOCTYPE html>\n<html><body>You are blocked</body></html>")

    def _garbage(self) -> None:
        self._send(b"garbage")

    def _empty_body(self) -> None:
        self._send(b"")

    def _no_rows_no_status(self) -> None:
        self._send(NO_ROWS.replace(b'<vot:INFO name="QUERY_STATUS" value="OK"/>', b""))

    def _no_table(self) -> None:
        self._send(GOOD[: GOOD.index(b"<vot:TABLE>")] + b"</vot:RESOURCE></vot:VOTABLE>")

    def _no_rows(self) -> None:
        self._send(NO_ROWS)

    def _error_status(self) -> None:
        self._send(ERROR_FLAG)

    def _error_flag(self) -> None:
        self._send(b"# Flag: -1\n# Error: the epoch is wrong\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def note_and_look_up(question: skybot.Question, journal: Path, limits: skybot.Limits) -> int:
    """Rows of an answer; the time of the look-up's start by the rate limiter's own clock goes into the journal.

    It stands here, since the processes that call it import its module.
    """
    write_next = skybot.RateLimiter._write_next

    def noted(limiter: skybot.RateLimiter, when: float) -> None:
        with journal.open("a") as file:
            file.write(f"{when!r}\n")
        write_next(limiter, when)

    with mock.patch.object(skybot.RateLimiter, "_write_next", noted):
        return len(skybot.look_up(question, limits))
