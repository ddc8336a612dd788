"""ONNX files give the scores of the model, say whose they are, and need no TensorFlow to be used."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import classifier, models
from gotorb.core import layout
from gotorb.core.files import file_digest
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, DataError, ModelError
from gotorb.training.networks import build_network
from gotorb.training.onnx import read_portable
from tests.model.conftest import Trained

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("tf2onnx")
LAYERS = ("science", "template", "difference")
META = {"layers": list(LAYERS), "threshold": 0.25, "run_dir": "somewhere/mine", "model_digest": "ab" * 32}
SCORE = """
import sys
from gotorb.cli import main
code = main(["score", sys.argv[1], sys.argv[2], "--out", sys.argv[3]])
loaded = [name for name in ("tensorflow", "keras", "mlflow") if name in sys.modules]
sys.exit(code or f"{loaded} were read" if loaded else code)
"""


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier.export(trained.run_dir, tmp_path_factory.mktemp("onnx") / "new" / "model.onnx")


def small(shape: tuple[int, int, int] = (21, 21, 3), **options: object) -> keras.Model:
    return models.bayesian_vgg6(shape, block1=2, block2=3, dense=4, **options)


def test_onnxruntime_gives_the_scores_of_the_model(trained: Trained, exported: Path) -> None:
    stamps = np.random.default_rng(1).normal(size=(270, 55, 55, 4)).astype(np.float32)
    stamps[3], stamps[5] = 0, stamps[5] * 1e5
    expected = classifier.predict(trained.model, stamps)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(read_portable(exported).score(stamps), expected, atol=1e-6)
    rows = open_dataset(trained.data_dir).read_stamps(range(100), trained.meta["layers"])
    np.testing.assert_allclose(read_portable(exported).score(rows), classifier.predict(trained.model, rows), atol=1e-6)


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
def test_other_networks_are_exported_too(activation: str, tmp_path: Path) -> None:
    stamps = keras.Input((21, 21, 3))
    x = keras.layers.SeparableConv2D(4, 3, padding="same", activation=activation)(stamps)
    x = keras.layers.Add()([keras.layers.Conv2D(4, 1)(stamps), keras.layers.BatchNormalization()(x)])
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.5)(x))
    network = keras.Model(stamps, keras.layers.Dense(1, "sigmoid")(x))
    some = np.random.default_rng(2).normal(size=(9, 21, 21, 3)).astype(np.float32)
    found = read_portable(classifier.export(network, tmp_path / "other.onnx", meta=META)).score(some)
    np.testing.assert_allclose(found, classifier.predict(network, some), atol=1e-6)


def test_noise_as_unit_is_exported(tmp_path: Path) -> None:
    network = build_network(small, (21, 21, 3), layers=LAYERS, normalise="noise")
    some = np.random.default_rng(2).normal(0, 9, (9, 21, 21, 3)).astype(np.float32)
    some[4, :9] = 0
    found = read_portable(classifier.export(network, tmp_path / "other.onnx", meta=META)).score(some)
    np.testing.assert_allclose(found, classifier.predict(network, some), atol=1e-6)


def test_the_file_says_whose_it_is(trained: Trained, exported: Path) -> None:
    read = read_portable(exported)
    assert read.layers == tuple(trained.meta["layers"]) and read.input_shape == (None, 55, 55, 4)
    assert read.threshold == trained.meta["threshold"]
    digest = file_digest(trained.run_dir / layout.MODEL_H5)
    assert (read.name, read.about["version"]) == ("model", f"sha256:{digest}"[:19])
    assert read.about["digest"] == f"sha256:{digest}"


def test_a_model_in_memory_is_exported_by_its_meta(trained: Trained, exported: Path, tmp_path: Path) -> None:
    again = read_portable(classifier.export(trained.model, tmp_path / "again.onnx", meta=trained.meta))
    assert again.about == read_portable(exported).about
    stamps = np.random.default_rng(1).normal(size=(7, 55, 55, 4)).astype(np.float32)
    np.testing.assert_array_equal(again.score(stamps), read_portable(exported).score(stamps))


def test_score_takes_the_file_and_reads_no_tensorflow(trained: Trained, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    command = [sys.executable, "-c", SCORE, str(exported), str(trained.data_dir), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{out}: 400 rows\n"), done.stderr
    table = pd.read_csv(out, dtype={"id": str})
    data = open_dataset(trained.data_dir)
    expected = classifier.predict(trained.run_dir, data)
    np.testing.assert_allclose(table["score"], expected, atol=2e-6)  # six digits kept
    assert table["id"].tolist() == data.ids.tolist() and set(table["model_name"]) == {"model"}
    assert table[["mean", "std", "confidence"]].isna().all(axis=None)
    assert set(table["model_version"]) == {read_portable(exported).about["version"]}


def test_stamps_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    read = read_portable(classifier.export(small(), tmp_path / "small.onnx", meta=META))
    stamps = np.zeros((3, 21, 21, 3), np.float32)
    assert read.score([stamps, stamps[:1]]).shape == (4,) and read.score(stamps[:0]).shape == (0,)
    with pytest.raises(ModelError, match=r"shape \(21, 21, 4\).* do not fit model 'mine', which takes \(21, 21, 3\)"):
        read.score(np.zeros((3, 21, 21, 4), np.float32))
    stamps[1, 2, 3, 0] = np.nan
    with pytest.raises(DataError, match="stamp 1 holds NaN"):
        read.score(stamps)


def test_what_cannot_be_exported_is_told_and_nothing_written(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"takes 3 layers but nothing names them; keep meta\.hkl"):
        classifier.export(small(), tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match=r"model\.h5 is to hold an exported model; end its name with \.onnx"):
        classifier.export(trained.run_dir, tmp_path / "model.h5")
    with pytest.raises(ModelError, match=r"no model\.h5 in"):
        classifier.export(tmp_path, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def damaged(path: Path, out: Path, how: str) -> Path:
    """A copy of an exported model with something wrong."""
    network = onnx.load(path)
    if how == "no layers":
        del network.metadata_props[:1]
    elif how == "other layers":
        network.metadata_props[0].value = "science"
    elif how == "outside":
        tensor = network.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/hostname")
    out.write_bytes(path.read_bytes()[:2000] if how == "cut" else network.SerializeToString())
    return out


@pytest.mark.parametrize(
    ("how", "reason"),
    [("no layers", "does not name its layers"), ("other layers", "not stamps of 21 x 21 pixels in 1 layers"),
     ("outside", "cannot be used"), ("cut", "cannot be used")],
)  # fmt: skip
def test_broken_and_hostile_files_are_refused_in_one_line(how: str, reason: str, tmp_path: Path) -> None:
    path = classifier.export(small(), tmp_path / "good.onnx", meta=META)
    with pytest.raises(ModelError, match=reason) as caught:
        read_portable(damaged(path, tmp_path / "bad.onnx", how))
    assert "\n" not in str(caught.value) and "bad.onnx" in str(caught.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ModelError, match=r"no nowhere\.onnx; make it with `gotorb export MODEL --out nowhere\.onnx`"):
        read_portable("nowhere.onnx")


@pytest.mark.parametrize("absent", ["tf2onnx", "onnxruntime"])
def test_what_is_missing_is_named(absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = classifier.export(small(), tmp_path / "good.onnx", meta=META)
    for name in [name for name in sys.modules if name.split(".")[0] == absent]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ConfigError, match=rf"new\.onnx needs {absent}.*pip install 'gotorb\[onnx\]'"):
        classifier.export(small(), tmp_path / "new.onnx", meta=META)
    if absent == "onnxruntime":
        with pytest.raises(ConfigError, match=r"good\.onnx needs onnxruntime"):
            read_portable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["good.onnx"]
