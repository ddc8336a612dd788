"""Fine-tuning: training that starts from the weights of another model, with some layers frozen."""

from collections.abc import Sequence

from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import all_layers, keras
from gotorb.training.measured import Measured, find_network
from gotorb.training.normalisation import find_crop

Freeze = int | str | Sequence[str] | None


def copy_weights(parent: keras.Model, model: keras.Model, *, name: str) -> None:
    """Copy the weights of a network to another one of the same architecture.

    Parameters
    ----------
    parent, model : keras.Model
        Source (of a fusion its network) and target.
    name : str
        Name of the parent, for messages.

    Raises
    ------
    ModelError
        If stamps or layers differ.
    """
    if isinstance(parent, Measured):
        raise ModelError(f"init_from {name} has trees and no weights; name a network or a fusion")
    parent = find_network(parent)
    ours, theirs = ((find_crop(one), one.input_shape[-1]) for one in (model, parent))
    if ours != theirs:
        raise ModelError(
            f"init_from {name} takes stamps of {theirs[0]} pixels in {theirs[-1]} layers, this training has {ours[0]} "
            f"pixels in {ours[-1]} layers; crop or cut stamps to that size, or name that many layers (train.layers)"
        )
    pairs = _weighted(model), _weighted(parent)
    for mine, their in zip(*pairs, strict=False):
        shapes = [[tuple(weight.shape) for weight in layer.weights] for layer in (mine, their)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"layer {mine.name!r} of {model.name!r} has weights of {shapes[0]}, but {their.name!r} of init_from "
                f"{name} has {shapes[1]}; give the network and model_kwargs of the parent"
            )
    if len(pairs[0]) != len(pairs[1]):
        raise ModelError(
            f"{model.name!r} has {len(pairs[0])} layers with weights, init_from {name} has {len(pairs[1])}; give the "
            "network of the parent"
        )
    for mine, their in zip(*pairs, strict=True):
        mine.set_weights(their.get_weights())


def copy_network(parent: keras.Model, shape: tuple[int, int, int], *, name: str) -> keras.Model:
    """Build a network of the same architecture, without the weights.

    Parameters
    ----------
    parent : keras.Model
        Network to copy.
    shape : tuple of int
        (size, size, n_layers) of the stamps.
    name : str
        Name of the parent, for messages.

    Returns
    -------
    keras.Model
        Network with random weights.

    Raises
    ------
    ModelError
        If the parent takes stamps of another shape.
    """
    if tuple(parent.input_shape[1:]) != shape:
        raise ModelError(
            f"init_from {name} takes stamps of {tuple(parent.input_shape[1:])} (size, size, layers), this training has "
            f"{shape}; cut stamps of that size, or name its layers (train.layers)"
        )
    return keras.models.clone_model(parent)


def choose_layers(model: keras.Model, freeze: Freeze, init_from: object) -> list[keras.layers.Layer]:
    """Choose the layers to freeze.

    Parameters
    ----------
    model : keras.Model
        Network.
    freeze : int, str or sequence of str, optional
        Number of layers with weights, counted from the first, or names or beginnings of names ("conv").
    init_from : object
        Origin of the weights; None if they are random.

    Returns
    -------
    list of keras.layers.Layer

    Raises
    ------
    ConfigError
        If the weights are random, there is no such layer, or none would be left to train.
    """
    if freeze is None:
        return []
    if init_from is None:
        raise ConfigError(f"freeze is {freeze!r} without init_from; name a model there, or freeze nothing")
    layers = _weighted(model)
    names = ", ".join(layer.name for layer in layers)
    if isinstance(freeze, int):
        if not 0 <= freeze <= len(layers):
            raise ConfigError(
                f"freeze is {freeze}, {model.name!r} has {len(layers)} layers with weights ({names}); give fewer"
            )
        chosen = layers[:freeze]
    else:
        wanted = (freeze,) if isinstance(freeze, str) else tuple(freeze)
        for name in wanted:
            if not any(layer.name.startswith(name) for layer in layers):
                raise ConfigError(f"no layer of {model.name!r} begins with {name!r}; name some of {names} in freeze")
        chosen = [layer for layer in layers if layer.name.startswith(wanted)]
    if len(chosen) == len(layers):
        raise ConfigError(f"freeze {freeze!r} leaves no layer of {model.name!r} to train (has {names}); freeze fewer")
    return chosen


def _weighted(model: keras.Model) -> list[keras.layers.Layer]:
    """Layers with weights of their own, in order."""
    return [layer for layer in all_layers(model) if layer.weights and not all_layers(layer)]
