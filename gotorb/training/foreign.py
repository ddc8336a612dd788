"""Networks of others: whole-model files of Keras 2 (``model.save("x.h5")``), rebuilt layer by layer.

Keras 3 cannot read most of them, and reads some differently. Each layer is built again from its description, its
weights are copied from the file's arrays, and no code of the file is run: a ``Lambda`` is rebuilt when its code is one
of the harmless kinds of `gotorb.training.lambda_code`, and refused otherwise. Nested networks become part of the outer
one. Layers that act in training only (augmentation, noise) are left out. The result gives one score in [0, 1].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gotorb.core.untrusted import UntrustedFile, open_hdf5, read_json
from gotorb.errors import ModelError
from gotorb.training.backend import keras
from gotorb.training.lambda_code import follow, read_code
from gotorb.training.model_files import last_line
from gotorb.training.networks import NONE, OWN_NORMALISATION, normalise_stamps
from gotorb.training.tensor_ops import ALIASES, TensorOperation, apply_operation

Config = dict[str, Any]
Tensor = Any
MAX_LAYERS, MAX_ACTIVATION, MAX_NESTED = 2_000, 2**24, 8
"""Layers of a network, values of one activation of a stamp, and levels of networks inside networks."""
SIGMOID, SOFTMAX, LINEAR, OTHER = "sigmoid", "softmax", "linear", "other"
MODELS = ("Sequential", "Functional", "Model")
INERT = ("GaussianNoise", "ActivityRegularization")
"""Layers without effect on scores, next to all whose name begins with Random."""
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
"""Layers that Keras 3 has alike, and the options that decide what they compute."""
OTHER_NAMES = {
    "BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization", "Convolution2D": "Conv2D", "SeparableConvolution2D":
    "SeparableConv2D", "DepthwiseConvolution2D": "DepthwiseConv2D", "MaxPool2D": "MaxPooling2D",
    "AvgPool2D": "AveragePooling2D", "GlobalAvgPool2D": "GlobalAveragePooling2D", "GlobalMaxPool2D":
    "GlobalMaxPooling2D", "Convolution2DTranspose": "Conv2DTranspose",
}  # fmt: skip
SAME_ACTIVATIONS = ("relu", "sigmoid", "tanh", "softmax", "softplus", "softsign", "selu", "elu", "exponential", "gelu",
                    "swish", "silu", "mish", "relu6", "log_softmax")  # fmt: skip
"""Activations that are alike in Keras 2 and 3."""
OWN_ACTIVATIONS = {"hard_sigmoid": "hard_sigmoid", "leaky_relu": "leaky_relu"}
"""Activations that differ, and the operation that computes Keras 2's."""
STOCHASTIC = ("Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout")
CARRY = (
    "Flatten", "Reshape", "Permute", "Concatenate", "Average", "Maximum", "Minimum", "MaxPooling2D", "AveragePooling2D",
    "GlobalMaxPooling2D", "GlobalAveragePooling2D", *STOCHASTIC,
)  # fmt: skip
"""Layers that leave a score a score."""
WEIGHT_NAMES = {"DepthwiseConv2D": {"depthwise_kernel": "kernel"}}
"""Weights whose name differs in Keras 3."""
WAY_OUT = "keep the file, and save the network again by Keras 3 in the environment that can read it"


class ForeignLayer(ValueError):
    """A layer cannot be rebuilt, with its name and the reason."""


@dataclass
class Foreign:
    """A network of others as Keras 3 has it.

    Attributes
    ----------
    model : keras.Model
        Network as it was, whose output may be logits or several columns.
    kind : str
        Output: "sigmoid", "softmax", "linear" or "other".
    left_out : list of str
        Layers that act in training only.
    always_on : list of str
        Layers that are random at inference too; here they are random only when a posterior is sampled.
    """

    model: keras.Model
    kind: str
    left_out: list[str] = field(default_factory=list)
    always_on: list[str] = field(default_factory=list)


def read_foreign(
    path: Path | str, shape: tuple[int, int, int] | None = None, *, normalise: str = NONE, layers: Sequence[str] = (),
    n_layers: int | None = None,
) -> Foreign:  # fmt: skip
    """Rebuild the network of a whole-model file of Keras 2.

    Parameters
    ----------
    path : path
        The file, ``*.h5`` or ``*.hdf5``.
    shape : tuple of int, optional
        (size, size, n_layers) of a stamp; needed where the file leaves it open.
    normalise : {"l2", "noise", "none"}
        Normalisation that its users apply to stamps, which becomes the first layer.
    layers : sequence of str
        Layers of the stamps.
    n_layers : int, optional
        Number of layers that the file must have when `shape` is left out.

    Returns
    -------
    Foreign

    Raises
    ------
    ModelError
        If the file is no such file, is made to do harm, or has a layer that cannot be rebuilt: it names that layer.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no {path}; give a file that Keras 2 wrote by model.save(...)")
    try:
        with open_hdf5(path) as file:
            builder = _Builder(_Weights(file), shape, lambda stamps: normalise_stamps(stamps, normalise, layers))
            found = builder.network(_read_config(file))
            if n_layers not in (None, found.model.input_shape[-1]):
                raise ForeignLayer(f"it takes {found.model.input_shape[-1]} layers, not {n_layers} (--layers)")
            return found
    except ForeignLayer as error:
        raise ModelError(f"{path}, a network of Keras 2, cannot be rebuilt: {error}; {WAY_OUT}") from None
    except (UntrustedFile, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError,
            RecursionError) as error:  # fmt: skip
        reason = last_line(error)
        raise ModelError(f"{path} is not a whole-model file of Keras 2 that can be read ({reason}); {WAY_OUT}") from None


def _read_config(file: h5py.File) -> Config:
    if "model_config" not in file.attrs:
        raise UntrustedFile("it holds no network, perhaps weights alone: save the whole model by model.save(...)")
    config = read_json(file.attrs["model_config"])
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        raise ForeignLayer(f"its network is a {config.get('class_name') if isinstance(config, dict) else config!r}")
    backend = file.attrs.get("backend", b"tensorflow")
    if (backend.decode() if isinstance(backend, bytes) else backend) not in ("tensorflow",):
        raise ForeignLayer(f"it was trained with the backend {backend!r}, whose kernels are turned")
    return config


class _Weights:
    """Arrays of a file by layer: names as in the file, values read on demand."""

    def __init__(self, file: h5py.File) -> None:
        root = file["model_weights"] if "model_weights" in file else file
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


@dataclass
class _Scope:
    """A network while it is rebuilt: names around it, its layers, and their results at each call."""

    path: tuple[str, ...] = ()
    made: dict[str, Callable[[list[Tensor], Config], Tensor]] = field(default_factory=dict)
    results: dict[str, dict[int, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    first_calls: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Rebuilds a network of Keras 2."""

    def __init__(
        self, weights: _Weights, shape: tuple[int, int, int] | None, first: Callable[[Tensor], Tensor]
    ) -> None:
        self.weights, self.shape, self.first = weights, shape, first
        self.names: set[str] = {"stamps", *OWN_NORMALISATION}
        self.kinds: dict[int, tuple[Tensor, str]] = {}
        self.left_out: list[str] = []
        self.always_on: list[str] = []
        self.n_layers = 0

    def network(self, config: Config) -> Foreign:
        """The whole network."""
        stamps, inputs = self._inputs(config)
        outputs = self._run(config, inputs, ())
        if len(outputs) != 1:
            raise ForeignLayer(f"it has {len(outputs)} outputs, where a score is one")
        name = "".join(one if one.isalnum() else "_" for one in config["config"].get("name", "imported"))
        model = keras.Model(stamps, outputs[0], name=name or "imported")
        return Foreign(model, self._kind(outputs[0]), self.left_out, self.always_on)

    def _inputs(self, config: Config) -> tuple[Tensor, list[Tensor]]:
        """Stamps, and what each input of the network takes of them."""
        shapes = _input_shapes(config)
        if any(len(one) != 4 for one in shapes):
            raise ForeignLayer(f"it takes {[one[1:] for one in shapes]}, not stamps (size, size, layers) alone")
        channels = [one[3] for one in shapes]
        sizes = {side for one in shapes for side in one[1:3] if side is not None}
        if self.shape is None:
            if len(sizes) != 1 or None in channels:
                raise ForeignLayer("it takes stamps of any size: give the size (--size) and the layers (--layers)")
            self.shape = (*sizes, *sizes, sum(channels))  # type: ignore[assignment]
        size, _, n_layers = self.shape
        if sizes - {size}:
            raise ForeignLayer(f"it takes stamps of {sorted(sizes)} pixels, not {size} (--size)")
        wanted = n_layers if None in channels and len(channels) == 1 else sum(one or 0 for one in channels)
        if wanted != n_layers:
            raise ForeignLayer(f"it takes {wanted} layers, not {n_layers}: name those that it was trained on (--layers)")
        if math.prod(self.shape) > MAX_ACTIVATION:
            raise ForeignLayer(f"it takes stamps of {math.prod(self.shape)} values")
        stamps = keras.Input(self.shape, name="stamps")
        first = self.first(stamps)
        if len(shapes) == 1:
            return stamps, [first]
        ends = np.cumsum([0, *channels])
        keys = [["...", [int(low), int(high), None]] for low, high in zip(ends, ends[1:], strict=False)]
        return stamps, [self._operation("getitem", [first, key], {}, f"input_{n}") for n, key in enumerate(keys)]

    # --- networks ------------------------------------------------------------------------------

    def _run(self, config: Config, inputs: list[Tensor], path: tuple[str, ...], scope: _Scope | None = None) -> list:
        """Results of a network; with `scope`, of a further call of the same one."""
        if len(path) > MAX_NESTED:
            raise ForeignLayer(f"networks inside networks, deeper than {MAX_NESTED} levels")
        scope = scope or _Scope(path)
        scope.results = defaultdict(dict)
        layers = config["config"]["layers"] if isinstance(config["config"], dict) else config["config"]
        if config["class_name"] == "Sequential":
            value: Tensor = inputs[0]
            for one in layers:
                if one["class_name"] != "InputLayer":
                    value = self._layer(one, scope)([value], {})
            return [value]
        return self._run_graph(config["config"], layers, inputs, scope)

    def _run_graph(self, config: Config, layers: list[Config], inputs: list[Tensor], scope: _Scope) -> list[Tensor]:
        for (name, *_), value in zip(_ends(config["input_layers"]), inputs, strict=True):
            scope.results[name][0] = value
        scope.first_calls = {one["name"]: _first_call(one) for one in layers}
        waiting = [
            (one, number, call)
            for one in layers if one["class_name"] != "InputLayer"
            for number, call in enumerate(one["inbound_nodes"], scope.first_calls[one["name"]])
        ]  # fmt: skip
        while waiting:
            rest = []
            for one, number, call in waiting:
                try:
                    arguments, options = _read_call(call, lambda reference: _look_up(scope, reference))
                except LookupError:
                    rest.append((one, number, call))
                    continue
                scope.results[one["name"]][number] = self._layer(one, scope)(arguments, options)
            if len(rest) == len(waiting):
                raise ForeignLayer(f"layer {rest[0][0]['name']!r} has inputs that do not exist")
            waiting = rest
        return [_look_up(scope, end) for end in _ends(config["output_layers"])]

    def _layer(self, layer: Config, scope: _Scope) -> Callable[[list[Tensor], Config], Tensor]:
        """Function of a layer's inputs and options; the same layer for all its calls."""
        name = layer["config"]["name"] if "name" in layer["config"] else layer["name"]
        if name not in scope.made:
            self.n_layers += 1
            if self.n_layers > MAX_LAYERS:
                raise ForeignLayer(f"more than {MAX_LAYERS} layers")
            scope.made[name] = self._make(layer, name, (*scope.path, name))
        return scope.made[name]

    def _make(self, layer: Config, name: str, path: tuple[str, ...]) -> Callable[[list[Tensor], Config], Tensor]:
        kind = str(layer["class_name"]).rsplit(">", 1)[-1]
        kind, config = OTHER_NAMES.get(kind, kind), layer["config"]
        if kind in MODELS:
            scope = _Scope(path)
            return lambda inputs, _: self._run(layer, _flat(inputs), path, scope)[0]
        if kind in INERT or kind.startswith("Random"):
            return self._leave_out(kind, name, config)
        if kind in OPERATION_LAYERS:
            return lambda inputs, options: OPERATION_LAYERS[kind](self, name, config, inputs, options)
        if kind == "Normalization":
            return self._plain(_make_normalization(config, self._name(name)), kind, name, path)
        if kind not in PLAIN:
            raise ForeignLayer(f"layer {name!r} is a {layer['class_name']}, which has no counterpart")
        return self._plain(_make_plain(kind, config, self._name(name)), kind, name, path, config.get("activation"))

    def _plain(
        self, layer: keras.layers.Layer, kind: str, name: str, path: tuple[str, ...], activation: Any = None
    ) -> Callable[[list[Tensor], Config], Tensor]:
        arrays = self.weights.of(path)

        def call(inputs: list[Tensor], options: Config) -> Tensor:
            inputs = _flat(inputs)
            if options.get("training"):
                if kind not in STOCHASTIC:
                    raise ForeignLayer(f"layer {name!r} ({kind}) acts as in training, by the other stamps of a batch")
                self.always_on.append(name)
            if not layer.built:
                _check_widths(layer, kind, name, arrays)
            value = self._checked(layer(inputs if kind in MERGES else inputs[0]), name)
            if not getattr(layer, "filled", False):
                _fill(layer, kind, name, arrays)
                layer.filled = True
            carried = {self._kind(one) for one in inputs} if kind in CARRY else {LINEAR}
            self._note(value, carried.pop() if len(carried) == 1 else OTHER)
            if kind == "Softmax":
                self._note(value, SOFTMAX)
            return self._activate(value, activation, name)

        return call

    def _leave_out(self, kind: str, name: str, config: Config) -> Callable[[list[Tensor], Config], Tensor]:
        def call(inputs: list[Tensor], options: Config) -> Tensor:
            value = _flat(inputs)[0]
            if kind == "RandomCrop":
                value = self._resize(value, (config.get("height"), config.get("width")), name)
            (self.always_on if options.get("training") else self.left_out).append(name)
            return value

        return call

    def _resize(self, value: Tensor, size: tuple[Any, Any], name: str) -> Tensor:
        """Size of stamps after a RandomCrop, which resizes at inference."""
        if tuple(value.shape[1:3]) == size:
            return value
        if size[0] != size[1] or value.shape[1] != value.shape[2]:
            raise ForeignLayer(f"layer {name!r} (RandomCrop) changes the shape of stamps")
        return self._checked(keras.layers.Resizing(*size, name=self._name(name))(value), name)

    # --- activations and operations ------------------------------------------------------------

    def _activate(self, value: Tensor, activation: Any, name: str) -> Tensor:
        """Apply an activation, given by name or as a layer."""
        if activation in (None, "linear"):
            return value
        if isinstance(activation, dict):
            inner = {"class_name": activation["class_name"], "config": {"name": f"{name}_activation"}}
            inner["config"] |= {key: one for key, one in activation.get("config", {}).items() if key != "name"}
            if inner["class_name"] in OPERATION_LAYERS or inner["class_name"] in PLAIN:
                return self._make(inner, inner["config"]["name"], (name, inner["config"]["name"]))([value], {})
        if activation in SAME_ACTIVATIONS:
            made = keras.layers.Activation(activation, name=self._name(f"{name}_{activation}"))(value)
            return self._note(made, activation if activation in (SIGMOID, SOFTMAX) else OTHER)
        if activation in OWN_ACTIVATIONS:
            return self._operation(OWN_ACTIVATIONS[activation], [value], {}, f"{name}_{activation}")
        raise ForeignLayer(f"layer {name!r} has the activation {activation!r}, which has no counterpart")

    def _operation(self, function: str, arguments: Sequence[Any], options: Mapping[str, Any], name: str) -> Tensor:
        try:
            value = apply_operation(function, arguments, options, is_tensor=is_tensor, name=self._name(name))
        except (ValueError, TypeError, IndexError) as error:
            raise ForeignLayer(f"layer {name!r} ({function}): {last_line(error)}") from None
        given = [one for item in (*arguments, *options.values()) for one in _flat([item]) if is_tensor(one)]
        short = ALIASES.get(function.rsplit(".", 1)[-1], function.rsplit(".", 1)[-1])
        kind = {"sigmoid": SIGMOID, "hard_sigmoid": SIGMOID, "softmax": SOFTMAX}.get(short, OTHER)
        if short in ("getitem", "reshape", "squeeze", "expand_dims", "identity", "cast", "concat"):
            kinds = {self._kind(one) for one in given}
            kind = kinds.pop() if len(kinds) == 1 else OTHER
        if short in ("add", "subtract", "multiply", "divide") and kind == OTHER:
            kinds = {self._kind(one) for one in given}
            kind = LINEAR if kinds == {LINEAR} else OTHER
        return self._note(self._checked(value, name), kind)

    def run_lambda(self, name: str, config: Config, inputs: list[Tensor]) -> Tensor:
        """Rebuild what the code of a Lambda computes."""
        code, defaults, closure = _lambda_parts(name, config)
        try:
            function = read_code(code)
            missing = function.variables[len(inputs) : function.n_arguments]
            known = dict(zip(function.variables[: function.n_arguments][::-1], (defaults or ())[::-1], strict=False))
            known |= config.get("arguments") or {}
            values = [*inputs, *(known[one] for one in missing)]
            return follow(function, values, lambda *call: self._operation(*call, name), captured=closure or ())
        except (ValueError, KeyError) as error:
            raise ForeignLayer(
                f"layer {name!r} is a Lambda, whose code is not run and is none that can be rebuilt ({error})"
            ) from None

    # --- bookkeeping ---------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        clean = name.replace("/", "_").replace(":", "_")
        free = clean if clean not in self.names else f"{clean}_{len(self.names)}"
        self.names.add(free)
        return free

    def _checked(self, value: Tensor, name: str) -> Tensor:
        if None in value.shape[1:] or math.prod(value.shape[1:]) > MAX_ACTIVATION:
            raise ForeignLayer(f"layer {name!r} gives {value.shape[1:]} values for a stamp, above {MAX_ACTIVATION}")
        return value

    def _note(self, value: Tensor, kind: str) -> Tensor:
        self.kinds[id(value)] = (value, kind)
        return value

    def _kind(self, value: Tensor) -> str:
        return self.kinds.get(id(value), (None, LINEAR))[1]


def _lambda_parts(name: str, config: Config) -> tuple[str, list[Any] | None, Any]:
    function = config.get("function")
    if isinstance(function, dict):
        function = function.get("items", function.get("config"))
    if isinstance(function, dict):  # as the last versions of Keras 2 write it
        function = [function.get("code"), function.get("defaults"), function.get("closure")]
    if not isinstance(function, list) or len(function) != 3 or not isinstance(function[0], str):
        raise ForeignLayer(f"layer {name!r} is a Lambda of the function {function!r}, which is not in the file")
    defaults, closure = (one.get("items") if isinstance(one, dict) else one for one in function[1:])
    return function[0], defaults, closure


def _run_operation(builder: _Builder, name: str, config: Config, inputs: list[Tensor], options: Config) -> Tensor:
    return builder._operation(str(config["function"]), inputs, options, name)


def _run_activation(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
    return builder._activate(_flat(inputs)[0], config["activation"], name)


def _one_operation(operation: str, **renamed: str) -> Callable[..., Tensor]:
    """A layer that is one operation, some of whose options are parameters of it."""

    def run(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
        given = {key: config[theirs] for key, theirs in renamed.items() if theirs in config}
        return builder._operation(operation, _flat(inputs)[:1], given, name)

    return run


def _run_leaky(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
    slope = config.get("alpha", config.get("negative_slope", 0.3))
    return builder._operation("leaky_relu", _flat(inputs)[:1], {"alpha": float(np.asarray(slope))}, name)


OPERATION_LAYERS: dict[str, Callable[..., Tensor]] = {
    "TFOpLambda": _run_operation,
    "SlicingOpLambda": _run_operation,
    "Lambda": lambda builder, name, config, inputs, _: builder.run_lambda(name, config, _flat(inputs)),
    "Activation": _run_activation,
    "LeakyReLU": _run_leaky,
    "ThresholdedReLU": _one_operation("thresholded_relu", theta="theta"),
    "UnitNormalization": _one_operation("l2_normalize", axis="axis"),
}
"""Layers that become operations, and how."""
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")


def is_tensor(value: Any) -> bool:
    """Tell a tensor of a network from a constant.

    Parameters
    ----------
    value : object

    Returns
    -------
    bool
    """
    return isinstance(value, keras.KerasTensor)


def _make_plain(kind: str, config: Config, name: str) -> keras.layers.Layer:
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


def _make_normalization(config: Config, name: str) -> keras.layers.Layer:
    axis = config.get("axis", -1)
    known = {key: config[key] for key in ("mean", "variance") if config.get(key) is not None}
    return keras.layers.Normalization(
        axis=tuple(axis) if isinstance(axis, list) else axis, invert=bool(config.get("invert", False)), name=name,
        **known,
    )  # fmt: skip


def _check_widths(layer: keras.layers.Layer, kind: str, name: str, arrays: Mapping[str, h5py.Dataset]) -> None:
    """Refuse a layer that declares other weights than the file holds, before they are allocated."""
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


def _fill(layer: keras.layers.Layer, kind: str, name: str, arrays: Mapping[str, h5py.Dataset]) -> None:
    """Copy a layer's weights from the file."""
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
            raise ForeignLayer(f"layer {name!r} ({kind}) needs the weight {weight.name!r} of {weight.shape}, has {found}")
        weight.assign(np.asarray(array[()], weight.dtype))
    theirs.pop("count", None)
    if theirs:
        raise ForeignLayer(f"layer {name!r} ({kind}) has a weight {min(theirs)!r} too many in the file")
    if kind == "Normalization" and layer.weights:
        layer.finalize_state()


def _input_shapes(config: Config) -> list[list[int | None]]:
    """Shapes (n, size, size, layers) of a network's inputs, in their order."""
    inner = config["config"]
    layers = inner["layers"] if isinstance(inner, dict) else inner
    if config["class_name"] != "Sequential":
        by_name = {one["name"]: one for one in layers}
        return [_declared_shape(by_name[name]["config"]) for name, *_ in _ends(inner["input_layers"])]
    first = layers[0]
    if first["class_name"] in MODELS:
        return _input_shapes(first)
    found = _declared_shape(first["config"]) or (isinstance(inner, dict) and inner.get("build_input_shape"))
    if not found:
        return [[None, None, None, None]]
    return [list(found)]


def _declared_shape(config: Config) -> list[int | None]:
    return list(config.get("batch_input_shape") or config.get("batch_shape") or ())


def _ends(given: Any) -> list[list[Any]]:
    """Inputs or outputs of a network, of which a single one stands without a list around it."""
    return [given] if given and isinstance(given[0], str) else given


def _first_call(layer: Config) -> int:
    """Number of a layer's first call inside its network: networks that begin with an input were called before."""
    if layer["class_name"] not in MODELS:
        return 0
    inner = layer["config"]
    layers = inner["layers"] if isinstance(inner, dict) else inner
    first = layers[0] if layers else {"class_name": "", "config": {}}
    return int(first["class_name"] == "InputLayer" or "batch_input_shape" in first["config"])


def _look_up(scope: _Scope, reference: Sequence[Any]) -> Tensor:
    """Result of a layer's call.

    Raises
    ------
    LookupError
        If it is not there yet.
    """
    name, call = str(reference[0]), int(reference[1])
    return scope.results[name][call]


def _read_call(call: Any, look_up: Callable[[Sequence[Any]], Tensor]) -> tuple[list[Any], Config]:
    """Arguments and options of one call of a layer."""
    if isinstance(call, dict):
        raise ForeignLayer("it was written by Keras 3; load it as it is")
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
    """An option: a constant, or a reference [layer, call, output] to a tensor."""
    if isinstance(item, list) and len(item) in (3, 4) and isinstance(item[0], str) and isinstance(item[1], int):
        return item[2] if item[0] == "_CONSTANT_VALUE" else look_up(item)
    if isinstance(item, list):
        return [_value(one, look_up) for one in item]
    return item


def _flat(values: Iterable[Any]) -> list[Any]:
    return [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]


def finish(foreign: Foreign, *, real_column: int | None, logits: bool) -> keras.Model:
    """Complete a network to one score in [0, 1].

    Parameters
    ----------
    foreign : Foreign
        From `read_foreign`.
    real_column : int, optional
        Column of the output that is the score of the real; needed where there are several.
    logits : bool
        True for an output before the sigmoid or softmax.

    Returns
    -------
    keras.Model

    Raises
    ------
    ModelError
        If the output is no score, or its column or kind is not named.
    """
    score = _score(foreign.model.outputs[0], foreign, real_column, logits)
    return keras.Model(foreign.model.inputs[0], score, name=foreign.model.name)


def _score(raw: Tensor, foreign: Foreign, real_column: int | None, logits: bool) -> Tensor:
    name, n_columns = foreign.model.name, math.prod(raw.shape[1:])
    if len(raw.shape) != 2:
        raw = keras.layers.Flatten(name="flatten_score")(raw)
    if n_columns > 1 and real_column is None:
        raise ModelError(
            f"network {name!r} gives {n_columns} numbers for a stamp; name the column of the real (--real-column)"
        )
    if not 0 <= (real_column or 0) < n_columns:
        raise ModelError(f"network {name!r} gives {n_columns} numbers for a stamp, there is no column {real_column}")
    if logits and foreign.kind in (SIGMOID, SOFTMAX):
        raise ModelError(f"network {name!r} ends with a {foreign.kind}, so its output is no logit; leave out --logits")
    if not logits and (foreign.kind in (LINEAR, OTHER) or (foreign.kind == SOFTMAX and n_columns == 1)):
        raise ModelError(
            f"network {name!r} does not end with a sigmoid or softmax, so its output is no score in [0, 1]; "
            "give --logits if it was trained with from_logits=True"
        )
    if logits:
        raw = keras.layers.Activation(SIGMOID if n_columns == 1 else SOFTMAX, name="score_of_logits")(raw)
    if n_columns == 1:
        return raw
    return TensorOperation("column", ["x"], f'{{"column": {real_column}}}', name="real_column")(raw)
