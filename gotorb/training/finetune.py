"""Fine-tuning: the weights of a trained model as the start of another, some of its layers kept as they are."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import all_layers, keras
from gotorb.training.measured import Measured, find_network

Freeze = int | str | Sequence[str] | None


def copy_weights(parent: keras.Model, model: keras.Model, *, name: str) -> None:
    """Start a network from the weights of another of the same shapes.

    Parameters
    ----------
    parent, model : keras.Model
        From, to. Of a fusion its network is taken.
    name : str
        Of the parent, for messages.

    Raises
    ------
    ModelError
        If stamps or layers differ.
    """
    if isinstance(parent, Measured):
        raise ModelError(f"init_from {name} measures stamps and has no weights; name a network or a fusion")
    parent = find_network(parent)
    ours, theirs = model.input_shape[1:], parent.input_shape[1:]
    if ours != theirs:
        raise ModelError(
            f"init_from {name} takes stamps of {theirs[0]} pixels in {theirs[-1]} layers, this training has {ours[0]} "
            f"pixels in {ours[-1]} layers; cut stamps of that size, or name that many layers (train.layers)"
        )
    pairs = _weighted(model), _weighted(parent)
    for mine, their in zip(*pairs, strict=False):
        shapes = [[tuple(weight.shape) for weight in layer.weights] for layer in (mine, their)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"layer {mine.name!r} of {model.name!r} holds weights of {shapes[0]}, its like {their.name!r} in "
                f"init_from {name} of {shapes[1]}; give the network and model_kwargs that the parent was built with"
            )
    if len(pairs[0]) != len(pairs[1]):
        raise ModelError(
            f"{model.name!r} has {len(pairs[0])} layers with weights, init_from {name} has {len(pairs[1])}; "
            "give the network that the parent was built with"
        )
    for mine, their in zip(*pairs, strict=True):
        mine.set_weights(their.get_weights())


def copy_network(parent: keras.Model, shape: tuple[int, int, int], *, name: str) -> keras.Model:
    """Build a network like another one, without its weights.

    Parameters
    ----------
    parent : keras.Model
        The other one.
    shape : tuple of int
        (size, size, n_layers) of the stamps that it is to take.
    name : str
        Of the parent, for messages.

    Returns
    -------
    keras.Model

    Raises
    ------
    ModelError
        If it takes other stamps.
    """
    if tuple(parent.input_shape[1:]) != shape:
        raise ModelError(
            f"init_from {name} takes stamps of {tuple(parent.input_shape[1:])} (size, size, layers), this training has "
            f"{shape}; cut stamps of that size, or name its layers (train.layers)"
        )
    return keras.models.clone_model(parent)


def choose_layers(model: keras.Model, freeze: Freeze, init_from: object) -> list[keras.layers.Layer]:
    """Layers with weights that are kept as they are.

    Parameters
    ----------
    model : keras.Model
        The network.
    freeze : int, str or sequence of str, optional
        How many layers with weights from the first on, or names of layers, or how these begin ("conv").
    init_from : object
        Where the weights come from; None when they are random.

    Raises
    ------
    ConfigError
        If the weights are random, there is no such layer, or none would be left to train.
    """
    if freeze is None:
        return []
    if init_from is None:
        raise ConfigError(f"freeze is {freeze!r} but init_from names no model; name one, or freeze nothing")
    layers = _weighted(model)
    names = ", ".join(layer.name for layer in layers)
    if isinstance(freeze, int):
        if not 0 <= freeze <= len(layers):
            raise ConfigError(f"freeze is {freeze}, {model.name!r} has {len(layers)} layers with weights ({names})")
        chosen = layers[:freeze]
    else:
        wanted = (freeze,) if isinstance(freeze, str) else tuple(freeze)
        for name in wanted:
            if not any(layer.name.startswith(name) for layer in layers):
                raise ConfigError(f"freeze names {name!r}, no layer of {model.name!r} begins so (has {names})")
        chosen = [layer for layer in layers if layer.name.startswith(wanted)]
    if len(chosen) == len(layers):
        raise ConfigError(f"freeze {freeze!r} leaves no layer of {model.name!r} to train (has {names}); freeze fewer")
    return chosen


@contextmanager
def frozen(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Keep some layers of a network unchanged while it is compiled and fitted.

    Parameters
    ----------
    layers : iterable of keras.layers.Layer

    Yields
    ------
    None
    """
    chosen = [layer for layer in layers if layer.trainable]
    for layer in chosen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in chosen:
            layer.trainable = True


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers that hold weights themselves, in their order."""
    return [layer for layer in all_layers(model) if layer.weights and not all_layers(layer)]
