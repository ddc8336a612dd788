"""Whole-model files of Keras 2 as data: configurations and arrays of layers, and the same layers in Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from gotorb.core.untrusted import UntrustedFile, read_json
from gotorb.training.backend import keras
from gotorb.training.model_files import last_line

Config = dict[str, Any]
Tensor = Any
MODELS = ("Sequential", "Functional", "Model")
INERT = ("GaussianNoise", "ActivityRegularization")
"""Layers without effect on scores, besides those whose name begins with Random."""
PLAIN: dict[str, tuple[str, ...]] = {
    "Dense": ("units", "use_bias"),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups", "use_bias"),
    "Conv2DTranspose": ("filters", "kernel_size", "strides", "padding", "data_format", "output_padding",
                        "dilation_rate", "use_bias"),
    "SeparableConv2D": ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate",
                        "depth_multiplier", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier",
                        "use_bias"),
    "MaxPooling2D": ("pool_size", "strides", "padding", "data_format"),
    "AveragePooling2D": ("pool_size", "strides", "padding", "data_format"),
    "GlobalMaxPooling2D": ("data_format", "keepdims"),
    "GlobalAveragePooling2D": ("data_format", "keepdims"),
    "Flatten": ("data_format",),
    "Reshape": ("target_shape",),
    "Permute": ("dims",),
    "ZeroPadding2D": ("padding", "data_format"),
    "Cropping2D": ("cropping", "data_format"),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "Dropout": ("rate", "noise_shape"),
    "SpatialDropout2D": ("rate",),
    "AlphaDropout": ("rate",),
    "GaussianDropout": ("rate",),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "LayerNormalization": ("axis", "epsilon", "center", "scale"),
    "GroupNormalization": ("groups", "axis", "epsilon", "center", "scale"),
    "Rescaling": ("scale", "offset"),
    "CenterCrop": ("height", "width"),
    "Resizing": ("height", "width", "interpolation"),
    "PReLU": ("shared_axes",),
    "ELU": ("alpha",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Softmax": ("axis",),
    "Add": (), "Subtract": (), "Multiply": (), "Average": (), "Maximum": (), "Minimum": (),
    "Concatenate": ("axis",),
}  # fmt: skip
"""Layers that are the same in Keras 3, and the options that determine their result."""
OTHER_NAMES = {
    "BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization", "Convolution2D": "Conv2D", "SeparableConvolution2D":
    "SeparableConv2D", "DepthwiseConvolution2D": "DepthwiseConv2D", "MaxPool2D": "MaxPooling2D",
    "AvgPool2D": "AveragePooling2D", "GlobalAvgPool2D": "GlobalAveragePooling2D", "GlobalMaxPool2D":
    "GlobalMaxPooling2D", "Convolution2DTranspose": "Conv2DTranspose",
}  # fmt: skip
SAME_ACTIVATIONS = ("relu", "sigmoid", "tanh", "softmax", "softplus", "softsign", "selu", "elu", "exponential", "gelu",
                    "swish", "silu", "mish", "relu6", "log_softmax")  # fmt: skip
"""Activations that are the same in Keras 2 and 3."""
OWN_ACTIVATIONS = {"hard_sigmoid": "hard_sigmoid", "leaky_relu": "leaky_relu"}
"""Activations that differ, and the operation of `tensor_ops` that computes Keras 2's."""
STOCHASTIC = ("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout")
CARRY = (
    "Flatten", "Reshape", "Permute", "Concatenate", "Average", "Maximum", "Minimum", "MaxPooling2D", "AveragePooling2D",
    "GlobalMaxPooling2D", "GlobalAveragePooling2D", *STOCHASTIC,
)  # fmt: skip
"""Layers whose output is a score if their input is one."""
WEIGHT_NAMES = {"DepthwiseConv2D": {"depthwise_kernel": "kernel"}}
"""Weights with another name in Keras 3."""
WAY_OUT = "keep the file, and save the network again by Keras 3 in the environment that can read it"


class ForeignLayer(ValueError):
    """A layer cannot be rebuilt; the message has its name and the reason."""


def read_config(file: h5py.File) -> Config:
    """Read the configuration of the network in a model file of Keras 2.

    Parameters
    ----------
    file : h5py.File

    Returns
    -------
    dict
        Configuration of the network.

    Raises
    ------
    UntrustedFile, ForeignLayer
        If there is none, or it was written with another backend.
    """
    if "model_config" not in file.attrs:
        raise UntrustedFile("it holds no network, perhaps weights only; save the whole model with model.save(...)")
    config = read_json(file.attrs["model_config"])
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        raise ForeignLayer(f"its network is a {config.get('class_name') if isinstance(config, dict) else config!r}")
    backend = file.attrs.get("backend", b"tensorflow")
    if (backend.decode() if isinstance(backend, bytes) else backend) not in ("tensorflow",):
        raise ForeignLayer(f"it was trained with the backend {backend!r}, whose kernels are turned")
    return config


class Weights:
    """Arrays of a file by layer, with the names in the file; values are read on demand.

    Parameters
    ----------
    file : h5py.File
        Model file of Keras 2.
    """

    def __init__(self, file: h5py.File) -> None:
        root = file.get("model_weights", file)
        self.arrays: dict[str, list[tuple[str, h5py.Dataset]]] = {}
        for name in root:
            if isinstance(root[name], h5py.Group):
                self.arrays[name] = list(_datasets(root[name], ""))

    def of(self, path: Sequence[str]) -> dict[str, h5py.Dataset]:
        """Arrays of a layer by their last name.

        Parameters
        ----------
        path : sequence of str
            Names of the layer and the networks around it, the outermost first.

        Returns
        -------
        dict of h5py.Dataset
            Arrays by name.
        """
        entries = self.arrays.get(path[0], [])
        if len(path) > 1:
            inside = [(name, one) for name, one in entries if path[-1] in name.split("/")[:-1]]
            around = [(name, one) for name, one in inside if set(path[1:-1]) <= set(name.split("/"))]
            entries = around or inside
        found: dict[str, h5py.Dataset] = {}
        for name, array in entries:
            short = name.rsplit("/", 1)[-1].split(":")[0]
            if short in found:
                raise ForeignLayer(f"layer {path[-1]!r} has several weights {short!r}")
            found[short] = array
        return found


def _datasets(group: h5py.Group, prefix: str) -> Iterable[tuple[str, h5py.Dataset]]:
    for name, node in group.items():
        if isinstance(node, h5py.Group):
            yield from _datasets(node, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", node


def lambda_parts(name: str, config: Config) -> tuple[str, list[Any] | None, Any]:
    """Code, defaults and closure of a Lambda layer, as text and plain values.

    Parameters
    ----------
    name : str
        Name of the layer.
    config : dict
        Its configuration.

    Returns
    -------
    code : str
        Marshalled code in base64.
    defaults, closure : list or None
        Values.

    Raises
    ------
    ForeignLayer
        If the function is not in the file.
    """
    function = config.get("function")
    if isinstance(function, dict):
        function = function.get("items", function.get("config"))
    if isinstance(function, dict):  # format of the last versions of Keras 2
        function = [function.get("code"), function.get("defaults"), function.get("closure")]
    if not isinstance(function, list) or len(function) != 3 or not isinstance(function[0], str):
        raise ForeignLayer(f"layer {name!r} is a Lambda of the function {function!r}, which is not in the file")
    defaults, closure = (one.get("items") if isinstance(one, dict) else one for one in function[1:])
    return function[0], defaults, closure


MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def is_tensor(value: Any) -> bool:
    """Test for a tensor of a network.

    Parameters
    ----------
    value : object
        Tensor or constant.

    Returns
    -------
    bool
    """
    return isinstance(value, keras.KerasTensor)


def make_plain(kind: str, config: Config, name: str) -> keras.layers.Layer:
    """Make a layer that is the same in Keras 3 from its configuration in Keras 2.

    Parameters
    ----------
    kind, name : str
        Class and name of the layer.
    config : dict
        Its configuration.

    Returns
    -------
    keras.layers.Layer

    Raises
    ------
    ForeignLayer
        If Keras 3 refuses the configuration.
    """
    given = {key: config[key] for key in PLAIN[kind] if config.get(key) is not None}
    given = {key: tuple(map(tuple, one)) if _is_pairs(one) else one for key, one in given.items()}
    if kind == "BatchNormalization" and isinstance(given.get("axis"), list):
        (given["axis"],) = given["axis"]
    if kind == "SeparableConv2D" and int(config.get("groups", 1)) < 1:
        raise ForeignLayer(f"layer {name!r} has {config['groups']} groups")
    if kind in ("Flatten", "Reshape", "Permute") or kind not in MERGES:
        given = {key: tuple(one) if isinstance(one, list) else one for key, one in given.items()}
    try:
        return getattr(keras.layers, kind)(name=name, **given)
    except (ValueError, TypeError) as error:
        raise ForeignLayer(f"layer {name!r} ({kind}): {last_line(error)}") from None


def _is_pairs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, list) for one in value)


def make_normalization(config: Config, name: str) -> keras.layers.Layer:
    """Make a Normalization layer with the mean and variance of its configuration.

    Parameters
    ----------
    config : dict
        Configuration of the layer.
    name : str
        Its name.

    Returns
    -------
    keras.layers.Layer
    """
    axis = config.get("axis", -1)
    known = {key: config[key] for key in ("mean", "variance") if config.get(key) is not None}
    return keras.layers.Normalization(
        axis=tuple(axis) if isinstance(axis, list) else axis, invert=bool(config.get("invert", False)), name=name,
        **known,
    )  # fmt: skip


def check_widths(layer: keras.layers.Layer, kind: str, name: str, arrays: Mapping[str, h5py.Dataset]) -> None:
    """Refuse a layer whose declared weights differ from those in the file, before they are allocated.

    Parameters
    ----------
    layer : keras Layer
        Layer before it is built.
    kind, name : str
        Class and name of the layer.
    arrays : mapping of str to Dataset
        Weights in the file.
    """
    width = getattr(layer, "units", None) or (getattr(layer, "filters", None) if kind != "DepthwiseConv2D" else None)
    kernel = arrays.get("pointwise_kernel", arrays.get("kernel", arrays.get("depthwise_kernel")))
    if kind not in ("Dense", "Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D"):
        return
    if kernel is None:
        raise ForeignLayer(f"layer {name!r} ({kind}) has no weights in the file")
    if width is not None and width not in kernel.shape:
        raise ForeignLayer(f"layer {name!r} declares {width} outputs, its weights are {kernel.shape}")
    spatial = arrays.get("depthwise_kernel", kernel)
    sides = tuple(getattr(layer, "kernel_size", ()))
    if sides and tuple(spatial.shape[:2]) != sides:
        raise ForeignLayer(f"layer {name!r} declares a kernel of {sides}, its weights are {spatial.shape}")
    if int(getattr(layer, "depth_multiplier", 1)) > 1 and spatial.shape[-1] != layer.depth_multiplier:
        raise ForeignLayer(f"layer {name!r} declares {layer.depth_multiplier} maps each, its weights {spatial.shape}")


def fill(layer: keras.layers.Layer, kind: str, name: str, arrays: Mapping[str, h5py.Dataset]) -> None:
    """Copy a layer's weights from the file.

    Parameters
    ----------
    layer : keras Layer
        Built layer.
    kind, name : str
        Class and name of the layer.
    arrays : mapping of str to Dataset
        Weights in the file.
    """
    named = WEIGHT_NAMES.get(kind, {})
    theirs = {named.get(key, key): one for key, one in arrays.items()}
    for weight in layer.weights:
        if weight.name == "seed_generator_state":
            continue
        array = theirs.pop(weight.name, None)
        if array is None or tuple(array.shape) != tuple(weight.shape):
            if kind == "Normalization" and weight.name == "count":
                continue
            found = "none" if array is None else f"one of {array.shape}"
            needed = f"the weight {weight.name!r} of {weight.shape}"
            raise ForeignLayer(f"layer {name!r} ({kind}) needs {needed}, has {found}")
        weight.assign(np.asarray(array[()], weight.dtype))
    theirs.pop("count", None)
    if theirs:
        raise ForeignLayer(f"layer {name!r} ({kind}) has a weight {min(theirs)!r} too many in the file")
    if kind == "Normalization" and layer.weights:
        layer.finalize_state()


def input_shapes(config: Config) -> list[list[int | None]]:
    """Shapes of the inputs of a network, in their order.

    Parameters
    ----------
    config : dict
        Configuration of the network.

    Returns
    -------
    list of list
        [None, size, size, layers] of each input; None where unknown.
    """
    inner = config["config"]
    layers = inner["layers"] if isinstance(inner, dict) else inner
    if config["class_name"] != "Sequential":
        by_name = {one["name"]: one for one in layers}
        return [_declared_shape(by_name[name]["config"]) for name, *_ in ends(inner["input_layers"])]
    first = layers[0]
    if first["class_name"] in MODELS:
        return input_shapes(first)
    found = _declared_shape(first["config"]) or (isinstance(inner, dict) and inner.get("build_input_shape"))
    return [list(found or (None, None, None, None))]


def _declared_shape(config: Config) -> list[int | None]:
    return list(config.get("batch_input_shape") or config.get("batch_shape") or ())


def ends(given: Any) -> list[list[Any]]:
    """Inputs or outputs of a network as a list; a configuration may hold a single one without a list around it.

    Parameters
    ----------
    given : list
        Content of the configuration.

    Returns
    -------
    list of list
        References to layers.
    """
    return [given] if given and isinstance(given[0], str) else given


def first_call(layer: Config) -> int:
    """Number of a layer's first call inside its network; it is 1 for networks with an input layer.

    Parameters
    ----------
    layer : dict
        Configuration of the layer.

    Returns
    -------
    int
        0 or 1.
    """
    if layer["class_name"] not in MODELS:
        return 0
    inner = layer["config"]
    layers = inner["layers"] if isinstance(inner, dict) else inner
    first = layers[0] if layers else {"class_name": "", "config": {}}
    return int(first["class_name"] == "InputLayer" or "batch_input_shape" in first["config"])


def read_call(call: Any, look_up: Callable[[Sequence[Any]], Tensor]) -> tuple[list[Any], Config]:
    """Read the arguments and options of one call of a layer.

    Parameters
    ----------
    call : list
        Content of the configuration.
    look_up : callable
        Function from a reference to its tensor.

    Returns
    -------
    arguments : list
        Tensors and constants.
    options : dict
        Options by name.
    """
    if isinstance(call, dict):
        raise ForeignLayer("it was written by Keras 3; load it without import")
    single = bool(call) and isinstance(call[0], str)
    arguments: list[Any] = []
    options: Config = {}
    for one in [call] if single else call:
        if one and isinstance(one[0], list):
            arguments.append([_argument(item, look_up) for item in one])
            options |= _options(one[0], look_up)
        else:
            arguments.append(_argument(one, look_up))
            options |= _options(one, look_up)
    return arguments, options


def _argument(one: Sequence[Any], look_up: Callable[[Sequence[Any]], Tensor]) -> Any:
    return one[2] if one[0] == "_CONSTANT_VALUE" else look_up(one)


def _options(one: Sequence[Any], look_up: Callable[[Sequence[Any]], Tensor]) -> Config:
    given = one[3] if len(one) > 3 and isinstance(one[3], dict) else {}
    return {key: _value(item, look_up) for key, item in given.items()}


def _value(item: Any, look_up: Callable[[Sequence[Any]], Tensor]) -> Any:
    """Value of an option: a constant, or the tensor of a reference [layer, call, output]."""
    if isinstance(item, list) and len(item) in (3, 4) and isinstance(item[0], str) and isinstance(item[1], int):
        return item[2] if item[0] == "_CONSTANT_VALUE" else look_up(item)
    if isinstance(item, list):
        return [_value(one, look_up) for one in item]
    return item


def flat(values: Iterable[Any]) -> list[Any]:
    """Flatten values, some of which are lists of values.

    Parameters
    ----------
    values : iterable
        Values and lists of values.

    Returns
    -------
    list
        Values.
    """
    return [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
