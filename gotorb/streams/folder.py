"""Folder of a stream without a broker: kept packets, export of scores, and dead letters read again."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gotorb.classifier.scores import COLUMNS
from gotorb.core import layout
from gotorb.core.constants import SCORE_DIGITS
from gotorb.core.files import whole_file, write_csv
from gotorb.errors import ConfigError, DataError
from gotorb.streams.decoder import Message, Pipeline
from gotorb.streams.journal import HOLE, Journal, Place
from gotorb.survey.alerts import KEY_SUFFIX, find_packets
from gotorb.survey.alerts.records import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger(__name__)
RETRIED = 100
"""Dead letters of a transaction."""
MORE_COLUMNS = ("survey", "object_id", "mjd", "survey_score", "reason", "topic", "part", "off", "t_event", "t_scored")
PLACE_DIGITS = 7


def keep_packet(message: Message, folder: Path) -> Path:
    """Keep a message's bytes as a file, ``<topic>/<partition>/<thousands>/<offset>.avro`` or ``.bin``.

    Parameters
    ----------
    message : Message
    folder : Path

    Returns
    -------
    Path
        The file; a key of the message lies next to it.
    """
    topic, part, offset = message.place
    value = message.value or b""
    suffix = ".avro" if value[:4] == CONTAINER else ".bin"
    path = layout.kept_packet(folder, topic, part, offset, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value)
    if message.key:
        path.with_suffix(KEY_SUFFIX).write_bytes(message.key)
    return path


def find_kept(folder: Path) -> Iterator[Message]:
    """Messages of a folder of kept packets, or of any folder of packets by their names.

    Parameters
    ----------
    folder : Path

    Yields
    ------
    Message
        Kept ones by their place, in its order; others as one partition named by the folder.

    Raises
    ------
    DataError
        If there is none.
    """
    kept = sorted(_kept_places(folder))
    if not kept:
        files = find_packets(folder) if folder.is_dir() else []
        kept = [(Place(f"folder {folder.name}", 0, number), path) for number, path in enumerate(files)]
    if not kept:
        raise DataError(f"no packets in {folder}; give the folder of --keep-packets, or one of .avro or .bin files")
    for place, path in kept:
        key = path.with_suffix(KEY_SUFFIX)
        yield Message(place, path.read_bytes(), key.read_bytes() if key.exists() else None)


def _kept_places(folder: Path) -> Iterator[tuple[Place, Path]]:
    for path in folder.glob("*/*/*/*"):
        topic, part, _, _ = path.relative_to(folder).parts
        if path.suffix in (".avro", ".bin"):
            with suppress(ValueError):
                yield Place(topic, int(part), int(path.stem)), path


def replay(journal: Journal, pipeline: Pipeline, messages: Iterable[Message], *, batch: int) -> Counter[str]:
    """Score messages without a broker, as a stream would; messages that the journal has are skipped.

    Parameters
    ----------
    journal : Journal
    pipeline : Pipeline
    messages : iterable of Message
        In the order of their offsets within a partition.
    batch : int
        Messages scored at a time.

    Returns
    -------
    Counter of str
        As `Journal.write`, and waiting: messages whose schema is not known.
    """
    counts: Counter[str] = Counter()
    messages, opened = iter(messages), set(journal.positions())
    stopped: set[tuple[str, int]] = set()
    while block := list(islice(messages, batch)):
        block = [one for one in block if one.place.partition not in stopped]
        for one in block:
            if one.place.partition not in opened:
                journal.move(one.place.partition, one.place.offset, run="replay", reason=HOLE)
                opened.add(one.place.partition)
        outcome = pipeline.run(block)
        counts.update(journal.write(outcome.batch).counts)
        stopped |= outcome.waiting.keys()
        for (topic, part), (offset, reason) in outcome.waiting.items():
            counts["waiting"] += 1
            log.warning("%s-%d stops at offset %d: %s", topic, part, offset, reason)
    return counts


def retry_dead(journal: Journal, pipeline: Pipeline) -> Counter[str]:
    """Read all dead letters again, for instance with a schema that came later.

    Parameters
    ----------
    journal : Journal
    pipeline : Pipeline

    Returns
    -------
    Counter of str
        As `Journal.write`, and waiting: letters whose schema is still unknown, which stay as they are.
    """
    counts: Counter[str] = Counter()
    last = journal.read("SELECT max(rowid) FROM dead")[0][0] or 0
    after = 0
    while found := [one for one in journal.dead_letters(after, RETRIED) if one[0] <= last]:
        after = found[-1][0]
        for number, letter in found:  # one at a time: a waiting letter does not block the others
            outcome = pipeline.run([Message(letter.place, letter.value, letter.key, letter.t_event)])
            if outcome.waiting:
                counts["waiting"] += 1
            else:
                counts.update(journal.revive([number], outcome.batch))
    return counts


def export(journal: Journal, path: Path, *, every_column: bool = False) -> int:
    """Write the scores as csv or parquet, whole or not at all, sorted by survey and id.

    Parameters
    ----------
    journal : Journal
    path : Path
        ``.csv`` or ``.parquet``.
    every_column : bool
        Also columns that `gotorb score` does not write, and alerts without cut-outs.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ConfigError
        If the file is of another kind.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--to is {path}; give a file that ends in .csv or .parquet")
    table = read_scores(journal, every_column=every_column)
    if path.suffix == ".csv":
        write_csv(path, table, inert=True)
    else:
        with whole_file(path) as aside:
            table.to_parquet(aside, index=False)
    return len(table)


def read_scores(journal: Journal, *, every_column: bool = False) -> pd.DataFrame:
    """Scores of a stream in the columns of `gotorb score`.

    Parameters
    ----------
    journal : Journal
    every_column : bool
        See `export`.

    Returns
    -------
    DataFrame
        ``data_sha256`` is the digest that `gotorb score` gives for a folder of the same packets, named by their ids.
    """
    names = (
        "alert_id", "image_id", "ra", "dec", "score", "mean", "std", "confidence", "model", "version", "called",
        "packet_sha256", *MORE_COLUMNS,
    )  # fmt: skip
    where = "" if every_column else "WHERE score IS NOT NULL"
    found = journal.read(f"SELECT {', '.join(names)} FROM scores {where} ORDER BY survey, alert_id")
    table = pd.DataFrame(found, columns=list(names))
    threshold = journal.read("SELECT value FROM about WHERE name = 'threshold'")
    digest = hashlib.sha256("".join(bytes(one).hex() for one in table["packet_sha256"]).encode()).hexdigest()
    table = table.rename(columns={"alert_id": "id", "model": "model_name", "version": "model_version"})
    table = table.assign(
        ra=table["ra"].round(PLACE_DIGITS), dec=table["dec"].round(PLACE_DIGITS), data_sha256=digest,
        threshold=_number(threshold[0][0]) if threshold else float("nan"), called_real=table["called"].astype("Int64"),
    )  # fmt: skip
    return table[[*COLUMNS, *(MORE_COLUMNS if every_column else ())]]


def _number(text: Any) -> float:
    return round(float(text), SCORE_DIGITS)
