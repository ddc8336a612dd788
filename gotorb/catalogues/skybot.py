"""SkyBoT cone searches: polite to the service, patient with its moods, and never longer than a deadline.

An answer is kept on disk, and asked for once. All processes of a user on a machine share a turnstile of two requests
at once and one start a second. A look-up that fails is an error, never an empty field.
"""

from __future__ import annotations

import logging
import os
import queue
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pandas as pd

from gotorb.catalogues.answers import Question, Unusable, keep_answer, kept_answer, parse_answer
from gotorb.catalogues.turnstile import Deadline, Turnstile
from gotorb.errors import LookupFailed
from gotorb.settings import read_settings

CHUNK_BYTES, MOST_BYTES = 1 << 16, 1 << 28
PASSING_STATES = (429, 500, 502, 503, 504)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long a look-up may take, and how often it is tried.

    Attributes
    ----------
    total_s : float
        From the question to the answer or the error, waiting for others included.
    connect_s, read_s : float
        To reach the service, and between two parts of its answer.
    tries : int
        Requests of one look-up at most.
    backoff_s : float
        Pause after the first failed try; twice as long after each further one, and shortened at random by up to a half.
    pause_s : float
        Between two starts of requests on this machine; a little over a second, because a start takes its time.
    n_failures, rest_s : int, float
        After so many failed look-ups in a row this process asks nothing for a while: further look-ups fail at once.
    """

    total_s: float = 180.0
    connect_s: float = 15.0
    read_s: float = 60.0
    tries: int = 5
    backoff_s: float = 2.0
    pause_s: float = 1.1
    n_failures: int = 3
    rest_s: float = 60.0


class Busy(Exception):
    """The service could not answer now; it may have said when to come again."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def look_up(question: Question, limits: Limits | None = None) -> pd.DataFrame:
    """Minor planets in a circle at an epoch.

    Returns
    -------
    DataFrame
        name, ra, dec (deg, topocentric), mag (V); no rows where the service says that nothing is there.

    Raises
    ------
    LookupFailed
        If no try gave a usable answer before the deadline.
    """
    limits, question = limits or Limits(), question.rounded()
    folder = read_settings().cache_dir / "skybot"
    table = kept_answer(folder, question)
    if table is None:
        _breaker.check(question)
        try:
            table = _ask(question, limits)
        except Unusable as error:
            _breaker.count(str(error), limits)
            raise _failure(question, str(error)) from None
        _breaker.reset()
        try:
            keep_answer(folder, question, table)
        except OSError as error:
            log.info("SkyBoT's answer is not kept in %s (%s); set GOTORB_CACHE_DIR in .env", folder, error)
    return table


def turnstile(limits: Limits) -> Turnstile:
    """The one of this user on this machine."""
    return Turnstile(Path(tempfile.gettempdir()) / f"gotorb-skybot-{os.getuid()}", 2, limits.pause_s)


def _ask(question: Question, limits: Limits) -> pd.DataFrame:
    """Ask until there is an answer, a final no, or no time left."""
    deadline, reason = Deadline.after(limits.total_s), "nothing"
    for attempt in range(limits.tries):
        try:
            return parse_answer(_within(deadline, lambda: _request(question, limits, deadline)))
        except Unusable as error:
            reason, wait = str(error), 0.0
            if not error.again:
                break
        except Busy as error:
            reason, wait = str(error), error.wait_s
        except TimeoutError as error:
            reason = f"no answer within {limits.total_s:g} s: {error}; before: {reason}"
            break
        except OSError as error:
            reason = f"no lock in {tempfile.gettempdir()}: {error}; set TMPDIR to a folder of yours"
            break
        if wait:
            turnstile(limits).postpone(wait)  # all processes leave the service alone
        wait = max(wait, limits.backoff_s * 2**attempt * random.uniform(0.5, 1))
        if attempt + 1 < limits.tries:
            if wait >= deadline.left_s:
                reason += f"; no time for another try within {limits.total_s:g} s"
                break
            time.sleep(wait)
    raise Unusable(reason, again=False)


def _failure(question: Question, reason: str) -> LookupFailed:
    return LookupFailed(
        f"SkyBoT gave no answer for ra {question.ra:.4f} dec {question.dec:.4f} at MJD {question.epoch_mjd:.5f} "
        f"({reason}); try later, or use provider='pympc'"
    )


def _within(deadline: Deadline, work: Callable[[], bytes]) -> bytes:
    """Do it in a thread, and wait no longer than the deadline: a socket's time-out is per byte, not per answer."""
    results: queue.SimpleQueue[tuple[bytes, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:
            results.put((b"", error))

    threading.Thread(target=run, daemon=True, name="skybot").start()
    try:
        body, error = results.get(timeout=max(deadline.left_s, 0))
    except queue.Empty:
        raise TimeoutError("the answer did not end") from None
    if error is not None:
        raise error
    return body


def _request(question: Question, limits: Limits, deadline: Deadline) -> bytes:
    """Body of one answer with HTTP status 200."""
    import requests
    import urllib3

    with turnstile(limits).passing(deadline):
        left = max(deadline.left_s, 0.01)
        times = min(limits.connect_s, left), min(limits.read_s, left)
        try:
            with requests.get(question.url, params=question.payload, timeout=times, stream=True) as response:
                if response.status_code in PASSING_STATES:
                    raise Busy(f"HTTP {response.status_code}", _retry_after(response))
                if response.status_code != 200:
                    raise Unusable(f"HTTP {response.status_code}", again=False)
                return _read(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, ValueError):  # requests' errors of an address
                raise Unusable(f"{error}; correct GOTORB_SKYBOT_URL in .env", again=False) from None
            raise Busy(f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from None


def _read(response: Any, deadline: Deadline) -> bytes:
    """The body, part by part as it comes: a thread that nobody waits for any more must end too."""
    body = bytearray()
    while part := response.raw.read1(CHUNK_BYTES, decode_content=True):
        body += part
        if deadline.left_s <= 0 or len(body) > MOST_BYTES:
            raise Busy(f"the answer did not end after {len(body)} bytes")
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and response.raw.tell() < int(declared):
        raise Busy(f"only {response.raw.tell()} of {declared} bytes came")
    return bytes(body)


def _retry_after(response: Any) -> float:
    """Seconds after which the service wants to be asked again, given as a number or as a date; 0 if it says nothing."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


class Breaker:
    """Counts failed look-ups in a row; after some, lets the service and the user's time rest."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all failures."""
        self._n_failures, self._rest_until, self._reason = 0, Deadline(0.0), ""

    def count(self, reason: str, limits: Limits) -> None:
        """Note a failed look-up, and start the rest when it is one too many."""
        self._n_failures, self._reason = self._n_failures + 1, reason
        if self._n_failures >= limits.n_failures:
            self._rest_until = Deadline.after(limits.rest_s)

    def check(self, question: Question) -> None:
        """Fail at once while the service rests."""
        if self._rest_until.left_s > 0:
            raise _failure(
                question,
                f"{self._n_failures} look-ups failed in a row, none is made for {self._rest_until.left_s:.0f} s; "
                f"the last: {self._reason}",
            )


_breaker = Breaker()
