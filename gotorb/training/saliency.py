"""Where a network looks: Grad-CAM maps of its score.

References
----------
Selvaraju et al. 2017 (ICCV): Grad-CAM.
"""

import keras
import numpy as np
import tensorflow as tf

from gotorb.errors import ModelError
from gotorb.training.scoring import BATCH_SIZE, check_batches


def saliency_maps(model: keras.Model, stamps: np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """What speaks for the call that was made, pixel by pixel.

    The channels of the last convolution are summed, weighted by their mean gradient of the logit of the score
    (turned round where the score is below one half), and what is left above 0 is scaled to the stamp.

    Parameters
    ----------
    model : keras.Model
        With one sigmoid output and a convolution.
    stamps : ndarray
        (n, size, size, n_layers).
    batch_size : int
        Stamps taken at a time.

    Returns
    -------
    ndarray
        (n, size, size), 0 to 1; 0 throughout where nothing speaks for the call.

    Raises
    ------
    ModelError
        If the network has no convolution.
    """
    last = [layer for layer in model.layers if len(layer.output.shape) == 4 and "conv" in layer.name.lower()]
    if not last:
        raise ModelError(f"network {model.name!r} has no convolution, so no saliency map; leave --saliency out")
    inner = keras.Model(model.inputs, [last[-1].output, model.output])
    parts = [_maps(inner, tf.constant(batch)) for batch in check_batches(model, stamps, batch_size)]
    return np.concatenate(parts) if parts else np.empty(stamps.shape[:3], np.float32)


def _maps(inner: keras.Model, batch: tf.Tensor) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(batch)
        features, score = inner(batch, training=False)
        score = tf.clip_by_value(score[:, 0], 1e-6, 1 - 1e-6)
        logit = tf.math.log(score / (1 - score))
        spoken = tf.where(score >= 0.5, logit, -logit)
    weights = tf.reduce_mean(tape.gradient(spoken, features), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    heat = tf.image.resize(heat, batch.shape[1:3])[..., 0]
    peak = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, peak).numpy()
