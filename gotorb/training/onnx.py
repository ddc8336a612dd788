"""ONNX files: models exported for plain scores, and scored by onnxruntime without TensorFlow.

Reading and scoring need neither Keras nor TensorFlow. The file includes trees and their calibration; their features are
measured here and are its second input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotorb import __version__
from gotorb.core import layout
from gotorb.core.files import whole_file
from gotorb.core.params import BATCH_SIZE
from gotorb.errors import ConfigError, ModelError
from gotorb.features import FeatureSet
from gotorb.stamps.batches import Stamps, check_scores, cut_batches
from gotorb.training.measured import (
    LOGIT_CLIP,
    SCORE_CLIP,
    SOFTEN,
    TREES_LOGIT,
    Fusion,
    OnFeatures,
    describe_features,
    read_features,
)

if TYPE_CHECKING:
    import keras

    from gotorb.training.trees import Trees

N_THREADS = 2
MAX_INPUT = 2**20
"""Most values of a stamp that a file may declare."""
MAX_BYTES = 1 << 29
EXTERNAL = b"\x0a\x08location"
"""Bytes of an ONNX file that name another file with the data of a tensor."""
OPSET = 18
"""Version of ONNX's operators, supported by onnxruntime from 1.15."""
IR_VERSION = 8
FEATURES = "features"
"""Name of the input for features of trees, and key of their description."""
TREES_DOMAIN, TREES_OPSET = "ai.onnx.ml", 3
N_TRIED, TOLERANCE = 16, 1e-5


@dataclass(frozen=True)
class PortableModel:
    """An exported model, ready to score.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        Session of the file.
    about : dict of str
        Description of the original model, by `layout.ONNX_KEYS`.
    features : FeatureSet or None
        Features of its trees; None for a network.
    """

    session: Any
    about: dict[str, str]
    features: FeatureSet | None = None

    @property
    def name(self) -> str:
        """Name of the original model."""
        return self.about["name"]

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the stamps, in their order."""
        return tuple(self.about["layers"].split(","))

    @property
    def threshold(self) -> float:
        """Score at or above which a detection is called real."""
        return float(self.about["threshold"])

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(None, size, size, n_layers), as Keras gives it."""
        size = int(self.about["stamp_size"])
        return None, size, size, len(self.layers)

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Score stamps.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int
            Stamps scored at a time.

        Returns
        -------
        ndarray
            (n,) float32, between 0 and 1.

        Raises
        ------
        DataError
            If a stamp is not finite.
        ModelError
            If the stamps' shape is not the model's.
        """
        batches = cut_batches(stamps, batch_size, shape=self.input_shape[1:], name=self.name)
        parts = [self.session.run(None, self._inputs(batch))[0][:, 0] for batch in batches]
        return check_scores(np.concatenate(parts) if parts else np.empty(0, np.float32), name=self.name)

    def _inputs(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the file for a batch: stamps, their features, or both."""
        known = {layout.ONNX_INPUT: batch}
        if self.features is not None:
            known[FEATURES] = self.features.measure(batch)
        return {end.name: known[end.name] for end in self.session.get_inputs()}


def read_portable(path: Path | str, *, threads: int = N_THREADS) -> PortableModel:
    """Read a file made by ``gotorb export``.

    Parameters
    ----------
    path : path
        ONNX file.
    threads : int
        CPU threads for scoring.

    Returns
    -------
    PortableModel

    Raises
    ------
    ConfigError
        If onnxruntime is not installed.
    ModelError
        If the file is missing, broken, not one of ours, or declares stamps too large.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no {path}; make it with `gotorb export MODEL --out {path.name}`")
    onnxruntime = _runtime(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        # from bytes, so that the runtime cannot open other files that it names
        content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
        _check_bytes(content)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        about = dict(session.get_modelmeta().custom_metadata_map)
        features = read_features(json.loads(about[FEATURES])) if FEATURES in about else None
        _check(session, about, features)
    except Exception as error:  # onnxruntime raises many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} cannot be used as an exported model ({reason}); export the model again") from None
    return PortableModel(session, about, features)


def _runtime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f"{path} needs onnxruntime, which is not installed; pip install 'gotorb[onnx]'") from None
    return onnxruntime


def _check_bytes(content: bytes) -> None:
    """Refuse weights in other files, which the runtime would look for in the current folder."""
    if not content:
        raise ValueError(f"it is empty or larger than {MAX_BYTES} bytes")
    if EXTERNAL in content:
        raise ValueError("its weights are in other files")


def _check(session: Any, about: dict[str, str], features: FeatureSet | None) -> None:
    """Refuse a file whose inputs and outputs differ from its description, before any stamp is read."""
    absent = [key for key in layout.ONNX_KEYS if key not in about]
    if absent:
        raise ValueError(f"it does not name its {absent[0]}")
    size, n_layers = int(about["stamp_size"]), len(about["layers"].split(","))
    float(about["threshold"])
    ends = [
        [(end.name, end.type, end.shape[1:]) for end in some()] for some in (session.get_inputs, session.get_outputs)
    ]
    takes = [(layout.ONNX_INPUT, "tensor(float)", [size, size, n_layers])]
    if features is not None:
        takes.append((FEATURES, "tensor(float)", [len(features.names)]))
        if (features.size, ",".join(features.layers)) != (size, about["layers"]):
            raise ValueError(f"its features are of {features.size} pixels in the layers {', '.join(features.layers)}")
    if ends[0] != takes and (features is None or ends[0] != takes[1:]):
        raise ValueError(f"it takes {ends[0]}, not stamps of {size} x {size} pixels in {n_layers} layers")
    if [end[1:] for end in ends[1]] != [("tensor(float)", [1])]:
        raise ValueError(f"it gives {ends[1]}, not one score for a stamp")
    if size * size * n_layers > MAX_INPUT:
        raise ValueError(f"it declares stamps of {size * size * n_layers} values, more than {MAX_INPUT}")


def export_onnx(model: keras.Model | OnFeatures, path: Path, about: Mapping[str, str]) -> Path:
    """Write a model as ONNX without dropout, with the normalisation of stamps.

    The file is tested on random stamps, and not written if its scores differ from the model's.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion
        Model; a network has one sigmoid output.
    path : Path
        File, ``*.onnx``. Its inputs are ``stamps (n, size, size, n_layers)`` float32, for trees ``features (n,
        n_features)`` float32 of `gotorb.features`, or both; its output is scores (n, 1).
    about : mapping
        Description of the model, by `layout.ONNX_KEYS`, kept in the file.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ConfigError
        If onnxruntime or tf2onnx is not installed.
    ModelError
        If the model cannot be converted.
    """
    if isinstance(model, OnFeatures):
        about = {**about, FEATURES: json.dumps(describe_features(model.forest.features))}
        content = _describe(_add_trees(model, path), about)
    else:
        content = _describe(_convert(model, path), about)
    with whole_file(path) as part:
        part.write_bytes(content)
        _try(model, part)
    return path


def _converter(path: Path) -> Any:
    try:
        import onnxruntime  # noqa: F401
        from tf2onnx.convert import from_keras
    except ImportError as error:
        raise ConfigError(f"{path} needs {error.name}, which is not installed; pip install 'gotorb[onnx]'") from None
    return from_keras


def _convert(model: keras.Model, path: Path) -> Any:
    from_keras = _converter(path)
    from gotorb.training.backend import tf

    stamps = tf.TensorSpec(model.input_shape, tf.float32, name=layout.ONNX_INPUT)
    try:
        return from_keras(
            model, input_signature=[stamps], opset=OPSET, custom_op_handlers={"Log1p": (_write_log1p, [])}
        )[0]
    except Exception as error:  # tf2onnx raises almost any type
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"model {model.name!r} cannot be written as ONNX ({reason}); use layers that tf2onnx supports"
        ) from None


def _add_trees(model: OnFeatures, path: Path) -> Any:
    """Trees and their calibration as a graph, after the network of a fusion; see `Fusion.logits`."""
    _converter(path)
    from onnx import TensorProto, helper

    graph, measured = _Steps(), model.forest
    mean = graph.add("TreeEnsembleRegressor", FEATURES, domain=TREES_DOMAIN, **_tree_arrays(measured.trees))
    soft = graph.scale(graph.add("Cast", mean, to=TensorProto.DOUBLE), 1 - 2 * SOFTEN, SOFTEN)
    logit = graph.scale(graph.odds(soft), TREES_LOGIT, 0.0)
    features = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["n", len(measured.features.names)])
    if isinstance(model, Fusion):
        if model.orientations > 1:
            raise ModelError(
                f"{model.name} averages over {model.orientations} orientations, which cannot be exported; train with "
                "orientations=1"
            )
        network = _convert(model.network.model, path)
        score = graph.add("Cast", network.graph.output[0].name, to=TensorProto.DOUBLE)
        own = graph.odds(graph.clip(score, SCORE_CLIP, 1 - SCORE_CLIP))
        logit = graph.add("Add", graph.scale(own, model.weight, 0.0), graph.scale(logit, 1 - model.weight, 0.0))
    else:
        empty = helper.make_graph([], measured.name, [], [])
        network = helper.make_model(empty, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    logit = graph.scale(logit, model.calibration.slope, model.calibration.offset)
    score = graph.add("Sigmoid", graph.add("Cast", graph.clip(logit, -LOGIT_CLIP, LOGIT_CLIP), to=TensorProto.FLOAT))
    network.opset_import.append(helper.make_opsetid(TREES_DOMAIN, TREES_OPSET))
    network.graph.input.append(features)
    network.graph.node.extend(graph.nodes)
    network.graph.initializer.extend(graph.constants)
    del network.graph.output[:]
    network.graph.output.append(helper.make_tensor_value_info(score, TensorProto.FLOAT, ["n", 1]))
    return network


class _Steps:
    """Nodes of an ONNX graph, added in sequence, with numbers in double precision."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, **options: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = f"gotorb_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **options))
        return name

    def number(self, value: float) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"gotorb_number_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float64), name))
        return name

    def scale(self, what: str, factor: float, offset: float) -> str:
        """Factor times value plus offset."""
        return self.add("Add", self.add("Mul", what, self.number(factor)), self.number(offset))

    def clip(self, what: str, low: float, high: float) -> str:
        """Value between two limits."""
        return self.add("Clip", what, self.number(low), self.number(high))

    def odds(self, what: str) -> str:
        """Logit of a probability."""
        return self.add("Log", self.add("Div", what, self.add("Sub", self.number(1.0), what)))


def _tree_arrays(trees: Trees) -> dict[str, Any]:
    """Options of ONNX's operator for a forest, with an entry for each node, then for each leaf."""
    node = np.arange(len(trees.feature))
    tree = np.searchsorted(trees.roots, node, side="right") - 1
    own = node - trees.roots[tree]
    leaf = (trees.left == node) & (trees.right == node)
    child = {name: np.where(leaf, 0, getattr(trees, side) - trees.roots[tree]) for name, side in
             (("true", "left"), ("false", "right"))}  # fmt: skip
    return {
        "n_targets": 1, "aggregate_function": "AVERAGE", "post_transform": "NONE",
        "nodes_treeids": tree.tolist(), "nodes_nodeids": own.tolist(), "nodes_featureids": trees.feature.tolist(),
        "nodes_values": trees.threshold.tolist(), "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": child["true"].tolist(), "nodes_falsenodeids": child["false"].tolist(),
        "target_treeids": tree[leaf].tolist(), "target_nodeids": own[leaf].tolist(),
        "target_ids": [0] * int(leaf.sum()), "target_weights": trees.value[leaf].tolist(),
    }  # fmt: skip


def _write_log1p(graph: Any, node: Any, name: str, _: list) -> None:
    """Write log(1 + x), for which ONNX has no operator, as two nodes (called by tf2onnx)."""
    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    above = graph.make_node("Add", [node.input[0], one]).output[0]
    graph.remove_node(name)
    graph.make_node("Log", [above], name=name, outputs=node.output)


def _describe(network: Any, about: Mapping[str, str]) -> bytes:
    """Serialise a converted network, with any number of stamps as input and a description of the original model."""
    graph = network.graph
    for end in (*graph.input, graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "n"
    graph.name, network.producer_name, network.producer_version = about["name"], "gotorb", __version__
    del network.metadata_props[:]
    for key in (*layout.ONNX_KEYS, *([FEATURES] if FEATURES in about else [])):
        network.metadata_props.add(key=key, value=about[key])
    return network.SerializeToString(deterministic=True)


def _try(model: keras.Model | OnFeatures, path: Path) -> None:
    """Refuse a file whose scores of random stamps differ from the model's."""
    from gotorb.training.inference import score_stamps

    stamps = np.random.default_rng(0).normal(0, 9, (N_TRIED, *model.input_shape[1:])).astype(np.float32)
    stamps[0] = 0
    difference = float(np.abs(read_portable(path).score(stamps) - score_stamps(model, stamps)).max())
    if not difference <= TOLERANCE:
        raise ModelError(
            f"scores of model {model.name!r} as ONNX differ by {difference:.2g}; use layers that tf2onnx supports"
        )
