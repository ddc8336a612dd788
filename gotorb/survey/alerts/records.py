"""Records of alert packets: bytes and schema to named fields; the history of a source is skipped where possible."""

import io
from collections.abc import Iterator
from typing import Any

import fastavro

from gotorb.errors import PacketError
from gotorb.survey.alerts.framing import Block
from gotorb.survey.alerts.schemas import AlertSchema, CutoutField

Record = dict[str, Any]
FITS_START, GZIP_START = b"SIMPLE  =", b"\x1f\x8b\x08"
MAX_MARKS = 100
"""Places that look like the start of a cut-out; with more of them a record is decoded whole."""
MAX_NAME = 512
"""Longest file name of a cut-out [byte]."""


def read_records(block: Block, *, history: bool = False) -> Iterator[Record]:
    """Decode the records of a block.

    Parameters
    ----------
    block : Block
    history : bool
        Decode the earlier detections too. They take up to 99 % of the time, and nothing here needs them.

    Yields
    ------
    dict
        Fields of an alert; without `history` perhaps only those of the measurements and the cut-outs.

    Raises
    ------
    PacketError
        If a record cannot be decoded, or bytes are left over.
    """
    if block.count == 1 and not history and (record := _read_outside(block.data, block.schema)) is not None:
        yield record
        return
    stream = io.BytesIO(block.data)
    for _ in range(block.count):
        yield _decode(stream, block.schema.parsed, block.schema.name)
    if left := len(block.data) - stream.tell():
        raise PacketError(
            f"{left} bytes are left over after the alert by the schema {block.schema.name}; it was written with "
            "another schema or is damaged, fetch it again"
        )


def _decode(stream: io.BytesIO, schema: Any, name: str) -> Record:
    try:
        record = fastavro.schemaless_reader(stream, schema, None)
    except Exception as error:
        raise PacketError(f"no alert of the schema {name} ({one_line(error)}); fetch it again") from None
    if not isinstance(record, dict):
        raise PacketError(f"no alert of the schema {name}, but a {type(record).__name__}; give alert packets")
    return record


def _read_outside(data: bytes, schema: AlertSchema) -> Record | None:
    """Decode what comes before and behind the history; None where that is not certain.

    A source that is a known asteroid needs its ephemeris, which lies between, so its packet is decoded whole.
    """
    if schema.head is None:
        return None
    stream = io.BytesIO(data)
    record = _decode(stream, schema.head, schema.name)
    if (record.get("diaSource") or {}).get("ssObjectId"):
        return None
    cutouts, end = _find_cutouts(data, stream.tell(), schema.cutouts)
    if schema.tail is not None and cutouts:
        stream.seek(end)
        record |= _decode(stream, schema.tail, schema.name)
        end = stream.tell()
    return record | cutouts if cutouts and end == len(data) else None


def _find_cutouts(data: bytes, start: int, fields: tuple[CutoutField, ...]) -> tuple[Record, int]:
    """Find the cut-outs behind the history, and where they end: all lengths and marks must fit to the byte."""
    for mark in (GZIP_START, FITS_START) if fields[0].named else (FITS_START, GZIP_START):
        place, n_marks = start, 0
        while (place := data.find(mark, place + 1)) > 0 and (n_marks := n_marks + 1) <= MAX_MARKS:
            for length in _lengths_before(data, place):
                found, end = _follow(data, place, place + length, fields)
                if found:
                    return found, end
    return {}, 0


def _follow(data: bytes, start: int, end: int, fields: tuple[CutoutField, ...]) -> tuple[Record, int]:
    """Cut-outs of which the first is from `start` to `end`, and the end of the last; none when they do not fit."""
    found: Record = {}
    for number, field in enumerate(fields):
        if number:
            start, end = _next_bytes(data, end, field)
        if not 0 < start <= end <= len(data):
            return {}, 0
        found[field.name] = {"stampData": data[start:end]} if field.named else data[start:end]
    return found, end


def _next_bytes(data: bytes, place: int, field: CutoutField) -> tuple[int, int]:
    """Beginning and end of the bytes of a cut-out's field; 0, 0 when it is another field, or null."""
    opening = field.before + field.before_name
    if not data.startswith(opening, place):
        return 0, 0
    place += len(opening)
    if field.named:
        length, place = _number(data, place)
        place += length if 0 <= length <= MAX_NAME else len(data)
        if not data.startswith(field.before_data, place):
            return 0, 0
        place += len(field.before_data)
    length, place = _number(data, place)
    return (place, place + length) if length > 0 else (0, 0)


def _lengths_before(data: bytes, place: int) -> Iterator[int]:
    """Numbers that may stand right before a place, the likely one first."""
    for size in (3, 2, 4):
        if place > size:
            length, end = _number(data, place - size)
            if end == place and length > 0:
                yield length


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Decode a number of Avro, and the place behind it; -1 for one of more than 4 bytes."""
    value = 0
    for shift, byte in enumerate(data[place : place + 4]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), place + shift + 1
    return -1, place


def one_line(error: Exception) -> str:
    """An error's text without line breaks, at most 200 letters.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    str
    """
    text = " ".join(repr(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
