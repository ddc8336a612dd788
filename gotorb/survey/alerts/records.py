"""Records of alert packets: their framing, and bytes and schema to named fields.

The framing (object containers, Confluent's wire format, Fink's schema in the key, bare records) says where the records
are and which schema they have; the history of a source is skipped where possible. `content` says what records mean.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro

from gotorb.errors import PacketError
from gotorb.survey.alerts.schemas import MAX_SCHEMA_BYTES, AlertSchema, CutoutField, SchemaStore

CONTAINER, CONFLUENT = b"Obj\x01", b"\x00"
CONFLUENT_HEADER = 5
"""Bytes before the record: a zero and the schema's id."""
SYNC = 16
MAX_BLOCK = 64_000_000
"""Largest block of a container, packed or unpacked, and largest message [byte]; real alerts have 10^5."""
MAX_HEADER_ITEMS = 100


@dataclass(frozen=True, kw_only=True)
class Block:
    """Records of one schema behind each other.

    Attributes
    ----------
    data : bytes
        The records and nothing else.
    count : int
        Number of records.
    schema : AlertSchema
        Schema that they were written with.
    """

    data: bytes
    count: int
    schema: AlertSchema


def split_message(
    data: bytes, store: SchemaStore, *, key: bytes | None = None, schema: AlertSchema | None = None
) -> Iterator[Block]:
    """Find the records of one message or file in memory.

    Parameters
    ----------
    data : bytes
        An object container, a message in Confluent's wire format, or a bare record.
    store : SchemaStore
        Schemas by id.
    key : bytes, optional
        Key of the message; of Fink's streams it is the schema of a bare record.
    schema : AlertSchema, optional
        Schema of a bare record without a key.

    Yields
    ------
    Block

    Raises
    ------
    PacketError
        If the framing is unknown or broken, or the schema is not known.
    """
    if data[:4] == CONTAINER:
        yield from split_container(io.BytesIO(data), len(data), store)
    elif key is not None and key.lstrip()[:1] == b"{":
        yield Block(data=data, count=1, schema=store.by_text(key))
    elif schema is not None:
        yield Block(data=data, count=1, schema=schema)
    elif data[:1] == CONFLUENT and len(data) > CONFLUENT_HEADER:
        known = store.by_id(int.from_bytes(data[1:CONFLUENT_HEADER], "big"))
        yield Block(data=data[CONFLUENT_HEADER:], count=1, schema=known)
    else:
        raise PacketError(
            f"not an alert packet (begins with {data[:4]!r}, {len(data)} bytes); give Avro object containers "
            "(they begin with 'Obj') or messages in Confluent's wire format (a zero and the schema's id)"
        )


def split_container(file: BinaryIO, size: int, store: SchemaStore) -> Iterator[Block]:
    """Read an Avro object container a block at a time.

    Parameters
    ----------
    file : binary file
        At its beginning.
    size : int
        Bytes of the file; no more is ever asked for.
    store : SchemaStore
        Keeps the parsed schema for the next container.

    Yields
    ------
    Block

    Raises
    ------
    PacketError
        If the container is broken, cut short, too large, or packed in an unknown way.
    """
    reader = _Bounded(file, size)
    if reader.take(4) != CONTAINER:
        raise PacketError("not an Avro object container; fetch it again")
    header = _read_header(reader)
    schema = store.by_text(header.get(b"avro.schema", b""))
    codec = header.get(b"avro.codec", b"null").decode("ascii", "replace")
    sync = reader.take(SYNC)
    while reader.left:
        count, length = reader.long(), reader.long()
        if not 0 <= length <= MAX_BLOCK:
            raise PacketError(f"block of {length} bytes in a container, at most {MAX_BLOCK} are read; fetch it again")
        data = unpack(reader.take(length), codec)
        if reader.take(SYNC) != sync:
            raise PacketError("container with a broken block; fetch it again")
        if not 0 <= count <= len(data):
            raise PacketError(f"block of {len(data)} bytes said to hold {count} alerts; fetch it again")
        if count:
            yield Block(data=data, count=count, schema=schema)


def unpack(data: bytes, codec: str) -> bytes:
    """Unpack a block of a container, at most `MAX_BLOCK` bytes of it.

    Parameters
    ----------
    data : bytes
    codec : str
        Avro's name: null, deflate, snappy, bzip2, xz or zstandard.

    Returns
    -------
    bytes

    Raises
    ------
    PacketError
        If the codec is unknown, the block broken, or its content too large.
    """
    if codec == "null":
        return data
    known: dict[str, Callable[[bytes], bytes]] = {
        "deflate": lambda packed: zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, MAX_BLOCK + 1),
        "snappy": _snappy,
        "bzip2": lambda packed: bz2.BZ2Decompressor().decompress(packed, MAX_BLOCK + 1),
        "xz": lambda packed: lzma.LZMADecompressor(memlimit=4 * MAX_BLOCK).decompress(packed, MAX_BLOCK + 1),
        "zstandard": _zstandard,
    }
    if codec not in known:
        raise PacketError(f"container packed with {codec[:40]!r}; write it with one of null, {', '.join(known)}")
    try:
        content = known[codec](data)
    except PacketError:
        raise
    except Exception as error:
        reason = " ".join(repr(error).split())[:100]
        raise PacketError(f"container with a broken {codec} block ({reason}); fetch it again") from None
    if len(content) > MAX_BLOCK:
        raise PacketError(f"{codec} block of more than {MAX_BLOCK} bytes unpacked; fetch it again")
    return content


def _snappy(data: bytes) -> bytes:
    """Unpack a snappy block, which begins with its length and ends with a checksum of its content."""
    import pyarrow

    body, checksum = data[:-4], int.from_bytes(data[-4:], "big")
    length = _Bounded(io.BytesIO(body), len(body)).varint()
    if length > MAX_BLOCK:
        raise PacketError(f"snappy block of {length} bytes unpacked, at most {MAX_BLOCK} are read; fetch it again")
    content: bytes = pyarrow.Codec("snappy").decompress(body, decompressed_size=length, asbytes=True)
    if zlib.crc32(content) != checksum:
        raise ValueError("its checksum differs")
    return content


def _zstandard(data: bytes) -> bytes:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), "zstd") as stream:
        content: bytes = stream.read(MAX_BLOCK + 1)
    return content


def _read_header(reader: _Bounded) -> dict[bytes, bytes]:
    """Metadata of a container: a map of bytes."""
    found: dict[bytes, bytes] = {}
    while count := reader.long():
        if count < 0:
            count, _ = -count, reader.long()
        if len(found) + count > MAX_HEADER_ITEMS:
            raise PacketError(f"container with {count} entries before its schema; fetch it again")
        for _ in range(count):
            name = reader.string()
            found[name] = reader.string()
    return found


class _Bounded:
    """Reads Avro's numbers and strings from a file whose size is known, and asks for no byte beyond it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.left = file, size

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise PacketError("packet ends too early; fetch it again")
        self.left -= length
        data = self.file.read(length)
        if len(data) != length:
            raise PacketError("packet ends too early; fetch it again")
        return data

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise PacketError("packet with a number of more than 64 bits; fetch it again")

    def long(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def string(self) -> bytes:
        length = self.long()
        if not 0 <= length <= MAX_SCHEMA_BYTES:
            raise PacketError(f"container with {length} bytes where its schema should be; fetch it again")
        return self.take(length)


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
