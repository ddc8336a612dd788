"""The folder of a trained model: model.h5 and the record of its training, written whole and read safely.

Reading runs no code that a file holds.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import file_digest, plain_name, whole_file, write_text
from gotorb.core.untrusted import count_values, open_hdf5, read_json, read_zip
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import Dataset
from gotorb.errors import ModelError
from gotorb.training import normalisation, tensor_ops  # noqa: F401  Keras finds their layers when a file names them
from gotorb.training.backend import all_layers, keras, same_randomness, tf
from gotorb.training.inference import CompiledModel
from gotorb.training.measured import Fusion, Measured, find_kind, read_measured, write_measured

if TYPE_CHECKING:
    from gotorb.training.data import Rows
    from gotorb.training.fit import Fit

LOG = logging.getLogger(__name__)
Meta = dict[str, Any]
MAX_ARCHIVE, WEIGHTS_FILE = 1 << 29, "model.weights.h5"
"""Bytes of a ``.keras`` file once it is unpacked, and the member of it that holds the weights."""
MAX_ACTIVATION = 1 << 24
"""Values that a layer may give for a stamp."""
SPARE = 1_000_000
"""Weights, such as states of generators, that a network has and its file need not."""
READ_FILES = (
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
    "TFSMLayer",
    "JaxLayer",
    "FlaxLayer",
    "TorchModuleWrapper",
)
"""Layers that are made of other files or of code."""
MAX_INPUT, MAX_KERNEL, MAX_LAYERS = 2**20, 255, 1_000
"""Values of a stamp (255 x 255 pixels in 16 layers), pixels of a kernel, and layers that a model file may declare."""
_checked: set[str] = set()
"""Digests of files whose sizes this process has checked; building the network for it takes half of a file's reading."""


class Loaded(NamedTuple):
    """A model and its meta.

    Attributes
    ----------
    model : keras.Model
        The network.
    meta : dict or None
        Content of its meta file, and under ``run_dir`` the folder; None when it came without one.
    """

    model: keras.Model
    meta: Meta | None


def last_line(error: BaseException) -> str:
    """Line of a message with the reason, which Keras puts into the last line.

    Parameters
    ----------
    error : BaseException
        Error of a library.

    Returns
    -------
    str
        At most 300 characters.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Arguments received", "•", "Exception encountered"))]
    return (telling or lines or [type(error).__name__])[-1][:300]


def make_run_dir(parent: Path, name: str | None) -> Path:
    """Make the folder of a model; without a name it is named by the time, or by the first later second that is free.

    Parameters
    ----------
    parent : Path
    name : str or None

    Returns
    -------
    Path
    """
    run_dir = parent / (plain_name(name) if name else layout.timestamped("model", short=True))
    when = datetime.now(UTC)
    while name is None and run_dir.exists():
        when += timedelta(seconds=1)
        run_dir = parent / layout.timestamped("model", when, short=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def make_tensorboard(wanted: bool | str | Path, run_dir: Path) -> list[keras.callbacks.Callback]:
    """Build the callback that writes for TensorBoard.

    Parameters
    ----------
    wanted : bool or path
        True for a folder in `run_dir`; a path for another folder.
    run_dir : Path

    Returns
    -------
    list of keras.callbacks.Callback
        Empty when not wanted.
    """
    if wanted is False:
        return []
    folder = run_dir / layout.TENSORBOARD_DIR if wanted is True else Path(wanted)
    return [keras.callbacks.TensorBoard(str(folder), write_graph=False)]


def describe_option(value: Any) -> Any:
    """Plain form of an option for the meta file: functions by their names.

    Parameters
    ----------
    value : object

    Returns
    -------
    object
        Lists for tuples; other values as they are.
    """
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, dict):
        return {str(key): describe_option(item) for key, item in value.items()}
    return list(value) if isinstance(value, (tuple, list)) else value


def describe_training(
    fit: Fit, data: Dataset, rows: Rows, *, settings: dict[str, Any], digest: str, parent: Meta | None, run_dir: Path
) -> Meta:
    """Make the record of a training from plain values and numpy arrays, without absolute paths and times.

    Parameters
    ----------
    fit : Fit
        Result of the training.
    data : Dataset
        Rows of the training.
    rows : Rows
        Its training, validation and test rows.
    settings : dict
        Options of the training.
    digest : str
        Of the data set when the training began.
    parent : dict or None
        Name and digest of the model whose weights were the start.
    run_dir : Path
        Folder of the model; the data set is recorded relative to it.

    Returns
    -------
    dict
        Content of the meta file.
    """
    from gotorb.training.data import count_rows

    return {
        "model": fit.model.name,
        "parameters": settings,
        "seed": settings["seed"],
        "layers": list(settings["layers"]),
        "stamp_size": data.size,
        "history": fit.history,
        "best_epoch": fit.best_epoch,
        "interrupted": fit.interrupted,
        "split": {split: data.ids[rows.of(split)] for split in layout.SPLITS},
        "counts": count_rows(data.labels, rows),
        "data_dir": Path(os.path.relpath(data.data_dir, run_dir)).as_posix(),
        "data_digest": digest,
        "preprocessing": {"normalise": settings["normalise"], "inside_model": True},
        "parent": parent,
        "code_version": __version__,
    }


def describe_parent(name: str, digest: str, meta: Meta | None, data: Dataset, rows: Rows) -> Meta:
    """Make the record of the parent model; warn if it was trained on validation or test rows of this training.

    Parameters
    ----------
    name, digest : str
        Name of the parent, and digest of its file.
    meta : dict or None
        Its own record, which names the rows that it was trained on.
    data, rows : Dataset, Rows
        Of this training.

    Returns
    -------
    dict
        name, digest, and n_held_out_seen, the number of these rows.
    """
    known = (meta or {}).get("split", {}).get("train", ())
    held_out = data.ids[np.concatenate([rows.validation, rows.test])]
    n_seen = int(np.isin(held_out, np.asarray(known, dtype=str)).sum()) if len(known) else 0
    if n_seen:
        LOG.warning("%s was trained on %d validation or test rows; scores on these are optimistic", name, n_seen)
    return {"name": name, "digest": digest, "n_held_out_seen": n_seen}


def check_recipe(run_dir: Path, settings: dict[str, Any], data_dir: Path) -> str:
    """Refuse a folder that holds a finished model of other settings or data.

    Parameters
    ----------
    run_dir : Path
        Folder that is to be written.
    settings : dict
        Options of the training.
    data_dir : Path
        Its data set.

    Returns
    -------
    str
        Digest of the data set.

    Raises
    ------
    ModelError
        If it does: it names what differs.
    """
    from gotorb.training.meta import read_meta

    digest = data_digest(data_dir)
    is_whole = all((run_dir / name).exists() for name in (layout.MODEL_H5, layout.META_HKL))
    if not is_whole or (run_dir / layout.UNFINISHED_FILE).exists():
        return digest
    try:
        known = read_meta(run_dir / layout.META_HKL)
    except ModelError:
        return digest
    theirs = known.get("parameters") or {}
    differing = [name for name, value in settings.items() if as_text(theirs.get(name)) != as_text(value)]
    differing += ["data set"] if known.get("data_digest") != digest else []
    if differing and not known.get("interrupted"):
        raise ModelError(
            f"{run_dir} holds a finished model that was trained in another way ({', '.join(differing)}); it is not "
            "replaced: choose another name, or remove the folder"
        )
    return digest


def as_text(value: Any) -> str:
    """Text of options for comparison, equal for options from a file and from a call.

    Parameters
    ----------
    value : object
        Plain value.

    Returns
    -------
    str
    """
    return json.dumps(value, sort_keys=True, default=lambda one: one.tolist() if hasattr(one, "tolist") else str(one))


def write_training(
    run_dir: Path, model: keras.Model, meta: Meta, *, check: Callable[[keras.Model, keras.Model], None] | None = None
) -> Loaded:
    """Write model.h5 and meta.hkl, each whole or not at all, with a marker while only the first is new.

    Parameters
    ----------
    run_dir : Path
    model : keras.Model
    meta : dict
    check : callable, optional
        As in `write_model`.

    Returns
    -------
    Loaded
        The model, and the meta as it reads back.
    """
    from gotorb.training.meta import write_meta

    marker = write_text(run_dir / layout.UNFINISHED_FILE, "the files of this folder are being written\n")
    try:
        model_path = write_model(run_dir / layout.MODEL_H5, model, check=check)
    except BaseException:
        marker.unlink()  # what was there before is still whole
        raise
    write_meta(run_dir / layout.META_HKL, meta | {"model_digest": file_digest(model_path)})
    marker.unlink()
    LOG.info("wrote %s and %s to %s", layout.MODEL_H5, layout.META_HKL, run_dir)
    return Loaded(model, _find_meta(run_dir))


def load_training(model: keras.Model | Path | str, meta: Meta | Path | str | None = None) -> Loaded:
    """Load a model and its meta; see `gotorb.classifier.load`.

    Parameters
    ----------
    model : keras.Model or path
        A folder, or the model's file.
    meta : dict or path, optional
        The file next to the model when left out.

    Returns
    -------
    Loaded

    Raises
    ------
    ModelError
        If the meta describes another file, a file cannot be read, or the folder is unfinished.
    """
    if not isinstance(model, (str, Path)):
        return Loaded(model, _find_meta(meta))
    path = Path(model) / layout.MODEL_H5 if Path(model).is_dir() else Path(model)
    if path.with_name(layout.UNFINISHED_FILE).exists():
        raise ModelError(f"{path.parent} is unfinished: its run was interrupted or still works; repeat the same call")
    if meta is None and path.with_name(layout.META_HKL).exists():
        meta = path.with_name(layout.META_HKL)
    network, found = read_model(path), _find_meta(meta)
    if found and found.get("model_digest") not in (None, file_digest(path)):
        raise ModelError(
            f"{path} is not the file that its {layout.META_HKL} describes; it was changed or mixed up: "
            "get both files of one training"
        )
    return Loaded(network, found)


def _find_meta(meta: Meta | Path | str | None) -> Meta | None:
    """Meta from a file or a model's folder; a dict is returned as it is."""
    from gotorb.training.meta import read_meta

    if meta is None or isinstance(meta, dict):
        return meta
    path = Path(meta) / layout.META_HKL if Path(meta).is_dir() else Path(meta)
    return read_meta(path) | {"run_dir": str(path.parent)}


def write_model(
    path: Path,
    model: keras.Model | Measured | Fusion,
    *,
    check: Callable[[keras.Model, keras.Model], None] | None = None,
) -> Path:
    """Write a model as HDF5 without the optimizer's state; equal weights give equal bytes.

    Parameters
    ----------
    path : Path
    model : keras.Model
    check : callable, optional
        Compares the network with the one read from the file, before that takes the place of an older one.

    Returns
    -------
    Path
    """
    if isinstance(model, Measured | Fusion):
        return write_measured(path, model)
    with _quiet_absl(), whole_file(path) as part:
        model.save(part, include_optimizer=False)
        if check is not None:
            check(model, load_file(part))
    return path


def read_model(path: Path | str) -> Any:
    """Read a Keras network or a model on measured features; code in the file is refused.

    Parameters
    ----------
    path : path
        The h5 file, or the folder that holds model.h5.

    Returns
    -------
    keras.Model, Measured or Fusion

    Raises
    ------
    ModelError
        If the file is missing, broken, holds code, or declares layers larger than the weights it holds.
    """
    path = Path(path)
    path = path / layout.MODEL_H5 if path.is_dir() else path
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}; give a model folder made by classifier.train()")
    return read_keras(path) if find_kind(path) is None else read_measured(path, open_network)


def open_network(content: bytes) -> CompiledModel:
    """Open the network of a fusion from the bytes of its model.h5, by the safe reader.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    CompiledModel

    Raises
    ------
    ModelError
        If it is no Keras network.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / layout.MODEL_H5
        path.write_bytes(content)
        return CompiledModel(read_keras(path))


def read_keras(path: Path) -> keras.Model:
    """Read a Keras network; code inside the file is refused (Keras' safe mode).

    Parameters
    ----------
    path : Path

    Returns
    -------
    keras.Model

    Raises
    ------
    ModelError
        As for `read_model`.
    """
    try:
        return load_file(path)
    except Exception as error:  # Keras raises almost any type for a broken file
        raise ModelError(f"{path} cannot be read as a model ({last_line(error)}); {_way_out(path)}") from None


def load_file(path: Path) -> keras.Model:
    """Read a model whose sizes were checked, in Keras' safe mode, with Keras' own errors.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    keras.Model
    """
    if is_keras_2(path):
        raise ValueError("Keras 3 reads some of its layers differently")
    digest = file_digest(path)
    if digest not in _checked:
        _check_sizes(path)
        _checked.add(digest)
    with _quiet_absl():
        return keras.models.load_model(path, compile=False, safe_mode=True)


def _way_out(path: Path) -> str:
    """Instruction for a model file that cannot be read: a file of Keras 2 can be imported."""
    if is_keras_2(path):
        return f"Keras 2 wrote it: bring it in with `gotorb models import {path.name} --name NAME --layers ...`"
    return "train again or get the original"


def is_keras_2(path: Path) -> bool:
    """Test for a whole-model file of Keras 1 or 2.

    Parameters
    ----------
    path : Path
        Any file.

    Returns
    -------
    bool
        False for what is no HDF5 file.
    """
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = file.attrs.get("keras_version", "3")
    except OSError:
        return False
    version = version.decode() if isinstance(version, bytes) else str(version)
    return version.startswith(("1.", "2."))


def _check_sizes(path: Path) -> None:
    """Refuse a file whose layers are larger than its weights, before Keras allocates them.

    The network is built once as a graph, in which weights have shapes and no values.
    """
    n_stored = check_declared(path)
    with same_randomness(), _quiet_absl(), tf.Graph().as_default():
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        n_declared = sum(math.prod(variable.shape) for variable in model.variables)
        largest = max(map(_count_output, all_layers(model)), default=0)
    if largest > MAX_ACTIVATION:
        raise ValueError(f"a layer gives {largest} values for a stamp, more than {MAX_ACTIVATION}")
    if n_declared > n_stored + SPARE:
        raise ValueError(f"its layers have {n_declared} weights, {n_stored} are stored")


def _count_output(layer: keras.layers.Layer) -> int:
    """Values that a layer gives for a stamp; 0 for one outside the graph."""
    try:
        shapes = [one.shape for one in keras.tree.flatten(layer.output)]
    except (AttributeError, ValueError):
        return 0
    return max((math.prod(side or 1 for side in shape[1:]) for shape in shapes), default=0)


def check_declared(path: Path) -> int:
    """Check the sizes that a network's description declares; nothing is built.

    Parameters
    ----------
    path : Path
        The h5 or ``.keras`` file.

    Returns
    -------
    int
        Number of weights that are stored.

    Raises
    ------
    ValueError
        If it has layers wider than its weights, large kernels or stamps, or layers that read other files.
    """
    config, n_stored, widths = _read_zipped(path) if path.suffix == ".keras" else _read_hdf5(path)
    n_layers = sum(len(value) for value in _values(config, ("layers",)) if isinstance(value, list))
    if n_layers > MAX_LAYERS:
        raise ValueError(f"it has {n_layers} layers, more than {MAX_LAYERS}")
    excess = sorted(width for width in _declared(config, ("units", "filters")) if width not in widths)
    if excess:
        raise ValueError(f"a layer declares {excess[-1]} outputs but no weights of that size are stored")
    if any(size > MAX_KERNEL for size in _declared(config, ("kernel_size", "pool_size", "padding", "size"))):
        raise ValueError(f"a layer declares a kernel or padding of more than {MAX_KERNEL} pixels")
    shapes = [[size for size in shape if size] for shape in _values(config, ("batch_shape", "batch_input_shape"))]
    if any(math.prod(shape) > MAX_INPUT for shape in shapes):
        raise ValueError(f"it declares stamps of {max(map(math.prod, shapes))} values, more than {MAX_INPUT}")
    foreign = sorted(set(map(str, _values(config, ("class_name",)))) & set(READ_FILES))
    if foreign:
        raise ValueError(f"it has a layer {foreign[0]}, which reads other files")
    return n_stored


def _read_hdf5(path: Path) -> tuple[Any, int, set[int]]:
    """Description of a network, number of its weights, and their sides, of an h5 file."""
    with open_hdf5(path) as file:
        if "model_config" not in file.attrs:
            raise ValueError("it holds no network, perhaps weights alone")
        return read_json(file.attrs["model_config"]), count_values(file), _sides(file["model_weights"])


def _read_zipped(path: Path) -> tuple[Any, int, set[int]]:
    """The same of a ``.keras`` file."""
    config = read_json(read_zip(path, "config.json", MAX_ARCHIVE))
    with open_hdf5(io.BytesIO(read_zip(path, WEIGHTS_FILE, MAX_ARCHIVE))) as file:
        return config, count_values(file), _sides(file)


def _sides(group: h5py.Group) -> set[int]:
    stored: set[int] = set()
    group.visititems(lambda _, node: stored.update(node.shape or ()) if isinstance(node, h5py.Dataset) else None)
    return stored


def _declared(config: Any, keys: tuple[str, ...]) -> list[int]:
    """All whole numbers under some keys anywhere in a model's description."""
    return [number for value in _values(config, keys) for number in _numbers(value)]


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        yield from (number for item in value for number in _numbers(item))


def _values(config: Any, keys: tuple[str, ...]) -> Iterator[Any]:
    """All values under given keys, at any depth."""
    if isinstance(config, dict):
        yield from (value for key, value in config.items() if key in keys)
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _values(value, keys)


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Suppress Keras' warning about HDF5, the format that users' tools read."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
