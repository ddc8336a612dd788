"""First layers of networks other than the L2 norm: units of noise, and a norm robust to bright pixels far away.

The L2 norm of each layer hides brightness ratios between the layers of a stamp, such as that of a difference to its
star, or of a source in two exposures. Units of noise keep these, and the logarithm compresses stars and noise to one
scale. `ClippedUnits` keeps the L2 norm, but first clips each layer at the brightest pixel of its source.
"""

from typing import Any

from gotorb.training.backend import keras

ops = keras.ops
CLIP, N_ROUNDS, GAUSSIAN = 2.5, 4, 1.28
"""Clipping level in units of the mean, rounds of clipping, and ratio of a Gaussian's width to the clipped mean."""
TINY = 1e-9
CORE_PIXELS = 6
"""Largest distance of a pixel of the source from the centre, along rows and columns."""
FAINTEST = 8.0
"""Lowest clipping level in units of noise."""
CROP = "crop"
"""Name of the layer that keeps the central part of a stamp, before any other."""


def find_crop(model: keras.Model) -> int:
    """Side of the central part of a stamp that a network sees.

    Parameters
    ----------
    model : keras.Model
        Network.

    Returns
    -------
    int
        Pixels; the whole stamp for a network without a crop.
    """
    crops = [layer.output.shape[1] for layer in model.layers if layer.name == CROP]
    return int(crops[0] if crops else model.input_shape[1])


@keras.saving.register_keras_serializable("gotorb")
class NoiseUnits(keras.layers.Layer):
    """``sign(u) log(1 + |u|)`` of stamps in units u of the noise of one of their layers.

    The noise is the iteratively clipped mean of the layer's absolute values, without pixels of value zero, which have
    no data. To read files with this layer, import ``gotorb.training.normalisation`` first.

    Parameters
    ----------
    reference : int
        Index of the layer whose noise is the unit, the difference.
    **options
        Options of `keras.layers.Layer`.
    """

    def __init__(self, reference: int, **options: Any) -> None:
        super().__init__(**options)
        self.reference = reference

    def get_config(self) -> dict[str, Any]:
        """Options of the layer, for saving.

        Returns
        -------
        dict
        """
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
    """Each layer of a stamp, clipped at its brightest central pixel and divided by its L2 norm.

    A hot pixel far from the source then weighs at most as much as the peak of the source. To read files with this
    layer, import ``gotorb.training.normalisation`` first.
    """

    def call(self, stamps: keras.KerasTensor) -> keras.KerasTensor:
        """Clip and normalise stamps.

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
    """Iteratively clipped mean over pixels with data."""
    n_seen = ops.maximum(_total(ops.cast(light > 0, light.dtype)), 1)
    mean = _total(light) / n_seen
    for _ in range(N_ROUNDS):
        mean = _total(ops.minimum(light, CLIP * mean)) / n_seen
    return mean


def _total(light: keras.KerasTensor) -> keras.KerasTensor:
    return ops.sum(light, axis=(1, 2), keepdims=True)
