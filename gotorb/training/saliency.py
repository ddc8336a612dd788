"""Saliency: Grad-CAM maps of a network's score.

References
----------
Selvaraju et al. 2017 (ICCV): Grad-CAM.
"""

import numpy as np

from gotorb.errors import ModelError
from gotorb.training.backend import keras, tf
from gotorb.training.inference import BATCH_SIZE, check_batches
from gotorb.training.measured import Measured, find_network


def saliency_maps(model: keras.Model, stamps: np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Evidence for the class that the network chose, pixel by pixel.

    The channels of the last convolution are summed, weighted by their mean gradient of the logit of the score
    (turned round where the score is below one half), and what is left above 0 is scaled to the stamp.

    Parameters
    ----------
    model : keras.Model or Fusion
        With one sigmoid output and a convolution; of a fusion its network.
    stamps : ndarray
        (n, size, size, n_layers).
    batch_size : int
        Stamps taken at a time.

    Returns
    -------
    ndarray
        (n, size, size), 0 to 1; 0 throughout when no pixel supports the class.

    Raises
    ------
    ModelError
        If the network has no convolution, or does not end in a dense layer.
    """
    if isinstance(model, Measured):
        raise ModelError(f"model {model.name!r} has no saliency map, it measures stamps; leave --saliency out")
    model = find_network(model)
    last = [layer for layer in model.layers if len(layer.output.shape) == 4 and "conv" in layer.name.lower()]
    if not last or not isinstance(model.layers[-1], keras.layers.Dense):
        raise ModelError(
            f"network {model.name!r} has no convolution, or no dense layer at its end, so no saliency map; "
            "leave --saliency out"
        )
    head = model.layers[-1]
    inner = keras.Model(model.inputs, [last[-1].output, head.input])
    parts = [_maps(inner, head, tf.constant(batch)) for batch in check_batches(model, stamps, batch_size)]
    return np.concatenate(parts) if parts else np.empty(stamps.shape[:3], np.float32)


def _maps(inner: keras.Model, head: keras.layers.Dense, batch: tf.Tensor) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(batch)
        features, last = inner(batch, training=False)
        logit = (tf.matmul(last, head.kernel) + head.bias)[:, 0]  # a score near 0 or 1 has lost its gradient
        spoken = tf.abs(logit)
    weights = tf.reduce_mean(tape.gradient(spoken, features), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    heat = tf.image.resize(heat, batch.shape[1:3])[..., 0]
    peak = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, peak).numpy()
