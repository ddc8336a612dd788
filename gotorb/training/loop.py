"""Posterior samples of any network by one pass for each sample, each stamp with masks of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

SLICE = 32
"""Masks of more stamps no longer fit the processor's cache."""


class Loop:
    """The passes of a network, compiled; for networks that cannot be taken apart.

    Parameters
    ----------
    model : keras.Model
        With dropout.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        layers = model._flatten_layers()
        self.random = [layer for layer in layers if getattr(layer, "seed_generator", None) is not None]
        self._samplers: dict[int, Callable[[tf.Tensor], tf.Tensor]] = {}

    def sample(self, batches: Iterator[np.ndarray], n_samples: int, *, entropy: int) -> Iterator[np.ndarray]:
        """Posterior samples (n, n_samples) of each batch of stamps."""
        with _seeded(self.random, entropy), _frozen_batch_norms(self.model):
            if n_samples not in self._samplers:
                self._samplers[n_samples] = _compile(self.model, n_samples)
            sampler = self._samplers[n_samples]
            for batch in batches:
                starts = range(0, len(batch), SLICE)
                parts = [sampler(tf.constant(batch[start : start + SLICE])) for start in starts]
                yield np.concatenate([part.numpy().T for part in parts])


def _compile(model: keras.Model, n_samples: int) -> Callable[[tf.Tensor], tf.Tensor]:
    def sample(batch: tf.Tensor) -> tf.Tensor:
        samples = tf.TensorArray(tf.float32, n_samples)
        for index in tf.range(n_samples):
            samples = samples.write(index, model(batch, training=True)[:, 0])
        return samples.stack()

    return tf.function(sample, input_signature=[tf.TensorSpec(model.input_shape)]).get_concrete_function()


@contextmanager
def _seeded(random: list[keras.layers.Layer], entropy: int) -> Iterator[None]:
    """Start the layers' own generators from `entropy`, and put them back as they were."""
    states = [layer.seed_generator.state for layer in random]
    before = [state.numpy() for state in states]
    seeds = np.random.SeedSequence(entropy).generate_state(len(states), np.uint32)
    for state, start in zip(states, seeds, strict=True):
        state.assign(np.array([start, 0], before[0].dtype))
    try:
        yield
    finally:
        for state, old in zip(states, before, strict=True):
            state.assign(old)


@contextmanager
def _frozen_batch_norms(model: keras.Model) -> Iterator[None]:
    """Keep batch normalisation in its trained state although the pass is a training one."""
    frozen = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
