"""The networks of GOTO's recipe: ``vgg6`` and its Bayesian form ``bayesian_vgg6``.

Both begin with the L2 normalisation of each layer of each stamp, so that a saved model takes stamps in the
survey's own units and cannot be fed wrongly. A stamp layer of zeros stays zero.

References
----------
Killestein et al. 2021, MNRAS 503, 4838: the architecture and Monte-Carlo dropout for real/bogus scores.
Gal & Ghahramani 2016: dropout as approximate inference.
Tompson et al. 2015 (CVPR): dropout of whole feature maps.
"""

from typing import Any

import keras

from gotorb.errors import ConfigError

Shape = tuple[int, int, int]

MIN_SIZE = 20
"""Smallest stamp side [pixel] that survives four convolutions and two poolings."""


def vgg6(
    input_shape: Shape,
    *,
    spatial_dropout: float = 0.1,
    block1: int = 16,
    block2: int = 32,
    dense: int = 256,
    l2: float = 1e-4,
    initializer: str = "glorot_uniform",
    activation: str = "relu",
) -> keras.Model:
    """Build the plain network: whole feature maps are dropped after each block, in training only.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp; size at least 20 pixels.
    spatial_dropout : float
        Fraction of feature maps dropped after each convolutional block.
    block1, block2 : int
        Filters of the convolutions in the first and second block.
    dense : int
        Units of the dense layer.
    l2 : float
        Strength of the L2 penalty on the kernels.
    initializer, activation : str
        Keras names.

    Returns
    -------
    keras.Model
        ``stamps (n, size, size, n_layers) -> score (n, 1)``, a sigmoid.

    Raises
    ------
    ConfigError
        If the stamps are too small.
    """
    layer_options: dict[str, Any] = {"kernel_initializer": initializer, "kernel_regularizer": keras.regularizers.L2(l2)}
    stamps, x = _normalised_input(input_shape)
    for block, (filters, pool) in enumerate([(block1, 2), (block2, 4)], start=1):
        for step in "ab":
            x = keras.layers.Conv2D(filters, 3, activation=activation, name=f"conv{block}{step}", **layer_options)(x)
        x = keras.layers.MaxPooling2D(pool, name=f"pool{block}")(x)
        x = keras.layers.SpatialDropout2D(spatial_dropout, name=f"drop{block}")(x)
    x = keras.layers.Flatten(name="latent")(x)
    x = keras.layers.Dense(dense, activation=activation, name="dense", **layer_options)(x)
    return keras.Model(stamps, _score(x), name="vgg6")


def bayesian_vgg6(
    input_shape: Shape,
    dropout: float = 0.01,
    *,
    block1: int = 16,
    block2: int = 32,
    dense: int = 256,
    l2: float = 1e-4,
    initializer: str = "he_uniform",
    activation: str = "relu",
) -> keras.Model:
    """Build the Bayesian network: dropout after every layer, kept on when the posterior is sampled.

    After convolutions whole feature maps are dropped (Tompson et al. 2015): neighbouring pixels of a map are alike, so
    single ones that are dropped are made up for by their neighbours. It is Monte-Carlo dropout as much as the other
    kind, the posterior being over networks with kernels switched off. Masks of a few bits are often equal, which makes
    sampling many times faster (`gotorb.training.tree`). Models saved with dropout of single activations load and are
    sampled as they are.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp; size at least 20 pixels.
    dropout : float
        Fraction of feature maps dropped after each convolution, and of units after the dense layer.
    block1, block2, dense, l2, initializer, activation
        As in `vgg6`.

    Returns
    -------
    keras.Model
        ``stamps (n, size, size, n_layers) -> score (n, 1)``, a sigmoid; 222,113 parameters at 55 x 55 x 4.

    Raises
    ------
    ConfigError
        If the stamps are too small.
    """
    layer_options: dict[str, Any] = {"kernel_initializer": initializer, "kernel_regularizer": keras.regularizers.L2(l2)}
    stamps, x = _normalised_input(input_shape)
    for block, (filters, pool) in enumerate([(block1, 2), (block2, 4)], start=1):
        for step in "ab":
            x = keras.layers.Conv2D(filters, 3, activation=activation, name=f"conv{block}{step}", **layer_options)(x)
            x = keras.layers.SpatialDropout2D(dropout, name=f"drop{block}{step}")(x)
        x = keras.layers.MaxPooling2D(pool, name=f"pool{block}")(x)
    x = keras.layers.Flatten(name="latent")(x)
    x = keras.layers.Dense(dense, activation=activation, name="dense", **layer_options)(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return keras.Model(stamps, _score(x), name="bayesian_vgg6")


def _normalised_input(input_shape: Shape) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    if min(input_shape[:2]) < MIN_SIZE:
        raise ConfigError(
            f"stamps of {input_shape[0]} x {input_shape[1]} pixels are too small for vgg6; "
            f"cut stamps of at least {MIN_SIZE} pixels (label.stamp_size in params.yaml)"
        )
    size_y, size_x, n_layers = input_shape
    stamps = keras.Input(input_shape, name="stamps")
    # over one flattened axis: Keras 3 loses a pair of axes when it reads an h5 file, without a word
    pixels = keras.layers.Reshape((size_y * size_x, n_layers), name="flatten_pixels")(stamps)
    unit = keras.layers.UnitNormalization(axis=1, name="normalise")(pixels)
    return stamps, keras.layers.Reshape(input_shape, name="restore_pixels")(unit)


def _score(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Dense(1, activation="sigmoid", name="score")(x)
