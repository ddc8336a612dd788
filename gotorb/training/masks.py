"""Dropout masks that all stamps of a batch share: one sample is one thinned network, drawn for the batch."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

CHANNEL_DROPOUTS = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)
DROPOUT_LAYERS = (
    keras.layers.Dropout,
    *CHANNEL_DROPOUTS,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)


def find_dropouts(model: keras.Model) -> list[keras.layers.Layer]:
    """Dropout layers of a model, nested ones included, that drop anything."""
    return [layer for layer in model._flatten_layers() if drops(layer)]


def drops(layer: Any) -> bool:
    """Whether a layer is a dropout layer with a rate above 0."""
    return isinstance(layer, DROPOUT_LAYERS) and layer.rate > 0


def mask_shape(dropout: keras.layers.Layer, shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Shape of the mask of one sample.

    Parameters
    ----------
    dropout : keras Layer
        That drops something.
    shape : tuple of int or None
        Of its input, stamps first.

    Returns
    -------
    tuple of int or None
        Along the last axes of its input; all axes but the channels share a bit when whole feature maps are dropped.
        None for a layer that does more than switch activations off, or takes stamps of any size.
    """
    if None in shape[1:]:
        return None
    sizes = [int(size or 1) for size in shape[1:]]
    if type(dropout) in CHANNEL_DROPOUTS:
        channels_last = getattr(dropout, "data_format", "channels_last") == "channels_last"
        return (sizes[-1],) if channels_last else None
    if type(dropout) is not keras.layers.Dropout:
        return None
    shared = (dropout.noise_shape or shape)[1:]
    bits = [size if given is None else int(given) for size, given in zip(sizes, shared, strict=True)]
    while len(bits) > 1 and bits[0] == 1:
        bits.pop(0)
    return tuple(bits)


def draw_masks(
    sites: Sequence[tuple[float, tuple[int, ...]]], n_samples: int, *, entropy: int, batch: int
) -> list[np.ndarray]:
    """Draw what is kept at each dropout of each sample.

    The generator starts from `entropy`, the number of the batch and the number of the sample: sample 3 is the same
    whether 5 or 50 are drawn, and no two batches share masks.

    Parameters
    ----------
    sites : sequence of (float, tuple of int)
        Rate and mask shape of each dropout, in the order of the network.
    n_samples : int
        Thinned networks.
    entropy, batch : int
        Seed, and number of the batch.

    Returns
    -------
    list of ndarray
        For each site (n_samples, \\*shape) bool.
    """
    generators = [np.random.default_rng([entropy, batch, sample]) for sample in range(n_samples)]
    drawn = [[rng.random(shape, np.float32) >= rate for rate, shape in sites] for rng in generators]
    return [np.stack(masks) for masks in zip(*drawn, strict=True)]


def group_equal(masks: np.ndarray, samples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gather samples of equal masks.

    Parameters
    ----------
    masks : ndarray of bool
        (n_samples, \\*shape) masks of one dropout.
    samples : ndarray of int
        Samples to look at.

    Returns
    -------
    list of (ndarray, ndarray)
        Each distinct mask, and the samples that have it.

    Examples
    --------
    >>> masks = np.array([[True, True], [True, False], [True, True]])
    >>> [members.tolist() for _, members in group_equal(masks, np.arange(3))]
    [[0, 2], [1]]
    """
    groups: dict[bytes, list[int]] = {}
    for sample in samples.tolist():
        groups.setdefault(masks[sample].tobytes(), []).append(sample)
    return [(masks[members[0]], np.array(members)) for members in groups.values()]
