"""Checkpoints of a training, written after each epoch, and the weights of its best epoch.

A checkpoint holds the weights, the optimizer, the generators of dropout, the best weights and the history. Order,
orientations and learning rate follow from seed and epoch. A resumed training ends with the same bytes as an
uninterrupted one.
"""

import json
import logging
import math
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gotorb.core.files import whole_file
from gotorb.core.logs import describe_duration, list_values
from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import all_layers, keras

LOG = logging.getLogger(__name__)
Identity = dict[str, str]
OnEpoch = Callable[[int, dict[str, float]], None]
ABOUT = "about"


class BestWeights(keras.callbacks.EarlyStopping):
    """Early stopping of Keras with best weights and counters that can be saved and resumed.

    Parameters
    ----------
    monitor : str
        Quantity that decides which epoch is best.
    patience : int
        Epochs without improvement before training stops.
    mode : {"auto", "min", "max"}
        Direction in which the quantity improves. "auto" asks Keras' metric of that name.
    averaged : bool
        True if the optimizer averages the weights; the average is validated and kept.
    """

    def __init__(self, monitor: str, patience: int, mode: str = "auto", *, averaged: bool = False) -> None:
        super().__init__(monitor, patience=patience, mode=mode, restore_best_weights=True)
        self.swap = keras.callbacks.SwapEMAWeights() if averaged else None
        self.best_epoch = 0  # set by Keras when training begins
        self._resumed: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """Counters for a checkpoint.

        Returns
        -------
        dict
            best, best_epoch and wait, as plain values.
        """
        best = None if self.best is None else float(self.best)
        return {"best": best, "best_epoch": self.best_epoch, "wait": self.wait}

    def resume(self, state: dict[str, Any], weights: list[np.ndarray]) -> None:
        """Start the next fit from a checkpoint.

        Parameters
        ----------
        state : dict
            Counters from `state`.
        weights : list of ndarray
            Weights of the best epoch; empty without one.
        """
        self._resumed = state | {"best_weights": weights or None}
        self._set_counters()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Reset the counters to zero, or to those of the checkpoint.

        Parameters
        ----------
        logs : dict, optional
            Not used.
        """
        super().on_train_begin(logs)
        self._set_counters()

    def _set_counters(self) -> None:
        for name, value in self._resumed.items():
            setattr(self, name, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare this epoch with the best one; epochs without validation are skipped.

        Parameters
        ----------
        epoch : int
            Epoch, from 0.
        logs : dict, optional
            Metrics of the epoch.

        Raises
        ------
        ConfigError
            If Keras does not know the better direction of the monitored metric.
        """
        try:
            self._swap("on_test_begin")
            super().on_epoch_end(epoch, logs)
            self._swap("on_test_end")
        except ValueError:
            raise ConfigError(
                f"Keras does not know whether a smaller {self.monitor!r} is better; pass monitor_mode='min' or 'max'"
            ) from None

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Swap in the averaged weights for validation.

        Parameters
        ----------
        logs : dict, optional
            Not used.
        """
        self._swap("on_test_begin")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Swap the averaged weights out again for training.

        Parameters
        ----------
        logs : dict, optional
            Not used.
        """
        self._swap("on_test_end")

    def _swap(self, event: str) -> None:
        if self.swap is not None:
            self.swap.set_model(self.model)
            getattr(self.swap, event)()

    def get_monitor_value(self, logs: dict[str, Any] | None) -> float | None:
        """Value of the monitored quantity in this epoch.

        Parameters
        ----------
        logs : dict
            Quantities of the epoch.

        Returns
        -------
        float or None
            None if the epoch was not validated or the value is not finite.

        Raises
        ------
        ModelError
            If training diverged, or there is no such quantity.
        """
        logs = logs or {}
        validated = any(name.startswith("val_") for name in logs)
        if self.monitor.startswith("val_") and not validated and "loss" in logs:
            return None
        if self.monitor not in logs:
            raise ModelError(f"no quantity {self.monitor!r} to monitor (has {', '.join(sorted(logs))}); name one")
        if not math.isfinite(float(logs["loss"])):
            raise ModelError(
                f"the loss is {float(logs['loss'])}: training diverged; lower train.learning_rate in params.yaml"
            )
        value = float(logs[self.monitor])
        return value if math.isfinite(value) else None

    def restore(self, model: keras.Model) -> None:
        """Put the best weights into the model.

        Parameters
        ----------
        model : keras.Model
            Fitted model.

        Raises
        ------
        ModelError
            If no epoch was validated.
        """
        if self.best_weights is None:
            raise ModelError(
                f"no epoch has a value of {self.monitor!r}; lower validation_freq in fit_kwargs or train longer"
            )
        model.set_weights(self.best_weights)


class EpochReport(keras.callbacks.Callback):
    """Record each epoch's quantities, log them, and hand them to a function.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with the epoch (from 0) and its quantities.
    """

    def __init__(self, on_epoch: OnEpoch | None = None) -> None:
        super().__init__()
        self.on_epoch = on_epoch
        self.history: dict[str, list[float]] = {}
        self._begun, self._n_done = 0.0, 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start the clock for the estimate of the time left.

        Parameters
        ----------
        logs : dict, optional
            Not used.
        """
        self._begun, self._n_done = time.monotonic(), 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Record and log the metrics of an epoch.

        Parameters
        ----------
        epoch : int
            Epoch, from 0.
        logs : dict, optional
            Metrics of the epoch.
        """
        numbers = {name: float(value) for name, value in sorted((logs or {}).items())}
        for name, value in numbers.items():
            self.history.setdefault(name, []).append(value)
        self._n_done += 1
        n_epochs = self.params.get("epochs", epoch + 1)
        left = (time.monotonic() - self._begun) / self._n_done * (n_epochs - epoch - 1)
        LOG.info("epoch %d/%d: %s, %s left", epoch + 1, n_epochs, list_values(numbers), describe_duration(left))
        if self.on_epoch is not None:
            self.on_epoch(epoch, numbers)


class Progress(keras.callbacks.Callback):
    """Write a checkpoint after each epoch, and resume from it; must be the last of the callbacks.

    Parameters
    ----------
    path : Path
        File of the checkpoint, npz.
    identity : dict of str
        Everything that determines the result. A checkpoint with another identity is not used.
    best : BestWeights
        Weights and counters of the best epoch, part of the checkpoint.
    report : EpochReport
        History, part of the checkpoint.
    """

    def __init__(self, path: Path, identity: Identity, best: BestWeights, report: EpochReport) -> None:
        super().__init__()
        self.path, self.identity, self.best, self.report = path, identity, best, report
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the checkpoint; on a full disk training continues without it.

        Parameters
        ----------
        epoch : int
            Epoch, from 0.
        logs : dict, optional
            Not used.
        """
        about = self.best.state() | {
            "identity": self.identity,
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "history": self.report.history,
        }
        arrays = {ABOUT: np.array(json.dumps(about))} | _name_arrays("model", _values(self.model.variables))
        arrays |= _name_arrays("optimizer", _values(self.model.optimizer.variables))
        arrays |= _name_arrays("best", self.best.best_weights or [])
        try:
            with whole_file(self.path) as part:
                np.savez(part, allow_pickle=False, **arrays)
        except OSError as error:
            LOG.warning("%s cannot be written (%s); free some space to be able to resume", self.path, error)

    def resume(self, model: keras.Model) -> int:
        """Load the checkpoint of an earlier training with the same identity into a compiled network.

        Parameters
        ----------
        model : keras.Model
            Compiled network.

        Returns
        -------
        int
            Next epoch; 0 without a checkpoint.
        """
        found = _read(self.path)
        if found is None:
            return 0
        about, arrays = found
        names = {*self.identity, *about["identity"]}
        changed = sorted(name for name in names if self.identity.get(name) != about["identity"].get(name))
        if changed:
            LOG.warning("%s is of a training with another %s; starting again", self.path, ", ".join(changed))
            return 0
        model.optimizer.build(model.trainable_variables)
        _assign(model.variables, _take(arrays, "model"))
        _assign(model.optimizer.variables, _take(arrays, "optimizer"))
        self.best.resume({name: about[name] for name in self.best.state()}, _take(arrays, "best"))
        self.report.history.update(about["history"])
        self.stopped = about["stopped"]
        LOG.info("resuming after epoch %d of an interrupted training", about["epoch"] + 1)
        return about["epoch"] + 1

    def finish(self) -> None:
        """Remove the checkpoint of a finished training."""
        self.path.unlink(missing_ok=True)


def describe_network(model: keras.Model) -> Identity:
    """Describe the properties of a compiled network that determine the result of a training.

    Parameters
    ----------
    model : keras.Model
        Compiled network.

    Returns
    -------
    dict of str
        network (layers and their options), optimizer, and version of Keras.
    """
    layers = [layer for layer in all_layers(model) if not isinstance(layer, keras.Model)]
    return {
        "network": str([_describe(layer) for layer in layers]),
        "optimizer": _describe(model.optimizer),
        "keras": keras.__version__,
    }


def _describe(thing: Any) -> str:
    """Class and options without the name, which Keras numbers."""
    return str((type(thing).__name__, {name: value for name, value in thing.get_config().items() if name != "name"}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Content of a checkpoint, read without pickle; None when it is missing or cannot be read."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(str(arrays.pop(ABOUT))), arrays
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        LOG.warning("%s cannot be read (%s); the training starts again", path, error)
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
