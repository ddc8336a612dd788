"""GOTO's networks, ``vgg6`` and its Bayesian form ``bayesian_vgg6``, and a builder for any network.

Both begin with the L2 normalisation of each layer of a stamp, so a saved model takes stamps in the units of the survey.
A layer of zeros stays zero.

References
----------
Killestein et al. 2021, MNRAS 503, 4838: the architecture and Monte-Carlo dropout for real/bogus scores.
Gal & Ghahramani 2016: dropout as approximate inference.
Tompson et al. 2015 (CVPR): dropout of whole feature maps.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

from gotorb.core.params import TrainParams
from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import keras
from gotorb.training.normalisation import CROP, ClippedUnits, NoiseUnits
from gotorb.training.saving import check_saving
from gotorb.training.tensor_ops import TensorOperation

Shape = tuple[int, int, int]

MIN_SIZE = 20
"""Smallest side of a stamp [pixel] for four convolutions and two poolings."""
Normaliser = str | Callable[..., Any]
L2, CLIPPED, NONE, NOISE = "l2", "clipped", "none", "noise"
NORMALISERS = (L2, CLIPPED, NOISE, NONE)
REFERENCE = "difference"
"""Layer of a stamp whose noise is the unit of all layers."""
OWN_NORMALISATION = ("flatten_pixels", "normalise", "restore_pixels")
"""Names of the layers that normalise in our networks."""


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
    """Build the plain network, with dropout of whole feature maps after each block in training.

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
    options = _layer_options(l2, initializer, activation)
    stamps, x = _normalised_input(input_shape)
    for block, (filters, pool) in enumerate([(block1, 2), (block2, 4)], start=1):
        for step in "ab":
            x = keras.layers.Conv2D(filters, 3, name=f"conv{block}{step}", **options)(x)
        x = keras.layers.MaxPooling2D(pool, name=f"pool{block}")(x)
        x = keras.layers.SpatialDropout2D(spatial_dropout, name=f"drop{block}")(x)
    x = keras.layers.Flatten(name="latent")(x)
    x = keras.layers.Dense(dense, name="dense", **options)(x)
    return keras.Model(stamps, _score(x), name="vgg6")


def _layer_options(l2: float, initializer: str, activation: str) -> dict[str, Any]:
    regularizer = keras.regularizers.L2(l2)
    return {"kernel_initializer": initializer, "kernel_regularizer": regularizer, "activation": activation}


def bayesian_vgg6(
    input_shape: Shape,
    dropout: float = TrainParams().dropout,
    *,
    block1: int = 16,
    block2: int = 32,
    dense: int = 256,
    l2: float = 1e-4,
    initializer: str = "he_uniform",
    activation: str = "relu",
) -> keras.Model:
    """Build the Bayesian network, with dropout after every layer, which stays on when the posterior is sampled.

    After convolutions whole feature maps are dropped (Tompson et al. 2015): neighbouring pixels of a map are alike, so
    dropping single pixels removes little information. The posterior is then over networks with whole kernels switched
    off. Masks of few bits are often equal, which makes sampling many times faster (`gotorb.training.mc_dropout`).
    Saved models with dropout of single activations can also be loaded and sampled.

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
    options = _layer_options(l2, initializer, activation)
    stamps, x = _normalised_input(input_shape)
    for block, (filters, pool) in enumerate([(block1, 2), (block2, 4)], start=1):
        for step in "ab":
            x = keras.layers.Conv2D(filters, 3, name=f"conv{block}{step}", **options)(x)
            x = keras.layers.SpatialDropout2D(dropout, name=f"drop{block}{step}")(x)
        x = keras.layers.MaxPooling2D(pool, name=f"pool{block}")(x)
    x = keras.layers.Flatten(name="latent")(x)
    x = keras.layers.Dense(dense, name="dense", **options)(x)
    x = keras.layers.Dropout(dropout, name="drop")(x)
    return keras.Model(stamps, _score(x), name="bayesian_vgg6")


def _normalised_input(input_shape: Shape) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    if min(input_shape[:2]) < MIN_SIZE:
        raise ConfigError(
            f"stamps of {input_shape[0]} x {input_shape[1]} pixels are too small for vgg6; "
            f"cut stamps of at least {MIN_SIZE} pixels (label.stamp_size in params.yaml)"
        )
    stamps = keras.Input(input_shape, name="stamps")
    return stamps, normalise_stamps(stamps, L2)


def normalise_stamps(stamps: keras.KerasTensor, normalise: str, layers: Sequence[str] = ()) -> keras.KerasTensor:
    """Normalise the input of a network.

    Parameters
    ----------
    stamps : keras.KerasTensor
        (n, size, size, n_layers) stamps.
    normalise : {"l2", "clipped", "noise", "none"}
        Kind of normalisation.
    layers : sequence of str
        Layers of the stamps, for "noise".

    Returns
    -------
    keras.KerasTensor
        Normalised stamps of the same shape.

    Raises
    ------
    ConfigError
        If the name is unknown, or "noise" finds no difference among the layers.
    """
    if find_normaliser(normalise, layers) == NONE:
        return stamps
    if normalise in (CLIPPED, NOISE):
        return find_normaliser(normalise, layers)(stamps)  # type: ignore[operator]
    size_y, size_x, n_layers = stamps.shape[1:]
    # over one flattened axis, because Keras 3 silently loses a pair of axes when it reads an h5 file
    pixels = keras.layers.Reshape((size_y * size_x, n_layers), name="flatten_pixels")(stamps)
    unit = keras.layers.UnitNormalization(axis=1, name="normalise")(pixels)
    return keras.layers.Reshape((size_y, size_x, n_layers), name="restore_pixels")(unit)


def _score(x: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Dense(1, activation="sigmoid", name="score")(x)


def find_normaliser(normalise: Normaliser, layers: Sequence[str]) -> Normaliser:
    """Find the first layer of a network from the option `normalise`.

    Parameters
    ----------
    normalise : str, keras.layers.Layer or callable
        One of `NORMALISERS`, or the layer itself.
    layers : sequence of str
        Layers of the stamps.

    Returns
    -------
    str, keras.layers.Layer or callable
        `NoiseUnits` for "noise", `ClippedUnits` for "clipped"; other values unchanged.

    Raises
    ------
    ConfigError
        If the name is unknown, or "noise" finds no difference among the layers.
    """
    if not isinstance(normalise, str):
        return normalise
    if normalise not in NORMALISERS:
        known = ", ".join(map(repr, NORMALISERS))
        raise ConfigError(f"normalise is {normalise!r}; give one of {known}, or a Keras layer or function")
    if normalise == CLIPPED:
        return ClippedUnits(name="normalise")
    if normalise != NOISE:
        return normalise
    if REFERENCE not in layers:
        raise ConfigError(
            f"normalise is 'noise', which needs the layer {REFERENCE!r}; layers are {', '.join(layers)}: add it or "
            "give 'l2'"
        )
    return NoiseUnits(list(layers).index(REFERENCE), name="normalise")


def build_network(
    builder: Callable[..., keras.Model],
    input_shape: tuple[int, int, int],
    *,
    layers: Sequence[str] = (),
    dropout: float | None = None,
    options: dict[str, Any] | None = None,
    normalise: Normaliser = L2,
    real_column: int | None = None,
) -> keras.Model:
    """Build a network by a builder, with a choice of the first layer and of the output.

    Parameters
    ----------
    builder : callable
        Function from the input shape (size, size, n_layers) to a Keras model.
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    layers : sequence of str
        Layers of the stamps, for "noise".
    dropout : float, optional
        Rate for builders with a parameter of that name.
    options : dict, optional
        More options of the builder.
    normalise : "l2", "clipped", "noise", "none", Keras layer, function that returns one, or function of stamps
        First layer of the network; "l2" leaves the network unchanged.
    real_column : int, optional
        Column of real in the output of a network that ends with a softmax over two classes.

    Returns
    -------
    keras.Model
        ``stamps (n, size, size, n_layers) -> score (n, 1)``.

    Raises
    ------
    ConfigError
        If `normalise` is an unknown name, or "noise" finds no difference among the layers.
    ModelError
        If the builder refuses the options, or the network takes other stamps or does not return a single score.
    """
    options, normalise = dict(options or {}), find_normaliser(normalise, layers)
    if dropout is not None and "dropout" in inspect.signature(builder).parameters:
        options.setdefault("dropout", dropout)
    try:
        model = builder(input_shape, **options)
    except TypeError as error:
        raise ModelError(f"the network cannot be built with {options} ({error}); correct model_kwargs") from None
    if isinstance(model, keras.Sequential) and not model.built:
        model.build((None, *input_shape))
    _check_ends(model, input_shape, 1 if real_column is None else 2)
    if real_column is not None:
        model = _take_column(model, real_column)
    return model if isinstance(normalise, str) and normalise == L2 else _replace_normalisation(model, normalise)


def seen_shape(input_shape: Shape, crop: int | None) -> Shape:
    """Shape of the part of a stamp that a network sees.

    Parameters
    ----------
    input_shape : tuple of int
        (size, size, n_layers) of a stamp.
    crop : int or None
        Side of the central part; None for the whole stamp.

    Returns
    -------
    tuple of int
        (size, size, n_layers).

    Raises
    ------
    ConfigError
        If the part is larger than the stamp, or off its middle.

    Examples
    --------
    >>> seen_shape((63, 63, 3), 25)
    (25, 25, 3)
    """
    size, _, n_layers = input_shape
    side = crop or size
    if side > size or (size - side) % 2:
        raise ConfigError(
            f"crop is {crop}, the stamps have {size} pixels; give null or a smaller {'odd' if size % 2 else 'even'} "
            "number (train.crop)"
        )
    return side, side, n_layers


def crop_input(model: keras.Model, size: int) -> keras.Model:
    """Put a layer before a network that keeps the central part of a stamp, so that it takes larger stamps.

    Parameters
    ----------
    model : keras.Model
        Network.
    size : int
        Side of the stamps, pixels.

    Returns
    -------
    keras.Model
        Network with the same weights; the same network if it takes stamps of this size already.
    """
    _, side, _, n_layers = model.input_shape
    if side == size:
        return model
    stamps = keras.Input((size, size, n_layers), name="stamps")
    return _put_behind(model, stamps, keras.layers.Cropping2D((size - side) // 2, name=CROP)(stamps))


def _check_ends(model: keras.Model, input_shape: tuple[int, int, int], n_columns: int) -> None:
    shapes = tuple(getattr(model, name, None) for name in ("input_shape", "output_shape"))
    if shapes[0] is not None and tuple(shapes[0][1:]) != tuple(input_shape):
        raise ModelError(
            f"network {model.name!r} takes stamps of {shapes[0][1:]} (size, size, layers), the data set has "
            f"{tuple(input_shape)}; build it for the input shape passed to the builder"
        )
    if shapes[1] is not None and tuple(shapes[1][1:]) != (n_columns,):
        raise ModelError(
            f"network {model.name!r} has the output shape {shapes[1]}; end it with Dense(1, 'sigmoid'), or with "
            "Dense(2, 'softmax') and name the column of real (real_column)"
        )


def _take_column(model: keras.Model, column: int) -> keras.Model:
    """The network with one column of its softmax over two classes as the score."""
    last = model.outputs[0]._keras_history.operation
    is_softmax = isinstance(last, keras.layers.Softmax) or (
        getattr(getattr(last, "activation", None), "__name__", "") == "softmax"
    )
    if not is_softmax:
        raise ModelError(
            f"network {model.name!r} has two outputs but its last layer {last.name!r} is no softmax; end it with "
            "Dense(2, 'softmax')"
        )
    score = TensorOperation("column", ["x"], json.dumps({"column": column}), name="real_column")(model.outputs[0])
    return keras.Model(model.inputs[0], score, name=model.name)


def _replace_normalisation(model: keras.Model, normalise: Normaliser) -> keras.Model:
    """The same network with its weights behind another first layer, which must keep the shape and survive saving."""
    stamps = keras.Input(model.input_shape[1:], name="stamps")
    try:
        first = stamps if isinstance(normalise, str) else _first_layer(normalise)(stamps)
        if tuple(first.shape) != tuple(stamps.shape):
            raise ValueError(f"shape {stamps.shape} becomes {first.shape}")
        made = _put_behind(model, stamps, first, without=OWN_NORMALISATION)
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"normalise {_name(normalise)} cannot be the first layer of {model.name!r} ({reason}); give a Keras layer "
            "or a function of stamps (n, size, size, n_layers) that keeps their shape"
        ) from None
    if not isinstance(normalise, str):
        check_saving(made, f"normalise {_name(normalise)}")
    return made


def _put_behind(
    model: keras.Model, stamps: keras.KerasTensor, first: keras.KerasTensor, *, without: Sequence[str] = ()
) -> keras.Model:
    """The layers of a network, some left out, behind a tensor that is made from the stamps."""

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        args = tuple(first if arg is stamps else arg for arg in args)
        return args[0] if layer.name in without else layer(*args, **kwargs)

    whole = keras.Model(model.inputs[0], model.outputs[0])  # of Sequential too
    copy = keras.models.clone_model(whole, stamps, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(stamps, copy.outputs[0], name=model.name)


def _first_layer(normalise: Callable[..., Any]) -> Callable[..., Any]:
    """Layer or function of stamps; a class of layers, or a function without arguments, is called first."""
    if isinstance(normalise, keras.layers.Layer):
        return normalise
    needed = [
        one
        for one in inspect.signature(normalise).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    return normalise if needed else normalise()


def _name(value: Any) -> str:
    return repr(value) if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
