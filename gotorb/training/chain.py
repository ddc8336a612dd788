"""A network taken apart at its dropouts, so that what masks have in common is computed once.

Only a chain can be: each layer feeds the next, from one input to one output. `take_apart` says why when it cannot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from gotorb.errors import ModelError
from gotorb.training.masks import DROPOUT_LAYERS, drops, mask_shape

POOLS = (
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
SAME_IN_TRAINING = (keras.layers.BatchNormalization, keras.layers.Dense)
"""Layers told of training that need not be: the first stays as it was trained, the second heeds it when quantised."""


class NotAChain(ModelError):
    """A network cannot be taken apart, and why; `gotorb.training.scoring` then samples it pass by pass."""


@dataclass(frozen=True)
class Stage:
    """A mask and the layers between it and the next one.

    Attributes
    ----------
    rate : float
        Fraction that the mask drops.
    shape : tuple of int
        Of the mask of one sample; it applies to the last axes of the activations.
    layers : list of keras Layer
        What follows the mask, in order; without dropout.
    """

    rate: float
    shape: tuple[int, ...]
    layers: list[keras.layers.Layer]


@dataclass(frozen=True)
class Chain:
    """The layers before the first dropout, and a stage for each dropout."""

    prefix: list[keras.layers.Layer]
    stages: list[Stage]


def take_apart(model: keras.Model) -> Chain:
    """Cut a network at its dropouts.

    A mask of whole feature maps scales them by a factor >= 0, which commutes with ReLU and pooling; these move to
    the stage before, where more samples share them.

    Parameters
    ----------
    model : keras.Model
        With at least one dropout that drops something.

    Returns
    -------
    Chain
        That computes what the model does.

    Raises
    ------
    NotAChain
        If the network branches, has code of its own, or a layer that acts differently in training.
    """
    chain = Chain([], [])
    layers = chain.prefix
    for layer, shape in _walk(model):
        if drops(layer):
            bits = mask_shape(layer, shape)
            if bits is None or layer.rate >= 1:
                raise NotAChain(f"{type(layer).__name__} {layer.name!r} cannot be drawn for all stamps at once")
            layers = []
            chain.stages.append(Stage(layer.rate, bits, layers))
        elif not isinstance(layer, DROPOUT_LAYERS):
            _refuse_training(layer)
            layers.append(layer)
    _advance([chain.prefix, *(stage.layers for stage in chain.stages)], [stage.shape for stage in chain.stages])
    return chain


def _walk(model: keras.Model) -> list[tuple[Any, tuple[int | None, ...]]]:
    """Each layer with its input's shape, from the input to the output."""
    outputs = getattr(model, "outputs", None)
    if not type(model).__module__.startswith("keras.") or outputs is None:
        raise NotAChain("the network is a class of its own")
    if len(outputs) != 1 or len(model.inputs) != 1:
        raise NotAChain("the network has several inputs or outputs")
    found = []
    tensor = outputs[0]
    while tensor is not model.inputs[0]:
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        # training=False is what Keras notes of any dropout
        given = [value for value in node.arguments.kwargs.values() if value is not None and value is not False]
        if len(node.input_tensors) != 1 or len(node.arguments.args) != 1 or given:
            raise NotAChain(f"layer {history.operation.name!r} has several inputs or arguments of its own")
        tensor = node.input_tensors[0]
        found.append((history.operation, tensor.shape))
    return found[::-1]


def _refuse_training(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Layer):
        raise NotAChain(f"{layer.name!r} is no layer")
    if layer._call_has_training_arg and not isinstance(layer, SAME_IN_TRAINING):
        raise NotAChain(f"layer {layer.name!r} acts differently in training")


def _advance(parts: Sequence[list[keras.layers.Layer]], masks: Sequence[tuple[int, ...]]) -> None:
    """Move layers that commute with the mask before them to the part before it."""
    for before, after, shape in zip(parts, parts[1:], masks, strict=False):
        while len(shape) == 1 and after and _commutes(after[0]):
            before.append(after.pop(0))


def _commutes(layer: keras.layers.Layer) -> bool:
    if type(layer) in POOLS:
        return getattr(layer, "data_format", "channels_last") == "channels_last"
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold
    if type(layer) is keras.layers.Activation:
        return layer.activation in (keras.activations.relu, keras.activations.linear)
    return type(layer) is keras.layers.LeakyReLU


def is_linear(layer: keras.layers.Layer) -> bool:
    """Whether a layer begins with a product of its last input axis and a kernel, so that the mask can thin that."""
    if getattr(layer, "quantization_mode", None) is not None or layer.compute_dtype != "float32":
        return False
    if type(layer) in CONVOLUTIONS:
        return layer.groups == 1 and layer.data_format == "channels_last" and layer.padding != "causal"
    return type(layer) is keras.layers.Dense
