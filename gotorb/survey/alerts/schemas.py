"""Avro schemas of alert packets by the id of a message, each parsed once: Rubin's own, a folder's or a registry's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import requests
from fastavro.schema import load_schema

from gotorb.core.files import whole_file
from gotorb.core.logs import one_line
from gotorb.core.settings import Settings, read_settings
from gotorb.errors import PacketError

SHIPPED = Path(__file__).with_name("rubin_schemas.tsv")
"""Rubin's schemas 7.0 to 11.1 as names and types, one version in a line."""
MAX_SCHEMA_BYTES = 1_000_000
MAX_FIELDS = 20_000
"""Fields of a schema with all records written out, one inside the other; Rubin's have 600."""
MAX_DEPTH = 12
"""Records and lists inside each other; real alerts have 4."""
MAX_KEPT = 64
"""Schemas that a process keeps parsed."""
TIMEOUT_S = 10.0
HISTORY = frozenset(
    ("prv_candidates", "fp_hists", "prvDiaSources", "prvDiaForcedSources", "prvDiaNondetectionLimits", "diaObject",
     "ssObject", "ssSource", "MPCORB", "mpc_orbits")
)  # fmt: skip
"""Fields of earlier detections, and of the object: they are not needed where the source is no known asteroid."""
EMPTY_KINDS = ("null",)
PRIMITIVES = ("boolean", "int", "long", "float", "double", "bytes", "string", "enum", "fixed", *EMPTY_KINDS)


@dataclass(frozen=True)
class CutoutField:
    """A field of a cut-out in a record's bytes.

    Attributes
    ----------
    name : str
    named : bool
        True for a record of a file name and bytes, as in ZTF's packets; False for bytes alone, as in Rubin's.
    before, before_name, before_data : bytes
        Mark that the field, the name and the bytes are not null; empty where they cannot be.
    """

    name: str
    named: bool = False
    before: bytes = b""
    before_name: bytes = b""
    before_data: bytes = b""


@dataclass(frozen=True, eq=False)
class AlertSchema:
    """A schema that was checked and parsed.

    Attributes
    ----------
    parsed : object
        As fastavro takes it.
    name : str
        For messages: ``Rubin 10.0``, or the name of the record.
    head : object or None
        The same up to the history, when only history lies between that and the cut-outs.
    cutouts : tuple of CutoutField
        These, one behind the other.
    tail : object or None
        Schema of what follows on them; None for nothing.
    """

    parsed: Any
    name: str
    head: Any = None
    cutouts: tuple[CutoutField, ...] = ()
    tail: Any = None


@dataclass
class SchemaStore:
    """Schemas by id or by text, each parsed once.

    Attributes
    ----------
    folder : Path, optional
        Schema files: Rubin's layout (``lsst.v10_0.alert.avsc`` and the records next to it), or ``<id>.avsc``.
    registry : str
        Address of a Confluent schema registry; asked once for each id, its answers are kept in `cache_dir`.
    cache_dir : Path, optional
        None: answers are not kept on disk.
    """

    folder: Path | None = None
    registry: str = ""
    cache_dir: Path | None = None
    _by_id: dict[int, AlertSchema] = field(default_factory=dict, repr=False)
    _by_text: dict[bytes, AlertSchema] = field(default_factory=dict, repr=False)

    def by_id(self, schema_id: int) -> AlertSchema:
        """Schema of an id in Confluent's wire format: of the folder, else the registry, else Rubin's own.

        Parameters
        ----------
        schema_id : int
            Rubin's ids are 100 x major + minor version.

        Returns
        -------
        AlertSchema

        Raises
        ------
        PacketError
            If the id is unknown. Another schema is never tried: many read without an error and give wrong numbers.
        """
        if schema_id not in self._by_id:
            self._by_id[schema_id] = self._find(schema_id)
        return self._by_id[schema_id]

    def by_text(self, text: bytes) -> AlertSchema:
        """Schema that a container or a message's key brings along.

        Parameters
        ----------
        text : bytes
            JSON.

        Returns
        -------
        AlertSchema

        Raises
        ------
        PacketError
            If it is no schema, or one that small packets could make endless.
        """
        found = self._by_text.get(text)
        if found is None:
            found = parse_schema(_read_json(text))
            if len(self._by_text) >= MAX_KEPT:
                self._by_text.clear()
            self._by_text[text] = found
        return found

    def _find(self, schema_id: int) -> AlertSchema:
        version = "{}.{}".format(*divmod(schema_id, 100))
        if self.folder is not None and (path := _schema_file(self.folder, schema_id)) is not None:
            return parse_schema(_load(path), f"{path.name}")
        if self.registry:
            return parse_schema(_read_json(self._ask(schema_id)), f"registry's {schema_id}")
        if version in shipped_versions():
            return parse_schema(json.loads(shipped_versions()[version]), f"Rubin {version}")
        raise PacketError(
            f"Confluent wire format with the unknown schema id {schema_id}; set GOTORB_SCHEMA_REGISTRY in .env to the "
            f"stream's registry, or GOTORB_ALERT_SCHEMAS to a folder that holds {schema_id}.avsc (known without: "
            f"Rubin's {', '.join(shipped_versions())})"
        )

    def _ask(self, schema_id: int) -> bytes:
        """Answer of the registry, from disk when it was asked before."""
        kept = None if self.cache_dir is None else self.cache_dir / "schemas" / self._cache_name(schema_id)
        if kept is not None and kept.exists():
            return kept.read_bytes()
        answer = self._request(schema_id)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(kept) as aside:
                aside.write_bytes(answer)
        return answer

    def _cache_name(self, schema_id: int) -> str:
        place = "".join(letter if letter.isalnum() else "_" for letter in self.registry)
        return f"{place}_{schema_id}.json"

    def _request(self, schema_id: int) -> bytes:
        url = f"{self.registry.rstrip('/')}/schemas/ids/{schema_id}"
        try:
            answer = requests.get(url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            schema = answer.json()["schema"]
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            reason = one_line(error, 200)
            raise PacketError(
                f"no schema {schema_id} from the registry {self.registry} ({type(error).__name__}: {reason}); check "
                "GOTORB_SCHEMA_REGISTRY in .env, or set GOTORB_ALERT_SCHEMAS to a folder of schemas"
            ) from None
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return text.encode()


def open_store(settings: Settings | None = None) -> SchemaStore:
    """Make the store that .env describes.

    Parameters
    ----------
    settings : Settings, optional
        Of .env when left out.

    Returns
    -------
    SchemaStore
    """
    settings = settings or read_settings()
    folder = settings.gotorb_alert_schemas
    return SchemaStore(Path(folder) if folder else None, settings.gotorb_schema_registry, settings.cache_dir)


@cache
def shipped_versions() -> dict[str, str]:
    """Version of Rubin's alert schema -> its JSON."""
    lines = [line.partition("\t") for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    return {version: text for version, _, text in lines}


def plain_schema(schema: Any) -> Any:
    """Names and types of a schema, without doc texts, defaults and aliases.

    Parameters
    ----------
    schema : object
        Decoded JSON.

    Returns
    -------
    object
    """
    if isinstance(schema, list):
        return [plain_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    deep = ("type", "items", "values", "fields")
    kept = ("name", "namespace", "symbols", "size")
    plain = {key: plain_schema(value) if key in deep else value for key, value in schema.items() if key in deep + kept}
    return plain["type"] if list(plain) == ["type"] else plain


def parse_schema(schema: Any, name: str = "") -> AlertSchema:
    """Check a schema and prepare it for reading.

    Parameters
    ----------
    schema : object
        Decoded JSON.
    name : str
        For messages; the record's own when left out.

    Returns
    -------
    AlertSchema

    Raises
    ------
    PacketError
        If it is no record, or a small packet could make it endless: records inside themselves, lists of nothing.
    """
    if isinstance(schema, str):  # Rubin's registry answers with JSON inside JSON
        schema = _read_json(schema.encode())
    if not isinstance(schema, dict) or schema.get("type") != "record" or not isinstance(schema.get("fields"), list):
        raise PacketError(f"schema of an alert packet is {str(schema)[:60]!r}, not a record; give alert packets")
    plain = plain_schema(schema)
    _Expansion().check(plain)
    try:
        head, cutouts, tail = _outside_history(plain)
        return AlertSchema(fastavro.parse_schema(plain), name or str(schema.get("name")), head, cutouts, tail)
    except PacketError:
        raise
    except Exception as error:
        reason = one_line(repr(error), 200)
        raise PacketError(f"schema {name or schema.get('name')} cannot be used ({reason}); fetch it again") from None


def _outside_history(plain: dict[str, Any]) -> tuple[Any, tuple[CutoutField, ...], Any]:
    """The schema up to the history, the cut-outs behind it and the schema of the rest; None where that is not so."""
    fields, named = plain["fields"], _named_types(plain)
    n_head = next((row for row, one in enumerate(fields) if one["name"] in HISTORY), 0)
    n_tail = next((row for row, one in enumerate(fields) if _is_cutout(one)), len(fields))
    n_rest = n_tail + sum(map(_is_cutout, fields[n_tail:]))
    cutouts = tuple(_cutout_field(one, named) for one in fields[n_tail:n_rest])
    between = {one["name"] for one in fields[n_head:n_tail]}
    plain_rest = all(_not_null(one["type"])[1] in PRIMITIVES for one in fields[n_rest:])
    if not n_head or not cutouts or None in cutouts or between - HISTORY or not plain_rest:
        return None, (), None
    head, tail = (
        fastavro.parse_schema(json.loads(json.dumps(plain | {"fields": part}))) if part else None
        for part in (fields[:n_head], fields[n_rest:])
    )
    return head, tuple(one for one in cutouts if one is not None), tail


def _is_cutout(one: dict[str, Any]) -> bool:
    return str(one.get("name")).lower().startswith("cutout")


def _cutout_field(one: dict[str, Any], named: dict[str, Any]) -> CutoutField | None:
    """Layout of a cut-out's field; None for one that cannot be told from the end of its bytes."""
    mark, kind = _not_null(one["type"])
    if not _is_cutout(one):
        return None
    if kind == "bytes":
        return CutoutField(one["name"], before=mark)
    kind = named.get(kind, kind) if isinstance(kind, str) else kind
    parts = kind.get("fields", []) if isinstance(kind, dict) else []
    if len(parts) != 2 or parts[1]["name"] != "stampData":
        return None
    (before_name, name), (before_data, data) = (_not_null(part["type"]) for part in parts)
    certain = (name, data) == ("string", "bytes") and mark + before_name  # else any byte could begin the name
    return CutoutField(one["name"], True, mark, before_name, before_data) if certain else None


def _not_null(kind: Any) -> tuple[bytes, Any]:
    """Mark and type of a value that is there, of a type that may allow null."""
    if isinstance(kind, list) and len(kind) == 2 and "null" in kind:
        place = 1 - kind.index("null")
        return bytes([2 * place]), kind[place]
    return b"", kind


def _named_types(schema: Any) -> dict[str, Any]:
    """Records inside a schema, by name, with and without their namespace."""
    found: dict[str, Any] = {}
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        found |= _named_types(inner)
    if isinstance(schema, dict) and schema.get("type") == "record":
        name = str(schema.get("name"))
        found |= {name: schema, name.rpartition(".")[2]: schema, _full_name(schema, ""): schema}
    return found


def _read_json(text: bytes) -> Any:
    if len(text) > MAX_SCHEMA_BYTES:
        raise PacketError(f"schema of {len(text)} bytes, at most {MAX_SCHEMA_BYTES} are read; give alert packets")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = one_line(error, 100)
        raise PacketError(f"schema of an alert packet is not JSON ({reason}); fetch the packet again") from None


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_SCHEMA_BYTES:
            raise ValueError(f"more than {MAX_SCHEMA_BYTES} bytes")
        return json.loads(json.dumps(load_schema(str(path), _write_hint=False)))
    except Exception as error:
        reason = one_line(error, 200)
        raise PacketError(f"schema {path} cannot be read ({reason}); correct GOTORB_ALERT_SCHEMAS in .env") from None


def _schema_file(folder: Path, schema_id: int) -> Path | None:
    """File of an id: ``<id>.avsc`` or ``.json``, or Rubin's name of that version."""
    if not folder.is_dir():
        raise PacketError(f"no folder {folder} of schemas; correct GOTORB_ALERT_SCHEMAS in .env")
    major, minor = divmod(schema_id, 100)
    names = {f"{schema_id}.avsc", f"{schema_id}.json", f"lsst.v{major}_{minor}.alert.avsc"}
    return next((path for path in sorted(folder.rglob("*")) if path.name in names), None)


class _Expansion:
    """Limits a schema so that the size of a packet limits the work that it can ask for."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, int]] = {}  # name -> fields when written out, bytes at least

    def check(self, schema: Any) -> None:
        fields, _ = self._weigh(schema, "", 0)
        if fields > MAX_FIELDS:
            raise PacketError(f"schema with {fields} fields, at most {MAX_FIELDS} are read; give alert packets")

    def _weigh(self, schema: Any, space: str, depth: int) -> tuple[int, int]:
        """Fields with all records written out, and the least number of bytes."""
        if depth > 3 * MAX_DEPTH:
            raise PacketError(f"schema with more than {MAX_DEPTH} records inside each other; give alert packets")
        if isinstance(schema, str):
            return self._weigh_name(schema, space)
        if isinstance(schema, list):
            parts = [self._weigh(one, space, depth + 1) for one in schema]
            return 1 + sum(fields for fields, _ in parts), 1
        if not isinstance(schema, dict):
            raise PacketError(f"schema with the type {str(schema)[:60]!r}; fetch the packet again")
        kind = schema.get("type")
        if kind in ("array", "map"):
            fields, least = self._weigh(schema.get("items" if kind == "array" else "values"), space, depth + 1)
            if kind == "array" and not least:
                raise PacketError("schema with a list of nothing, which has no end; give alert packets")
            return 1 + fields, 1
        if kind in ("record", "error"):
            return self._weigh_record(schema, space, depth)
        if kind in ("enum", "fixed"):
            least = int(schema.get("size") or 0) if kind == "fixed" else 1
            self.known[_full_name(schema, space)] = 1, least
            return 1, least
        return self._weigh(kind, space, depth + 1)

    def _weigh_name(self, name: str, space: str) -> tuple[int, int]:
        if name in PRIMITIVES:
            return 1, 0 if name in EMPTY_KINDS else 1
        for full in (name, f"{space}.{name}"):
            if full in self.known:
                return self.known[full]
        raise PacketError(f"schema with the unknown type or the record in itself {name[:60]!r}; give alert packets")

    def _weigh_record(self, schema: dict[str, Any], space: str, depth: int) -> tuple[int, int]:
        full = _full_name(schema, space)
        inner = full.rpartition(".")[0]
        parts = [self._weigh(one.get("type"), inner, depth + 1) for one in _fields(schema)]
        fields, least = 1 + sum(one for one, _ in parts), sum(one for _, one in parts)
        if fields > MAX_FIELDS:
            raise PacketError(f"schema with {fields} fields, at most {MAX_FIELDS} are read; give alert packets")
        self.known[full] = fields, least
        return fields, least


def _fields(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    fields = schema.get("fields")
    if not isinstance(fields, list) or not all(isinstance(one, dict) for one in fields):
        raise PacketError(
            f"schema with a record {str(schema.get('name'))[:60]!r} without fields; fetch the packet again"
        )
    yield from fields


def _full_name(schema: dict[str, Any], space: str) -> str:
    name = str(schema.get("name", ""))
    if "." in name:
        return name
    space = str(schema.get("namespace") or space)
    return f"{space}.{name}" if space else name
