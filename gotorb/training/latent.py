"""Latent vectors: what a network makes of a stamp before it decides, the flattened feature map."""

import keras
import numpy as np
import tensorflow as tf

from gotorb.errors import ModelError
from gotorb.training.scoring import BATCH_SIZE, Stamps, check_batches

LATENT = "latent"
"""Name of the layer in our networks."""


def latent_vectors(model: keras.Model, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Latent vectors of stamps, dropout off.

    Parameters
    ----------
    model : keras.Model
        With a layer ``latent``, or whose first dense layer reads a flat vector.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Stamps taken at a time.

    Returns
    -------
    ndarray
        (n, n_features) float32.

    Raises
    ------
    ModelError
        If the network has no such layer, or the stamps do not fit it.
    DataError
        If a stamp is not finite.
    """
    inner = keras.Model(model.inputs, find_latent(model))
    compiled = tf.function(
        lambda batch: inner(batch, training=False), input_signature=[tf.TensorSpec(model.input_shape)]
    )
    parts = [compiled(tf.constant(batch)).numpy() for batch in check_batches(model, stamps, batch_size)]
    return np.concatenate(parts) if parts else np.empty((0, inner.output_shape[-1]), np.float32)


def find_latent(model: keras.Model) -> keras.KerasTensor:
    """Output of the layer ``latent``, else the input of the first dense layer.

    Raises
    ------
    ModelError
        If there is neither.
    """
    for layer in model.layers:
        if layer.name == LATENT:
            return layer.output
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and len(layer.input.shape) == 2:
            return layer.input
    raise ModelError(f"network {model.name!r} has no layer {LATENT!r} and no dense layer; name one of its layers so")
