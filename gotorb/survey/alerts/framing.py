"""Framing of alert packets: object containers, Confluent's wire format, Fink's schema in the key, and bare records.

The framing says where the records are and which schema they have; `content` says what they mean.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from gotorb.errors import PacketError
from gotorb.survey.alerts.schemas import MAX_SCHEMA_BYTES, AlertSchema, SchemaStore

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
    known = {"deflate": _deflate, "snappy": _snappy, "bzip2": _bzip2, "xz": _xz, "zstandard": _zstandard}
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


def _deflate(data: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_BLOCK + 1)


def _bzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, MAX_BLOCK + 1)


def _xz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(memlimit=4 * MAX_BLOCK).decompress(data, MAX_BLOCK + 1)


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
