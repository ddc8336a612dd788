"""Networks of others as ONNX files and SavedModels: they score as they did there, or are refused."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gotorb import classifier, models
from gotorb.errors import ModelError
from gotorb.models import find_model
from gotorb.training import onnx_graph
from tests.model.blobs import make_blobs

onnx = pytest.importorskip("onnx", reason="gotorb[onnx] is not installed")
pytest.importorskip("tf2onnx", reason="gotorb[onnx] is not installed")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
L = keras.layers
LAYERS = ("science", "template", "difference")
SHAPE = (24, 24, 3)
LIMIT_S, LIMIT_BYTES = 5.0, 1 << 30


def plain(x: Any) -> Any:
    x = L.MaxPooling2D(2)(L.Conv2D(4, 3, activation="relu", padding="same")(x))
    x = L.Conv2D(6, 3, strides=2)(x)
    return L.Dense(8, activation="tanh")(L.Flatten()(x))


def separable(x: Any) -> Any:
    x = L.LeakyReLU(negative_slope=0.2)(L.SeparableConv2D(5, 3)(L.ZeroPadding2D(2)(x)))
    x = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)
    return L.GlobalAveragePooling2D()(L.AveragePooling2D(2)(x))


def normalised(x: Any) -> Any:
    x = L.UnitNormalization(axis=-1)(L.Rescaling(0.1, offset=0.5)(x))
    x = L.BatchNormalization(beta_initializer="ones", moving_variance_initializer=keras.initializers.Constant(3))(x)
    branches = [L.ELU()(L.Conv2D(3, 1)(x)), L.Activation("softplus")(L.Conv2D(2, 1)(x))]
    x = L.Concatenate()(branches)
    return L.BatchNormalization()(L.Dense(7)(L.GlobalMaxPooling2D()(x)))


BODIES = {"plain": plain, "separable": separable, "normalised": normalised}


def make_network(body: str, end: str = "sigmoid") -> keras.Model:
    keras.utils.set_random_seed(3)
    stamps = keras.Input(SHAPE, name="stamps")
    units = 2 if end == "softmax" else 1
    return keras.Model(stamps, L.Dense(units, activation=end)(BODIES[body](stamps)), name="theirs")


def write(model: keras.Model, kind: str, folder: Path) -> Path:
    if kind == "export":
        model.export(folder / "saved", verbose=False)
        return folder / "saved"
    if kind == "saved":
        served = tf.function(lambda x: {"p": model(x)}, input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])
        tf.saved_model.save(model, str(folder / "saved"), signatures={"serving_default": served})
        return folder / "saved"
    from tf2onnx.convert import from_keras

    spec = [tf.TensorSpec((None, *SHAPE), tf.float32, name="stamps")]
    from_keras(model, input_signature=spec, opset=17, output_path=str(folder / "theirs.onnx"))
    return folder / "theirs.onnx"


def stamps(n: int = 7) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 9, (n, *SHAPE)).astype(np.float32)


def bring(path: Path, folder: Path, **options: Any) -> keras.Model:
    given = {"name": "theirs", "layers": LAYERS, "out_dir": folder / "models", "registry": False} | options
    return find_model(models.import_model(path, **given)).model


QUICK = [*((body, "onnx") for body in BODIES), ("separable", "export"), ("normalised", "saved")]
"""Each body, and each kind of file; the other pairs go the same ways."""
PAIRS = [(body, kind) for body in BODIES for kind in ("onnx", "export", "saved")]


@pytest.mark.parametrize(
    ("body", "kind"), [pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]
)
def test_scores_are_those_of_the_network(body: str, kind: str, tmp_path: Path) -> None:
    network = make_network(body)
    expected = network.predict(stamps(), verbose=0)[:, 0]
    np.savez(tmp_path / "reference.npz", x=stamps(), p=expected)
    found = bring(write(network, kind, tmp_path), tmp_path, reference=tmp_path / "reference.npz")
    assert np.abs(found.predict(stamps(), verbose=0)[:, 0] - expected).max() < 1e-5


@pytest.mark.parametrize("end", ["softmax", "linear"])
def test_columns_and_logits_are_declared(end: str, tmp_path: Path) -> None:
    network = make_network("plain", end)
    path = write(network, "onnx", tmp_path)
    with pytest.raises(ModelError, match="--"):
        bring(path, tmp_path)
    declared = {"real_column": 1} if end == "softmax" else {"logits": True}
    raw = network.predict(stamps(), verbose=0)
    expected = raw[:, 1] if end == "softmax" else 1 / (1 + np.exp(-raw[:, 0]))
    assert np.abs(bring(path, tmp_path, **declared).predict(stamps(), verbose=0)[:, 0] - expected).max() < 1e-5


def channels_first() -> Any:
    """A file as PyTorch writes it: channels second, flattened to a shape that it works out."""
    rng = np.random.default_rng(4)
    weights = {
        "k1": rng.normal(0, 0.1, (4, 3, 3, 3)), "b1": rng.normal(size=4), "k2": rng.normal(0, 0.1, (5, 4, 3, 3)),
        "scale": rng.uniform(1, 2, 5), "shift": rng.normal(size=5), "mean": rng.normal(size=5),
        "var": rng.uniform(1, 2, 5), "dense": rng.normal(0, 0.1, (6, 180)), "bias": rng.normal(size=6),
        "last": rng.normal(0, 0.3, (6, 1)), "end": rng.normal(size=1),
    }  # fmt: skip
    whole = {"zero": np.array(0, np.int64), "axes": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    nodes = [
        ("Conv", ["x", "k1", "b1"], "c1", {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}), ("Relu", ["c1"], "r1", {}),
        ("MaxPool", ["r1"], "p1", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Conv", ["p1", "k2"], "c2", {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("BatchNormalization", ["c2", "scale", "shift", "mean", "var"], "n2", {"epsilon": 1e-4}),
        ("LeakyRelu", ["n2"], "r2", {"alpha": 0.1}), ("Shape", ["r2"], "s", {}), ("Gather", ["s", "zero"], "g", {}),
        ("Unsqueeze", ["g", "axes"], "u", {}), ("Concat", ["u", "rest"], "shape", {"axis": 0}),
        ("Reshape", ["r2", "shape"], "flat", {}), ("Gemm", ["flat", "dense", "bias"], "d", {"transB": 1}),
        ("Clip", ["d", "", "six"], "clipped", {}), ("MatMul", ["clipped", "last"], "m", {}),
        ("Add", ["m", "end"], "logit", {}), ("Sigmoid", ["logit"], "score", {}),
    ]  # fmt: skip
    stored = [numpy_helper.from_array(one.astype(np.float32), name) for name, one in weights.items()]
    stored += [numpy_helper.from_array(one, name) for name, one in whole.items()]
    stored.append(numpy_helper.from_array(np.array(6, np.float32), "six"))
    graph = helper.make_graph(
        [helper.make_node(kind, names, [out], **given) for kind, names, out, given in nodes], "torch",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 24, 24])],
        [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["n", 1])], stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
def test_arithmetic_survives_saving(kind: str, tmp_path: Path) -> None:
    model = channels_first()
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([[2.0, 3.0, 1.5, 2.5, 1.0, 2.0]], np.float32), "by"))
    graph.node.insert(13, helper.make_node("Abs", ["clipped"], ["size"]))
    graph.node.insert(14, helper.make_node(kind, ["size", "by"], ["calculated"]))
    graph.node[15].input[0] = "calculated"
    check_channels_first(model, tmp_path)


def check_channels_first(model: Any, folder: Path) -> None:
    import onnxruntime

    onnx.save(model, folder / "torch.onnx")
    session = onnxruntime.InferenceSession(str(folder / "torch.onnx"))
    (expected,) = session.run(None, {"x": np.moveaxis(stamps(), -1, 1)})
    found = bring(folder / "torch.onnx", folder).predict(stamps(), verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_channels_may_come_first(tmp_path: Path) -> None:
    check_channels_first(channels_first(), tmp_path)


def test_imported_networks_are_fine_tuned(tmp_path: Path) -> None:
    data = make_blobs(tmp_path / "data", n=120, size=24)
    bring(write(make_network("plain"), "export", tmp_path), tmp_path)
    before = find_model(tmp_path / "models" / "theirs").model
    tuned, meta = classifier.train(data, layers=LAYERS, init_from=tmp_path / "models" / "theirs", epochs=1)
    assert meta["parent"]["name"] == "theirs" and tuned.count_params() == before.count_params()
    moved = [np.abs(a - b).max() for a, b in zip(before.get_weights(), tuned.get_weights(), strict=True)]
    assert max(moved) > 0


# --- files that are made to do harm ----------------------------------------------------------------


def change(edit: Callable[[Any], Any]) -> bytes:
    model = channels_first()
    return edit(model) or model.SerializeToString()


def outside(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"


def declared(model: Any) -> None:
    model.graph.initializer[0].dims[:] = [100_000, 100_000, 3, 3]


def unknown(kind: str, *inputs: str, **given: Any) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        model.graph.node.insert(0, helper.make_node(kind, inputs or ["x"], ["y"], **given))
        model.graph.node[1].input[0] = "y"

    return edit


def many_nodes(model: Any) -> bytes:
    return model.SerializeToString() + b"\x3a\x80\x89\x7a" + b"\x0a\x00" * 1_000_000  # a graph of a million operators


def shaped(model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([40_000, 40_000], np.int64), "huge"))
    unknown("ConstantOfShape", "huge")(model)


def padded(model: Any) -> None:
    next(one for one in model.graph.node[0].attribute if one.name == "pads").ints[:] = [10**9] * 4


def circle(model: Any) -> None:
    model.graph.node[0].input[0] = "score"


def stretched(model: Any) -> None:
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = 10**6


FILES: dict[str, Callable[[Any], Any]] = {
    "weights in another file": outside, "more declared than stored": declared, "a million operators": many_nodes,
    "a constant of a huge shape": shaped, "padding": padded, "a circle": circle, "huge stamps": stretched,
    "a subgraph": unknown("If", "x"), "another domain": unknown("Relu", domain="evil.org"),
    "a loop": unknown("Loop", "x"), "a random operator": unknown("RandomNormalLike"),
    "no file": lambda model: b"not an onnx file", "nothing": lambda model: b"\x00",
    "cut": lambda model: model.SerializeToString()[:-400], "a number without end": lambda model: b"\xff" * 4_000_000,
    "nested groups": lambda model: b"\x3b" * 1_000_000,
}  # fmt: skip


def check_refused(work: Callable[[], Any]) -> None:
    """A file is refused within the limits."""
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(ModelError, match="cannot be imported"):
        work()
    assert time.process_time() - begun < LIMIT_S
    assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    tracemalloc.stop()


@pytest.mark.parametrize("kind", FILES)
def test_hostile_onnx_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.onnx"
    path.write_bytes(change(FILES[kind]))
    check_refused(lambda: bring(path, tmp_path))
    assert not (tmp_path / "models").exists()


class Evil(tf.Module):
    """A SavedModel whose signature reaches out."""

    def __init__(self, kind: str, folder: Path) -> None:
        super().__init__()
        self.kind, self.mark = kind, str(folder / "mark")
        if kind == "table":
            (folder / "words.txt").write_text("a\nb\n")
            made = tf.lookup.TextFileInitializer(
                str(folder / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            )  # fmt: skip
            self.table = tf.lookup.StaticHashTable(made, -1)

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.float32)])
    def serve(self, x: Any) -> Any:
        if self.kind == "read":
            size = tf.strings.length(tf.io.read_file("/etc/passwd"))
        elif self.kind == "write":
            tf.io.write_file(self.mark, "was here")
            size = 1
        elif self.kind == "python":
            size = tf.py_function(lambda: Path(self.mark).mkdir() or 1.0, [], tf.float32)
        elif self.kind == "print":
            tf.print("here")
            size = 1
        else:
            size = self.table.lookup(tf.constant("a"))
        return tf.sigmoid(tf.reduce_mean(x, axis=(1, 2, 3), keepdims=False))[:, None] * tf.cast(size, tf.float32)


@pytest.mark.parametrize("kind", ["read", "write", "python", "print", "table"])
def test_saved_models_that_reach_out_are_refused(kind: str, tmp_path: Path) -> None:
    tf.saved_model.save(Evil(kind, tmp_path), str(tmp_path / "evil"))
    check_refused(lambda: bring(tmp_path / "evil", tmp_path))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["link", "broken", "no signature"])
def test_saved_models_that_are_none_are_refused(kind: str, tmp_path: Path) -> None:
    folder = write(make_network("plain"), "export", tmp_path)
    if kind == "link":
        (folder / "variables" / "more").symlink_to("/etc")
    elif kind == "broken":
        (folder / onnx_graph.GRAPH_FILE).write_bytes(b"\x0a\xff")
    else:
        tf.saved_model.save(make_network("plain"), str(folder), signatures={})
    check_refused(lambda: bring(folder, tmp_path))


def message(number: int, content: bytes) -> bytes:
    """A field of a message of Protocol Buffers that holds another one."""
    size, length = len(content), b""
    while size > 127:
        size, length = size >> 7, length + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


EMPTY = 1_000_000
PARTS = {
    "graphs": message(2, b"") * EMPTY,
    "operations": message(2, message(2, message(1, b"") * EMPTY)),
    "functions": message(2, message(2, message(2, message(1, b"") * EMPTY))),
    "objects": message(2, message(7, message(1, b"") * EMPTY)),
}
"""Small files of very many parts."""


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", PARTS)
def test_saved_models_of_many_parts_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / onnx_graph.GRAPH_FILE).write_bytes(PARTS[kind])
    begun = time.process_time()
    with pytest.raises(ModelError, match="more than 16 graphs"):
        bring(tmp_path, tmp_path / "out")
    assert time.process_time() - begun < LIMIT_S
