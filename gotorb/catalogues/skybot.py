"""SkyBoT cone searches with a rate limit, retries and a deadline.

An answer is kept on disk with its date, and asked for again when it is old. All processes of a user on a machine share
a limit of two requests at a time and one start a second. A look-up that fails is an error, never an empty field: only
whole answers become tables. astroquery is not used because the service ignores the observatory as it spells it
(astroquery issue 3515), and its positions are then geocentric, off by arcseconds.
"""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import random
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from gotorb.core.files import value_digest, write_text
from gotorb.core.logs import one_line
from gotorb.core.settings import read_settings
from gotorb.errors import LookupFailed

COLUMNS = ("name", "ra", "dec", "mag")
ASKED = "asked"
THEIR_COLUMNS = ("Name", "_RAJ2000", "_DECJ2000", "Mv")
NOTHING_FOUND = "No solar system object was found"
FAILED_FLAG = "# Flag: -1"
CHUNK_BYTES, MOST_BYTES = 1 << 16, 1 << 28
BUSY_STATES = (429, 500, 502, 503, 504)
LONGEST_WAIT_S = 600.0
"""A later next start is ignored: a changed clock, or a service that asks for an absurd pause."""
POLL_S = 0.03
EMPTY_ANSWERS = 2
"""Answers of HTTP status 200 without any content, one after the other, that count as "nothing there"."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A circle (deg, ICRS) at an epoch (MJD, UTC), seen from an observatory (IAU code)."""

    url: str
    code: str
    ra: float
    dec: float
    radius_deg: float
    epoch_mjd: float

    def rounded(self) -> Question:
        """The same question to a milliarcsecond and ten milliseconds, so that rounding noise makes no new request."""
        ra, dec, radius_deg, epoch_mjd = (
            round(float(number), 7) for number in (self.ra % 360, self.dec, self.radius_deg, self.epoch_mjd)
        )
        return replace(self, ra=ra, dec=dec, radius_deg=radius_deg, epoch_mjd=epoch_mjd)

    @property
    def payload(self) -> dict[str, str]:
        """Parameters of the request."""
        return {
            "-ep": f"{self.epoch_mjd + 2_400_000.5:.7f}",
            "-ra": f"{self.ra:.7f}",
            "-dec": f"{self.dec:.7f}",
            "-rd": f"{self.radius_deg:.7f}",
            "-observer": self.code,  # another name, -loc for one, is ignored
            "-filter": "120",
            "-objFilter": "111",
            "-refsys": "EQJ2000",
            "-output": "all",
            "-mime": "votable",
            "-from": "gotorb",
        }


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Time and tries of a look-up.

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
    max_age_days : float
        Older kept answers are asked for again; while the service gives no answer they still hold.
    n_failures, rest_s : int, float
        After so many failed look-ups in a row this process asks nothing for a while: further look-ups fail immediately.
    """

    total_s: float = 180.0
    connect_s: float = 15.0
    read_s: float = 60.0
    tries: int = 5
    backoff_s: float = 2.0
    pause_s: float = 1.1
    max_age_days: float = 90.0
    n_failures: int = 3
    rest_s: float = 60.0


class NoAnswer(Exception):
    """A try without a usable answer; `wait_s` is the pause that the service asks for, None when no try makes sense.

    Parameters
    ----------
    reason : str
        Why there is no answer.
    wait_s : float, optional
        Pause that the service asks for [s].
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def make_table(name: Iterable[Any], ra: Any, dec: Any, mag: Any) -> pd.DataFrame:
    """Table of minor planets.

    Parameters
    ----------
    name : iterable
        (n,) names or numbers.
    ra, dec : array_like
        (n,) deg.
    mag : array_like
        (n,) V.

    Returns
    -------
    DataFrame
        Columns of COLUMNS.

    Examples
    --------
    >>> make_table(["Ceres"], [10.0], [-5.0], [8.1]).to_dict("records")
    [{'name': 'Ceres', 'ra': 10.0, 'dec': -5.0, 'mag': 8.1}]
    """
    names = pd.Series([str(one).strip() for one in name], dtype="str")
    return pd.DataFrame({"name": names, "ra": np.asarray(ra, float), "dec": np.asarray(dec, float),
                         "mag": np.asarray(mag, float)})  # fmt: skip


def look_up(question: Question, limits: Limits | None = None, *, renew: bool = False) -> pd.DataFrame:
    """Minor planets in a circle at an epoch.

    Parameters
    ----------
    question : Question
        Where, when and from where.
    limits : Limits, optional
        Time and tries.
    renew : bool
        Ask again, unless the kept answer is of today.

    Returns
    -------
    DataFrame
        name, ra, dec (deg, topocentric), mag (V); no rows where the service says that nothing is there.
        ``attrs["asked"]`` is the date of the answer.

    Raises
    ------
    LookupFailed
        If no try gave a usable answer before the deadline.

    Examples
    --------
    >>> from gotorb.core.settings import read_settings
    >>> where = {"ra": 150.0, "dec": 2.0, "radius_deg": 0.5, "epoch_mjd": 57804.0}
    >>> question = Question(url=read_settings().skybot_url, code="950", **where)
    >>> look_up(question)[["name", "mag"]]  # doctest: +SKIP
    """
    limits, question = limits or Limits(), question.rounded()
    path = read_settings().cache_dir / "skybot" / f"{value_digest(question, n_digits=24)}.json"
    kept = _kept_answer(path, question)
    if kept is not None:
        age = datetime.now(UTC).date() - date.fromisoformat(kept.attrs[ASKED])
        if age.days <= (0 if renew else limits.max_age_days):
            return kept
    try:
        table = _breaker.guard(question, limits)
    except LookupFailed as error:
        if kept is None or renew:
            raise
        log.warning("SkyBoT's answer of %s is used; a newer one is not available: %s", kept.attrs[ASKED], error)
        return kept
    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    table.attrs[ASKED] = f"{datetime.now(UTC):%Y-%m-%d}"
    try:
        write_text(path, json.dumps({"question": asdict(question), ASKED: table.attrs[ASKED], "rows": rows}, indent=0))
    except OSError as error:
        log.info("SkyBoT's answer is not kept in %s (%s); set GOTORB_CACHE_DIR in .env", path.parent, error)
    return table


def _kept_answer(path: Path, question: Question) -> pd.DataFrame | None:
    """Answer of an earlier look-up; None if it is missing or incomplete."""
    try:
        kept = json.loads(path.read_text())
        columns = list(zip(*kept["rows"], strict=True)) or [()] * len(COLUMNS)
        table = make_table(*columns)
        table.attrs[ASKED] = str(date.fromisoformat(kept[ASKED]))  # answers without a date are asked for again
        return table if kept["question"] == asdict(question) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Breaker:
    """Circuit breaker: after some failed look-ups in a row further ones fail without a request for a while."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all failures."""
        self._n_failures, self._rest_until, self._reason = 0, 0.0, ""

    def guard(self, question: Question, limits: Limits) -> pd.DataFrame:
        """Ask the service unless the breaker is open, and count failures."""
        if (rest_s := self._rest_until - time.monotonic()) > 0:
            reason = f"{self._n_failures} look-ups failed in a row, none is made for {rest_s:.0f} s"
            raise _failure(question, f"{reason}; the last: {self._reason}")
        try:
            table = _ask(question, limits)
        except NoAnswer as error:
            self._n_failures, self._reason = self._n_failures + 1, str(error)
            if self._n_failures >= limits.n_failures:
                self._rest_until = time.monotonic() + limits.rest_s
            raise _failure(question, str(error)) from None
        self.reset()
        return table


_breaker = _Breaker()


def _failure(question: Question, reason: str) -> LookupFailed:
    return LookupFailed(
        f"SkyBoT gave no answer for ra {question.ra:.4f} dec {question.dec:.4f} at MJD {question.epoch_mjd:.5f} "
        f"({reason}); try later, or use provider='pympc'"
    )


def _ask(question: Question, limits: Limits) -> pd.DataFrame:
    """Ask until there is an answer, a final error, or no time left."""
    deadline, reason, n_empty = time.monotonic() + limits.total_s, "nothing", 0
    limiter = RateLimiter(Path(tempfile.gettempdir()) / f"gotorb-skybot-{os.getuid()}", pause_s=limits.pause_s)
    for attempt in range(limits.tries):
        try:
            body = _within(deadline, lambda: _request(question, limits, limiter, deadline))
            n_empty = n_empty + 1 if not body.strip() else 0
            if n_empty == EMPTY_ANSWERS:
                log.info("SkyBoT answered %d times with empty content: nothing there", n_empty)
                return make_table((), (), (), ())
            return parse_answer(body)
        except NoAnswer as error:
            reason, wait_s = str(error), error.wait_s
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {limits.total_s:g} s: {error}; before: {reason}") from None
        except OSError as error:
            raise NoAnswer(f"no lock in {limiter.folder.parent}: {error}; set TMPDIR to a folder of yours") from None
        if wait_s:
            limiter.postpone(wait_s)  # all processes leave the service alone
        if wait_s is None or attempt + 1 == limits.tries:
            break
        wait_s = max(wait_s, limits.backoff_s * 2**attempt * random.uniform(0.5, 1))
        if wait_s >= deadline - time.monotonic():
            raise NoAnswer(f"{reason}; no time for another try within {limits.total_s:g} s")
        time.sleep(wait_s)
    raise NoAnswer(reason)


def _within(deadline: float, work: Callable[[], bytes]) -> bytes:
    """Call it in a thread and wait until the deadline: a socket's time-out is per byte, not per answer."""
    results: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(work())
        except BaseException as error:
            results.put(error)

    threading.Thread(target=run, daemon=True, name="skybot").start()
    try:
        result = results.get(timeout=max(deadline - time.monotonic(), 0))
    except queue.Empty:
        raise TimeoutError("the answer did not end") from None
    if isinstance(result, BaseException):
        raise result
    return result


def _request(question: Question, limits: Limits, limiter: RateLimiter, deadline: float) -> bytes:
    """Body of one answer with HTTP status 200."""
    import requests
    import urllib3

    with limiter.passing(deadline):
        left = max(deadline - time.monotonic(), 0.01)
        times = min(limits.connect_s, left), min(limits.read_s, left)
        try:
            with requests.get(question.url, params=question.payload, timeout=times, stream=True) as response:
                if response.status_code != 200:
                    busy = response.status_code in BUSY_STATES
                    raise NoAnswer(f"HTTP {response.status_code}", _retry_after(response) if busy else None)
                return _read(response, deadline)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            if isinstance(error, ValueError):  # requests' errors of an address
                raise NoAnswer(f"{error}; correct GOTORB_SKYBOT_URL in .env") from None
            raise NoAnswer(f"{type(error).__name__}: {one_line(error, 120)}", 0.0) from None


def _read(response: Any, deadline: float) -> bytes:
    """Body, part by part as it comes: a thread that is given up must end too."""
    body = bytearray()
    while part := response.raw.read1(CHUNK_BYTES, decode_content=True):
        body += part
        if deadline <= time.monotonic() or len(body) > MOST_BYTES:
            raise NoAnswer(f"the answer did not end after {len(body)} bytes", 0.0)
    declared = response.headers.get("Content-Length", "")
    if declared.isdigit() and response.raw.tell() < int(declared):
        raise NoAnswer(f"only {response.raw.tell()} of {declared} bytes came", 0.0)
    return bytes(body)


def _retry_after(response: Any) -> float:
    """Pause [s] that the service asks for, given as a number or as a date; 0 if it asks for none."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def parse_answer(body: bytes) -> pd.DataFrame:
    """Table of an answer that came with HTTP status 200.

    It is empty only when the service reports that no object was found, or gives the status OK without any row.

    Parameters
    ----------
    body : bytes
        VOTable, or SkyBoT's own text.

    Returns
    -------
    DataFrame
        Columns of COLUMNS.

    Raises
    ------
    NoAnswer
        If it is anything else: a blocked page, an error flag, a broken table, or an unexplained empty one.

    Examples
    --------
    >>> len(parse_answer(b"# Flag: 0\\n# No solar system object was found in the requested FOV"))
    0
    """
    text = body.decode("utf-8", errors="replace")
    start = text.lstrip()[:200].lower()
    if "<html" in start or "<!doctype html" in start:
        raise NoAnswer(f"a web page instead of a table: {one_line(text, 120)}")
    if FAILED_FLAG in text:
        raise NoAnswer(one_line(text, 120))
    return make_table((), (), (), ()) if NOTHING_FOUND in text else _parse_votable(body)


def _parse_votable(body: bytes) -> pd.DataFrame:
    from astropy.io import votable

    try:
        with warnings.catch_warnings(action="ignore"):
            document = votable.parse(io.BytesIO(body), verify="ignore")
    except Exception as error:
        raise NoAnswer(f"no whole VOTable ({one_line(error, 120)})", 0.0) from None
    states = [info for info in document.iter_info() if info.name == "QUERY_STATUS"]
    for info in states:
        if info.value != "OK":
            raise NoAnswer(f"status {info.value} {one_line(info.content or '', 120)}".strip())
    rows = next((table.to_table(use_names_over_ids=True) for table in document.iter_tables()), None)
    if rows is None or len(rows) == 0:
        if not states:
            raise NoAnswer("a table without rows and without a reason")
        log.info("SkyBoT answered with status OK and no rows: nothing there")
        return make_table((), (), (), ())
    absent = [name for name in THEIR_COLUMNS if name not in rows.colnames]
    if absent:
        raise NoAnswer(f"no column {absent[0]} (columns {', '.join(rows.colnames)})")
    table = make_table(rows["Name"], *(np.ma.filled(rows[name].astype(float), np.nan) for name in THEIR_COLUMNS[1:]))
    if not np.isfinite(table[["ra", "dec"]].to_numpy()).all():
        raise NoAnswer("rows without a position", 0.0)
    return table


@dataclass(frozen=True)
class RateLimiter:
    """Rate limiter of all processes that share a folder: simultaneous requests, and the time between two starts.

    Its locks belong to open files: the kernel releases them when a process dies in whatever way.

    Attributes
    ----------
    folder : Path
        Where the lock files are.
    n_at_once : int
        Requests at a time.
    pause_s : float
        Least time between two starts.
    """

    folder: Path
    n_at_once: int = 2
    pause_s: float = 0.0

    @contextmanager
    def passing(self, deadline: float) -> Iterator[None]:
        """Hold one of the places while the block runs.

        Parameters
        ----------
        deadline : float
            Latest start, on the clock of `time.monotonic` [s].

        Raises
        ------
        TimeoutError
            If the deadline comes first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self._take_place(deadline)
        try:
            self._wait_for_start(deadline)
            yield
        finally:
            place.release()

    def postpone(self, seconds: float) -> None:
        """Let no request start for a while.

        Parameters
        ----------
        seconds : float
            From now.
        """
        with FileLock(self.folder / "start.lock"):
            self._write_next(max(self._read_next(), time.time() + min(seconds, LONGEST_WAIT_S)))

    def _take_place(self, deadline: float) -> FileLock:
        places = [FileLock(self.folder / f"pass-{i}.lock", blocking=False) for i in range(self.n_at_once)]
        while True:
            for place in places:
                try:
                    place.acquire()
                    return place
                except Timeout:
                    pass
            if deadline <= time.monotonic():
                raise TimeoutError("other look-ups of this machine were before it all the time")
            time.sleep(POLL_S * random.uniform(0.5, 1.5))

    def _wait_for_start(self, deadline: float) -> None:
        while True:
            with FileLock(self.folder / "start.lock"):  # held for a moment only
                now = time.time()
                wait = self._read_next() - now
                if not 0 < wait <= LONGEST_WAIT_S:
                    self._write_next(now + self.pause_s)
                    return
            if deadline - time.monotonic() <= wait:
                raise TimeoutError(f"the next request may start in {wait:.0f} s only")
            time.sleep(wait)

    def _read_next(self) -> float:
        """Earliest next start [seconds since the epoch]; 0 when unknown."""
        try:
            return float((self.folder / "next").read_text())
        except (OSError, ValueError):
            return 0.0

    def _write_next(self, when: float) -> None:
        (self.folder / "next").write_text(repr(when))
