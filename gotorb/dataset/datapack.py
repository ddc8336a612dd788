"""The published validation pack: stamps and their table in one hickle file, read without running what it holds.

hickle keeps a DataFrame as a pickle, and a pickle can run any code. Here numbers are read by h5py, and the pickle by a
reader that knows numpy arrays and the names of pandas' classes, for which it puts shells that only remember what they
were given. Anything else is refused by name, so a file of unknown origin is safe to open, and packs of old pandas
versions can be read, which today's pandas cannot.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from gotorb.errors import DataError

MAX_PICKLE_BYTES = 1 << 30
STAMP_AXES = (3, 4)


class Datapack(NamedTuple):
    """What a pack holds.

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
    """Stands for an object of pandas: remembers its class's name, arguments and state, and does nothing."""

    name = ""

    def __new__(cls, *args: Any, **_: Any) -> Shell:
        """Remember the arguments."""
        shell = super().__new__(cls)
        shell.args, shell.state = args, None  # type: ignore[attr-defined]
        return shell

    def __init__(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def __setstate__(self, state: Any) -> None:
        """Remember the state."""
        self.state = state


PANDAS = {
    ("pandas.core.frame", "DataFrame"), ("pandas", "DataFrame"),
    ("pandas.core.internals.managers", "BlockManager"), ("pandas.core.internals", "BlockManager"),
    ("pandas._libs.internals", "_unpickle_block"), ("pandas._libs.internals", "BlockManager"),
    ("pandas.core.indexes.base", "_new_Index"), ("pandas.core.indexes.base", "Index"), ("pandas", "Index"),
    ("pandas.core.indexes.range", "RangeIndex"), ("pandas", "RangeIndex"),
    ("pandas.core.indexes.numeric", "Int64Index"), ("pandas.core.indexes.numeric", "Float64Index"),
    ("pandas.core.indexes.numeric", "UInt64Index"),
    ("pandas.core.arrays.categorical", "Categorical"), ("pandas.core.dtypes.dtypes", "CategoricalDtype"),
    ("pandas.core.arrays.datetimes", "DatetimeArray"), ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"),
    ("pandas.core.arrays.string_", "StringArray"), ("pandas.core.arrays.string_", "StringDtype"),
    ("pandas", "StringDtype"), ("pandas.arrays", "StringArray"),
    ("pandas.core.arrays.numpy_", "NumpyExtensionArray"), ("pandas.core.dtypes.dtypes", "NumpyEADtype"),
    ("pandas.core.dtypes.dtypes", "PandasDtype"), ("pandas.core.arrays.numpy_", "PandasArray"),
    ("pandas.core.arrays.string_", "_from_pickle"),
}  # fmt: skip
"""Names for which shells stand: where pandas 1 to 3 keep what makes a frame of numbers and text."""
NUMPY = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
}
for _home in ("numpy.core", "numpy._core"):
    NUMPY[f"{_home}.multiarray", "_reconstruct"] = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    NUMPY[f"{_home}.multiarray", "scalar"] = np._core.multiarray.scalar  # type: ignore[attr-defined]
    NUMPY[f"{_home}.numeric", "_frombuffer"] = np._core.numeric._frombuffer  # type: ignore[attr-defined]


def read_datapack(path: Path | str) -> Datapack:
    """Read a pack of stamps and their table, written by hickle 3, 4 or 5.

    Parameters
    ----------
    path : path
        The ``.hkl`` file.

    Raises
    ------
    DataError
        If the file is no hickle file, holds anything but arrays and a table of numbers and text, or the two differ in
        length.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            parts = list(_datasets(file))
            arrays = [part[:] for part in parts if part.ndim in STAMP_AXES and part.dtype.kind in "fiu"]
            pickles = [_bytes(part) for part in parts if _holds_pickle(part)]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a hickle file ({error}); download it again") from None
    if len(arrays) != 1 or len(pickles) != 1:
        raise DataError(
            f"{path} holds {len(arrays)} arrays of stamps and {len(pickles)} tables; a pack has one of each"
        )
    meta = make_frame(unpickle_shells(pickles[0], path), path)
    if len(meta) != len(arrays[0]):
        raise DataError(f"{path} holds {len(arrays[0])} stamps and {len(meta)} rows of its table; download it again")
    return Datapack(arrays[0], meta)


def _datasets(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """All datasets in order, without hickle 5's own table of types, which holds pickles of classes."""
    for name in group:
        member = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(member, h5py.Group) and name != "hickle_types_table":
            yield from _datasets(member)
        elif isinstance(member, h5py.Dataset) and member.external is None and not member.is_virtual:
            yield member


def _holds_pickle(part: h5py.Dataset) -> bool:
    one_string = part.dtype.kind == "S" and part.shape == (1,)
    return one_string or (part.dtype == np.uint8 and part.ndim == 1)


def _bytes(part: h5py.Dataset) -> bytes:
    if part.nbytes > MAX_PICKLE_BYTES:
        raise ValueError(f"a table of {part.nbytes} bytes")
    return bytes(part[0]) if part.dtype.kind == "S" else part[:].tobytes()


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Give numpy's own, a shell for pandas', and nothing else."""
        if (module, name) in NUMPY:
            return NUMPY[module, name]
        if (module, name) in OWN:
            return OWN[module, name]
        if (module, name) in PANDAS:
            return type("Shell", (Shell,), {"name": name})
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no table of numbers and text needs")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def _create_array(make: Callable[..., np.ndarray], args: tuple[Any, ...], *state: Any) -> np.ndarray:
    """What dill, which hickle uses where it is installed, calls for an array."""
    if make is not NUMPY["numpy.core.multiarray", "_reconstruct"]:
        raise pickle.UnpicklingError("it makes an array in a way that is not known")
    array = make(*args)
    array.__setstate__(state[0])
    return array


def _load_type(name: str) -> type:
    """What dill calls for a type that it knows by a name of its own."""
    known = {"NumpyArrayType": np.ndarray, "ndarray": np.ndarray, "SliceType": slice, "slice": slice}
    if name not in known:
        raise pickle.UnpicklingError(f"it names the type {name}, which no table of numbers and text needs")
    return known[name]


OWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("dill._dill", "_create_array"): _create_array,
    ("dill.dill", "_create_array"): _create_array,
    ("dill._dill", "_load_type"): _load_type,
    ("dill.dill", "_load_type"): _load_type,
}
"""Names for which harmless functions of ours stand."""


def unpickle_shells(content: bytes, path: Path) -> Any:
    """Read a pickle of numpy arrays and shells.

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


def make_frame(shell: Any, path: Path) -> pd.DataFrame:
    """Make a table of the shells of a pickled DataFrame.

    Raises
    ------
    DataError
        If it is none, or a column is of a kind that is not read.
    """
    try:
        manager = shell.state["_mgr" if "_mgr" in shell.state else "_data"]
        axes, blocks = _parts(manager)
        columns, index = (_index(axis) for axis in axes)
        found: list[Any] = [None] * len(columns)
        for values, places in blocks:
            for place, column in zip(_numbers(places, len(columns)), _columns(values), strict=True):
                found[place] = column
        return pd.DataFrame(dict(enumerate(found)), index=index).set_axis(columns, axis=1)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"the table of {path} is of a kind that is not read ({error}); ask its authors for csv and hdf5"
        ) from None


def _parts(manager: Any) -> tuple[list[Any], list[tuple[Any, Any]]]:
    """Axes and (values, places) of a block manager, as pandas before and since 1.3 pickles them."""
    state = manager.state
    if state is None:  # since 1.3: arguments (blocks, axes), each block values, places and number of axes
        blocks, axes = manager.args[:2]
        return list(axes), [(block.args[0], block.args[1]) for block in blocks]
    known = state[3]["0.14.1"]
    return list(known["axes"]), [(block["values"], block["mgr_locs"]) for block in known["blocks"]]


def _index(axis: Any) -> np.ndarray:
    if axis.name == "_new_Index":
        kind, known = axis.args[0], axis.args[1]
        if "data" in known:
            return np.asarray(_plain(known["data"]))
        if kind.name == "RangeIndex":
            return np.arange(known["start"], known["stop"], known["step"])
    raise ValueError(f"an index of {axis.name}")


def _numbers(places: Any, n: int) -> list[int]:
    return list(range(n))[places] if isinstance(places, slice) else [int(place) for place in np.asarray(places).ravel()]


def _columns(values: Any) -> list[Any]:
    """Columns of a block: rows of a plain array, or one column of another kind."""
    plain = _plain(values)
    return list(plain) if plain.ndim == 2 else [plain]


def _plain(values: Any) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    inside = list(_flat((values.args, values.state)))
    arrays = [item for item in inside if isinstance(item, np.ndarray)]
    if len(arrays) != 1:
        raise ValueError(f"a column of {values.name}")
    dtype = next((item for item in inside if isinstance(item, Shell) and item.name == "CategoricalDtype"), None)
    return arrays[0] if dtype is None else _categories(arrays[0], dtype)


def _categories(codes: np.ndarray, dtype: Any) -> np.ndarray:
    """Text or numbers of a categorical column; None where it has none."""
    names = _index(next(item for item in _flat((dtype.args, dtype.state)) if isinstance(item, Shell)))
    return np.array([names[code] if code >= 0 else None for code in codes], dtype=object)


def _flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, tuple | list):
            yield from _flat(item)
        elif isinstance(item, dict):
            yield from _flat(item.values())
        elif item is not None:
            yield item
