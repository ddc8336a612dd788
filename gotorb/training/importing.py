"""Import of external models: completed to one score in [0, 1], tested on reference scores, written in our format.

Libraries that parse the file do so in a separate process with limits of memory and CPU time, which returns arrays and
the network's configuration.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import h5py
import numpy as np

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import file_digest, tree_digest
from gotorb.core.untrusted import Arrays, UntrustedFile, look_through, open_hdf5, read_apart
from gotorb.dataset.folder import hold_folder
from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import keras, same_randomness
from gotorb.training.foreign import LINEAR, OTHER, SIGMOID, SOFTMAX, Foreign, finish, read_foreign
from gotorb.training.inference import CompiledModel
from gotorb.training.keras2 import WAY_OUT, read_config
from gotorb.training.model_files import (
    MAX_ARCHIVE,
    WEIGHTS_FILE,
    Loaded,
    Meta,
    check_declared,
    is_keras_2,
    last_line,
    load_training,
    read_keras,
    write_training,
)  # fmt: skip
from gotorb.training.networks import normalise_stamps
from gotorb.training.onnx_graph import check_onnx, read_onnx, read_saved_model
from gotorb.training.saving import check_same, check_saving

LOG = logging.getLogger(__name__)
H5 = (".h5", ".hdf5")
SAVED_MODEL = "saved_model.pb"
STAMP_KEYS, SCORE_KEYS = ("x", "stamps", "X", "src"), ("p", "scores", "score", "y", "pred")
"""Names under which a file of reference stamps holds these and their scores."""
TOLERANCE = 1e-5
"""Largest difference from reference scores; of logits, relative to those above 1."""
MEMORY, MEMORY_PER_BYTE = 3 << 28, 8
"""Bytes that the process that reads a network may allocate: for any file, and for each byte of it."""
LOOK_SECONDS = 5
"""CPU seconds in which all of an HDF5 file is read once, before anything else looks at it."""
MAX_REFERENCE = 2**28
"""Bytes of reference stamps."""
N_SAMPLES, N_SIGMA, SLACK = 50, 6, 0.02
"""Samples with which a reference of a network whose dropout is always on is compared, and how far it may be away."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Description of an external model by its user.

    Attributes
    ----------
    name : str
        Name of the model's folder and of the registered model.
    layers : tuple of str
        Layers of the stamps, in the order in which the network takes them.
    size : int or None
        Side of the stamps [pixel]; None where the file says it.
    normalise : {"l2", "noise", "none"}
        Normalisation that its users apply to stamps before the network.
    real_column : int or None
        Column of the output that is the score of the real.
    threshold : float
        Score at or above which it calls a stamp real.
    logits : bool
        True for an output before the sigmoid or softmax.
    """

    name: str
    layers: tuple[str, ...]
    size: int | None
    normalise: str
    real_column: int | None
    threshold: float
    logits: bool


@dataclass(frozen=True)
class Proof:
    """Comparison with reference scores: their number, the largest difference, and the kind of comparison."""

    n: int
    difference: float
    how: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the meta file."""
        return {"n": self.n, "difference": self.difference, "how": self.how}


def import_network(path: Path, how: ImportOptions, reference: Path | None) -> tuple[keras.Model, Meta]:
    """Read an external network, complete it to one score, and test it on reference scores.

    Parameters
    ----------
    path : Path
        Whole-model h5 of Keras 2 or 3, ``.keras`` or ``.onnx``, or the folder of a SavedModel.
    how : ImportOptions
        What the file does not say.
    reference : Path or None
        npz of stamps and the scores that the network gave to them.

    Returns
    -------
    model : keras.Model
        One score in [0, 1].
    meta : dict
        Its record.

    Raises
    ------
    ModelError
        If it cannot be read, gives no score, or gives other scores than the reference.
    """
    foreign = _read_apart(path, how)
    model = finish(foreign, real_column=how.real_column, logits=how.logits)
    check_saving(model)
    proof = None if reference is None else prove(foreign, model, reference, how)
    for told, names in (("left out: act in training only", foreign.left_out), ("random at inference as well",
                                                                              foreign.always_on)):  # fmt: skip
        if names:
            LOG.info("layers of %s %s: %s", path.name, told, ", ".join(dict.fromkeys(names)))
    return model, _describe(path, how, foreign, proof)


def _read_apart(path: Path, how: ImportOptions) -> Foreign:
    """Read a network in a process of its own, after checks that need no library."""
    _check_first(path)
    try:
        found = read_apart(_read_plain, path, memory=MEMORY + MEMORY_PER_BYTE * _count_bytes(path), **asdict(how))
    except UntrustedFile as error:
        raise ModelError(f"{error}; {WAY_OUT}") from None
    told = json.loads(str(found["told"]))
    with same_randomness():
        model = keras.models.model_from_json(told.pop("config"))
    model.set_weights([found[f"weight_{number}"] for number in range(len(model.weights))])
    return Foreign(model, **told)


def _check_first(path: Path) -> None:
    """Refuse what a look at sizes and descriptions tells, before a process imports TensorFlow."""
    suffix = path.suffix.lower()
    if not path.is_file() or suffix not in (*H5, ".keras", layout.ONNX_SUFFIX):
        return  # a SavedModel, or what is refused by its name
    try:
        if suffix == layout.ONNX_SUFFIX:
            check_onnx(path)
            return
        memory = MEMORY + MEMORY_PER_BYTE * _count_bytes(path)
        packed = {"member": WEIGHTS_FILE, "most": MAX_ARCHIVE} if suffix == ".keras" else {}
        read_apart(look_through, path, memory=memory, seconds=LOOK_SECONDS, **packed)
        if suffix == ".keras" or _is_keras_3(path):
            check_declared(path)
        else:
            with open_hdf5(path) as file:
                read_config(file)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be imported ({last_line(error)}); {WAY_OUT}") from None


def _read_plain(path: Path, **how: Any) -> Arrays:
    """Read a network as weights and json of its configuration: the job of the process that reads."""
    options = ImportOptions(**how | {"layers": tuple(how["layers"])})
    found = read_network(path, options)
    told = {"config": found.model.to_json(), "kind": found.kind}
    told |= {"left_out": found.left_out, "always_on": found.always_on}
    weights = {f"weight_{number}": value for number, value in enumerate(found.model.get_weights())}
    return {"told": np.array(json.dumps(told)), **weights}


def read_network(path: Path, how: ImportOptions) -> Foreign:
    """Read an external network, with its normalisation in front, in this process.

    Parameters
    ----------
    path : Path
        The file, or the folder of a SavedModel.
    how : ImportOptions
        What the file does not say.

    Returns
    -------
    Foreign

    Raises
    ------
    ModelError
        If it is of no kind that can be read.
    """
    if path.suffix.lower() == layout.ONNX_SUFFIX or (path / SAVED_MODEL).is_file():
        return _read_graph(path, how)
    if not path.is_file():
        raise ModelError(
            f"no model {path}; give a whole-model .h5 of Keras 2 or 3, a .keras or .onnx file, or a SavedModel's folder"
        )
    shape = None if how.size is None else (how.size, how.size, len(how.layers))
    if path.suffix.lower() in H5 and not _is_keras_3(path):
        found = read_foreign(path, shape, normalise=how.normalise, layers=how.layers, n_layers=len(how.layers))
    elif path.suffix.lower() in (*H5, ".keras"):
        found = _wrap(read_keras(path), how)
    else:
        raise ModelError(
            f"{path} is no model file that can be imported; give a whole-model .h5 of Keras 2 or 3, a .keras or .onnx "
            "file, or a SavedModel's folder"
        )
    return found


def _read_graph(path: Path, how: ImportOptions) -> Foreign:
    if not path.exists():
        raise ModelError(f"no model file {path}; correct its name")
    read = read_saved_model if path.is_dir() else read_onnx
    return read(path, (how.size, len(how.layers)), lambda stamps: normalise_stamps(stamps, how.normalise, how.layers))


def _is_keras_3(path: Path) -> bool:
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = file.attrs.get("keras_version", "2")
    except OSError as error:
        raise ModelError(f"{path} is no HDF5 file ({last_line(error)}); give a whole-model .h5") from None
    return (version.decode() if isinstance(version, bytes) else str(version)).startswith("3")


def load_model(model: keras.Model | Path | str, meta: Meta | Path | str | None = None) -> Loaded:
    """Load a model and its meta; a file of Keras 2, which Keras 3 would read differently, is rebuilt.

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
        If a file cannot be read, or a network of Keras 2 needs to be described: its size, column or logits.
    """
    path = Path(model) if isinstance(model, str | Path) else None
    if path is None or not is_keras_2(path):
        return load_training(model, meta)
    network = finish(read_foreign(path), real_column=None, logits=False)
    return load_training(network, meta)


def _wrap(model: keras.Model, how: ImportOptions) -> Foreign:
    """A network that Keras 3 reads itself, behind the normalisation."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.inputs[0].shape) != 4:
        raise ModelError(f"network {model.name!r} does not take stamps alone and give scores alone; give another file")
    size = how.size or model.input_shape[1]
    if size is None:
        raise ModelError(f"network {model.name!r} takes stamps of any size; name the size (--size)")
    wanted = (size, size, len(how.layers))
    if any(theirs not in (None, ours) for theirs, ours in zip(model.input_shape[1:], wanted, strict=True)):
        raise ModelError(
            f"network {model.name!r} takes stamps of {model.input_shape[1:]} (size, size, layers), not {wanted}; "
            "correct --size and --layers"
        )
    operation = model.outputs[0]._keras_history.operation
    activation = getattr(getattr(operation, "activation", None), "__name__", "")
    kind = {"sigmoid": SIGMOID, "softmax": SOFTMAX, "linear": LINEAR}.get(activation, OTHER)
    kind = SOFTMAX if isinstance(operation, keras.layers.Softmax) else kind
    if how.normalise == "none" and tuple(model.input_shape[1:]) == wanted:
        return Foreign(model, kind)
    stamps = keras.Input(wanted, name="stamps")
    return Foreign(
        keras.Model(stamps, model(normalise_stamps(stamps, how.normalise, how.layers)), name=model.name), kind
    )


def _describe(path: Path, how: ImportOptions, foreign: Foreign, proof: Proof | None) -> Meta:
    return {
        "model": how.name,
        "parameters": {"normalise": how.normalise, "layers": list(how.layers)},
        "seed": 0,
        "layers": list(how.layers),
        "stamp_size": int(foreign.model.input_shape[1]),
        "history": {},
        "best_epoch": 0,
        "interrupted": False,
        "split": {part: np.array([], dtype="U1") for part in layout.SPLITS},
        "counts": {},
        "data_dir": "",
        "data_digest": "",
        "preprocessing": {"normalise": how.normalise, "inside_model": True},
        "parent": None,
        "code_version": __version__,
        "threshold": float(how.threshold),
        "imported": {
            "file": path.name,
            "sha256": _digest(path),
            "real_column": how.real_column,
            "logits": how.logits,
            "left_out": list(dict.fromkeys(foreign.left_out)),
            "always_on": list(dict.fromkeys(foreign.always_on)),
            "proof": None if proof is None else proof.as_dict(),
        },
    }


def _digest(path: Path) -> str:
    return tree_digest(_files(path)) if path.is_dir() else file_digest(path)


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def _count_bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in _files(path) if one.exists())


def write_import(run_dir: Path, model: keras.Model, meta: Meta) -> Path:
    """Write an imported model in the format of trained ones, and compare the file with the network.

    Parameters
    ----------
    run_dir : Path
        Folder of the model.
    model : keras.Model
        From `import_network`.
    meta : dict
        Its record.

    Returns
    -------
    Path
        The folder.
    """
    with hold_folder(run_dir):
        _check_free(run_dir, meta)
        write_training(run_dir, model, meta, check=check_same)
    return run_dir


def _check_free(run_dir: Path, meta: Meta) -> None:
    """Refuse to replace another model; the same one may be imported again."""
    if not (run_dir / layout.MODEL_H5).exists() or (run_dir / layout.UNFINISHED_FILE).exists():
        return
    try:
        known = (load_training(run_dir).meta or {}).get("imported", {})
    except ModelError:
        known = {}
    if known.get("sha256") != meta["imported"]["sha256"]:
        raise ModelError(f"{run_dir} holds another model; give another --name, or remove that folder")


def prove(foreign: Foreign, model: keras.Model, reference: Path, how: ImportOptions) -> Proof:
    """Compare a network with reference scores.

    Parameters
    ----------
    foreign : Foreign
        Network as it was, whose output may be logits.
    model : keras.Model
        Completed network.
    reference : Path
        npz with stamps (``x``) and their scores (``p``).
    how : ImportOptions
        Column of the real.

    Returns
    -------
    Proof

    Raises
    ------
    ModelError
        If a score differs.
    """
    stamps, expected = read_reference(reference)
    if stamps.shape[1:] != tuple(model.input_shape[1:]):
        raise ModelError(
            f"reference stamps of {reference} are {stamps.shape[1:]} (size, size, layers), the network takes "
            f"{tuple(model.input_shape[1:])}; give stamps of its kind"
        )
    if foreign.always_on:
        return _prove_random(model, stamps, _of_column(expected, how), reference)
    raw = np.concatenate([np.asarray(foreign.model(stamps[at : at + 64], training=False)) for at in
                          range(0, len(stamps), 64)]).reshape(len(stamps), -1)  # fmt: skip
    scores = CompiledModel(model).score(stamps)
    column = how.real_column or 0
    wide = expected.reshape(len(stamps), -1)
    tries = [("scores", scores[:, None], wide if wide.shape[1] == 1 else wide[:, column : column + 1])]
    tries.append(("outputs", raw if wide.shape[1] == raw.shape[1] else raw[:, column : column + 1], wide))
    found = [Proof(len(stamps), _difference(ours, theirs), what) for what, ours, theirs in tries]
    best = min(found, key=lambda one: one.difference)
    if not best.difference <= TOLERANCE:
        raise ModelError(
            f"the imported network differs from the scores of {reference} by up to {best.difference:.3g}; check "
            f"--normalise ({how.normalise}), the order of --layers and --real-column"
        )
    return best


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    if ours.shape != theirs.shape:
        return np.inf
    gaps = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
    return float(np.max(gaps)) if np.isfinite(gaps).all() and gaps.size else np.inf


def _of_column(expected: np.ndarray, how: ImportOptions) -> np.ndarray:
    wide = expected.reshape(len(expected), -1)
    return wide[:, min(how.real_column or 0, wide.shape[1] - 1)]


def _prove_random(model: keras.Model, stamps: np.ndarray, expected: np.ndarray, reference: Path) -> Proof:
    """Compare one draw of a network whose dropout is always on with the spread of its posterior."""
    with same_randomness():
        samples = CompiledModel(model).sample(stamps, N_SAMPLES, seed=0)
    if expected.min() < 0 or expected.max() > 1:
        expected = 1 / (1 + np.exp(-expected))
    away = np.abs(expected - samples.mean(axis=1)) - N_SIGMA * samples.std(axis=1)
    if not (away <= SLACK).all():
        raise ModelError(
            f"scores of {reference} are outside the posterior of the imported network, by {away.max():.3g}; check "
            "--normalise, the order of --layers and --real-column"
        )
    return Proof(len(stamps), float(np.abs(expected - samples.mean(axis=1)).max()), "one draw against the posterior")


def read_reference(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read reference stamps and scores.

    Parameters
    ----------
    path : Path
        npz with stamps (n, size, size, n_layers) as ``x`` or ``stamps``, and scores as ``p`` or ``scores``.

    Returns
    -------
    stamps, scores : ndarray
        float32, and float.

    Raises
    ------
    ConfigError
        If it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(one.file_size for one in archive.infolist())
        if total > MAX_REFERENCE:
            raise ValueError(f"{total} bytes, more than {MAX_REFERENCE}")
        with np.load(path, allow_pickle=False) as arrays:
            stamps, scores = (next(arrays[key] for key in keys if key in arrays) for keys in (STAMP_KEYS, SCORE_KEYS))
            stamps, scores = stamps.astype(np.float32), scores.astype(float)
    except (OSError, ValueError, TypeError, MemoryError, TokenError, zipfile.BadZipFile, StopIteration) as error:
        reason = last_line(error)
        raise ConfigError(
            f"reference {path} cannot be used ({reason}); give an npz with the stamps as x and their scores as p"
        ) from None
    if stamps.ndim != 4 or len(stamps) != len(scores) or not len(stamps):
        raise ConfigError(
            f"reference {path} holds stamps {stamps.shape} and scores {scores.shape}; give (n, size, size, n_layers) "
            "and (n,)"
        )
    return stamps, scores


def check_layers(layers: Sequence[str]) -> tuple[str, ...]:
    """Refuse names of layers that are empty or repeated.

    Parameters
    ----------
    layers : sequence of str
        Names; one text with commas counts as several.

    Returns
    -------
    tuple of str

    Raises
    ------
    ConfigError
        If there is none, or one twice.
    """
    given = layers.split(",") if isinstance(layers, str) else [part for one in layers for part in str(one).split(",")]
    names = tuple(one.strip() for one in given if one.strip())
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"layers are {', '.join(names) or 'none'}; name each layer of the stamps once, in order")
    return names
