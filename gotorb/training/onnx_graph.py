"""External networks as ONNX files and SavedModels, rebuilt layer by layer as trainable Keras networks.

A SavedModel is first converted to ONNX, with its variables as constants. The sizes of an ONNX file are checked before a
library parses it. Data in other files, subgraphs and unknown operators are refused, and no code is run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from gotorb.core.untrusted import UntrustedFile
from gotorb.errors import ConfigError, ModelError
from gotorb.training.backend import keras, same_randomness, tf
from gotorb.training.foreign import LINEAR, OTHER, SIGMOID, SOFTMAX, Foreign
from gotorb.training.keras2 import is_tensor
from gotorb.training.model_files import MAX_ACTIVATION, MAX_LAYERS, last_line
from gotorb.training.onnx import MAX_BYTES, OPSET
from gotorb.training.tensor_ops import apply_operation

Tensor = Any
MAX_GRAPH, MAX_PARTS, MAX_FOLDED, MAX_META = 8_000_000, 200_000, 1_000_000, 16
"""Largest number of bytes of an ONNX file without its weights, of its fields, of values of a folded constant, and of
graphs of a SavedModel."""
GRAPH, WEIGHT, VALUES = 7, 5, (4, 5, 7, 9, 10)
"""Numbers of the fields of the graph, of a weight in it, and of the values of a weight."""
FIRST, LAST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Permutations that move the channels from the second to the last axis, and back."""
SERVING, GRAPH_FILE = "serving_default", "saved_model.pb"
SAVING = re.compile(r"__inference__traced_(save|restore)_\d+")
"""Functions of a SavedModel that only its saver calls."""
REACHES_OUT = re.compile(
    r"File|Reader|Dataset|Iterator|PyFunc|Table|Save|Restore|Checkpoint|Remote|Rpc|Send|Recv|Print|Summary|Xla|"
    r"Collective|Library|Custom"
)
"""Parts of the names of TensorFlow's operations with access to files, other processes or code."""
UNARY = {
    "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "abs",
    "Neg": "negative", "Softplus": "softplus", "Reciprocal": "reciprocal", "Softsign": "softsign", "Sign": "sign",
    "Floor": "floor", "Selu": "selu", "Identity": "identity", "Dropout": "identity", "Cast": "identity",
    "IsNaN": "isnan", "Asinh": "arcsinh", "Atan": "arctan",
}  # fmt: skip
BINARY = {"Sub": "subtract", "Mul": "multiply", "Div": "divide", "Pow": "power", "Max": "maximum", "Min": "minimum"}
REDUCERS = {"ReduceSum": "reduce_sum", "ReduceMean": "reduce_mean", "ReduceMax": "reduce_max",
            "ReduceMin": "reduce_min", "ReduceL2": "norm"}  # fmt: skip
CARRIED = ("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
"""Operators whose output is a score if their input is one."""
Shape = tuple[int, int, int]
First = Callable[[Tensor], Tensor]


def read_onnx(path: Path, shape: tuple[int | None, int], first: First) -> Foreign:
    """Rebuild the network of an ONNX file.

    Parameters
    ----------
    path : Path
        ONNX file.
    shape : tuple of int
        Side of the stamps (None for that in the file), and number of layers.
    first : callable
        Normalisation of the stamps.

    Returns
    -------
    Foreign

    Raises
    ------
    ConfigError
        If onnx is not installed.
    ModelError
        If the file is unsafe, or has an operator that cannot be rebuilt, which the message names.
    """
    return _rebuild(path, path.read_bytes(), shape, first)


def check_onnx(path: Path) -> None:
    """Refuse an ONNX file that is too large, or would be once it is parsed.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    UntrustedFile
        If it is.
    """
    if path.stat().st_size > MAX_BYTES:
        raise UntrustedFile(f"larger than {MAX_BYTES} bytes")
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        _check_content(content)


def read_saved_model(folder: Path, shape: tuple[int | None, int], first: First) -> Foreign:
    """Rebuild the network of a SavedModel's signature ``serving_default``.

    Parameters
    ----------
    folder : Path
        Folder with saved_model.pb.
    shape, first
        As for `read_onnx`.

    Returns
    -------
    Foreign

    Raises
    ------
    ConfigError
        If tf2onnx is not installed.
    ModelError
        If it is unsafe, or has no such signature, or an operation that cannot be rebuilt.
    """
    try:
        from tf2onnx.convert import from_function
    except ImportError as error:
        raise ConfigError(f"{folder} needs {error.name}, which is not installed; pip install 'gotorb[onnx]'") from None
    try:
        _check_saved_model(folder)
        with same_randomness():
            loaded = tf.saved_model.load(str(folder))  # holds the variables
            signature = loaded.signatures[SERVING]
            (name, given), *more = signature.structured_input_signature[1].items()
            if more or len(signature.structured_outputs) != 1:
                raise UntrustedFile(f"its signature {SERVING} has several inputs or outputs")
            wanted = (None, shape[0], shape[0], shape[1])
            sides = [theirs or side for theirs, side in zip(given.shape, wanted, strict=True)]
            spec = tf.TensorSpec([None, *sides[1:]], tf.float32, name="stamps")
            served = tf.function(lambda stamps: next(iter(signature(**{name: stamps}).values())))
            content = from_function(served, input_signature=[spec], opset=OPSET)[0].SerializeToString()
    except Exception as error:  # TensorFlow and tf2onnx raise almost any type
        raise ModelError(
            f"{folder} cannot be imported as a SavedModel ({last_line(error)}); save the network as .h5 or .keras "
            "where it was made"
        ) from None
    return _rebuild(folder, content, shape, first)


def _check_saved_model(folder: Path) -> None:
    """Refuse links, large files, assets, resources and unsafe operations, before anything is loaded."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    files = list(folder.rglob("*"))
    if any(one.is_symlink() for one in files) or folder.is_symlink():
        raise UntrustedFile("it holds links")
    graph = folder / GRAPH_FILE
    if sum(one.stat().st_size for one in files) > MAX_BYTES or graph.stat().st_size > MAX_GRAPH:
        raise UntrustedFile(f"it has more than {MAX_BYTES} bytes, or more than {MAX_GRAPH} in {graph.name}")
    found = SavedModel.FromString(graph.read_bytes())
    for meta in found.meta_graphs[:MAX_META]:
        functions = meta.graph_def.library.function
        inside = sum(len(one.node_def) for one in functions[:MAX_LAYERS])
        n_nodes = inside + len(functions) + len(meta.graph_def.node) + len(meta.object_graph_def.nodes)
        if len(found.meta_graphs) > MAX_META or n_nodes > MAX_LAYERS * 40:
            raise UntrustedFile(f"it has more than {MAX_META} graphs or {MAX_LAYERS * 40} operations")
        kinds = {node.WhichOneof("kind") for node in meta.object_graph_def.nodes}
        if found_kinds := kinds & {"asset", "resource", "captured_tensor"}:
            raise UntrustedFile(f"it holds a {min(found_kinds)}, which is made from other files or by code")
        plain = [one for one in meta.graph_def.library.function if not SAVING.fullmatch(one.signature.name)]
        operations = {node.op for node in meta.graph_def.node} | {node.op for one in plain for node in one.node_def}
        if odd := sorted(name for name in operations if REACHES_OUT.search(name)):
            raise UntrustedFile(f"it has the operation {odd[0]}, which reaches out of the network")


def _rebuild(path: Path, content: bytes, shape: tuple[int | None, int], first: First) -> Foreign:
    try:
        import onnx
    except ImportError:
        raise ConfigError(f"{path} needs onnx, which is not installed; pip install 'gotorb[onnx]'") from None
    try:
        _check_content(content)
        return _Graph(onnx, onnx.ModelProto.FromString(content).graph).network(shape, first)
    except Exception as error:  # protobuf, numpy and Keras raise almost any type
        raise ModelError(
            f"{path} cannot be imported as a network ({last_line(error)}); save it as .h5 or .keras where it was made"
        ) from None


def _check_content(content: bytes | mmap) -> None:
    """Refuse a small file that needs much memory when parsed, because of many parts besides its weights."""
    budget, rest = [MAX_PARTS], len(content)
    for number, start, end in _fields(content, (0, len(content)), budget):
        for part, low, high in _fields(content, (start, end), budget) if number == GRAPH else ():
            if part == WEIGHT:
                rest -= sum(b - a for field, a, b in _fields(content, (low, high), budget) if field in VALUES)
    if rest > MAX_GRAPH:
        raise UntrustedFile(f"{rest} bytes besides its weights, more than {MAX_GRAPH}")


def _fields(content: bytes | mmap, span: tuple[int, int], budget: list[int]) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a Protocol Buffers message."""
    place, end = span
    while place < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise UntrustedFile(f"more than {MAX_PARTS} parts")
        key, place = _number(content, place, end)
        begun, size = place, {1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            size = _number(content, place, end)[1] - place
        elif key & 7 == 2:
            size, begun = _number(content, place, end)
        if size is None or begun + size > end:
            raise UntrustedFile("no ONNX file, or a broken one")
        place = begun + size
        yield key >> 3, begun, place


def _number(content: bytes | mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = content[place]
        value, place = value | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return value, place
    raise UntrustedFile("a broken ONNX file")


class _Graph:
    """Builder of the network from an ONNX graph; values are arrays if constant, or else Keras tensors."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx, self.graph = onnx, graph
        self.values: dict[str, Any] = {"": None}
        self.kinds: dict[str, str] = {}
        self.last: dict[int, tuple[Tensor, Tensor]] = {}
        """Tensors with channels second, and the same with channels last, by identity."""
        self.products: dict[int, tuple[Tensor, Tensor, np.ndarray]] = {}
        """Products with a constant matrix, their input and the matrix, by identity."""
        self.n_layers = 0

    def network(self, shape: tuple[int | None, int], first: First) -> Foreign:
        """The whole network, which takes stamps (n, size, size, n_layers)."""
        if len(self.graph.node) > MAX_LAYERS * 4:
            raise UntrustedFile(f"more than {MAX_LAYERS * 4} operators")
        for one in self.graph.initializer:
            self.values[one.name] = self._array(one)
        inputs = [one for one in self.graph.input if one.name not in self.values]
        if len(inputs) != 1 or len(self.graph.output) != 1:
            raise UntrustedFile(f"it has {len(inputs)} inputs and {len(self.graph.output)} outputs, not one of each")
        sides = [side.dim_value or None for side in inputs[0].type.tensor_type.shape.dim]
        size, n_layers, channels_first = _find_shape(sides, *shape)
        stamps = keras.Input((size, size, n_layers), name="stamps")
        taken = first(stamps)
        self.values[inputs[0].name] = self._second(taken) if channels_first else taken
        for node in self.graph.node:
            self._take(node)
        end = self.graph.output[0].name
        if not is_tensor(self.values.get(end)):
            raise UntrustedFile("its output does not depend on the stamps")
        name = re.sub(r"\W", "_", self.graph.name)[:60].strip("_") or "imported"
        return Foreign(keras.Model(stamps, self.values[end], name=name), self.kinds.get(end, OTHER))

    def _array(self, tensor: Any) -> np.ndarray:
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UntrustedFile(f"the weight {tensor.name!r} is in another file")
        stored = len(tensor.raw_data) + 8 * sum(
            len(part) for part in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data)
        )
        if math.prod(tensor.dims) > stored:
            raise UntrustedFile(f"the weight {tensor.name!r} declares {list(tensor.dims)} and stores {stored} bytes")
        return np.asarray(self.onnx.numpy_helper.to_array(tensor))

    def _take(self, node: Any) -> None:
        """Add an operator, or fold it if all its inputs are constant."""
        given = {one.name: self.onnx.helper.get_attribute_value(one) for one in node.attribute}
        absent = [name for name in node.input if name not in self.values]
        if absent or node.domain not in ("", "ai.onnx"):
            raise UntrustedFile(f"operator {node.op_type} of {node.domain!r} has the unknown inputs {absent}")
        inputs = [self.values[name] for name in node.input]
        kind = node.op_type
        if kind == "Constant":
            found = self._array(given["value"]) if "value" in given else np.asarray(next(iter(given.values())))
        elif kind == "Shape":
            found = np.array([side or -1 for side in inputs[0].shape], np.int64)
        elif not any(map(is_tensor, inputs)):
            found = self._fold(node, inputs, given)
        else:
            found = self._make(node, inputs, given)
            if math.prod(found.shape[1:]) > MAX_ACTIVATION:
                raise UntrustedFile(f"operator {kind} gives {found.shape[1:]} values for a stamp")
            kinds = {"Sigmoid": SIGMOID, "Softmax": SOFTMAX, "Gemm": LINEAR, "MatMul": LINEAR, "Conv": LINEAR,
                     "Add": LINEAR}  # fmt: skip
            carried = self.kinds.get(node.input[0], OTHER)
            self.kinds[node.output[0]] = carried if kind in CARRIED else kinds.get(kind, OTHER)
        self.values[node.output[0]] = found

    def _fold(self, node: Any, inputs: list[Any], given: dict[str, Any]) -> np.ndarray:
        """Result of an operator on constants."""
        kind, arrays = node.op_type, [np.asarray(one) for one in inputs if one is not None]
        if sum(one.size for one in arrays) > MAX_FOLDED:
            raise UntrustedFile(f"operator {kind} on {sum(one.size for one in arrays)} constants")
        axes = given.get("axes", arrays[1].tolist() if kind in ("Squeeze", "Unsqueeze") and len(arrays) > 1 else None)
        plain: dict[str, Callable[[], Any]] = {
            "Gather": lambda: np.take(arrays[0], arrays[1], given.get("axis", 0)),
            "Concat": lambda: np.concatenate(arrays, given["axis"]),
            "Unsqueeze": lambda: np.expand_dims(arrays[0], tuple(axes or ())),
            "Squeeze": lambda: np.squeeze(arrays[0], None if axes is None else tuple(axes)),
            "Cast": lambda: arrays[0].astype(self.onnx.helper.tensor_dtype_to_np_dtype(given["to"])),
            "Identity": lambda: arrays[0], "Add": lambda: arrays[0] + arrays[1], "Mul": lambda: arrays[0] * arrays[1],
            "Sub": lambda: arrays[0] - arrays[1], "Reshape": lambda: arrays[0].reshape(arrays[1].tolist()),
            "Div": lambda: arrays[0] // arrays[1] if arrays[0].dtype.kind == "i" else arrays[0] / arrays[1],
            "Slice": lambda: arrays[0][_slices(arrays[0].ndim, arrays[1:])], "Sqrt": lambda: np.sqrt(arrays[0]),
            "Transpose": lambda: np.transpose(arrays[0], given.get("perm")),
        }  # fmt: skip
        if kind not in plain:
            raise UntrustedFile(f"operator {kind} on constants has no counterpart")
        return np.asarray(plain[kind]())

    def _make(self, node: Any, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        """Layer of an operator on tensors."""
        kind, x = node.op_type, inputs[0]
        special = getattr(self, f"on_{kind.lower()}", None)
        if special is not None:
            return special(inputs, given)
        if kind in UNARY:
            return self._each(UNARY[kind], x)
        if kind in BINARY and len(inputs) == 2:
            return self._operation(BINARY[kind], *(one if is_tensor(one) else one.tolist() for one in inputs))
        if kind in REDUCERS:
            axes = given.get("axes", inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else None)
            axes = None if axes is None else [at % len(x.shape) for at in axes]
            return self._operation(REDUCERS[kind], x, axis=axes, keepdims=bool(given.get("keepdims", 1)))
        raise UntrustedFile(f"operator {kind} ({node.name}) has no counterpart")

    # --- layers --------------------------------------------------------------------------------

    def _layer(self, layer: keras.layers.Layer, x: Tensor, *weights: Any) -> Tensor:
        """Result of a layer with the given weights."""
        self.n_layers += 1
        if self.n_layers > MAX_LAYERS:
            raise UntrustedFile(f"more than {MAX_LAYERS} layers")
        layer.name = f"{type(layer).__name__.lower()}_{self.n_layers}"
        found = layer(x)
        if weights:
            layer.set_weights([np.asarray(one, np.float32) for one in weights])
        return found

    def _operation(self, name: str, *arguments: Any, **options: Any) -> Tensor:
        self.n_layers += 1
        return apply_operation(name, arguments, options, is_tensor=is_tensor, name=f"{name}_{self.n_layers}")

    def _each(self, name: str, x: Tensor, **options: Any) -> Tensor:
        """Elementwise function, applied to the tensor with channels last if there is one."""
        known = self.last.get(id(x))
        if known is None:
            return self._operation(name, x, **options)
        return self._second(self._operation(name, known[1], **options))

    def _second(self, x: Tensor) -> Tensor:
        """Move the channels from the last axis to the second."""
        found = self._layer(keras.layers.Permute(tuple(LAST[1:])), x)
        self.last[id(found)] = found, x
        return found

    def _to_last(self, x: Tensor) -> Tensor:
        if len(x.shape) != 4:
            raise UntrustedFile(f"a layer of images on values of the shape {x.shape}")
        known = self.last.get(id(x))
        return self._layer(keras.layers.Permute(tuple(FIRST[1:])), x) if known is None else known[1]

    def on_conv(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        x, kernel, bias = self._to_last(inputs[0]), inputs[1], inputs[2] if len(inputs) > 2 else None
        n_out, n_in, group = kernel.shape[0], kernel.shape[1], given.get("group", 1)
        weights = [np.transpose(kernel, (2, 3, 1, 0))]
        strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
        options = {"use_bias": bias is not None, "strides": tuple(strides), "dilation_rate": tuple(dilations)}
        x, options["padding"] = self._pad_sides(x, given, kernel.shape[2:], 0.0)
        if group == 1:
            layer = keras.layers.Conv2D(n_out, kernel.shape[2:], **options)
        elif group == x.shape[-1] and n_in == 1:
            weights = [kernel.reshape(group, -1, *kernel.shape[2:]).transpose(2, 3, 0, 1)]
            layer = keras.layers.DepthwiseConv2D(kernel.shape[2:], depth_multiplier=n_out // group, **options)
        else:
            raise UntrustedFile(f"a convolution in {group} groups")
        return self._second(self._layer(layer, x, *weights, *([] if bias is None else [bias])))

    def _pad_sides(self, x: Tensor, given: dict[str, Any], kernel: Any, value: float) -> tuple[Tensor, str]:
        """Padded tensor, and the padding option that remains for the layer."""
        auto = given.get("auto_pad", b"NOTSET").decode()
        if auto == "SAME_UPPER":
            return x, "same"
        pads = given.get("pads", [0, 0, 0, 0])
        if auto not in ("NOTSET", "VALID") or given.get("ceil_mode", 0) or max(pads) > max(kernel):
            raise UntrustedFile(f"padding {auto} {pads}")
        if not any(pads) or auto == "VALID":
            return x, "valid"
        sides = [[0, 0], [pads[0], pads[2]], [pads[1], pads[3]], [0, 0]]
        return self._operation("pad", x, sides=sides, value=value), "valid"

    def _pool(self, inputs: list[Any], given: dict[str, Any], layer: Any, value: float) -> Tensor:
        kernel, x = given["kernel_shape"], self._to_last(inputs[0])
        x, padding = self._pad_sides(x, given, kernel, value)
        sides = tuple(given.get("strides", [1, 1]))
        return self._second(self._layer(layer(tuple(kernel), strides=sides, padding=padding), x))

    def on_maxpool(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        return self._pool(inputs, given, keras.layers.MaxPooling2D, float(np.finfo(np.float32).min))

    def on_averagepool(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        if any(given.get("pads", [])) and not given.get("count_include_pad", 0):
            raise UntrustedFile("a mean over pixels of which some are padding")
        return self._pool(inputs, given, keras.layers.AveragePooling2D, 0.0)

    def on_globalaveragepool(self, inputs: list[Any], _: dict[str, Any]) -> Tensor:
        return self._operation("reduce_mean", inputs[0], axis=[2, 3], keepdims=True)

    def on_globalmaxpool(self, inputs: list[Any], _: dict[str, Any]) -> Tensor:
        return self._operation("reduce_max", inputs[0], axis=[2, 3], keepdims=True)

    def on_batchnormalization(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        layer = keras.layers.BatchNormalization(epsilon=given.get("epsilon", 1e-5))
        if len(inputs[0].shape) == 2:
            return self._layer(layer, inputs[0], *inputs[1:5])
        return self._second(self._layer(layer, self._to_last(inputs[0]), *inputs[1:5]))

    def on_gemm(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        if given.get("transA", 0) or not given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0:
            raise UntrustedFile("a product of matrices that is no dense layer")
        kernel = inputs[1].T if given.get("transB", 0) else inputs[1]
        bias = inputs[2] if len(inputs) > 2 else np.zeros(kernel.shape[1])
        bias = np.broadcast_to(np.asarray(bias).reshape(-1), kernel.shape[1:])
        return self._layer(keras.layers.Dense(kernel.shape[1]), inputs[0], kernel, bias)

    def on_matmul(self, inputs: list[Any], _: dict[str, Any]) -> Tensor:
        if is_tensor(inputs[1]) or inputs[1].ndim != 2:
            raise UntrustedFile("a product of matrices that is no dense layer")
        found = self._layer(keras.layers.Dense(inputs[1].shape[1], use_bias=False), inputs[0], inputs[1])
        self.products[id(found)] = found, inputs[0], inputs[1]
        return found

    def on_add(self, inputs: list[Any], _: dict[str, Any]) -> Tensor:
        """Sum; a dense layer with a bias if one term is a product and the other has one number per column."""
        for x, bias in (inputs, inputs[::-1]):
            if id(x) in self.products and isinstance(bias, np.ndarray) and bias.size == x.shape[-1]:
                _, taken, kernel = self.products[id(x)]
                return self._layer(keras.layers.Dense(kernel.shape[1]), taken, kernel, bias.reshape(-1))
        return self._operation("add", *(one if is_tensor(one) else one.tolist() for one in inputs))

    # --- shapes and functions ------------------------------------------------------------------

    def on_reshape(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        x, wanted = inputs[0], [int(side) for side in inputs[1].tolist()]
        kept = [int(side) for side in x.shape[1:]]
        sides = [kept[at - 1] if side == 0 and at else side for at, side in enumerate(wanted)][1:]
        if -1 in sides:
            sides[sides.index(-1)] = math.prod(kept) // max(1, math.prod(side for side in sides if side != -1))
        if math.prod(sides) != math.prod(kept):
            raise UntrustedFile(f"a new shape {wanted} of {kept} that does not keep the stamps apart")
        return self._operation("reshape", x, [-1, *sides])

    def on_flatten(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        if given.get("axis", 1) != 1:
            raise UntrustedFile("a new shape that does not keep the stamps apart")
        return self.on_reshape([inputs[0], np.array([-1, math.prod(inputs[0].shape[1:])])], {})

    def on_transpose(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        order, known = tuple(given["perm"]), self.last.get(id(inputs[0]))
        if order == FIRST and known is not None:
            return known[1]
        return self._second(inputs[0]) if order == LAST else self._operation("transpose", inputs[0], list(order))

    def on_squeeze(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        axes = given.get("axes") or (inputs[1].tolist() if len(inputs) > 1 else [])
        gone = {at % len(inputs[0].shape) for at in axes} or {n for n, side in enumerate(inputs[0].shape) if side == 1}
        kept = [side for n, side in enumerate(inputs[0].shape) if n and n not in gone]
        return self.on_reshape([inputs[0], np.array([-1, *kept])], {})

    def on_unsqueeze(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        (axis,) = given.get("axes") or inputs[1].tolist()
        return self._operation("expand_dims", inputs[0], axis=axis)

    def on_concat(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        return self._operation("concat", inputs, axis=given["axis"])

    def on_slice(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        parts = _slices(len(inputs[0].shape), inputs[1:])
        return self._operation("getitem", inputs[0], [[one.start, one.stop, one.step] for one in parts])

    def on_pad(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        low, high = np.split(np.asarray(inputs[1] if len(inputs) > 1 else given["pads"]), 2)
        value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else float(given.get("value", 0.0))
        if given.get("mode", b"constant") != b"constant" or len(inputs) > 3:
            raise UntrustedFile("padding by copies of pixels")
        return self._operation("pad", inputs[0], sides=np.column_stack([low, high]).tolist(), value=value)

    def on_clip(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        bounds = [*(None if one is None else float(one) for one in inputs[1:]), None, None][:2]
        low, high = given.get("min", bounds[0]), given.get("max", bounds[1])
        return self._each("clip", inputs[0], low=low, high=high)

    def on_leakyrelu(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        return self._each("leaky_relu", inputs[0], slope=given.get("alpha", 0.01))

    def on_elu(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        if given.get("alpha", 1.0) != 1.0:
            raise UntrustedFile(f"an ELU with alpha {given['alpha']}")
        return self._each("elu", inputs[0])

    def on_softmax(self, inputs: list[Any], given: dict[str, Any]) -> Tensor:
        return self._operation("softmax", inputs[0], axis=given.get("axis", -1))


def _slices(n_axes: int, arrays: list[Any]) -> tuple[slice, ...]:
    """Slices from the starts, ends, axes and steps of a Slice operator."""
    lists = [None if one is None else np.atleast_1d(one).tolist() for one in arrays]
    starts, ends, axes, steps = [*lists, None, None][:4]
    found = [slice(None)] * n_axes
    for at, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        stop = None if abs(end) > MAX_BYTES else int(end)
        found[at if axes is None else axes[at]] = slice(int(start), stop, None if steps is None else steps[at])
    return tuple(found)


def _find_shape(sides: list[int | None], size: int | None, n_layers: int) -> tuple[int, int, bool]:
    """Side and layers of the stamps, and True if the layers are the second axis of the input."""
    if len(sides) != 4:
        raise UntrustedFile(f"it takes values of the shape {sides}, not stamps (n, size, size, layers)")
    channels_first = sides[3] not in (None, n_layers) or (sides[1] == n_layers and sides[3] != n_layers)
    theirs = sides[2]
    layers = sides[1] if channels_first else sides[3]
    if layers not in (None, n_layers):
        raise UntrustedFile(f"it takes {sides} (n, size, size, layers), not {n_layers} layers (--layers)")
    if (size or theirs) is None or (size is not None and theirs not in (None, size)):
        raise UntrustedFile(f"it takes stamps of {theirs or 'any'} pixels; give its size (--size)")
    return int(size or theirs or 0), n_layers, channels_first
