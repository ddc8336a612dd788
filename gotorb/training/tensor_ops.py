"""Operations on tensors as layers that can be saved: L2 norms, arithmetic, selections of layers.

Networks of Keras 2 have such operations as ``TFOpLambda`` or as the code of a ``Lambda``. Here each is stored as the
name of an operation of this module with plain constants, so a file contains no code.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gotorb.training.backend import keras

ops = keras.ops
Tensor = Any
ALL_AXES = "all axes"
"""Description of axes that include the axis of the stamps."""
MAX_PADDING = 255
"""Most pixels added on a side."""
MAX_CONSTANTS = 10_000
"""Most characters of the constants of one operation."""
RENAMED = {
    "input_tensor": "x", "input": "x", "tensor": "x", "features": "x", "logits": "x", "a": "x", "b": "y", "inputs": "x",
    "values": "tensors", "clip_value_min": "low", "clip_value_max": "high", "min_value": "low", "max_value": "high",
    "ord": "order", "reduction_indices": "axis", "axes": "axis", "keep_dims": "keepdims", "slice_spec": "key",
    "pattern": "perm", "begin": "start", "dim": "axis", "t": "x", "alpha": "slope",
}  # fmt: skip
"""Name of a parameter in TensorFlow or Keras 2 -> name here."""
IGNORED = ("name", "dtype", "out_type")


def _l2_normalize(x: Tensor, axis: Any = None, epsilon: float = 1e-12) -> Tensor:
    total = ops.sum(ops.square(x), axis=_axes(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(total, epsilon))


def _norm(x: Tensor, order: Any = "euclidean", axis: Any = None, keepdims: bool = False) -> Tensor:
    if order in ("euclidean", "fro", 2):
        return ops.sqrt(ops.sum(ops.square(x), axis=_axes(axis), keepdims=bool(keepdims)))
    if order == 1:
        return ops.sum(ops.abs(x), axis=_axes(axis), keepdims=bool(keepdims))
    if order == math.inf:
        return ops.max(ops.abs(x), axis=_axes(axis), keepdims=bool(keepdims))
    raise ValueError(f"norm of order {order!r}")


def _reducer(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return function(x, axis=_axes(axis), keepdims=bool(keepdims))

    return reduce


def _unary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _binary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return apply


def _axes(axis: Any) -> Any:
    """Checked axes without the axis of the stamps; else a score would depend on the other stamps of its batch."""
    found = tuple(int(one) for one in axis) if isinstance(axis, list | tuple) else axis
    if found is None or found == () or 0 in (found if isinstance(found, tuple) else (found,)):
        raise ValueError(f"an operation over {ALL_AXES}, by which a score depends on the other stamps of its batch")
    return found if isinstance(found, tuple) else int(found)


def _softmax(x: Tensor, axis: Any = -1) -> Tensor:
    return ops.softmax(x, axis=_axes(axis))


def _clip(x: Tensor, low: Any, high: Any) -> Tensor:
    return ops.minimum(ops.maximum(x, -math.inf if low is None else low), math.inf if high is None else high)


def _hard_sigmoid(x: Tensor) -> Tensor:
    """Hard sigmoid of Keras 2 with the slope 0.2, which is 1/6 in Keras 3."""
    return _clip(0.2 * x + 0.5, 0, 1)


def _thresholded_relu(x: Tensor, theta: float = 1.0) -> Tensor:
    return x * ops.cast(x > theta, x.dtype)


def _leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    return ops.maximum(x, 0.0) + slope * ops.minimum(x, 0.0)


def _standardize(x: Tensor) -> Tensor:
    """`tf.image.per_image_standardization`."""
    n = math.prod(int(side) for side in x.shape[1:])
    mean, std = ops.mean(x, axis=(1, 2, 3), keepdims=True), ops.std(x, axis=(1, 2, 3), keepdims=True)
    return (x - mean) / ops.maximum(std, 1 / math.sqrt(n))


def _take(x: Tensor, key: Any) -> Tensor:
    """Apply slices given as lists [start, stop, step]; "..." and None are as in numpy."""
    parts = [slice(*one) if isinstance(one, list) else Ellipsis if one == "..." else one for one in key]
    whole = (slice(None), slice(None, None, 1), Ellipsis)
    if not parts or not any(parts[0] == one for one in whole):
        raise ValueError("a selection among the stamps of a batch")
    return x[tuple(parts)]


def _concat(tensors: Sequence[Tensor], axis: int = -1) -> Tensor:
    return ops.concatenate(list(tensors), axis=_axes(axis))


def _stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    return ops.stack(list(tensors), axis=_axes(axis))


def _reshape(x: Tensor, shape: Any) -> Tensor:
    if int(shape[0]) != -1 or -1 in [int(side) for side in shape[1:]]:
        raise ValueError("a new shape that does not keep the stamps apart")
    return ops.reshape(x, (-1, *(int(side) for side in shape[1:])))


def _transpose(x: Tensor, perm: Any) -> Tensor:
    if int(perm[0]) != 0:
        raise ValueError("a transposition of stamps with their axes")
    return ops.transpose(x, [int(one) for one in perm])


def _pad(x: Tensor, sides: Any, value: float = 0.0) -> Tensor:
    if list(sides[0]) != [0, 0] or any(not 0 <= int(one) <= MAX_PADDING for pair in sides for one in pair):
        raise ValueError(f"padding of {sides}")
    return ops.pad(x, [[int(one) for one in pair] for pair in sides], constant_values=value)


def _to_zero(x: Tensor) -> Tensor:
    return ops.where(ops.isfinite(x), x, ops.zeros_like(x))


def _column(x: Tensor, column: int) -> Tensor:
    return x[:, int(column) : int(column) + 1]


REDUCERS = {"sum": ops.sum, "mean": ops.mean, "max": ops.max, "min": ops.min, "std": ops.std, "variance": ops.var}
UNARY = (
    "abs", "sign", "sqrt", "rsqrt", "square", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "relu", "relu6",
    "softplus", "softsign", "elu", "selu", "silu", "sinh", "arcsinh", "negative", "floor", "isnan", "isfinite",
    "arctan",
)  # fmt: skip
BINARY = {
    "add": ops.add, "subtract": ops.subtract, "multiply": ops.multiply, "divide": ops.true_divide,
    "maximum": ops.maximum, "minimum": ops.minimum, "power": ops.power,
}  # fmt: skip
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    **{name: _unary(getattr(ops, name)) for name in UNARY},
    **{name: _binary(function) for name, function in BINARY.items()},
    **{f"reduce_{name}": _reducer(function) for name, function in REDUCERS.items()},
    "l2_normalize": _l2_normalize, "norm": _norm, "softmax": _softmax, "clip": _clip, "hard_sigmoid": _hard_sigmoid,
    "thresholded_relu": _thresholded_relu, "leaky_relu": _leaky_relu, "getitem": _take, "concat": _concat,
    "stack": _stack, "reshape": _reshape, "transpose": _transpose, "column": _column, "to_zero": _to_zero,
    "pad": _pad,
    "expand_dims": lambda x, axis: ops.expand_dims(x, _axes(axis)),
    "squeeze": lambda x, axis: ops.squeeze(x, _axes(axis)),
    "identity": lambda x: x + 0,
    "zeros_like": lambda x: ops.zeros_like(x),
    "ones_like": lambda x: ops.ones_like(x),
    "cast": lambda x: ops.cast(x, "float32"),
    "where": lambda condition, x, y: ops.where(condition, x, y),
    "reverse_subtract": lambda x, y: y - x,
    "reciprocal": lambda x: 1 / x,
    "standardize": _standardize,
}  # fmt: skip
"""Operations by name; each takes tensors and plain constants."""
ALIASES = {
    "truediv": "divide", "realdiv": "divide", "div": "divide", "divide_no_nan": "divide", "sub": "subtract",
    "mul": "multiply", "neg": "negative", "pow": "power", "clip_by_value": "clip", "sum": "reduce_sum",
    "mean": "reduce_mean", "max": "reduce_max", "min": "reduce_min", "std": "reduce_std", "var": "reduce_variance",
    "reduce_euclidean_norm": "norm", "concatenate": "concat", "permute_dimensions": "transpose", "is_nan": "isnan",
    "is_finite": "isfinite", "asinh": "arcsinh", "atan": "arctan", "swish": "silu", "stop_gradient": "identity",
    "reshape_v2": "reshape", "subtract_v2": "subtract", "l2_normalize_v2": "l2_normalize", "pow_v2": "power",
    "where_v2": "where", "strided_slice": "getitem", "_slice_helper": "getitem", "norm_v2": "norm",
    "per_image_standardization": "standardize", "convert_to_tensor": "identity", "concat_v2": "concat",
}  # fmt: skip
"""Other names of operations in TensorFlow and Keras 2."""


@keras.saving.register_keras_serializable("gotorb")
class TensorOperation(keras.layers.Layer):
    """One operation of `OPERATIONS` on one or more tensors.

    Parameters
    ----------
    operation : str
        Key of `OPERATIONS`.
    tensors : list of str
        Parameters of the operation that are tensors, in the order of the layer's inputs.
    constants : str
        json of the other parameters; as text, because Keras changes lists when it reads a file.
    **options
        Options of `keras.layers.Layer`.
    """

    def __init__(self, operation: str, tensors: Sequence[str] = ("x",), constants: str = "{}", **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(operation, str):  # Keras passes its own function of that name when it reads an h5 file
            operation = str(getattr(operation, "__name__", ""))
        if operation not in OPERATIONS:
            raise ValueError(f"no operation {operation!r}")
        if len(constants) > MAX_CONSTANTS:
            raise ValueError(f"an operation with {len(constants)} characters of constants")
        self.operation, self.tensors, self.constants = operation, list(tensors), constants
        self.given: dict[str, Any] = json.loads(constants)

    def get_config(self) -> dict[str, Any]:
        """Options of the layer, for saving.

        Returns
        -------
        dict
        """
        known = {"operation": self.operation, "tensors": list(self.tensors), "constants": self.constants}
        return {**super().get_config(), **known}

    def call(self, inputs: Any) -> Any:
        """Apply the operation.

        Parameters
        ----------
        inputs : keras.KerasTensor or list of these
            Tensors, in the order of `tensors`.

        Returns
        -------
        keras.KerasTensor
        """
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if "tensors" in self.tensors:
            return OPERATIONS[self.operation](tensors=given, **self.given)
        return OPERATIONS[self.operation](**dict(zip(self.tensors, given, strict=True)), **self.given)


def apply_operation(
    function: str, arguments: Sequence[Any], options: Mapping[str, Any], *, is_tensor: Callable[[Any], bool], name: str
) -> Any:
    """Apply a function of TensorFlow or Keras 2 to tensors and constants, as a `TensorOperation`.

    Parameters
    ----------
    function : str
        Name with or without module: ``math.l2_normalize``, ``__operators__.add``, ``K.sum``.
    arguments, options : sequence, mapping
        Arguments of the call; lists of tensors are allowed if the function takes them.
    is_tensor : callable
        Test for a tensor.
    name : str
        Name of the layer.

    Returns
    -------
    tensor
        Output of the layer.

    Raises
    ------
    ValueError
        If there is no such operation, or it mixes stamps, or an argument is not plain.
    """
    short = function.rsplit(".", 1)[-1]
    operation = ALIASES.get(short, short)
    if operation not in OPERATIONS:
        raise ValueError(f"no counterpart of {function!r}")
    options = {RENAMED.get(key, key): value for key, value in options.items() if key not in IGNORED}
    bound = _bind(operation, arguments, options)
    tensors = {key: value for key, value in bound.items() if _holds_tensor(value, is_tensor)}
    inputs = list(tensors["tensors"] if "tensors" in tensors else tensors.values())
    constants = {key: to_plain(value) for key, value in bound.items() if key not in tensors}
    layer = TensorOperation(operation, list(tensors), json.dumps(constants), name=name)
    return layer(inputs if len(inputs) > 1 or "tensors" in tensors else inputs[0])


def _bind(operation: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operation's parameters."""
    signature = inspect.signature(OPERATIONS[operation])
    if next(iter(signature.parameters)) == "tensors" and arguments and not isinstance(arguments[0], list | tuple):
        arguments = [list(arguments)]
    if operation == "cast":
        arguments = arguments[:1]
    if operation == "norm" and arguments[1:] and "axis" not in options and len(arguments) == 2:
        arguments, options = arguments[:1], {**options, "order": arguments[1]}
    try:
        return dict(signature.bind(*arguments, **options).arguments)
    except TypeError as error:
        raise ValueError(f"{operation} {error}") from None


def _holds_tensor(value: Any, is_tensor: Callable[[Any], bool]) -> bool:
    return is_tensor(value) or (isinstance(value, list | tuple) and any(map(is_tensor, value)))


def to_plain(value: Any) -> Any:
    """Convert a constant for json: lists for tuples, and [start, stop, step] for slices.

    Parameters
    ----------
    value : object
        Constant.

    Returns
    -------
    object
        Plain value.

    Raises
    ------
    ValueError
        If it is of another type.
    """
    if isinstance(value, dict) and set(value) == {"start", "stop", "step"}:  # format of slices in Keras 2
        return [to_plain(value[key]) for key in ("start", "stop", "step")]
    if isinstance(value, slice):
        return [to_plain(one) for one in (value.start, value.stop, value.step)]
    if value is Ellipsis or (isinstance(value, dict) and value.get("class_name") == "__ellipsis__"):
        return "..."
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a constant of the kind {type(value).__name__}")
