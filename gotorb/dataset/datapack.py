"""The published validation pack: stamps and their table in one hickle file, read without running any code in it.

hickle keeps a DataFrame as a pickle, and a pickle can run any code. Here numbers are read by h5py, and the pickle by an
unpickler that knows numpy's arrays and puts inert shells in the place of all names of pandas. Anything else is refused
by name, so that a file of unknown origin is safe to open, and packs of old pandas versions can be read.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from gotorb.core.untrusted import check_regular, check_storage
from gotorb.errors import DataError

MAX_PICKLE_BYTES, MAX_PARTS = 1 << 28, 1_000_000
PLAIN_TYPE = re.compile(r"[<>|=]?([biufcSUmM][0-9]{0,4}|O8?|bool)(\[[a-z]{1,2}\])?")
UNITS, MAX_UNIT = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"), 1_000_000
PLAIN_OBJECTS = (str, bytes, int, float, bool, type(None), np.generic)
STAMP_AXES = (3, 4)
MAX_DEPTH, MAX_MEMBERS = 6, 100


class Datapack(NamedTuple):
    """Content of a pack.

    Attributes
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    meta : DataFrame
        (n,) a row for each stamp.
    """

    stamps: np.ndarray
    meta: pd.DataFrame


class Shell:
    """Stand-in for an object of pandas that only stores its class's name, arguments and state.

    Parameters
    ----------
    *_, **__
        Kept by `__new__`.
    """

    name = ""
    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any, **_: Any) -> Shell:
        """Remember the arguments."""
        shell = super().__new__(cls)
        shell.args = args
        return shell

    def __init__(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def __setstate__(self, state: Any) -> None:
        """Remember the state."""
        self.state = state


def read_datapack(path: Path | str) -> Datapack:
    """Read a pack of stamps and their table, written by hickle 3, 4 or 5.

    Parameters
    ----------
    path : path
        The ``.hkl`` file.

    Returns
    -------
    Datapack
        Stamps and table.

    Raises
    ------
    DataError
        If the file is no hickle file, holds anything but arrays and a table of numbers and text, or the two differ in
        length.
    """
    path = Path(path)
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            parts = list(_datasets(file))
            for part in parts:
                check_storage(part)
            arrays = [part[:] for part in parts if part.ndim in STAMP_AXES and part.dtype.kind in "fiu"]
            pickles = [_bytes(part) for part in parts if _holds_pickle(part)]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a hickle file ({error}); download it again") from None
    if len(arrays) != 1 or len(pickles) != 1:
        raise DataError(
            f"{path} holds {len(arrays)} arrays of stamps and {len(pickles)} tables; give a pack with one of each"
        )
    meta = _make_frame(unpickle_shells(pickles[0], path), path)
    if len(meta) != len(arrays[0]):
        raise DataError(f"{path} holds {len(arrays[0])} stamps and {len(meta)} rows of its table; download it again")
    return Datapack(arrays[0], meta)


def _datasets(group: h5py.Group, depth: int = 0) -> Iterator[h5py.Dataset]:
    """All datasets in order, without hickle 5's own table of types, which holds pickles of classes."""
    if depth > MAX_DEPTH or len(group) > MAX_MEMBERS:
        raise ValueError(f"groups deeper than {MAX_DEPTH} levels or of more than {MAX_MEMBERS} members")
    for name in group:
        member = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(member, h5py.Group) and name != "hickle_types_table":
            yield from _datasets(member, depth + 1)
        elif isinstance(member, h5py.Dataset) and member.external is None and not member.is_virtual:
            yield member


def _holds_pickle(part: h5py.Dataset) -> bool:
    return part.ndim == 1 and (part.dtype == np.uint8 or (part.dtype.kind == "S" and part.shape == (1,)))


def _bytes(part: h5py.Dataset) -> bytes:
    if part.nbytes > MAX_PICKLE_BYTES:
        raise ValueError(f"a table of {part.nbytes} bytes")
    return bytes(part[0]) if part.dtype.kind == "S" else part[:].tobytes()


class PlainType:
    """Stand-in for a type of numpy's arrays: its short name ("f8", "O8"), and its byte order from the state.

    Parameters
    ----------
    name : str or bytes
        Short name of the type.
    *_
        Not used.
    """

    def __init__(self, name: Any, *_: Any) -> None:
        text = name.decode("ascii") if isinstance(name, bytes) else str(name)
        if not PLAIN_TYPE.fullmatch(text):
            raise pickle.UnpicklingError(f"an array of the type {text[:40]!r}")
        self.name = text
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        """Keep the byte order; a state with fields, shapes or metadata is refused."""
        if not isinstance(state, tuple) or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("an array of a type with parts")
        self.order = state[1] if state[1] in ("<", ">", "|", "=") else "="
        if self.name in ("M8", "m8"):  # the unit of times is in the state
            unit, n = state[8][1][:2]
            unit = unit.decode("ascii") if isinstance(unit, bytes) else str(unit)
            self.name = f"{self.name}[{int(n)}{unit}]" if unit in UNITS and 0 < int(n) < MAX_UNIT else self.name

    @property
    def dtype(self) -> np.dtype:
        """numpy's own type."""
        return np.dtype("O") if self.name.startswith("O") else np.dtype(self.name).newbyteorder(self.order)


class PlainArray:
    """Stand-in for an array, which is made of bytes, or of a list of plain objects, when all was read.

    Parameters
    ----------
    *_
        Not used.
    """

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        """Keep shape, type and content."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], PlainType):
            raise pickle.UnpicklingError("an array in a way that is not known")
        self.state = state

    @property
    def array(self) -> np.ndarray:
        """The array itself.

        Raises
        ------
        ValueError
            If the content does not fill it, or is no list of text, numbers and None for one of objects.
        """
        _, shape, kind, is_fortran, content = self.state
        order: Any = "F" if is_fortran else "C"
        if kind.dtype.kind != "O":
            content = content.encode("latin1") if isinstance(content, str) else bytes(content)
            return np.frombuffer(content, kind.dtype).reshape(shape, order=order).copy()
        if not isinstance(content, list) or not all(isinstance(one, PLAIN_OBJECTS) for one in content):
            raise ValueError("an array of objects that are no text or numbers")
        made = np.empty(len(content), object)
        made[:] = content
        return made.reshape(shape, order=order)


def _make_array(kind: type, *_: Any) -> PlainArray:
    """Stand-in for numpy's function that makes an empty array, which gets its content as a state."""
    if kind is not PlainArray:
        raise pickle.UnpicklingError(f"it makes an array of type {getattr(kind, '__name__', kind)}")
    return PlainArray()


def _fill_array(make: Callable[..., PlainArray], args: tuple[Any, ...], state: Any, *_: Any) -> PlainArray:
    """Stand-in for dill's way to make an array; hickle uses dill where it is installed."""
    if make is not _make_array:
        raise pickle.UnpicklingError("it makes an array in a way that is not known")
    array = make(*args)
    array.__setstate__(state)
    return array


def _buffered(content: Any, kind: PlainType, shape: tuple[int, ...], order: Any) -> PlainArray:
    array = PlainArray()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: PlainType, content: Any) -> Any:
    return _buffered(content, kind, (1,), "C").array[0]


def _load_type(name: str) -> type:
    """Stand-in for dill's names of types."""
    known = {"NumpyArrayType": PlainArray, "ndarray": PlainArray, "SliceType": slice, "slice": slice}
    if name not in known:
        raise pickle.UnpicklingError(f"it names the type {name}, which no table of numbers and text needs")
    return known[name]


KNOWN: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": PlainArray,
    "numpy.dtype": PlainType,
    "builtins.slice": slice,
    "__builtin__.slice": slice,
    "_codecs.encode": lambda text, encoding: text.encode("latin1" if encoding == "latin1" else "ascii"),
    **{f"{home}.multiarray._reconstruct": _make_array for home in ("numpy.core", "numpy._core")},
    **{f"{home}.multiarray.scalar": _scalar for home in ("numpy.core", "numpy._core")},
    **{f"{home}.numeric._frombuffer": _buffered for home in ("numpy.core", "numpy._core")},
    **{f"{home}._create_array": _fill_array for home in ("dill.dill", "dill._dill")},
    **{f"{home}._load_type": _load_type for home in ("dill.dill", "dill._dill")},
}  # fmt: skip
"""Names that are no shells: numpy's public types and harmless functions of ours."""


class _Reader(pickle._Unpickler):  # type: ignore[name-defined]  # C's allocates memory as a file says
    def find_class(self, module: str, name: str) -> Any:
        """Give what is known, a shell for pandas' names, and nothing else."""
        whole = f"{module}.{name}"
        if whole in KNOWN:
            return KNOWN[whole]
        if module in ("pandas", "pandas.arrays") or module.startswith(("pandas.core.", "pandas._libs.")):
            return type("Shell", (Shell,), {"name": name})
        raise pickle.UnpicklingError(f"it names {whole}, which no table of numbers and text needs")


def unpickle_shells(content: bytes, path: Path) -> Any:
    """Read a pickle of numpy arrays and shells.

    Parameters
    ----------
    content : bytes
        The pickle.
    path : Path
        Of its file, for messages.

    Returns
    -------
    object
        Plain values, arrays and `Shell`.

    Raises
    ------
    DataError
        If it names anything else, or is damaged.
    """
    try:
        return _Reader(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises almost any type
        raise DataError(
            f"the table of {path} is refused ({str(error) or type(error).__name__}); get the file from its authors, or "
            "ask them for csv and hdf5"
        ) from None


def _make_frame(shell: Any, path: Path) -> pd.DataFrame:
    """Table from the shells of a pickled DataFrame."""
    try:
        manager = shell.state.get("_mgr", shell.state.get("_data"))
        axes, blocks = _parts(manager)
        columns, index = (_index(axis) for axis in axes)
        found: list[Any] = [None] * len(columns)
        for values, places in blocks:
            plain = _plain(values)
            places = places.array if isinstance(places, PlainArray) else places
            chosen = np.arange(len(columns))[places].ravel()
            for place, column in zip(chosen, plain if plain.ndim == 2 else [plain], strict=True):
                found[place] = column
        return pd.DataFrame(dict(enumerate(found)), index=index).set_axis(columns, axis=1)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError, MemoryError) as error:
        raise DataError(
            f"the table of {path} is of a kind that is not read ({error}); ask its authors for csv and hdf5"
        ) from None


def _parts(manager: Any) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Axes and (values, places) of a block manager, as pandas before and since 1.3 pickles them."""
    if manager.state is None:
        blocks, axes = manager.args[:2]
        return list(axes), [block.args[:2] for block in blocks]
    known = manager.state[3]["0.14.1"]
    return list(known["axes"]), [(block["values"], block["mgr_locs"]) for block in known["blocks"]]


def _index(axis: Any) -> np.ndarray:
    known = axis.args[1]
    if "data" in known:
        return np.asarray(_plain(known["data"]))
    return np.arange(known["start"], known["stop"], known["step"])


def _plain(values: Any) -> np.ndarray:
    """The one array inside an object of pandas; the text or numbers of a categorical column, None where it has none."""
    if isinstance(values, PlainArray):
        return values.array
    if isinstance(values, np.ndarray):
        return values
    inside = [one.array if isinstance(one, PlainArray) else one for one in _flat((values.args, values.state))]
    (array,) = (item for item in inside if isinstance(item, np.ndarray))
    for dtype in (item for item in inside if isinstance(item, Shell) and item.name == "CategoricalDtype"):
        names = _index(next(item for item in _flat((dtype.args, dtype.state)) if isinstance(item, Shell)))
        return np.array([names[code] if code >= 0 else None for code in array], dtype=object)
    return array


def _flat(items: Any, budget: list[int] | None = None) -> Iterator[Any]:
    budget = [MAX_PARTS] if budget is None else budget
    for item in items:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError(f"more than {MAX_PARTS} parts")
        if isinstance(item, tuple | list):
            yield from _flat(item, budget)
        elif isinstance(item, dict):
            yield from _flat(item.values(), budget)
        elif item is not None:
            yield item
