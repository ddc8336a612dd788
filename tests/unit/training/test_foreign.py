"""Networks of others: files of Keras 2 score as they did there, or are refused with the layer's name.

The files in keras2.zip were written by tf_keras 2.21, which is Keras 2, with the scores that it gave to three stamps.
"""

import base64
import gzip
import json
import os
import shutil
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from gotorb import models
from gotorb.errors import ConfigError, ModelError
from gotorb.models import find_model
from gotorb.training import importing
from gotorb.training.foreign import Foreign, finish, read_foreign
from gotorb.training.lambda_code import Unreadable, follow, read_code

PACK = Path(__file__).with_name("keras2.zip")
LAYERS = ("science", "template", "difference")
SHAPE = (20, 20, 3)
REFUSED = {
    "custom": "my", "bn_train": "batch_normalization", "l2_all": "tf.math.l2_normalize", "lam_evil": "lambda",
    "lam_global": "lambda",
}  # fmt: skip
"""Files with a layer that is refused, and its name."""
REAL_DATA = os.environ.get("GOTORB_TEST_DATA", "")
CASES = Path(REAL_DATA or "none").parent / "cases" / "ml"
BRAAI = CASES / "braai_d6_m9.h5"


def names() -> list[str]:
    with zipfile.ZipFile(PACK) as pack:
        return sorted(name.removesuffix(".h5") for name in pack.namelist() if name.endswith(".h5"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras2")
    with zipfile.ZipFile(PACK) as pack:
        pack.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def scores(files: Path) -> dict[str, np.ndarray]:
    with np.load(files / "scores.npz") as arrays:
        return dict(arrays)


def score(foreign: Foreign, stamps: np.ndarray) -> np.ndarray:
    return np.asarray(foreign.model(stamps, training=False)).reshape(len(stamps), -1)


@pytest.mark.parametrize("name", [name for name in names() if name not in (*REFUSED, "always", "relu_out")])
def test_scores_are_those_of_keras_2(name: str, files: Path, scores: dict[str, np.ndarray]) -> None:
    foreign = read_foreign(files / f"{name}.h5", SHAPE)
    assert np.abs(score(foreign, scores["stamps"]) - scores[name]).max() < 1e-5
    assert len(np.unique(np.round(scores[name], 7))) > 1


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_layers_that_cannot_be_rebuilt_are_named(name: str, files: Path) -> None:
    with pytest.raises(ModelError, match=f"'{REFUSED[name]}'"):
        read_foreign(files / f"{name}.h5", SHAPE)


@pytest.mark.parametrize("name", ["lam_l2", "l2_axis12", "unit12", "acai", "nested_seq", "shared", "acts"])
def test_imported_models_are_as_plain_files(
    name: str, files: Path, scores: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "reference.npz", x=scores["stamps"], p=scores[name])
    options = {"name": name, "layers": LAYERS, "out_dir": tmp_path, "registry": False, "size": 20}
    folder = models.import_model(files / f"{name}.h5", reference=tmp_path / "reference.npz", **options)
    found = find_model(folder)
    again = np.asarray(found.model(scores["stamps"], training=False))
    assert np.abs(again - scores[name]).max() < 1e-5
    assert (found.layers, found.threshold, found.imported) == (LAYERS, 0.5, True)
    assert found.meta is not None
    assert found.meta["imported"]["proof"]["n"] == 3


def test_other_scores_than_the_reference_are_refused(
    files: Path, scores: dict[str, np.ndarray], tmp_path: Path
) -> None:
    np.savez(tmp_path / "reference.npz", x=scores["stamps"], p=scores["acai"])
    options = {"name": "acai", "layers": LAYERS, "out_dir": tmp_path, "registry": False}
    with pytest.raises(ModelError, match="--normalise"):
        models.import_model(files / "acai.h5", normalise="l2", reference=tmp_path / "reference.npz", **options)
    assert not (tmp_path / "acai").exists()


@pytest.mark.parametrize("name", ["softmax2", "softmax_layer", "act_softmax", "sig2"])
def test_the_real_column_is_named_or_refused(name: str, files: Path, scores: dict[str, np.ndarray]) -> None:
    foreign = read_foreign(files / f"{name}.h5", SHAPE)
    with pytest.raises(ModelError, match="--real-column"):
        finish(foreign, real_column=None, logits=False)
    for column in (0, 1):
        found = finish(foreign, real_column=column, logits=False)(scores["stamps"], training=False)
        assert np.abs(np.asarray(found)[:, 0] - scores[name][:, column]).max() < 1e-6
    with pytest.raises(ModelError, match="column 2"):
        finish(foreign, real_column=2, logits=False)


def test_logits_are_declared_or_refused(files: Path, scores: dict[str, np.ndarray]) -> None:
    one, two = (read_foreign(files / f"{name}.h5", SHAPE) for name in ("logit1", "logit2"))
    for foreign, column in ((one, None), (two, 1), (read_foreign(files / "relu_out.h5", SHAPE), None)):
        with pytest.raises(ModelError, match="--logits"):
            finish(foreign, real_column=column, logits=False)
    found = np.asarray(finish(one, real_column=None, logits=True)(scores["stamps"], training=False))
    assert np.abs(found - 1 / (1 + np.exp(-scores["logit1"]))).max() < 1e-6
    odds = scores["logit2"][:, 1] - scores["logit2"][:, 0]
    found = np.asarray(finish(two, real_column=1, logits=True)(scores["stamps"], training=False))[:, 0]
    assert np.abs(found - 1 / (1 + np.exp(-odds))).max() < 1e-6
    with pytest.raises(ModelError, match="leave out --logits"):
        finish(read_foreign(files / "acai.h5", SHAPE), real_column=None, logits=True)


def test_stamps_of_any_size_take_the_size_that_is_named(files: Path) -> None:
    with pytest.raises(ModelError, match="--size"):
        read_foreign(files / "anyc.h5")
    assert read_foreign(files / "anyc.h5", (31, 31, 3)).model.input_shape == (None, 31, 31, 3)


def test_layers_that_act_in_training_only_are_left_out(files: Path) -> None:
    foreign = read_foreign(files / "noise_in.h5", SHAPE)
    assert foreign.left_out == ["random_translation", "random_contrast", "gaussian_noise"]


def test_a_network_that_is_always_random_is_compared_with_its_posterior(
    files: Path, scores: dict[str, np.ndarray], tmp_path: Path
) -> None:
    assert read_foreign(files / "always.h5", SHAPE).always_on == ["spatial_dropout2d", "dropout"]
    options = {"name": "always", "layers": LAYERS, "out_dir": tmp_path, "registry": False}
    for name, p in (("good", scores["always"]), ("bad", 1 - scores["always"])):
        np.savez(tmp_path / f"{name}.npz", x=scores["stamps"], p=p)
    models.import_model(files / "always.h5", reference=tmp_path / "good.npz", **options)


def test_the_same_name_is_not_given_to_another_model(files: Path, tmp_path: Path) -> None:
    options = {"name": "one", "layers": LAYERS, "out_dir": tmp_path, "registry": False}
    models.import_model(files / "acai.h5", **options)
    models.import_model(files / "acai.h5", **options)
    with pytest.raises(ModelError, match="--name"):
        models.import_model(files / "acts.h5", **options)
    for name in ("../out", "/abs", "", ".hidden", "a/b"):
        with pytest.raises(ConfigError):
            models.import_model(files / "acai.h5", **options | {"name": name})


def test_files_of_keras_2_are_never_read_differently(files: Path, scores: dict[str, np.ndarray]) -> None:
    from gotorb import classifier

    for name in ("unit12", "acai", "lam_l2"):
        found = classifier.predict(files / f"{name}.h5", scores["stamps"])
        assert np.abs(found - scores[name][:, 0]).max() < 1e-5
    for name, hint in (("softmax2", "--real-column"), ("logit1", "--logits"), ("anyc", "--size")):
        with pytest.raises(ModelError, match=hint):
            classifier.predict(files / f"{name}.h5", scores["stamps"])


def test_messages_name_keras_2_and_the_way_out(files: Path) -> None:
    from gotorb.training.model_files import read_model

    with pytest.raises(ModelError, match="gotorb models import"):
        read_model(files / "lam_l2.h5")


# --- code of Lambda layers of older Pythons, assembled by hand ------------------------------------


def text(value: str) -> bytes:
    return b"z" + bytes([len(value)]) + value.encode()


def items(*parts: bytes) -> bytes:
    return b")" + bytes([len(parts)]) + b"".join(parts)


def number(value: int) -> bytes:
    return b"i" + struct.pack("<i", value)


def assemble(steps: list[tuple[int, int]], constants: list[bytes], globals_: list[str], n_heads: int) -> str:
    """base64 of the marshalled code of a function of x, as Python 3.7 (5 numbers first) or 3.8 to 3.10 (6) write it."""
    heads = [1, *[0] * (n_heads - 4), 1, 6, 67]
    code = bytes(byte for step in steps for byte in step)
    parts = [
        b"s" + struct.pack("<i", len(code)) + code,
        items(*constants),
        items(*map(text, globals_)),
        items(text("x")),
    ]
    parts += [items(), items(), text("file"), text("<lambda>"), struct.pack("<i", 1), b"s" + struct.pack("<i", 0)]
    raw = b"c" + b"".join(struct.pack("<i", head) for head in heads) + b"".join(parts)
    return base64.encodebytes(raw).decode()


L2_38 = [(116, 0), (106, 1), (106, 2), (124, 0), (100, 1), (100, 2), (103, 2), (100, 3), (141, 2), (83, 0)]
"""tf.math.l2_normalize(x, axis=[1, 2]) in Python 3.8."""
L2_39 = [(116, 0), (106, 1), (160, 2), (124, 0), (103, 0), (100, 1), (162, 1), (161, 2), (83, 0)]
"""tf.math.l2_normalize(x, [1, 2]) in Python 3.9 and 3.10."""


@pytest.mark.parametrize(
    ("steps", "constants", "n_heads"),
    [
        (L2_38, [b"N", number(1), number(2), items(text("axis"))], 6),
        (L2_38, [b"N", number(1), number(2), items(text("axis"))], 5),
        (L2_39, [b"N", items(number(1), number(2))], 6),
    ],
)
def test_code_of_older_pythons_is_followed(steps: list[tuple[int, int]], constants: list[bytes], n_heads: int) -> None:
    code = read_code(assemble(steps, constants, ["tf", "math", "l2_normalize"], n_heads))
    calls = []
    follow(code, ["stamps"], lambda name, given, options: calls.append((name, list(given), dict(options))))
    (name, given, options) = calls[0]
    assert (name, given[0], given[1:] or options["axis"]) in [
        ("tf.math.l2_normalize", "stamps", [1, 2]),
        ("tf.math.l2_normalize", "stamps", [[1, 2]]),
    ]


@pytest.mark.parametrize(
    "steps",
    [
        [(116, 0), (124, 0), (131, 1), (83, 0)],
        [(124, 0), (106, 1), (83, 0)],
        [(100, 1), (83, 0), (114, 0)],
        [(113, 0)],
        [(124, 7), (83, 0)],
        [(131, 9), (83, 0)],
        [(162, 5), (83, 0)],
        [(83, 0)],
    ],
)
def test_other_code_is_refused(steps: list[tuple[int, int]]) -> None:
    with pytest.raises(Unreadable):
        follow(read_code(assemble(steps, [b"N"], ["os", "system"], 6)), ["x"], lambda *_: None)


# --- files that are made to do harm ---------------------------------------------------------------


def hurt(path: Path, source: Path, change: str) -> Path:
    """A copy of a file whose network was changed to hurt its reader."""
    shutil.copyfile(source, path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        layers = config["config"]["layers"]
        conv = next(one for one in layers if one["class_name"] == "Conv2D")
        if change == "wide":
            conv["config"]["filters"] = 10**9
        elif change == "kernel":
            conv["config"]["kernel_size"] = [10**5, 10**5]
        elif change == "padding":
            conv.update(class_name="ZeroPadding2D", config={"name": conv["name"], "padding": 10**6})
        elif change == "upsampling":
            conv.update(class_name="UpSampling2D", config={"name": conv["name"], "size": [10**5, 10**5]})
        elif change == "input":
            layers[0]["config"]["batch_input_shape"] = [None, 10**6, 10**6, 3]
        elif change == "circle":
            conv["inbound_nodes"][0][0][0] = conv["name"]
        elif change == "deep":
            config["config"]["layers"] = json.loads("[" * 200 + "]" * 200)
        elif change == "python":
            conv.update(class_name="TFOpLambda", config={"name": conv["name"], "function": "py_function"})
        elif change == "read":
            conv.update(class_name="TFOpLambda", config={"name": conv["name"], "function": "io.read_file"})
        elif change == "own":
            conv.update(class_name="os>system", config={"name": conv["name"]})
        elif change == "nan":
            conv["config"]["filters"] = float("nan")
        elif change == "embedding":
            conv.update(class_name="Embedding", config={"name": conv["name"], "input_dim": 10**9, "output_dim": 64})
        elif change == "dense":
            conv.update(class_name="Dense", config={"name": conv["name"], "units": 10**9})
        elif change == "external":
            file["model_weights"]["out"] = h5py.ExternalLink("/etc/hostname", "/")
        elif change == "soft":
            file["model_weights"]["again"] = h5py.SoftLink("/model_weights")
        elif change == "loop":
            file["model_weights"]["again"] = file["model_weights"]
        elif change == "virtual":
            virtual = h5py.VirtualLayout((4,), "f4")
            virtual[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
            file.create_virtual_dataset("model_weights/virtual", virtual)
        elif change == "huge":
            file["model_weights"].create_dataset("huge", (10**6, 10**6), "f4", chunks=(1024, 1024), compression="gzip")
        elif change == "raw":
            file["model_weights"].create_dataset("raw", (4,), "f4", external=[("/etc/hostname", 0, 16)])
        file.attrs["model_config"] = json.dumps(config)[: -9 if change == "cut" else None]
    return path


CHANGES = ("wide", "kernel", "padding", "upsampling", "input", "circle", "deep", "python", "read", "own", "nan",
           "embedding", "dense", "external", "soft", "loop", "virtual", "huge", "raw", "cut")  # fmt: skip


@pytest.mark.timeout(5)
@pytest.mark.parametrize("change", CHANGES)
def test_hostile_files_are_refused(change: str, files: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        read_foreign(hurt(tmp_path / "hostile.h5", files / "unit12.h5", change), SHAPE)


def test_no_code_of_a_file_is_run(files: Path) -> None:
    mark = Path("/tmp/evil_outside")  # what the code in the file would make
    with pytest.raises(ModelError, match="'os'"):
        read_foreign(files / "lam_evil.h5", SHAPE)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["text", "empty", "weights"])
def test_files_of_another_kind_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    if name == "weights":
        with h5py.File(path, "w") as file:
            file["dense/kernel"] = np.zeros(3)
    else:
        path.write_text("no model" if name == "text" else "")
    with pytest.raises(ModelError):
        read_foreign(path, SHAPE)
    with pytest.raises(ModelError):
        models.import_model(path, name="x", layers=LAYERS, out_dir=tmp_path, registry=False)


@pytest.mark.skipif(not BRAAI.exists(), reason="needs the published file of braai next to GOTORB_TEST_DATA")
def test_braai_scores_ztf_as_published(tmp_path: Path) -> None:
    import pandas as pd

    from gotorb.training.inference import score_stamps

    folder = models.import_model(
        BRAAI, name="braai", layers=LAYERS, size=63, normalise="l2", real_column=0, out_dir=tmp_path, registry=False
    )
    published = pd.read_csv(Path(REAL_DATA) / "ztf" / "ztf_meta.csv")["braai_d6_m9"].to_numpy()[:300]
    with h5py.File(Path(REAL_DATA) / "ztf" / "ztf_stamps.h5") as file:
        stamps = np.nan_to_num(file["stamps"][:300].astype(np.float32))
    assert np.abs(score_stamps(find_model(folder).model, stamps) - published).max() < 1e-5


@pytest.mark.skipif(not BRAAI.exists(), reason="needs the files next to GOTORB_TEST_DATA")
@pytest.mark.parametrize("path", sorted(CASES.glob("*.npz")), ids=lambda path: path.stem)
def test_files_of_surveys_prove_themselves(path: Path, tmp_path: Path) -> None:
    with np.load(path) as arrays:
        layers = ("science", "template", "difference", "ptp", "min", "max")[: arrays["x"].shape[-1]]
        size = arrays["x"].shape[1]
    folder = models.import_model(
        path.with_suffix(".h5"), name=path.stem, layers=layers, size=size, logits=path.stem == "logits",
        reference=path, out_dir=tmp_path, registry=False,
    )  # fmt: skip
    assert find_model(folder).model.output_shape == (None, 1)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("end", ["sigmoid", "softmax", None])
def test_files_of_keras_3_are_imported_too(suffix: str, end: str | None, tmp_path: Path) -> None:
    import keras

    stamps = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(keras.layers.Conv2D(3, 5, activation="relu")(stamps))
    whole = keras.Model(stamps, keras.layers.Dense(2 if end == "softmax" else 1, activation=end)(flat))
    whole.save(tmp_path / f"theirs{suffix}")
    given = np.random.default_rng(1).normal(0, 9, (5, *SHAPE)).astype(np.float32)
    unit = given / np.linalg.norm(given, axis=(1, 2), keepdims=True)
    expected = np.asarray(whole(unit, training=False))
    np.savez(tmp_path / "reference.npz", stamps=given, scores=expected)
    options = {"name": "one", "layers": LAYERS, "out_dir": tmp_path, "registry": False, "normalise": "l2"}
    if end != "sigmoid":
        with pytest.raises(ModelError, match="--"):
            models.import_model(tmp_path / f"theirs{suffix}", **options)
        options |= {"real_column": 1} if end == "softmax" else {"logits": True}
    folder = models.import_model(tmp_path / f"theirs{suffix}", reference=tmp_path / "reference.npz", **options)
    found = np.asarray(find_model(folder).model(given, training=False))[:, 0]
    wanted = expected[:, -1] if end else 1 / (1 + np.exp(-expected[:, 0]))
    assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize("name", ["saved_model.pb", "model.txt"])
def test_other_kinds_of_files_are_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="Keras 2"):
        models.import_model(tmp_path / name, name="one", layers=LAYERS, out_dir=tmp_path, registry=False)


OPTIONS = {"name": "one", "layers": LAYERS, "registry": False}
STAMPS = np.random.default_rng(1).normal(0, 9, (5, *SHAPE)).astype(np.float32)


@pytest.mark.long("a process reads the file")
def test_files_are_read_in_a_process_of_their_own(apart: None, files: Path, tmp_path: Path) -> None:
    folder = models.import_model(files / "nested_func.h5", out_dir=tmp_path, **OPTIONS)
    expected = np.asarray(finish(read_foreign(files / "nested_func.h5", SHAPE), real_column=None, logits=False)(STAMPS))
    np.testing.assert_array_equal(np.asarray(find_model(folder).model(STAMPS)), expected)
    with pytest.raises(ModelError, match=r"'os'.*keep the file"):
        models.import_model(files / "lam_evil.h5", out_dir=tmp_path, **OPTIONS | {"name": "two"})


@pytest.mark.long("a process reads the file")
def test_reading_has_a_limit_of_memory(
    apart: None, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "MEMORY", 1 << 20)
    monkeypatch.setattr(importing, "MEMORY_PER_BYTE", 0)
    with pytest.raises(ModelError, match=r"memory.*keep the file"):
        models.import_model(files / "acai.h5", out_dir=tmp_path, **OPTIONS)
    assert not (tmp_path / "one").exists()


def npy(header: str, values: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode() + values


REFERENCES = {
    "too large": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000, 9, 9)}\n"),
    "negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 1, 1, 1)}\n"),
    "brackets": npy("(" * 9_000 + "\n"),
    "long": npy("(" + "1," * 2_000_000 + ")\n"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"cos\nsystem\n(S'exit 1'\ntR."),
    "short": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9, 9, 9, 9)}\n", bytes(8)),
}  # fmt: skip


@pytest.mark.timeout(5)
@pytest.mark.parametrize("kind", REFERENCES)
def test_hostile_references_are_refused(kind: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "reference.npz", "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("x.npy", REFERENCES[kind])
        pack.writestr("p.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}\n", bytes(8)))
    with pytest.raises(ConfigError, match="cannot be used"):
        importing.read_reference(tmp_path / "reference.npz")


@pytest.mark.long("a process reads the file until its time is over")
def test_an_import_ends_where_the_library_does_not(
    apart: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "LOOK_SECONDS", 1)
    path = tmp_path / "endless.h5"
    path.write_bytes(gzip.decompress((PACK.parents[1] / "core" / "endless.h5.gz").read_bytes()))
    with pytest.raises(ModelError, match="more than 1 CPU seconds"):
        models.import_model(path, out_dir=tmp_path, **OPTIONS)
