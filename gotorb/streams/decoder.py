"""Messages of a stream decoded and scored: rows for the journal, dead letters, and messages that wait for a schema."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gotorb.classifier.scores import Scorer, Scores, fit_stamps, scale_of, score_batch
from gotorb.core.constants import MJD_ZERO, SCORE_DIGITS
from gotorb.core.params import SEED, ArchiveParams, StreamParams
from gotorb.errors import DataError, ModelError, PacketError, SchemaUnknown
from gotorb.evaluation.posterior import summarise_samples
from gotorb.streams.journal import Batch, DeadLetter, Place, Row
from gotorb.survey.alerts import PacketReader
from gotorb.survey.alerts.content import has_cutouts, read_alert, read_measurements
from gotorb.survey.alerts.records import (
    CONFLUENT,
    CONFLUENT_HEADER,
    CONTAINER,
    Record,
    one_line,
    read_records,
    split_message,
)
from gotorb.survey.pixels import prepare_stamps

log = logging.getLogger(__name__)
STREAM = StreamParams()
MAX_SCHEMA_ID = 1_000_000
"""Registries count their schemas from 1: a larger id is damage."""
LONE = 3
"""Readable messages after one of an unknown schema from which on that one counts as damaged."""
MAX_RETRY_S = 60.0
CHECK_EVERY = 1000
"""One packet of so many is decoded whole too, and compared."""
INPUTS = ("magpsf", "fwhm", "snr")
"""Measurements of an alert that are compared with the training set's mag, fwhm and snr."""
EMPTY, UNREADABLE, UNFIT = "empty", "unreadable", "does not fit the model"
"""Kinds of dead letters."""
BARE = "no cut-outs in the packet"


class Message(NamedTuple):
    """A message of a topic.

    Attributes
    ----------
    place : Place
    value, key : bytes or None
    time : float or None
        Seconds since 1970, by the broker or the survey.
    """

    place: Place
    value: bytes | None
    key: bytes | None = None
    time: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Results of a batch of messages.

    Attributes
    ----------
    batch : Batch
        For the journal.
    waiting : dict
        Partition -> offset of a message whose schema is not known, and the reason; it and those behind it are not in
        the batch.
    seconds : dict of str
        Time for decoding and for scores.
    """

    batch: Batch
    waiting: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class _Alert(NamedTuple):
    message: Message
    record: Record
    stamp: np.ndarray
    layers: tuple[str, ...]


@dataclass
class _Wait:
    """An unknown schema id: when it was missed first, and when it is looked for again."""

    since: float
    due: float
    pause: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Options that, with model and packets, decide the rows.

    Attributes
    ----------
    n_samples : int
        Posterior samples of a stamp; 0 for plain scores only.
    seed : int
        Of the samples of the first batch.
    threshold : float
        Score at or above which an alert is called real.
    publish : str
        Topic of published scores; "" for none.
    above : float
        Score at or above which they are published.
    archive : ArchiveParams
        Background of stamps, and the names of fields.
    """

    n_samples: int = STREAM.samples
    seed: int = SEED
    threshold: float
    publish: str = ""
    above: float
    archive: ArchiveParams = field(default_factory=ArchiveParams)


class Decoder:
    """Alerts of messages.

    Parameters
    ----------
    reader : PacketReader
        Schemas, names of fields, and the size of stamps.
    retry_s : float
        First wait before an unknown schema is looked for again [s].
    patience_s : float
        Wait for the schema of a lone message [s], where a registry may still have it.
    """

    def __init__(
        self, reader: PacketReader, *, retry_s: float = STREAM.retry_s, patience_s: float = STREAM.patience_s
    ) -> None:
        self.reader, self.retry_s, self.patience_s = reader, retry_s, patience_s
        self.n_decoded = self.n_different = 0
        self._waits: dict[int, _Wait] = {}

    def check_schema(self, message: Message) -> None:
        """Look for the schema of a message in Confluent's wire format.

        Parameters
        ----------
        message : Message

        Raises
        ------
        SchemaUnknown
            If it is not available now.
        PacketError
            If the id is impossible.
        """
        schema_id = wire_id(message)
        if schema_id is None:
            return
        if not 0 < schema_id <= MAX_SCHEMA_ID:
            raise PacketError(f"Confluent wire format with the impossible schema id {schema_id}; fetch it again")
        wait, now = self._waits.get(schema_id), time.monotonic()
        if wait is not None and now < wait.due:
            raise SchemaUnknown(wait.reason)
        try:
            self.reader.store.by_id(schema_id)
            self._waits.pop(schema_id, None)
        except PacketError as error:
            pause = min(2 * wait.pause, MAX_RETRY_S) if wait else self.retry_s
            now = time.monotonic()
            self._waits[schema_id] = _Wait(wait.since if wait else now, now + pause, pause, str(error))
            raise SchemaUnknown(str(error)) from None

    def due(self) -> float:
        """Time, by `time.monotonic`, at which an unknown schema is looked for again."""
        return min((wait.due for wait in self._waits.values()), default=0.0)

    def is_lone(self, message: Message, later: Sequence[Message]) -> bool:
        """True for a message of an unknown schema between others whose schemas are known: damage, not a new schema.

        Parameters
        ----------
        message : Message
        later : sequence of Message
            Those behind it in its partition.

        Returns
        -------
        bool
        """
        schema_id = wire_id(message)
        wait = self._waits.get(schema_id or 0)
        patience = self.patience_s if self.reader.store.registry else 0.0
        if wait is None or time.monotonic() - wait.since < patience or schema_id in map(wire_id, later):
            return False
        return sum(map(self._is_known, later)) >= LONE

    def _is_known(self, message: Message) -> bool:
        try:
            self.check_schema(message)
        except PacketError:
            return False
        return wire_id(message) is not None

    def decode(self, message: Message, where: str) -> Iterator[Record | tuple[Record, np.ndarray, tuple[str, ...]]]:
        """Decode the alerts of a message.

        Parameters
        ----------
        message : Message
        where : str
            For messages of errors.

        Yields
        ------
        dict or tuple
            The measurements of an alert without cut-outs; else measurements, stamp and layers.

        Raises
        ------
        PacketError
            If it cannot be used; alerts before the broken one have been yielded.
        """
        value = message.value or b""
        if value.lstrip()[:1] in (b"{", b"[") and value[:4] != CONTAINER and not (message.key or b"").startswith(b"{"):
            raise PacketError("JSON, which has no cut-outs; subscribe to a topic of Avro packets")
        for block in split_message(value, self.reader.store, key=message.key):
            self.n_decoded += 1
            check = self.n_decoded % CHECK_EVERY == 0
            records = read_records(block, history=check)
            quick = read_records(block) if check else None
            for record in records:
                if quick is not None and not _agree(record, next(quick, {})):
                    self.n_different += 1
                    log.warning("%s differs when its history is decoded; the whole packet counts", where)
                yield self._read(record, where)

    def _read(self, record: Record, where: str) -> Record | tuple[Record, np.ndarray, tuple[str, ...]]:
        if not has_cutouts(record):
            return read_measurements(record, where, self.reader.families)
        alert = read_alert(record, where, self.reader.families, self.reader.size)
        return alert.record, alert.stamp, alert.layers


def _agree(whole: Record, quick: Record) -> bool:
    """True where the fields of both ways to decode are equal."""
    return all(repr(whole.get(name)) == repr(value) for name, value in quick.items())


def wire_id(message: Message) -> int | None:
    """Schema id of a message in Confluent's wire format.

    Parameters
    ----------
    message : Message

    Returns
    -------
    int or None
        None for another framing.

    Examples
    --------
    >>> wire_id(Message(Place("t", 0, 0), bytes([0, 0, 0, 3, 232, 1])))
    1000
    """
    value = message.value or b""
    framed = value[:1] == CONFLUENT and len(value) > CONFLUENT_HEADER
    if not framed or (message.key or b"").lstrip()[:1] == b"{":
        return None
    return int.from_bytes(value[1:CONFLUENT_HEADER], "big")


class Pipeline:
    """Steps from messages to rows: decode, cut, score.

    Parameters
    ----------
    decoder : Decoder
    scorer : Scorer
    options : ScoreOptions
    """

    def __init__(self, decoder: Decoder, scorer: Scorer, options: ScoreOptions) -> None:
        self.decoder, self.scorer, self.options = decoder, scorer, options

    def run(self, messages: Sequence[Message]) -> Outcome:
        """Decode and score messages; an error affects only its own message.

        Parameters
        ----------
        messages : sequence of Message
            In the order of their offsets within a partition.

        Returns
        -------
        Outcome
        """
        started = time.perf_counter()
        batch, waiting, alerts = Batch(), {}, []
        for number, message in enumerate(messages):
            if message.place.partition in waiting:
                continue
            try:
                self._check_schema(message, messages[number + 1 :])
            except SchemaUnknown as error:
                waiting[message.place.partition] = message.place.offset, str(error)
                continue
            batch.places.append(message.place)
            alerts += self._decode(message, batch)
        decoded = time.perf_counter()
        self._score(alerts, batch)
        seconds = {"decode": decoded - started, "score": time.perf_counter() - decoded}
        return Outcome(batch, waiting, seconds)

    def _check_schema(self, message: Message, later: Sequence[Message]) -> None:
        """Raise SchemaUnknown for a message that has to wait; a damaged one is left to `_decode`."""
        try:
            self.decoder.check_schema(message)
        except SchemaUnknown:
            behind = [one for one in later if one.place.partition == message.place.partition]
            if not self.decoder.is_lone(message, behind):
                raise
        except PacketError:
            return

    def _decode(self, message: Message, batch: Batch) -> list[_Alert]:
        """Alerts of a message; those without cut-outs become rows, and an error becomes a dead letter."""
        where = "message {}-{}-{}".format(*message.place)
        found: list[_Alert] = []
        n_rows = len(batch.rows)
        if not message.value:
            batch.dead.append(_letter(message, EMPTY, "no bytes"))
            return []
        try:
            self.decoder.check_schema(message)
            for one in self.decoder.decode(message, where):
                if isinstance(one, dict):
                    batch.rows.append(self._row(message, one, reason=BARE))
                else:
                    found.append(_Alert(message, *one))
            if not found and len(batch.rows) == n_rows:
                raise PacketError(f"{where} holds no alert")
        except PacketError as error:
            batch.dead.append(_letter(message, UNREADABLE, str(error)))
        except Exception as error:  # damaged bytes raise anything in a library; only this message is lost
            batch.dead.append(_letter(message, UNREADABLE, one_line(error)))
        return found

    def _score(self, alerts: Sequence[_Alert], batch: Batch) -> None:
        """Score alerts in groups of equal layers, shape and survey."""
        groups: dict[tuple[Any, ...], list[_Alert]] = defaultdict(list)
        for alert in alerts:
            groups[alert.layers, alert.stamp.shape, alert.record["survey"]].append(alert)
        for found in groups.values():
            self._score_alike(found, batch)

    def _score_alike(self, alerts: Sequence[_Alert], batch: Batch) -> None:
        """Score alerts together; where that fails, each alone, so that only the faulty one is lost."""
        try:
            raw = np.stack([alert.stamp for alert in alerts])
            stamps, _ = prepare_stamps(raw, self.options.archive.background)
            fitted = fit_stamps(self.scorer, stamps, alerts[0].layers, "the stream")
            scores = score_batch(self.scorer, fitted, self.options.n_samples, self._seed(alerts[0]))
            if not np.isfinite(scores.best).all():
                raise DataError("the score is not a number; the pixels of the packet are damaged")
        except (DataError, ModelError) as error:
            if len(alerts) == 1:
                self._bury(alerts, str(error), batch)
            for one in alerts if len(alerts) > 1 else ():
                self._score_alike([one], batch)
        else:
            self._add_rows(alerts, scores, batch)

    def _seed(self, alert: _Alert) -> int:
        return self.options.seed + alert.message.place.offset

    def _bury(self, alerts: Sequence[_Alert], reason: str, batch: Batch) -> None:
        """One dead letter for each message that has none yet."""
        known = {letter.place for letter in batch.dead}
        letters = {alert.message.place: _letter(alert.message, UNFIT, reason) for alert in alerts}
        batch.dead.extend(letter for place, letter in letters.items() if place not in known)

    def _add_rows(self, alerts: Sequence[_Alert], scores: Scores, batch: Batch) -> None:
        plain = np.round(scores.plain.astype(float), SCORE_DIGITS).tolist()
        called = (scores.best >= self.options.threshold).astype(int).tolist()
        wanted = (scores.best >= self.options.above).tolist() if self.options.publish else [False] * len(plain)
        scale = scale_of(self.scorer, self.options.threshold)
        summary = None if scores.samples is None else summarise_samples(scores.samples, scale)
        for number, alert in enumerate(alerts):
            values: dict[str, Any] = {"score": plain[number], "called": called[number]}
            if summary is not None:
                values |= {
                    name: round(float(getattr(summary, name)[number]), SCORE_DIGITS)
                    for name in ("mean", "std", "confidence")
                }
            batch.rows.append(self._row(alert.message, alert.record, wanted=wanted[number], **values))

    def _row(self, message: Message, record: Record, *, wanted: bool = False, **values: Any) -> Row:
        """Row of an alert; published with the same values where that is wanted."""
        names = {"survey": record["survey"], "alert_id": record["candid"], "object_id": record["objectId"]}
        names["image_id"] = record["image_id"]
        numbers: dict[str, Any] = {
            "ra": float(record["ra"]), "dec": float(record["dec"]), "mjd": float(record["jd"]) - MJD_ZERO,
            "survey_score": _finite(record.get("survey_score")),
        }  # fmt: skip
        published = None
        if wanted:
            model = {"model": self.scorer.name, "version": self.scorer.version}
            text = json.dumps({**names, **numbers, **values, **model}, sort_keys=True, allow_nan=False)
            published = self.options.publish, text.encode()
        return Row(
            place=message.place, packet_sha256=hashlib.sha256(message.value or b"").digest(), t_event=message.time,
            published=published, inputs=tuple(_finite(record.get(name)) for name in INPUTS), **names, **numbers,
            **values,
        )  # fmt: skip


def _letter(message: Message, kind: str, reason: str) -> DeadLetter:
    return DeadLetter(
        place=message.place, kind=kind, reason=reason, key=message.key, value=message.value, t_event=message.time
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
