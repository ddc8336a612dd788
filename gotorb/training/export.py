"""Plain scores without TensorFlow: a network written as an ONNX file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gotorb import __version__, layout
from gotorb.errors import ConfigError, ModelError
from gotorb.portable import read_portable
from gotorb.training.files import replace_file
from gotorb.training.scoring import score_stamps

OPSET = 18
"""Version of ONNX's operators; onnxruntime reads it since 1.15."""
N_TRIED, TOLERANCE = 16, 1e-5


def export_onnx(model: keras.Model, path: Path, about: Mapping[str, str]) -> Path:
    """Write a network as ONNX, dropout off, the normalisation of stamps included; the same bytes for the same network.

    The file is tried on random stamps and not written when its scores are not the network's.

    Parameters
    ----------
    model : keras.Model
        With one sigmoid output.
    path : Path
        The file, ``*.onnx``. It takes ``stamps (n, size, size, n_layers)`` float32 and gives scores (n, 1).
    about : mapping
        What the file says of the model, by `layout.ONNX_KEYS`.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ConfigError
        If what converts is not installed.
    ModelError
        If the network cannot be converted.
    """
    network = _settle(_convert(model, path), about)

    def write(part: Path) -> None:
        part.write_bytes(network.SerializeToString(deterministic=True))
        _try(model, part)

    path.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(path, write)


def _convert(model: keras.Model, path: Path) -> Any:
    try:
        import onnxruntime  # noqa: F401
        from tf2onnx.convert import from_keras
    except ImportError as error:
        raise ConfigError(f"{path} needs {error.name}, which is not installed; pip install 'gotorb[onnx]'") from None
    stamps = tf.TensorSpec(model.input_shape, tf.float32, name=layout.ONNX_INPUT)
    try:
        return from_keras(
            model, input_signature=[stamps], opset=OPSET, custom_op_handlers={"Log1p": (_write_log1p, [])}
        )[0]
    except Exception as error:  # tf2onnx raises almost any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"model {model.name!r} cannot be written as ONNX ({reason}); use layers that tf2onnx knows"
        ) from None


def _write_log1p(graph: Any, node: Any, name: str, _: list) -> None:
    """Put log(1 + x) in the place of what ONNX has no operator for (called by tf2onnx)."""
    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    above = graph.make_node("Add", [node.input[0], one]).output[0]
    graph.remove_node(name)
    graph.make_node("Log", [above], name=name, outputs=node.output)


def _settle(network: Any, about: Mapping[str, str]) -> Any:
    """Order nodes as the data flows and number all names: Keras and tf2onnx count theirs up within a process."""
    graph = network.graph
    nodes = list(_in_order(graph))
    constants = {one.name: one for one in graph.initializer}
    used = list(dict.fromkeys(name for node in nodes for name in node.input if name in constants))
    names = {layout.ONNX_INPUT: layout.ONNX_INPUT, graph.output[0].name: "score"}
    names |= {name: f"constant_{number}" for number, name in enumerate(used)}
    for node in nodes:
        names |= {name: f"value_{len(names)}" for name in node.output if name not in names}
        node.name, node.doc_string = "", ""
        attributes = sorted(node.attribute, key=lambda one: one.name)
        _replace(node.attribute, attributes)
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    kept = [constants[name] for name in used]
    for one in (*kept, graph.output[0]):
        one.name = names[one.name]
    _replace(graph.node, nodes)
    _replace(graph.initializer, kept)
    del graph.value_info[:]
    for end in (graph.input[0], graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "n"
    _replace(network.opset_import, sorted((one for one in network.opset_import if not one.domain), key=str))
    graph.name, graph.doc_string = about["name"], ""
    network.producer_name, network.producer_version, network.doc_string = "gotorb", __version__, ""
    del network.metadata_props[:]
    for key in layout.ONNX_KEYS:
        network.metadata_props.add(key=key, value=about[key])
    return network


def _replace(repeated: Any, items: list[Any]) -> None:
    """Put other items into a repeated field of a protobuf message."""
    copies = [type(one)() for one in items]
    for copy, one in zip(copies, items, strict=True):
        copy.CopyFrom(one)
    del repeated[:]
    repeated.extend(copies)


def _in_order(graph: Any) -> Iterator[Any]:
    """Nodes that the output needs, each after those that feed it; the output alone decides the order."""
    maker = {name: node for node in graph.node for name in node.output}
    done: set[int] = set()
    waiting = [maker[graph.output[0].name]]
    while waiting:
        node = waiting[-1]
        feeds = [maker[name] for name in node.input if name in maker and id(maker[name]) not in done]
        if feeds:
            waiting.append(feeds[0])
            continue
        waiting.pop()
        if id(node) not in done:
            done.add(id(node))
            yield node


def _try(model: keras.Model, path: Path) -> None:
    """Refuse a file whose scores of a few stamps are not the network's."""
    stamps = np.random.default_rng(0).normal(0, 9, (N_TRIED, *model.input_shape[1:])).astype(np.float32)
    stamps[0] = 0
    difference = float(np.abs(read_portable(path).score(stamps) - score_stamps(model, stamps)).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"model {model.name!r} as ONNX gives scores that differ by {difference:.2g}, so it is not written; "
            "use layers that tf2onnx knows"
        )
