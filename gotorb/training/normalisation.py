"""First layers in place of the norm of each layer: noise units, and a norm that bright pixels far away cannot rule.

The L2 norm of each layer hides how much brighter one layer of a stamp is than another: whether a difference is a
thousandth of its star or half of it, and whether a source was as bright in every exposure. Noise as the common unit
keeps both, and the logarithm brings stars and noise to one scale. `ClippedUnits` keeps the norm, but cuts each layer
off at the brightest pixel of its source first.
"""

from typing import Any

from gotorb.training.backend import keras

ops = keras.ops
CLIP, N_ROUNDS, GAUSSIAN = 2.5, 4, 1.28
"""Values above 2.5 times the mean are cut to that before it is taken again; 1.28 times it is a Gaussian's width."""
TINY = 1e-9
CORE_PIXELS = 6
"""Distance from the centre, along rows and columns, within which a pixel may belong to the source."""
FAINTEST = 8.0
"""A layer is not cut off below so many times its noise."""


@keras.saving.register_keras_serializable("gotorb")
class NoiseUnits(keras.layers.Layer):
    """``sign(u) log(1 + |u|)`` of stamps in units u of the noise of one of their layers.

    The noise is the mean of the layer's absolute values, clipped again and again, over pixels that are not zero, for
    these are without data. Keras reads files with this layer once ``gotorb.training.normalisation`` was imported.

    Parameters
    ----------
    reference : int
        Index of the layer of a stamp whose noise is the unit: the difference.
    **options
        Options of `keras.layers.Layer`.
    """

    def __init__(self, reference: int, **options: Any) -> None:
        super().__init__(**options)
        self.reference = reference

    def get_config(self) -> dict[str, Any]:
        """Options of the layer, for saving."""
        return {**super().get_config(), "reference": self.reference}

    def call(self, stamps: keras.KerasTensor) -> keras.KerasTensor:
        """Convert stamps to units of noise.

        Parameters
        ----------
        stamps : keras.KerasTensor
            (n, size, size, n_layers).

        Returns
        -------
        keras.KerasTensor
        """
        light = ops.abs(stamps[..., self.reference : self.reference + 1])
        units = stamps / ops.maximum(GAUSSIAN * _mean_light(light), TINY)
        return ops.sign(units) * ops.log1p(ops.abs(units))


@keras.saving.register_keras_serializable("gotorb")
class ClippedUnits(keras.layers.Layer):
    """Each layer of a stamp cut off at its brightest central pixel, and divided by its L2 norm.

    A hot pixel of any brightness far from the source then weighs as much as the source's own peak at most.
    Keras reads files with this layer once ``gotorb.training.normalisation`` was imported.
    """

    def call(self, stamps: keras.KerasTensor) -> keras.KerasTensor:
        """Cut off and normalise stamps.

        Parameters
        ----------
        stamps : keras.KerasTensor
            (n, size, size, n_layers).

        Returns
        -------
        keras.KerasTensor
        """
        light = ops.abs(stamps)
        low = max((stamps.shape[1] - 1) // 2 - CORE_PIXELS, 0)
        high = stamps.shape[1] - low
        peak = ops.max(light[:, low:high, low:high], axis=(1, 2), keepdims=True)
        limit = ops.maximum(peak, FAINTEST * GAUSSIAN * _mean_light(light))
        clipped = ops.clip(stamps, -limit, limit)
        return clipped / ops.maximum(ops.sqrt(_total(clipped * clipped)), TINY)


def _mean_light(light: keras.KerasTensor) -> keras.KerasTensor:
    """Mean over pixels with data, with values far above it cut off again and again."""
    n_seen = ops.maximum(_total(ops.cast(light > 0, light.dtype)), 1)
    mean = _total(light) / n_seen
    for _ in range(N_ROUNDS):
        mean = _total(ops.minimum(light, CLIP * mean)) / n_seen
    return mean


def _total(light: keras.KerasTensor) -> keras.KerasTensor:
    return ops.sum(light, axis=(1, 2), keepdims=True)
