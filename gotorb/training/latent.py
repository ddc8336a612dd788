"""Latent vectors: what a network makes of a stamp before it decides."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from gotorb.stamps.batches import cut_batches
from gotorb.training.scoring import BATCH_SIZE

LATENT = "latent"
"""Layer of our networks that holds them; of others, the input of the last layer is taken."""


def latent_vectors(
    model: keras.Model, stamps: np.ndarray | Iterable[np.ndarray], *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Flattened feature maps of stamps, dropout off.

    Parameters
    ----------
    model : keras.Model
        The network.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Stamps at a time.

    Returns
    -------
    ndarray
        (n, k) float32.

    Raises
    ------
    DataError
        If a stamp is not finite.
    ModelError
        If the stamps' shape is not the model's.
    """
    named = [layer for layer in model.layers if layer.name == LATENT]
    output = named[0].output if named else model.layers[-1].input
    inner = keras.Model(model.inputs[0], output)
    spec = tf.TensorSpec(model.input_shape)
    compute = tf.function(lambda batch: inner(batch, training=False), input_signature=[spec])
    batches = cut_batches(stamps, batch_size, shape=tuple(model.input_shape[1:]), name=model.name)
    parts = [compute(tf.constant(batch)).numpy() for batch in batches]
    return np.concatenate([part.reshape(len(part), -1) for part in parts]) if parts else np.empty((0, 0), np.float32)
