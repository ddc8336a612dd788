"""What is done after each epoch: keep the best weights, stop when nothing improves, tell whoever asked."""

import logging
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gotorb.errors import ModelError

LOG = logging.getLogger(__name__)
OnEpoch = Callable[[int, dict[str, float]], None]


class BestWeights(keras.callbacks.Callback):
    """Keep the weights of the best epoch and stop after `patience` epochs without a better one.

    Unlike Keras' own early stopping, the best weights can also be had after an interruption.

    Parameters
    ----------
    monitor : str
        Quantity that decides; smaller is better when its name holds loss, error or entropy, else larger.
    patience : int
        Epochs without improvement before training stops.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        super().__init__()
        self.monitor, self.patience = monitor, patience
        self.sign = 1 if any(word in monitor for word in ("loss", "error", "entropy")) else -1
        self.best, self.best_epoch = math.inf, -1
        self.weights: list[np.ndarray] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compare this epoch with the best so far; one that was not validated is passed over."""
        logs = logs or {}
        validated = any(name.startswith("val_") for name in logs)
        if self.monitor.startswith("val_") and not validated and "loss" in logs:
            return
        value = self.sign * _monitored(logs, self.monitor, epoch)
        if value < self.best:
            self.best, self.best_epoch = value, epoch
            self.weights = self.model.get_weights()
        elif epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def restore(self, model: keras.Model) -> None:
        """Put the best weights into the model.

        Raises
        ------
        ModelError
            If no epoch was validated.
        """
        if not self.weights:
            raise ModelError(
                f"no epoch has a {self.monitor!r}, so none is best; lower validation_freq in fit_kwargs or train longer"
            )
        model.set_weights(self.weights)


class EpochReport(keras.callbacks.Callback):
    """Record each epoch's numbers, log them, and hand them to a function.

    Parameters
    ----------
    on_epoch : callable, optional
        Called with the epoch (from 0) and its numbers.
    """

    def __init__(self, on_epoch: OnEpoch | None = None) -> None:
        super().__init__()
        self.on_epoch = on_epoch
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note of the epoch."""
        numbers = {name: float(value) for name, value in sorted((logs or {}).items())}
        for name, value in numbers.items():
            self.history.setdefault(name, []).append(value)
        LOG.info("epoch %d: %s", epoch, ", ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        if self.on_epoch is not None:
            self.on_epoch(epoch, numbers)


def _monitored(logs: dict[str, Any], monitor: str, epoch: int) -> float:
    if monitor not in logs:
        raise ModelError(f"no quantity {monitor!r} to monitor (has {', '.join(sorted(logs))}); name one of these")
    if not math.isfinite(float(logs["loss"])):
        raise ModelError(
            f"the loss is {float(logs['loss'])} after epoch {epoch}: training diverged; "
            "lower train.learning_rate in params.yaml"
        )
    return float(logs[monitor])
