"""meta.hkl: the record of a training in hickle format; equal content gives equal bytes.

It holds plain Python values and numpy arrays. Files are written by hickle and can be read by ``hickle.load``. That
function runs any pickle in a file, so `read_meta` decodes the plain types itself and refuses all others.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hickle
import numpy as np

from gotorb.core.files import whole_file
from gotorb.core.untrusted import Limits, UntrustedFile, check_storage
from gotorb.errors import ModelError

ROOT = "data"
LIMITS = Limits(nodes=50_000, depth=32, values=1 << 28)
"""Largest record: parts, levels, and bytes (ids of some million rows)."""


def write_meta(path: Path, meta: dict[str, Any]) -> Path:
    """Write a meta file, whole or not at all.

    Parameters
    ----------
    path : Path
        File to make or replace.
    meta : dict
        Text keys; values of None, bool, int, float, str, numpy arrays, and lists, tuples and dicts of these.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ModelError
        If a value is of another type.
    """
    content = _to_plain(meta, "meta")
    with whole_file(path) as part, _TimelessFile(part, "w") as file:
        hickle.dump(content, file)
    return path


class _TimelessFile(h5py.File):
    """HDF5 file without time stamps, which HDF5 writes for hickle's groups that track their order."""

    def get(self, name: str, default: Any = None, **options: Any) -> Any:
        """Return this object, not a plain group, as the root."""
        return self if name == "/" else super().get(name, default, **options)

    def create_group(self, name: str, track_order: bool | None = None) -> h5py.Group:
        """Make a group without a time stamp."""
        properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
        if track_order:
            order = h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED
            properties.set_link_creation_order(order)
            properties.set_attr_creation_order(order)
            properties.set_obj_track_times(False)
        return h5py.Group(h5py.h5g.create(self.id, name.encode(), gcpl=properties))


def _to_plain(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_plain(item, where) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return np.char.encode(value, "utf-8")  # hickle would make an HDF5 object of each text
    if isinstance(value, str):
        return value.encode().decode()  # a copy, because hickle writes an object that it met before as a reference
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufS":
        return value
    raise ModelError(f"{where} is a {type(value).__name__}; {ROOT} in a meta file must be plain Python or numpy")


def read_meta(path: Path | str) -> dict[str, Any]:
    """Read a meta file without running any code in it.

    Parameters
    ----------
    path : path
        File.

    Returns
    -------
    dict
        Record of the training.

    Raises
    ------
    ModelError
        If the file is missing, not in hickle 5 format, or holds anything but plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}; give a model folder made by classifier.train()")
    try:
        with h5py.File(path, "r", locking=False) as file:
            meta = _Decoder().decode(file[ROOT])
    except (OSError, KeyError, ValueError, RuntimeError, AttributeError, TypeError, MemoryError) as error:
        raise ModelError(
            f"{path} is not a meta file of plain values ({error}); train again or get the original"
        ) from None
    if not isinstance(meta, dict):
        raise ModelError(f"{path} holds a {type(meta).__name__} where a dict is expected; train again")
    return meta


class _Decoder:
    """Decoder of plain values that stops at `LIMITS`, however often a part of the file is linked."""

    def __init__(self) -> None:
        self.n_nodes = self.n_values = self.depth = 0

    def decode(self, node: h5py.Group | h5py.Dataset) -> Any:
        """Value of one node, whose type hickle stores as a reference; a node without one refers to another node."""
        if isinstance(node, h5py.Dataset) and "type" not in node.attrs and h5py.check_ref_dtype(node.dtype) is not None:
            node = node.file[node[()]]
        self._count(node)
        kind = _type_name(node)
        if kind not in DECODERS:
            raise ValueError(f"{node.name} is of type {kind!r}")
        self.depth += 1
        value = DECODERS[kind](self, node)
        self.depth -= 1
        return value

    def _count(self, node: h5py.Group | h5py.Dataset) -> None:
        self.n_nodes += 1
        if isinstance(node, h5py.Dataset):
            check_storage(node)
            self.n_values += node.nbytes
        if self.n_nodes > LIMITS.nodes or self.n_values > LIMITS.values or self.depth > LIMITS.depth:
            raise UntrustedFile(
                f"more than {LIMITS.nodes} parts, {LIMITS.values} bytes or {LIMITS.depth} levels of a record"
            )

    def members(self, group: h5py.Group, index: str) -> list[tuple[str, h5py.Group | h5py.Dataset]]:
        """Members of a group in the order of writing; links are refused."""
        if self.n_nodes + len(group) > LIMITS.nodes:
            raise UntrustedFile(f"more than {LIMITS.nodes} parts")
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{group.name}/{name} is a link")
        return sorted(group.items(), key=lambda member: int(member[1].attrs[index]))


def _type_name(node: h5py.Group | h5py.Dataset) -> str:
    entry = node.file[node.attrs["type"]]
    return str(node.file[entry.attrs["base_type"]].name.rsplit("/", 1)[-1])


def _decode_dict(decoder: _Decoder, group: h5py.Group) -> dict[str, Any]:
    found = decoder.members(group, "key_idx")
    return {name.strip('"').replace("\\", "/"): decoder.decode(node) for name, node in found}


def _decode_list(decoder: _Decoder, node: h5py.Group | h5py.Dataset) -> list[Any]:
    if isinstance(node, h5py.Group):
        return [decoder.decode(item) for _, item in decoder.members(node, "item_index")]
    return [] if node.shape is None else list(node[()].tolist())


def _decode_array(_: _Decoder, node: h5py.Dataset) -> np.ndarray:
    array = np.asarray(node[()])
    return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


def _decode_text(_: _Decoder, node: h5py.Dataset) -> str:
    return "" if node.shape is None else str(node[()].tobytes().decode())


DECODERS: dict[str, Callable[[_Decoder, Any], Any]] = {
    "None": lambda _, node: None,
    "bool": lambda _, node: bool(node[()]),
    "int": lambda _, node: int(node[()]),
    "float": lambda _, node: float(node[()]),
    "str": _decode_text,
    "list": _decode_list,
    "tuple": lambda decoder, node: tuple(_decode_list(decoder, node)),
    "dict": _decode_dict,
    "ndarray": _decode_array,
}
"""Plain types of hickle 5, and their decoders."""
