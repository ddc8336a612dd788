"""A worker of a stream: one Kafka consumer that reads, scores, writes the journal and only then commits."""

from __future__ import annotations

import logging
import platform
import signal
import sqlite3
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from gotorb.classifier.scored import score_training
from gotorb.classifier.scores import Scorer, load_scorer
from gotorb.core import layout
from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.files import value_digest, write_csv
from gotorb.core.logs import show_on_console
from gotorb.core.params import SEED, ArchiveParams, StreamParams
from gotorb.core.settings import Settings
from gotorb.errors import GotorbError, StreamError
from gotorb.evaluation.drift import DRIFT_COLUMNS
from gotorb.models import find_model
from gotorb.streams.clients import (
    POLL_MS,
    Health,
    find_committed,
    find_ends,
    find_times,
    kafka,
    list_partitions,
    make_consumer,
    place_of,
    read_time,
    retry,
)
from gotorb.streams.decoder import Decoder, Message, Outcome, Pipeline, ScoreOptions
from gotorb.streams.folder import keep_packet
from gotorb.streams.journal import ELSEWHERE, EXPIRED, HOLE, SKIPPED, Journal
from gotorb.streams.status import Tally
from gotorb.survey.alerts import PacketReader, make_reader
from gotorb.survey.alerts.schemas import open_store
from gotorb.training.onnx import PortableModel

log = logging.getLogger(__name__)
REPORT_S = 1.0
COMMITTED, EARLIEST, LATEST = "committed", "earliest", "latest"
Partition = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A worker's task, sent to its process; the settings hold the password and go nowhere else."""

    model: str
    topics: tuple[str, ...]
    out_dir: Path
    group: str
    run: str
    options: StreamParams
    settings: Settings = field(repr=False)
    archive: ArchiveParams = field(default_factory=ArchiveParams)


class Model(NamedTuple):
    """A scorer with the digest of its file."""

    scorer: Scorer
    digest: str

    @property
    def names(self) -> tuple[str, str, str]:
        """Name, version and digest, as in the journal."""
        return self.scorer.name, self.scorer.version, self.digest


def load_model(address: str) -> Model:
    """Load a model with the digest that binds a folder to it.

    Parameters
    ----------
    address : str
        As for `load_scorer`.

    Returns
    -------
    Model
    """
    scorer = load_scorer(address)
    if isinstance(scorer.model, PortableModel):
        return Model(scorer, scorer.model.about["digest"])
    return Model(scorer, find_model(address).digest)


def make_pipeline(scorer: Scorer, options: StreamParams, settings: Settings, archive: ArchiveParams) -> Pipeline:
    """Build the pipeline from messages to rows.

    Parameters
    ----------
    scorer : Scorer
    options : StreamParams
    settings : Settings
        Where schemas are, unless the options say so.
    archive : ArchiveParams
        Names of fields in packets, and the background of stamps.

    Returns
    -------
    Pipeline
    """
    if options.schemas.startswith(("http://", "https://")):
        settings = settings.with_values(gotorb_schema_registry=options.schemas)
    elif options.schemas:
        settings = settings.with_values(gotorb_alert_schemas=options.schemas)
    families = make_reader(archive.packets).families
    reader = PacketReader(families=families, size=scorer.size, store=open_store(settings))
    threshold = scorer.threshold if options.threshold is None else options.threshold
    score = ScoreOptions(
        n_samples=options.samples, threshold=threshold, publish=options.publish, archive=archive,
        above=threshold if options.above is None else options.above,
    )  # fmt: skip
    return Pipeline(Decoder(reader, retry_s=options.retry_s, patience_s=options.patience_s), scorer, score)


def open_journal(folder: Path, model: Model, pipeline: Pipeline) -> Journal:
    """Open the journal of a folder for a model.

    Parameters
    ----------
    folder : Path
    model : Model
    pipeline : Pipeline
        Its threshold decides the calls, so that the folder is bound to it too.

    Returns
    -------
    Journal

    Raises
    ------
    DataError
        If the folder belongs to another model or threshold.
    """
    journal = Journal(folder, model.names)
    journal.claim(model=model.digest, threshold=repr(round(pipeline.options.threshold, SCORE_DIGITS)))
    return journal


def choose_start(
    rule: str, ends: tuple[int, int], *, committed: int | None, timed: int | None, known: int | None
) -> tuple[int, list[tuple[int, str]]]:
    """Choose the start of a partition: never before the journal's offset, which may be ahead of the group's.

    Parameters
    ----------
    rule : str
        committed, earliest, latest, or anything else for a time.
    ends : tuple of int
        First and next offset at the broker.
    committed : int, optional
        Offset of the group.
    timed : int, optional
        First offset of the time; the end when there is none.
    known : int, optional
        Next offset of the journal.

    Returns
    -------
    first : int
        First offset that counts, of a partition that is new in the journal.
    steps : list of tuple
        Offsets to move to, each with the reason of the gap up to there.

    Raises
    ------
    StreamError
        If the topic ends before the offset: it is another topic of the same name.

    Examples
    --------
    >>> choose_start("committed", (217, 300), committed=20, timed=None, known=None)
    (20, [(217, 'expired at the broker')])
    """
    low, high = ends
    wish = {EARLIEST: low, LATEST: high, COMMITTED: low if committed is None else committed}
    wished = wish.get(rule, high if timed is None else timed)
    before = committed if known is None and rule == COMMITTED else known
    if before is None:
        return max(wished, low), []
    if before > high:
        raise StreamError(
            f"the topic ends at offset {high}, before {before}, where the stream stopped, so it was deleted and made "
            "again; give another --group and another --out folder"
        )
    steps = [(low, EXPIRED)] if low > before else []
    if wished > max(before, low):
        steps.append((wished, ELSEWHERE if rule == COMMITTED else SKIPPED))
    return before, steps


class Worker:
    """One consumer of the group.

    Parameters
    ----------
    plan : Plan
    number : int
        Of the worker, from 0.
    link : Connection
        To the parent: reports go out; when it closes, the worker drains.
    """

    def __init__(self, plan: Plan, number: int, link: Connection) -> None:
        self.plan, self.number, self.link = plan, number, link
        self.options, self.health, self.stop = plan.options, Health(), threading.Event()
        model = load_model(plan.model)
        self.pipeline = make_pipeline(model.scorer, plan.options, plan.settings, plan.archive)
        self.journal = open_journal(plan.out_dir, model, self.pipeline)
        self.journal.claim(group=plan.group)
        instance = f"gotorb-{value_digest((platform.node(), str(plan.out_dir.resolve())))}-{number}"
        self.consumer = make_consumer(plan.settings, plan.group, self.health, instance=instance)
        self.pool = ThreadPoolExecutor(1)
        self.running: Future[Outcome] | None = None
        self.waiting: dict[Partition, tuple[float, str]] = {}
        self.rewound: dict[Partition, int] = {}
        self.tally = Tally(self.options.max_dead, self.options.max_dead_fraction)

    def run(self) -> None:
        """Read until told to stop, then finish the batch, commit and leave the group.

        Raises
        ------
        GotorbError
            If the stream cannot continue; offsets of unwritten rows are not committed.
        """
        self._subscribe()
        try:
            while not self.stop.is_set():
                self._step()
                self._report()
                self._listen()
            self._finish()
            self._commit()
        finally:
            self.pool.shutdown(cancel_futures=True)
            self.consumer.close()
            self.journal.close()
        self._report(state="stopped")

    def _subscribe(self) -> None:
        found = retry(lambda: list_partitions(self.consumer, self.plan.topics), self.health, self.stop, what="topics")
        if found:
            self.journal.claim(cluster=found[0])
        self.consumer.subscribe(
            list(self.plan.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    # --- partitions --------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self.tally.rebalances += 1
        points = [(one.topic, one.partition) for one in partitions]
        if points and (starts := self._find_starts(points)) is not None:
            point = kafka().TopicPartition
            consumer.incremental_assign([point(*one, offset) for one, offset in starts.items()])
            if self.running is not None:
                consumer.pause([point(*one) for one in points])
        else:
            consumer.incremental_assign([])

    def _find_starts(self, partitions: list[Partition]) -> dict[Partition, int] | None:
        """Next offset of each partition, by journal, group and broker; None when the stream is to stop."""
        rule = self.options.start

        def ask() -> tuple[Any, ...]:
            timed = rule not in (COMMITTED, EARLIEST, LATEST)
            return (
                find_ends(self.consumer, partitions), find_committed(self.consumer, partitions),
                find_times(self.consumer, partitions, read_time(rule, "--from")) if timed else {},
            )  # fmt: skip

        answer = retry(ask, self.health, self.stop, what="offsets")
        if answer is None:
            return None
        ends, committed, times = answer
        return {one: self._open(one, ends[one], committed.get(one), times.get(one)) for one in partitions}

    def _open(self, partition: Partition, ends: tuple[int, int], committed: int | None, timed: int | None) -> int:
        """Open a partition in the journal, and return its next offset."""
        _, known, run = self.journal.positions().get(partition, (0, None, ""))
        rule = COMMITTED if run == self.plan.run else self.options.start
        first, steps = choose_start(rule, ends, committed=committed, timed=timed, known=known)
        place = self.journal.move(partition, first, run=self.plan.run, reason=HOLE)
        for target, reason in steps:
            place = self._leave_out(partition, target, reason)
        return place

    def _leave_out(self, partition: Partition, target: int, reason: str) -> int:
        before = self.journal.positions()[partition][1]
        place = self.journal.move(partition, target, run=self.plan.run, reason=reason)
        if place > before:
            self.tally.counts["gaps"] += place - before
            if reason != HOLE:
                log.warning("%d alerts of %s-%d are not read: %s", place - before, *partition, reason)
        return place

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        self.tally.rebalances += 1
        try:
            self._finish()
            self._commit()
        finally:  # a journal that fails must not keep the group waiting
            self._forget(partitions)
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        """Drop partitions that the group gave away; the journal refuses rows that their next owner has written."""
        log.warning("worker %d lost %d partitions", self.number, len(partitions))
        self._finish()
        self._forget(partitions)
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[Any]) -> None:
        for one in partitions:
            self.waiting.pop((one.topic, one.partition), None)
            self.rewound.pop((one.topic, one.partition), None)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self.health.check()
        found = self.consumer.consume(self.options.batch, timeout=self.options.wait)
        messages = [self._take(one) for one in found if one.error() is None and self._is_next(one)]
        if messages:
            self.running = self.pool.submit(self._work, messages)
            self._attend()
            self._finish()
            self._commit()
        for one in found:  # behind the messages: the end of a partition counts when these are written
            if one.error() is not None:
                self._on_event(one)
        self._resume()

    def _is_next(self, message: Any) -> bool:
        """False for a message beyond the one to which its partition was set back."""
        partition = place_of(message).partition
        wanted = self.rewound.get(partition)
        if wanted is None or message.offset() <= wanted:
            self.rewound.pop(partition, None)
            return True
        self._seek(partition, wanted)
        return False

    def _take(self, message: Any) -> Message:
        kind, milliseconds = message.timestamp()
        return Message(place_of(message), message.value(), message.key(), milliseconds / 1000 if kind else None)

    def _work(self, messages: list[Message]) -> Outcome:
        if self.options.keep_packets is not None:
            for message in messages:
                keep_packet(message, self.options.keep_packets)
        return self.pipeline.run(messages)

    def _attend(self) -> None:
        """Wait for the batch; while it is slow, pause and keep polling, so that the group keeps this member."""
        patience = min(self.options.pause_s, POLL_MS / 3000)
        while self.running is not None and not wait([self.running], timeout=patience).done:
            self.tally.slow += 1
            self._pause(self.consumer.assignment())
            message = self.consumer.poll(0)
            if message is not None and message.error() is None:
                self._seek(place_of(message).partition, message.offset())
            self._report(state="paused")
        if self.tally.slow:
            self.tally.slow = 0
            self.consumer.resume(
                [one for one in self.consumer.assignment() if (one.topic, one.partition) not in self.waiting]
            )

    def _finish(self) -> None:
        """Write the batch that runs, if there is one."""
        if self.running is None:
            return
        running, self.running = self.running, None
        outcome = running.result()
        started = time.perf_counter()
        written = self.journal.write(outcome.batch)
        self.tally.add(outcome, written.counts, time.perf_counter() - started)
        for partition in written.ends.keys() - outcome.waiting.keys():
            self.waiting.pop(partition, None)
        for partition, (offset, reason) in outcome.waiting.items():
            self._hold(partition, offset, reason)
        self.tally.check()

    def _hold(self, partition: Partition, offset: int, reason: str) -> None:
        """Pause a partition until the schema of its next message is known."""
        if partition not in self.waiting:
            log.warning("%s-%d waits at offset %d: %s", *partition, offset, reason)
        self.waiting[partition] = self.pipeline.decoder.due(), reason
        self._pause([kafka().TopicPartition(*partition)])
        self._seek(partition, offset)

    def _pause(self, partitions: list[Any]) -> None:
        with suppress(kafka().KafkaException):  # given away meanwhile
            self.consumer.pause(partitions)

    def _seek(self, partition: Partition, offset: int) -> None:
        """Set a partition back; if that fails, messages beyond the offset are ignored."""
        self.rewound[partition] = offset
        with suppress(kafka().KafkaException):
            self.consumer.seek(kafka().TopicPartition(*partition, offset))

    def _resume(self) -> None:
        """Resume partitions whose schema is due for another look-up."""
        due = [one for one, (at, _) in self.waiting.items() if time.monotonic() >= at]
        for partition in due:
            self.waiting[partition] = float("inf"), self.waiting[partition][1]
            with suppress(kafka().KafkaException):
                self.consumer.resume([kafka().TopicPartition(*partition)])

    def _on_event(self, message: Any) -> None:
        """Handle an event that is no message: the end of a partition, an expired offset, an error."""
        error, partition = message.error(), (message.topic(), message.partition())
        if error.name() == "_PARTITION_EOF":
            self._on_end(partition, message.offset())
        elif error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
            starts = self._find_starts([partition])
            for one, offset in (starts or {}).items():
                self._seek(one, offset)
                del self.rewound[one]
        elif error.fatal():
            raise StreamError(f"the consumer of worker {self.number} failed ({error.str()}); start the stream again")
        else:
            self.health.on_error(error)
            log.debug("%s", error.str())

    def _on_end(self, partition: Partition, offset: int) -> None:
        """Offsets before the end that hold no message: marks of transactions."""
        _, known, _ = self.journal.positions().get(partition, (0, offset, ""))
        if partition not in self.waiting and known < offset:
            self._leave_out(partition, offset, HOLE)

    def _commit(self) -> None:
        """Commit the journal's offsets to the group: a hint, which may get lost."""
        point, own = kafka().TopicPartition, {(one.topic, one.partition) for one in self.consumer.assignment()}
        ends = [point(*one, end) for one, (_, end, _) in self.journal.positions().items() if one in own]
        with suppress(kafka().KafkaException):
            if ends:
                self.consumer.commit(offsets=ends, asynchronous=True)

    # --- reports -----------------------------------------------------------------------------------------------------

    def _report(self, state: str = "") -> None:
        """Tell the parent, once a second; a parent that is gone ends the worker."""
        if not state and time.monotonic() - self.tally.reported < REPORT_S:
            return
        state = state or ("paused" if self.waiting else "running" if self.consumer.assignment() else "joining")
        report = self.tally.report() | {
            "state": state, "connected": self.health.connected, "n_different": self.pipeline.decoder.n_different,
            "lag": {f"{topic}-{part}": n for (topic, part), n in self.health.lag.items()},
            "waiting": {f"{topic}-{part}": reason for (topic, part), (_, reason) in self.waiting.items()},
        }  # fmt: skip
        try:
            self.link.send(report)
        except OSError:
            self.stop.set()

    def _listen(self) -> None:
        """Stop when the parent says so, or is gone."""
        try:
            if self.link.poll():
                self.link.recv()
                self.stop.set()
        except (OSError, EOFError):
            self.stop.set()


def write_training(plan: Plan) -> None:
    """Score the training set in a process of its own, and write the table that the stream is compared with.

    Parameters
    ----------
    plan : Plan
    """
    show_on_console()
    try:
        scorer, options = load_model(plan.model).scorer, plan.options
        found = score_training(
            scorer, Path(str(options.data)), n_samples=options.samples, seed=SEED, threshold=scorer.threshold
        )  # fmt: skip
        write_csv(plan.out_dir / layout.TRAINING_CSV, found.reindex(columns=list(DRIFT_COLUMNS)))
    except GotorbError as error:
        log.error("the training set is not compared: %s", error)


def work(plan: Plan, number: int, link: Connection) -> None:
    """Run a worker in a process of its own.

    Parameters
    ----------
    plan : Plan
    number : int
    link : Connection
        To the parent, which is told of a failure.
    """
    show_on_console()
    try:
        worker = Worker(plan, number, link)
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: worker.stop.set())
        worker.run()
    except (GotorbError, OSError, sqlite3.Error) as error:
        code = error.code if isinstance(error, StreamError) else 1
        with suppress(OSError):
            link.send({"failed": str(error), "code": code})
        raise SystemExit(code) from None
