"""A stream from start to end: brokers, workers in processes of their own, publishing, status, and the final count."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gotorb.core import layout
from gotorb.core.files import reported_writes
from gotorb.core.params import ArchiveParams, StreamParams
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError, DataError, StreamError
from gotorb.streams.clients import (
    Health,
    Publisher,
    find_ends,
    find_times,
    kafka,
    list_partitions,
    make_consumer,
    place_of,
    read_time,
    retry,
)
from gotorb.streams.consumer import (
    COMMITTED,
    EARLIEST,
    LATEST,
    Plan,
    load_model,
    make_pipeline,
    work,
    write_training,
)
from gotorb.streams.decoder import Message, Pipeline
from gotorb.streams.journal import EXPIRED, Journal
from gotorb.streams.status import (
    MetricsServer,
    Totals,
    read_status,
    read_training,
    show_line,
    show_metrics,
    write_status,
)

log = logging.getLogger(__name__)
LOOK_S = 0.2
LINE_S, LOG_S = 1.0, 30.0
"""Time between lines on a terminal, and in a log [s]."""
DRAIN_S = 60.0
"""Longest wait for a worker to finish its batch [s]."""
MAX_DEATHS = 5
"""Deaths of a worker without a batch in between, at which the stream stops."""
EXPIRED_CODE = 4
END = "end"
Targets = dict[tuple[str, int], int]


def run_stream(
    model: str, topics: Sequence[str], out_dir: Path | str, options: StreamParams | None = None,
    archive: ArchiveParams | None = None,
) -> int:  # fmt: skip
    """Score the alerts of topics until told to stop.

    Parameters
    ----------
    model : str
        As for `load_scorer`.
    topics : sequence of str
        Kafka's topics; a name that begins with ``^`` is a regular expression.
    out_dir : path
        Folder of the journal. It belongs to one model, group and cluster; the same call resumes there.
    options : StreamParams, optional
    archive : ArchiveParams, optional
        How to read the packets of other surveys.

    Returns
    -------
    int
        Exit code: 0, or 4 with ``strict`` when alerts had expired at the broker.

    Raises
    ------
    StreamError
        If the stream cannot continue; its `code` is the command's.
    """
    options, out_dir, settings = options or StreamParams(), Path(out_dir), read_settings()
    group = options.group or settings.gotorb_kafka_group
    _check_options(options, group)
    plan = Plan(
        model=model, topics=tuple(topics), out_dir=out_dir, group=group, run=uuid.uuid4().hex, options=options,
        settings=settings, archive=archive or ArchiveParams(),
    )  # fmt: skip
    with ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_signals())
        stack.enter_context(_alone(out_dir))
        targets = _ask_brokers(plan, stop)
        if stop.is_set():
            return 0
        _claim(plan)
        supervisor = Supervisor(plan, stop, targets)
        stack.callback(supervisor.close)
        supervisor.run()
    return _final_count(out_dir, options, supervisor.totals.started)


def _check_options(options: StreamParams, group: str) -> None:
    """Refuse options that would fail only later, in a worker."""
    if not group:
        raise ConfigError("no consumer group; pass --group NAME, or set GOTORB_KAFKA_GROUP in .env")
    if options.samples == 1:
        raise ConfigError("--samples is 1; give 0 for plain scores only, or 2 or more")
    if options.start not in (COMMITTED, EARLIEST, LATEST):
        read_time(options.start, "--from")
    if options.until not in ("", END) and not options.until.isdigit():
        read_time(options.until, "--until")


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Event that SIGTERM and SIGINT set while the block runs."""
    stop, before = threading.Event(), {}
    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGTERM, signal.SIGINT):
            before[one] = signal.signal(one, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the block runs."""
    with reported_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / layout.STREAM_LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(f"a stream runs in {folder}; stop it first, or give another --out folder") from None
    try:
        yield
    finally:
        lock.release()


def _claim(plan: Plan) -> None:
    """Refuse a folder of another group before any worker starts, and note where packets are kept."""
    with closing(Journal(plan.out_dir)) as journal:
        journal.claim(group=plan.group)
        if plan.options.keep_packets is not None:
            journal.note(packets=os.path.relpath(plan.options.keep_packets, plan.out_dir))


def _ask_brokers(plan: Plan, stop: threading.Event) -> Targets | None:
    """Wait for the brokers, and return the offsets at which to stop; None for never."""
    health = Health()
    until = plan.options.until

    def ask() -> Targets:
        consumer.poll(0)  # serves the callbacks that tell of a refusal
        health.check()
        _, partitions = list_partitions(consumer, plan.topics)
        if until == END and not partitions:
            raise StreamError(f"the brokers have no topic {', '.join(plan.topics)}; correct its name")
        return {one: end for one, (_, end) in find_ends(consumer, partitions).items()} if until == END else {}

    with closing(make_consumer(plan.settings, plan.group, health)) as consumer:
        found = retry(ask, health, stop, what="topics")
    return found if until == END else None


class Supervisor:
    """Parent process of the workers.

    Parameters
    ----------
    plan : Plan
    stop : threading.Event
        Ends the stream.
    targets : dict, optional
        Offsets at which it ends by itself.
    """

    def __init__(self, plan: Plan, stop: threading.Event, targets: Targets | None) -> None:
        self.plan, self.stop, self.targets, self.options = plan, stop, targets, plan.options
        self.journal, self.totals = Journal(plan.out_dir), Totals()
        self.context = _context()
        self.processes: dict[int, BaseProcess] = {}
        self.links: dict[int, Connection] = {}
        self.deaths: Counter[int] = Counter()
        self.failure: tuple[int, str] | None = None
        self.publisher = Publisher(plan.out_dir, plan.settings) if self.options.publish else None
        self.server = None if self.options.metrics_port is None else MetricsServer(self.options.metrics_port)
        self.consumed_before = self._consumed()
        self.reference: BaseProcess | None = None
        self._written = self._shown = 0.0

    def run(self) -> None:
        """Run the workers until the end, then let them finish.

        Raises
        ------
        StreamError
            If a worker reports that the stream cannot continue.
        """
        if self.server is not None:
            log.info("metrics at http://127.0.0.1:%d/metrics", self.server.port)
        if self.publisher is not None:
            self.publisher.start()
        if self.options.data is not None:
            (self.plan.out_dir / layout.TRAINING_CSV).unlink(missing_ok=True)
            self.reference = self.context.Process(target=write_training, args=(self.plan,), daemon=True)
            self.reference.start()
        for number in range(self.options.workers):
            self._start(number)
        while not (self.stop.is_set() or self.failure or self._is_done()):
            self._listen(LOOK_S)
            self._revive()
            self._tell()
        self._drain()
        if self.publisher is not None:
            self.publisher.finish()
        if self.reference is not None and not (self.stop.is_set() or self.failure):
            self.reference.join(DRAIN_S)
        self._tell(state="failed" if self.failure else "stopped")
        if self.failure:
            code, text = self.failure
            error = StreamError(text)
            error.code = code
            raise error

    def close(self) -> None:
        """Kill processes that still run, and close the journal."""
        for process in (*self.processes.values(), *([self.reference] if self.reference else ())):
            if process.is_alive():
                process.kill()
                process.join()
        if self.server is not None:
            self.server.close()
        self.journal.close()

    def _start(self, number: int) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=work, args=(self.plan, number, theirs), name=f"gotorb-stream-{number}")
        process.start()
        theirs.close()
        self.processes[number], self.links[number] = process, ours

    def _listen(self, timeout: float) -> None:
        """Take the reports of the workers."""
        for link in wait(list(self.links.values()), timeout):
            number = next(key for key, one in self.links.items() if one is link)
            try:
                while self.links[number].poll():
                    self._take(number, self.links[number].recv())
            except (EOFError, OSError):
                self.processes[number].join(1)
                if not self.processes[number].is_alive():
                    self.links.pop(number).close()

    def _take(self, number: int, report: dict[str, Any]) -> None:
        if "failed" in report:
            self.failure = self.failure or (report["code"], report["failed"])
            return
        self.totals.take(number, report)
        if report["batches"]:
            self.deaths[number] = 0

    def _revive(self) -> None:
        """Restart workers that died."""
        for number, process in list(self.processes.items()):
            if process.is_alive() or self.failure:
                continue
            self._listen(0)
            if self.failure:
                return
            if number in self.links:
                self.links.pop(number).close()
            self.totals.bury(number)
            self.deaths[number] += 1
            if self.deaths[number] > MAX_DEATHS:
                self.failure = 1, f"worker {number} died {MAX_DEATHS} times without a batch; see the messages above"
                return
            log.warning("worker %d died (exit code %s); starting it again", number, process.exitcode)
            self._start(number)

    def _consumed(self) -> int:
        return sum(end - first for first, end, _ in self.journal.positions().values())

    def _is_done(self) -> bool:
        until = self.options.until
        if until.isdigit():
            return self._consumed() - self.consumed_before >= int(until)
        if self.targets is None and until and until != END and time.time() >= read_time(until, "--until"):
            self.targets = self._find_targets(read_time(until, "--until"))
        if self.targets is None:
            return False
        ends = {one: end for one, (_, end, _) in self.journal.positions().items()}
        return all(ends.get(one, 0) >= target for one, target in self.targets.items())

    def _find_targets(self, seconds: float) -> Targets | None:
        """First offset after a time, of each partition; its end where there is none."""
        health = Health()

        def ask() -> Targets:
            _, partitions = list_partitions(consumer, self.plan.topics)
            times = find_times(consumer, partitions, seconds)
            return {one: times.get(one, end) for one, (_, end) in find_ends(consumer, partitions).items()}

        with closing(make_consumer(self.plan.settings, self.plan.group, health)) as consumer:
            return retry(ask, health, self.stop, what="offsets of a time")

    def _drain(self) -> None:
        """Let the workers finish their batches; one that does not answer is killed, and no row is lost."""
        for link in self.links.values():
            with suppress(OSError):
                link.send("stop")
        ends = time.monotonic() + DRAIN_S
        while any(one.is_alive() for one in self.processes.values()) and time.monotonic() < ends:
            self._listen(LOOK_S)
            self._tell(state="draining")
        for number, process in self.processes.items():
            if process.is_alive():
                log.warning("worker %d does not answer and is ended", number)
                process.kill()
            process.join()
        self._listen(0)

    def _tell(self, state: str = "") -> None:
        """Write status.json and metrics, and show a line."""
        now, final = time.monotonic(), state in ("stopped", "failed")
        if not final and now - self._shown < LINE_S and now - self._written < self.options.status_s:
            return
        pids = [process.pid for process in self.processes.values() if process.is_alive()]
        more: dict[str, Any] = {"workers": pids} | ({"state": state} if state else {})
        if self.publisher is not None:
            more |= {"published": self.publisher.n_published, "publish_error": self.publisher.error}
        if self.options.data is not None and self.totals.before is None:
            self.totals.before = read_training(self.plan.out_dir)
        status = self.totals.describe(**more)
        if self.server is not None:
            self.server.text = show_metrics(status)
        if final or now - self._written >= self.options.status_s:
            self._written = now
            with suppress(OSError):  # a full disk stops the workers, which say so
                write_status(self.plan.out_dir, status)
        if final or now - self._shown >= (LINE_S if sys.stderr.isatty() else LOG_S):
            self._shown = now
            _show(show_line(status), final=final)


def _show(line: str, *, final: bool) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="\n" if final else "", file=sys.stderr, flush=True)
    else:
        log.info("%s", line)


def _context() -> Any:
    """Context of processes that start with everything imported, where the system supports it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


def _final_count(folder: Path, options: StreamParams, started: float) -> int:
    """Check that the counts of each partition add up, and return the exit code."""
    status = read_status(folder)
    if not status["balanced"]:
        wrong = [f"{one['topic']}-{one['part']}" for one in status["partitions"] if not one["balanced"]]
        raise StreamError(
            f"the counts of {', '.join(wrong)} in {folder} do not add up; see `gotorb stream status {folder}` and keep "
            "the folder for a report"
        )
    with closing(Journal(folder)) as journal:
        expired = journal.read("SELECT count(*) FROM gaps WHERE reason = ? AND t >= ?", EXPIRED, started)[0][0]
    return EXPIRED_CODE if expired and options.strict else 0


def check_stream(
    model: str, topics: Sequence[str], options: StreamParams | None = None, archive: ArchiveParams | None = None
) -> list[str]:
    """Try brokers, topics, schemas and model on the newest message of each topic; nothing is written or committed.

    Parameters
    ----------
    model, topics, options, archive
        As for `run_stream`.

    Returns
    -------
    list of str
        Lines for the user.

    Raises
    ------
    StreamError
        If the brokers refuse the account.
    """
    options, settings = options or StreamParams(), read_settings()
    loaded = load_model(model)
    pipeline = make_pipeline(loaded.scorer, options, settings, archive or ArchiveParams())
    health, stop = Health(), threading.Event()
    group = options.group or settings.gotorb_kafka_group or "gotorb-check"
    first = f"model: {loaded.scorer.name} {loaded.scorer.version}, layers {', '.join(loaded.scorer.layers)}"
    with closing(make_consumer(settings, group, health)) as consumer:
        asked = [retry(partial(_check_topic, consumer, topic, pipeline), health, stop, what=topic) for topic in topics]
    return [first, *asked]


def _check_topic(consumer: Any, topic: str, pipeline: Pipeline) -> str:
    """One line on a topic and its newest message."""
    consumer.poll(0)
    cluster, partitions = list_partitions(consumer, [topic])
    ends = find_ends(consumer, partitions)
    n = sum(high - low for low, high in ends.values())
    told = f"topic {topic}: {len(partitions)} partitions, {n} alerts at cluster {cluster or 'without a name'}"
    newest = next((one for one, (low, high) in ends.items() if high > low), None)
    if newest is None:
        return f"{told}; none to try"
    consumer.assign([kafka().TopicPartition(*newest, ends[newest][1] - 1)])
    found = consumer.consume(1, timeout=LOG_S)
    if not found or found[0].error() is not None:
        return f"{told}; the newest did not come within {LOG_S:g} s"
    outcome = pipeline.run([Message(place_of(found[0]), found[0].value(), found[0].key())])
    for _, reason in outcome.waiting.values():
        return f"{told}; the newest cannot be read now: {reason}"
    for letter in outcome.batch.dead:
        return f"{told}; the newest cannot be used: {letter.reason}"
    row = outcome.batch.rows[0]
    return f"{told}; the newest, {row.survey} {row.alert_id}: " + (row.reason or f"score {row.score:.3f}")
