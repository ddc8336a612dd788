"""Small made-up alert packets of any framing: Rubin's by its own schemas, and those of surveys like ZTF."""

import io
import json
import zlib
from typing import Any

import fastavro
import numpy as np
from astropy.io import fits

from gotorb.survey.alerts.schemas import shipped_versions
from tests.unit.survey.synthetic import make_image, pack

SIDE = 30
NOTHING_OF = {"long": 0, "int": 0, "float": 0.0, "double": 0.0, "boolean": False, "string": "", "bytes": b""}


def rubin_cutout(layer: int, reference: tuple[float, float] = (15.2, 14.4), side: int = SIDE) -> bytes:
    """Three HDUs as Rubin's: pixels with one bright one at CRPIX - 1, variance, and the PSF."""
    pixels = np.random.default_rng(layer).normal(0, 1, (side, side)).astype(">f4")
    x, y = (int(np.floor(one - 1 + 0.5)) for one in reference)
    pixels[y, x] = 1000
    first = fits.PrimaryHDU(pixels)
    first.header["CRPIX1"], first.header["CRPIX2"] = reference
    buffer = io.BytesIO()
    hdus = [first, fits.ImageHDU(np.ones((side, side), ">f4"), name="UNCERT"), fits.ImageHDU(np.ones((9, 9)))]
    fits.HDUList(hdus).writeto(buffer)
    return buffer.getvalue()


def rubin_schema(version: str) -> Any:
    return fastavro.parse_schema(json.loads(shipped_versions()[version]))


def rubin_record(
    version: str = "10.0", *, alert_id: int = 2**60 + 1, history: int = 0, **source: Any
) -> dict[str, Any]:
    """A record in which every field has a value of its type; `source` replaces some of diaSource."""
    schema = json.loads(shipped_versions()[version])
    record = {one["name"]: _nothing(one["type"]) for one in schema["fields"]}
    own = next(one["type"] for one in schema["fields"] if one["name"] == "diaSource")
    values = {one["name"]: _nothing(one["type"]) for one in own["fields"]}
    values |= {"diaSourceId": alert_id, "diaObjectId": 77, "ra": 10.5, "dec": -45.25, "midpointMjdTai": 61000.5}
    values |= {"psfFlux": 1000.0, "x": 900.0, "y": 450.0, "visit": 5, "detector": 3, "reliability": 0.875} | source
    record["diaSource"] = values
    record["prvDiaSources"] = [values] * history or None
    if "diaSourceId" in record:
        record["diaSourceId"] = alert_id
    layers = ("Science", "Template", "Difference")
    return record | {f"cutout{name}": rubin_cutout(layer) for layer, name in enumerate(layers)}


def _nothing(kind: Any) -> Any:
    """Null where that is allowed, else nothing of a type."""
    if isinstance(kind, list):
        return None if "null" in kind else _nothing(kind[0])
    if isinstance(kind, dict) and kind["type"] == "record":
        return {one["name"]: _nothing(one["type"]) for one in kind["fields"]}
    return NOTHING_OF[kind if isinstance(kind, str) else kind["type"]]


def bare(record: dict[str, Any], schema: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def wire(record: dict[str, Any], version: str, schema_id: int | None = None) -> bytes:
    """A message in Confluent's wire format."""
    major, minor = map(int, version.split("."))
    number = 100 * major + minor if schema_id is None else schema_id
    return b"\0" + number.to_bytes(4, "big") + bare(record, rubin_schema(version))


def long(number: int) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, "long", number)
    return buffer.getvalue()


def container(schema: Any, blocks: list[tuple[int, bytes]], codec: str = "null") -> bytes:
    """An object container written by hand: (number of records, stored bytes) of each block."""
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    entries = {b"avro.schema": text, b"avro.codec": codec.encode()}
    header = long(len(entries)) + b"".join(long(len(part)) + part for pair in entries.items() for part in pair)
    sync = bytes(range(16))
    body = b"".join(long(count) + long(len(data)) + data + sync for count, data in blocks)
    return b"Obj\x01" + header + long(0) + sync + body


def snappy(data: bytes) -> bytes:
    import pyarrow

    return pyarrow.Codec("snappy").compress(data, asbytes=True) + zlib.crc32(data).to_bytes(4, "big")


def other_packet(names: dict[str, str], candidate: dict[str, Any], **top: Any) -> bytes:
    """A container of a survey like ZTF whose cut-outs are bare bytes."""
    record: dict[str, Any] = top | {"candidate": candidate} | {name: pack(make_image(n, (41, 41))) for n, name in
                                                               enumerate(names.values())}  # fmt: skip
    kinds = {int: "long", float: "double", str: "string", bytes: "bytes"}
    inner = [{"name": key, "type": kinds[type(value)]} for key, value in candidate.items()]
    fields = [
        {"name": key, "type": {"type": "record", "name": "inner", "fields": inner} if key == "candidate"
         else kinds[type(value)]} for key, value in record.items()
    ]  # fmt: skip
    buffer = io.BytesIO()
    fastavro.writer(buffer, fastavro.parse_schema({"type": "record", "name": "a", "fields": fields}), [record])
    return buffer.getvalue()


def asteroid(version: str, **ephemeris: Any) -> dict[str, Any]:
    schema = json.loads(shipped_versions()[version])
    kind = next(one["type"] for one in schema["fields"] if one["name"] == "ssSource")
    fields = next(one for one in kind if one != "null")["fields"]
    return {one["name"]: None if isinstance(one["type"], list) else 5 for one in fields} | ephemeris
