"""Posterior samples of a chain of layers, where samples that share masks share the work.

A sample is one thinned network, drawn for all stamps of a batch. Samples with the same masks up to some layer have the
same activations up to there, so all samples form a tree: its root is what comes before the first dropout, its nodes
are the distinct beginnings of masks, its leaves are scores. With few bits in a mask (whole feature maps) and a small
rate most beginnings are equal, and the early, costly convolutions are evaluated a few times instead of once for each
sample. The tree is walked depth first: one set of activations for each layer is all that is in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gotorb.training.chain import Chain, Stage, is_linear
from gotorb.training.masks import draw_masks, group_equal

SLICE = 64
"""Stamps that go through the tree together, few enough for the processor's cache; a batch's slices share its masks."""


class Tree:
    """The compiled parts of a network that was taken apart.

    Parameters
    ----------
    chain : Chain
        From `gotorb.training.chain.take_apart`.
    shape : tuple of int or None
        Of the stamps, (None, size, size, n_layers).
    """

    def __init__(self, chain: Chain, shape: tuple[int | None, ...]) -> None:
        self.sites = [(stage.rate, stage.shape) for stage in chain.stages]
        self.root = _compile(lambda stamps: _through(chain.prefix, stamps), tf.TensorSpec(shape))
        self.nodes: list[Any] = []
        for stage in chain.stages:
            before = self.nodes[-1] if self.nodes else self.root
            self.nodes.append(_compile_stage(stage, tf.TensorSpec(before.output_shapes, before.output_dtypes)))

    def sample(self, batches: Iterator[np.ndarray], n_samples: int, *, entropy: int) -> Iterator[np.ndarray]:
        """Posterior samples (n, n_samples) of each batch of stamps (n, size, size, n_layers)."""
        for number, batch in enumerate(batches):
            masks = draw_masks(self.sites, n_samples, entropy=entropy, batch=number)
            samples = np.empty((len(batch), n_samples), np.float32)
            for start in range(0, len(batch), SLICE):
                part = slice(start, start + SLICE)
                self._descend(0, self.root(tf.constant(batch[part])), masks, np.arange(n_samples), samples[part])
            yield samples

    def _descend(
        self, depth: int, values: tf.Tensor, masks: list[np.ndarray], members: np.ndarray, samples: np.ndarray
    ) -> None:
        """Fill the columns `members` of `samples`, which have the activations `values` in common."""
        if depth == len(self.nodes):
            samples[:, members] = values.numpy()[:, :1]
            return
        for mask, own in group_equal(masks[depth], members):
            kept = tf.constant(mask / (1 - self.sites[depth][0]), tf.float32)
            self._descend(depth + 1, self.nodes[depth](values, kept), masks, own, samples)


def _compile_stage(stage: Stage, spec: tf.TensorSpec) -> Any:
    """Activations before a mask and the mask in, activations before the next mask out.

    A mask of the channels that a convolution or dense layer sums over is put on the kernel, which is smaller.
    """
    first, rest = stage.layers[:1], stage.layers[1:]
    if len(stage.shape) == 1 and first and is_linear(first[0]):

        def pass_on(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            return _through(rest, _apply(first[0], values, first[0].kernel * mask[:, None]))
    else:

        def pass_on(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            return _through(stage.layers, values * tf.cast(mask, values.dtype))

    return _compile(pass_on, spec, tf.TensorSpec(stage.shape))


def _compile(function: Callable[..., tf.Tensor], *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs).get_concrete_function()


def _through(layers: list[keras.layers.Layer], values: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        values = layer(values, training=False) if layer._call_has_training_arg else layer(values)
    return values


def _apply(layer: Any, values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """What a convolution or dense layer does, with another kernel."""
    dense = isinstance(layer, keras.layers.Dense)
    values = tf.tensordot(values, kernel, 1) if dense else layer.convolution_op(values, kernel)
    values = tf.nn.bias_add(values, layer.bias) if layer.use_bias else values
    return values if layer.activation is None else layer.activation(values)
