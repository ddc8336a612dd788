"""Keras and TensorFlow, imported once and without TensorFlow's messages about missing GPUs.

TensorFlow prints these before it reads any setting, so the process's stderr is redirected while it is imported.
Modules of this room import both libraries from here.
"""

import inspect
import logging
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Redirect the process's own stderr to nowhere."""
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

# each model is compiled for itself, which TensorFlow takes for a mistake once there are five
tf.get_logger().setLevel(logging.ERROR)

__all__ = ["all_layers", "keras", "same_randomness", "takes_training", "tf"]


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers of a model, those inside other layers included.

    Parameters
    ----------
    model : keras.Model
        The network.

    Returns
    -------
    list of keras Layer
        Without the model itself. Keras has no public way into layers that are no models, hence its private one.
    """
    return model._flatten_layers(include_self=False)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Tell a layer whose call has an argument ``training`` from others.

    Parameters
    ----------
    layer : keras Layer
        The layer.
    """
    return "training" in inspect.signature(layer.call).parameters


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leave the generators that Keras draws seeds from as they were.

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
