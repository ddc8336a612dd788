"""Files of a model: written whole or not at all, and read without running anything they hold."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from gotorb import layout
from gotorb.dataset.store import fsync
from gotorb.errors import ModelError
from gotorb.training import noise  # noqa: F401  Keras finds its layer when a file names it

MAX_INPUT, MAX_KERNEL = 2**20, 255
"""Values of a stamp (255 x 255 pixels in 16 layers), and pixels of a kernel, that a model file may declare."""


def replace_file(path: Path, write: Callable[[Path], None]) -> Path:
    """Write a file under another name, force it to disk, then let it take the place of the old one.

    Parameters
    ----------
    path : Path
        File to make or replace; it stays as it was if writing fails.
    write : callable
        Writes the path that it is given, which has the same suffix.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(part)
        fsync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    fsync(path.parent)
    return path


def write_model(path: Path, model: keras.Model) -> Path:
    """Write a model as HDF5 without the optimizer's state; equal weights give equal bytes."""
    with _quiet_absl():
        return replace_file(path, lambda part: model.save(part, include_optimizer=False))


def read_model(path: Path | str) -> keras.Model:
    """Read a model; code inside the file is refused (Keras' safe mode).

    Parameters
    ----------
    path : path
        The h5 file, or the folder that holds model.h5.

    Raises
    ------
    ModelError
        If the file is missing, broken, holds code, or declares layers larger than the weights it holds.
    """
    path = Path(path)
    path = path / layout.MODEL_H5 if path.is_dir() else path
    if not path.is_file():
        raise ModelError(f"no {path.name} in {path.parent}; give a model folder made by classifier.train()")
    try:
        if path.suffix in (".h5", ".hdf5"):
            _check_sizes(path)
        with _quiet_absl():
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises almost any type for a broken file
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ModelError(f"{path} cannot be read as a model ({reason}); train again or get the original") from None


def _check_sizes(path: Path) -> None:
    """Refuse a file whose layers are wider than their kernels on disk, before Keras allocates them."""
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it holds no network, perhaps weights alone")
        config = json.loads(file.attrs["model_config"])
        widths = _declared(config, ("units", "filters"))
        stored: set[int] = set()
        file["model_weights"].visititems(
            lambda _, node: stored.update(node.shape) if isinstance(node, h5py.Dataset) else None
        )
    excess = sorted(width for width in widths if width not in stored)
    if excess:
        raise ValueError(f"a layer declares {excess[-1]} outputs but no weights of that size are stored")
    if any(size > MAX_KERNEL for size in _declared(config, ("kernel_size", "pool_size", "padding", "size"))):
        raise ValueError(f"a layer declares a kernel or padding of more than {MAX_KERNEL} pixels")
    shapes = [[size for size in shape if size] for shape in _values(config, ("batch_shape",))]
    if any(math.prod(shape) > MAX_INPUT for shape in shapes):
        raise ValueError(f"it declares stamps of {max(map(math.prod, shapes))} values, more than {MAX_INPUT}")


def _declared(config: Any, keys: tuple[str, ...]) -> list[int]:
    """All whole numbers under some keys anywhere in a model's description."""
    return [number for value in _values(config, keys) for number in _numbers(value)]


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        yield from (number for item in value for number in _numbers(item))


def _values(config: Any, keys: tuple[str, ...]) -> Iterator[Any]:
    """All values under some keys, however deep."""
    if isinstance(config, dict):
        yield from (value for key, value in config.items() if key in keys)
    if isinstance(config, (dict, list)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _values(value, keys)


@contextmanager
def _quiet_absl() -> Iterator[None]:
    """Keep Keras from warning that HDF5 is an old format: it is the one that users' tools read."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
