"""Keras and TensorFlow, imported once and without TensorFlow's messages about missing GPUs.

TensorFlow prints these before it reads any setting, so stderr of the process is redirected during the import. Modules
of this room import both libraries from here.
"""

import inspect
import logging
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Redirect stderr of the process to the null device."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with _silent_stderr():
    import keras
    import tensorflow as tf

# each model has compiled functions of its own, about which TensorFlow warns from the fifth on
tf.get_logger().setLevel(logging.ERROR)

__all__ = ["all_layers", "frozen", "keras", "same_randomness", "takes_training", "tf"]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers of a model, nested layers included.

    Parameters
    ----------
    model : keras.Model
        Network.

    Returns
    -------
    list of keras Layer
        Layers without the model itself. Keras has no public call for layers nested in layers, so a private one is used.
    """
    return model._flatten_layers(include_self=False)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Test a layer for an argument ``training`` of its call.

    Parameters
    ----------
    layer : keras Layer
        Layer.

    Returns
    -------
    bool
    """
    return "training" in inspect.signature(layer.call).parameters


@contextmanager
def same_randomness() -> Iterator[None]:
    """Restore the generators from which Keras draws seeds, after a block.

    Yields
    ------
    None
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  Keras draws from these
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def frozen(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Freeze layers while their network is compiled and fitted.

    Parameters
    ----------
    layers : iterable of keras.layers.Layer
        Layers to freeze; those that are frozen already stay frozen.

    Yields
    ------
    None
    """
    chosen = [layer for layer in layers if layer.trainable]
    for layer in chosen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in chosen:
            layer.trainable = True
