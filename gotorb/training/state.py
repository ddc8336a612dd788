"""A training that was killed goes on: what it needs for that is written after each epoch, whole or not at all.

Order, orientations and learning rate follow from seed and epoch. Weights, optimizer, the generators of dropout,
the best weights and the history do not: these are kept. An uninterrupted training and one that was killed and went
on end with the same bytes.
"""

import json
import logging
import math
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gotorb.training.callbacks import BestWeights, EpochReport
from gotorb.training.files import replace_file

LOG = logging.getLogger(__name__)
Identity = dict[str, str]
ABOUT = "about"


class Progress(keras.callbacks.Callback):
    """Writes the state of a training after each epoch, and reads it back. Must be the last of the callbacks.

    Parameters
    ----------
    path : Path
        The npz file.
    identity : dict of str
        What decides the result: a state of another identity is not gone on with.
    best : BestWeights
        Its weights and counters are part of the state.
    report : EpochReport
        So is its history.
    """

    def __init__(self, path: Path, identity: Identity, best: BestWeights, report: EpochReport) -> None:
        super().__init__()
        self.path, self.identity, self.best, self.report = path, identity, best, report
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the state; a full disk costs the state, not the training."""
        about = {
            "identity": self.identity,
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "best": self.best.best if math.isfinite(self.best.best) else None,
            "best_epoch": self.best.best_epoch,
            "history": self.report.history,
        }
        arrays = {ABOUT: np.array(json.dumps(about))} | _name_arrays("model", _values(self.model.variables))
        arrays |= _name_arrays("optimizer", _values(self.model.optimizer.variables))
        arrays |= _name_arrays("best", self.best.weights)
        try:
            replace_file(self.path, lambda part: np.savez(part, allow_pickle=False, **arrays))
        except OSError as error:
            LOG.warning("%s cannot be written (%s); if this training is killed it begins anew", self.path, error)

    def resume(self, model: keras.Model) -> int:
        """Put a compiled network where an earlier training of the same identity was.

        Returns
        -------
        int
            The epoch to go on with; 0 when there is nothing to go on with.
        """
        found = _read(self.path)
        if found is None:
            return 0
        about, arrays = found
        changed = sorted(
            name
            for name in {*self.identity, *about["identity"]}
            if self.identity.get(name) != about["identity"].get(name)
        )
        if changed:
            LOG.warning("%s is of a training with another %s; this one begins anew", self.path, ", ".join(changed))
            return 0
        model.optimizer.build(model.trainable_variables)
        _assign(model.variables, _take(arrays, "model"))
        _assign(model.optimizer.variables, _take(arrays, "optimizer"))
        self.best.weights = _take(arrays, "best")
        self.best.best = math.inf if about["best"] is None else about["best"]
        self.best.best_epoch = about["best_epoch"]
        self.report.history.update(about["history"])
        self.stopped = about["stopped"]
        LOG.info("going on after epoch %d of an interrupted training", about["epoch"])
        return about["epoch"] + 1

    def finish(self) -> None:
        """Remove the state: the training has come to its end."""
        self.path.unlink(missing_ok=True)


def describe_network(model: keras.Model) -> Identity:
    """What of a compiled network decides the result beside the settings: layers, optimizer, version of Keras."""
    layers = [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]
    return {
        "network": str([_describe(layer) for layer in layers]),
        "optimizer": _describe(model.optimizer),
        "keras": keras.__version__,
    }


def _describe(thing: Any) -> str:
    """Class and options; names are left out, for Keras counts them up."""
    return str((type(thing).__name__, {name: value for name, value in thing.get_config().items() if name != "name"}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The state in a file, None when there is none or it cannot be read; nothing is unpickled."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop(ABOUT))), arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        LOG.warning("%s cannot be read (%s); the training begins anew", path, error)
        return None


def _values(variables: list[Any]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _name_arrays(kind: str, values: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{kind}_{index:04d}": value for index, value in enumerate(values)}


def _take(arrays: dict[str, np.ndarray], kind: str) -> list[np.ndarray]:
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{kind}_")]


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
