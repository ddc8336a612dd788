"""Arithmetic of half the width while a network is fitted; the weights, and the model written, are float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from gotorb.errors import ConfigError

FLOAT32, BFLOAT16 = "float32", "bfloat16"


def check_precision(precision: str) -> None:
    """Refuse any other than the two.

    Raises
    ------
    ConfigError
        If `precision` is another.
    """
    if precision not in (FLOAT32, BFLOAT16):
        raise ConfigError(f"mixed_precision is {precision!r}; choose {FLOAT32} or {BFLOAT16}")


@contextmanager
def mixed_precision(model: keras.Model, precision: str) -> Iterator[None]:
    """Let the layers between normalisation and score compute in `precision`, and put them back.

    Normalisation, score, loss and the penalty on the weights stay float32: eight bits are too few for a sum over
    thousands of pixels or a score near 1.

    Parameters
    ----------
    model : keras.Model
        Not compiled yet, or to be compiled anew.
    precision : {"float32", "bfloat16"}
        "bfloat16" needs a processor or GPU with such instructions to be faster.
    """
    layers = [] if precision == FLOAT32 else _inner_layers(model)
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = f"mixed_{precision}"
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def _inner_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers from the first convolution or dense one to the last but one."""
    layers = [layer for layer in model._flatten_layers(include_self=False) if not isinstance(layer, keras.Model)]
    weighted = [index for index, layer in enumerate(layers) if layer.weights and hasattr(layer, "kernel")]
    return layers[weighted[0] : weighted[-1]] if weighted else []
