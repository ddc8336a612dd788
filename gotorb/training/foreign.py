"""External networks: whole-model files of Keras 2 (``model.save("x.h5")``), rebuilt layer by layer.

Keras 3 cannot read most of them, and reads some differently. Each layer is rebuilt from its description, its
weights are copied from the arrays of the file, and no code of the file is run: a ``Lambda`` is rebuilt if
`gotorb.training.lambda_code` supports its code, and refused otherwise. Nested networks become part of the outer
one. Layers that act in training only (augmentation, noise) are left out. The result gives one score in [0, 1].
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gotorb.core.untrusted import UntrustedFile, open_hdf5
from gotorb.errors import ModelError
from gotorb.training.backend import keras
from gotorb.training.keras2 import (
    CARRY,
    INERT,
    MERGES,
    MODELS,
    OTHER_NAMES,
    OWN_ACTIVATIONS,
    PLAIN,
    SAME_ACTIVATIONS,
    STOCHASTIC,
    WAY_OUT,
    Config,
    ForeignLayer,
    Tensor,
    Weights,
    check_widths,
    ends,
    fill,
    first_call,
    flat,
    input_shapes,
    is_tensor,
    lambda_parts,
    make_normalization,
    make_plain,
    read_call,
    read_config,
)
from gotorb.training.lambda_code import follow, read_code
from gotorb.training.model_files import MAX_ACTIVATION, MAX_LAYERS, last_line
from gotorb.training.networks import NONE, OWN_NORMALISATION, normalise_stamps
from gotorb.training.tensor_ops import ALIASES, TensorOperation, apply_operation

MAX_NESTED = 8
"""Levels of networks inside networks."""
SIGMOID, SOFTMAX, LINEAR, OTHER = "sigmoid", "softmax", "linear", "other"


@dataclass
class Foreign:
    """An external network in Keras 3.

    Attributes
    ----------
    model : keras.Model
        Original network, whose output may be logits or several columns.
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
            builder = _Builder(Weights(file), shape, lambda stamps: normalise_stamps(stamps, normalise, layers))
            found = builder.network(read_config(file))
            if n_layers not in (None, found.model.input_shape[-1]):
                raise ForeignLayer(f"it takes {found.model.input_shape[-1]} layers, not {n_layers} (--layers)")
            return found
    except ForeignLayer as error:
        raise ModelError(f"{path}, a network of Keras 2, cannot be rebuilt: {error}; {WAY_OUT}") from None
    except (UntrustedFile, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError,
            RecursionError) as error:  # fmt: skip
        reason = last_line(error)
        raise ModelError(f"{path} is no whole-model file of Keras 2 that can be read ({reason}); {WAY_OUT}") from None


@dataclass
class _Scope:
    """State of a network under construction: names of the outer networks, layers, and results of each call."""

    path: tuple[str, ...] = ()
    made: dict[str, Callable[[list[Tensor], Config], Tensor]] = field(default_factory=dict)
    results: dict[str, dict[int, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    first_calls: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Builder of a network of Keras 2."""

    def __init__(self, weights: Weights, shape: tuple[int, int, int] | None, first: Callable[[Tensor], Tensor]) -> None:
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
        shapes = input_shapes(config)
        if any(len(one) != 4 for one in shapes):
            raise ForeignLayer(f"it takes {[one[1:] for one in shapes]}, not stamps (size, size, layers) alone")
        channels = [one[3] for one in shapes]
        sizes = {side for one in shapes for side in one[1:3] if side is not None}
        if self.shape is None:
            if len(sizes) != 1 or None in channels:
                raise ForeignLayer("it takes stamps of any size: give the size (--size) and the layers (--layers)")
            (size,) = sizes
            self.shape = (size, size, sum(one or 0 for one in channels))
        size, _, n_layers = self.shape
        if sizes - {size}:
            raise ForeignLayer(f"it takes stamps of {sorted(sizes)} pixels, not {size} (--size)")
        wanted = n_layers if None in channels and len(channels) == 1 else sum(one or 0 for one in channels)
        if wanted != n_layers:
            raise ForeignLayer(
                f"it takes {wanted} layers, not {n_layers}: name those that it was trained on (--layers)"
            )
        if math.prod(self.shape) > MAX_ACTIVATION:
            raise ForeignLayer(f"it takes stamps of {math.prod(self.shape)} values")
        stamps = keras.Input(self.shape, name="stamps")
        first = self.first(stamps)
        if len(shapes) == 1:
            return stamps, [first]
        bounds = np.cumsum([0, *channels])
        keys = [["...", [int(low), int(high), None]] for low, high in pairwise(bounds)]
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
        for (name, *_), value in zip(ends(config["input_layers"]), inputs, strict=True):
            scope.results[name][0] = value
        scope.first_calls = {one["name"]: first_call(one) for one in layers}
        waiting = [
            (one, number, call)
            for one in layers if one["class_name"] != "InputLayer"
            for number, call in enumerate(one["inbound_nodes"], scope.first_calls[one["name"]])
        ]  # fmt: skip
        while waiting:
            rest = []
            for one, number, call in waiting:
                try:
                    arguments, options = read_call(call, lambda reference: _look_up(scope, reference))
                except LookupError:
                    rest.append((one, number, call))
                    continue
                scope.results[one["name"]][number] = self._layer(one, scope)(arguments, options)
            if len(rest) == len(waiting):
                raise ForeignLayer(f"layer {rest[0][0]['name']!r} has inputs that do not exist")
            waiting = rest
        return [_look_up(scope, end) for end in ends(config["output_layers"])]

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
            return lambda inputs, _: self._run(layer, flat(inputs), path, scope)[0]
        if kind in INERT or kind.startswith("Random"):
            return self._leave_out(kind, name, config)
        if kind in OPERATION_LAYERS:
            return lambda inputs, options: OPERATION_LAYERS[kind](self, name, config, inputs, options)
        if kind == "Normalization":
            return self._plain(make_normalization(config, self._name(name)), kind, name, path)
        if kind not in PLAIN:
            raise ForeignLayer(f"layer {name!r} is a {layer['class_name']}, which has no counterpart")
        return self._plain(make_plain(kind, config, self._name(name)), kind, name, path, config.get("activation"))

    def _plain(
        self, layer: keras.layers.Layer, kind: str, name: str, path: tuple[str, ...], activation: Any = None
    ) -> Callable[[list[Tensor], Config], Tensor]:
        arrays = self.weights.of(path)

        def call(inputs: list[Tensor], options: Config) -> Tensor:
            inputs = flat(inputs)
            if options.get("training"):
                if kind not in STOCHASTIC:
                    raise ForeignLayer(f"layer {name!r} ({kind}) acts as in training, by the other stamps of a batch")
                self.always_on.append(name)
            if not layer.built:
                check_widths(layer, kind, name, arrays)
            value = self._checked(layer(inputs if kind in MERGES else inputs[0]), name)
            if not getattr(layer, "filled", False):
                fill(layer, kind, name, arrays)
                layer.filled = True
            carried = {self._kind(one) for one in inputs} if kind in CARRY else {LINEAR}
            self._note(value, carried.pop() if len(carried) == 1 else OTHER)
            if kind == "Softmax":
                self._note(value, SOFTMAX)
            return self._activate(value, activation, name)

        return call

    def _leave_out(self, kind: str, name: str, config: Config) -> Callable[[list[Tensor], Config], Tensor]:
        def call(inputs: list[Tensor], options: Config) -> Tensor:
            value = flat(inputs)[0]
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
        given = [one for item in (*arguments, *options.values()) for one in flat([item]) if is_tensor(one)]
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
        code, defaults, closure = lambda_parts(name, config)
        try:
            read = read_code(code)
            missing = read.variables[len(inputs) : read.n_arguments]
            known = dict(zip(read.variables[: read.n_arguments][::-1], (defaults or ())[::-1], strict=False))
            known |= config.get("arguments") or {}
            values = [*inputs, *(known[one] for one in missing)]
            return follow(
                read,
                values,
                lambda function, given, options: self._operation(function, given, options, name),
                captured=closure or (),
            )
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


def _run_operation(builder: _Builder, name: str, config: Config, inputs: list[Tensor], options: Config) -> Tensor:
    return builder._operation(str(config["function"]), inputs, options, name)


def _run_activation(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
    return builder._activate(flat(inputs)[0], config["activation"], name)


def _one_operation(operation: str, **renamed: str) -> Callable[..., Tensor]:
    """A layer that is one operation, some of whose options are parameters of it."""

    def run(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
        given = {key: config[theirs] for key, theirs in renamed.items() if theirs in config}
        return builder._operation(operation, flat(inputs)[:1], given, name)

    return run


def _run_leaky(builder: _Builder, name: str, config: Config, inputs: list[Tensor], _: Config) -> Tensor:
    slope = config.get("alpha", config.get("negative_slope", 0.3))
    return builder._operation("leaky_relu", flat(inputs)[:1], {"slope": float(np.asarray(slope))}, name)


OPERATION_LAYERS: dict[str, Callable[..., Tensor]] = {
    "TFOpLambda": _run_operation,
    "SlicingOpLambda": _run_operation,
    "Lambda": lambda builder, name, config, inputs, _: builder.run_lambda(name, config, flat(inputs)),
    "Activation": _run_activation,
    "LeakyReLU": _run_leaky,
    "ThresholdedReLU": _one_operation("thresholded_relu", theta="theta"),
    "UnitNormalization": _one_operation("l2_normalize", axis="axis"),
}
"""Layers that become operations, and how."""


def _look_up(scope: _Scope, reference: Sequence[Any]) -> Tensor:
    """Result of a layer's call.

    Raises
    ------
    LookupError
        If it is not there yet.
    """
    name, call = str(reference[0]), int(reference[1])
    return scope.results[name][call]


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
