"""Options of training that a Keras user expects."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gotorb import classifier
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, GotorbError, ModelError
from gotorb.training.data import Stream
from tests.model.blobs import make_blobs, small_network
from tests.model.conftest import STAYS_GRAPH

pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.filterwarnings(STAYS_GRAPH)]
PLAIN: dict[str, Any] = {"epochs": 1, "seed": 5, "name": "model", "layers": ["difference", "ptp"], "batch_size": 100}
OPTIONS = PLAIN | {"model": small_network}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_blobs(tmp_path_factory.mktemp("small") / "data", n=120, size=21)


def train(data_dir: Path, out_dir: Path, **options: Any) -> tuple[keras.Model, dict[str, Any]]:
    return classifier.train(data_dir, out_dir=out_dir, **OPTIONS | options)


def test_loss_metrics_and_monitor_may_be_chosen(small: Path, tmp_path: Path) -> None:
    options = {"loss": "binary_focal_crossentropy", "metrics": ["mae"], "monitor": "val_mae", "epochs": 4}
    _, meta = train(small, tmp_path, **options)
    assert {"loss", "mae", "val_mae", "auc"} <= set(meta["history"])
    assert meta["best_epoch"] == np.argmin(meta["history"]["val_mae"])
    assert meta["parameters"]["loss"] == "binary_focal_crossentropy"


def square(labels: Any, scores: Any) -> Any:
    return keras.ops.mean(keras.ops.square(labels - scores), axis=-1)


def test_the_loss_may_be_a_function_and_the_model_still_loads(small: Path, tmp_path: Path) -> None:
    model, meta = train(small, tmp_path, loss=square)
    assert meta["parameters"]["loss"] == "square"
    stamps = open_dataset(small).read_stamps(range(5), OPTIONS["layers"])
    np.testing.assert_array_equal(classifier.predict(tmp_path / "model", stamps), classifier.predict(model, stamps))


@pytest.mark.parametrize(
    ("normalise", "layer", "recorded"),
    [
        ("none", "conv1a", "none"),
        ("noise", "normalise", "noise"),
        (keras.layers.Rescaling(0.01, name="scaled"), "scaled", "Rescaling"),
        (lambda: keras.layers.Rescaling(0.01, name="made"), "made", "<lambda>"),
        (lambda stamps: keras.layers.Rescaling(0.01, name="called")(stamps), "called", "<lambda>"),
    ],
)
def test_the_first_layer_may_be_chosen_and_is_saved_with_the_model(
    small: Path, tmp_path: Path, normalise: Any, layer: str, recorded: str
) -> None:
    model, meta = train(small, tmp_path, model="bayesian_vgg6", normalise=normalise)
    assert model.layers[1].name == layer and not any(one.name == "restore_pixels" for one in model.layers)
    assert meta["preprocessing"] == {"normalise": recorded, "inside_model": True}
    stamps = open_dataset(small).read_stamps(range(5), OPTIONS["layers"])
    np.testing.assert_array_equal(classifier.predict(tmp_path / "model", stamps), classifier.predict(model, stamps))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"normalise": "l3"}, ConfigError, "normalise is 'l3'"),
        ({"normalise": "noise", "layers": ("science",)}, ConfigError, "layers are science: add it or"),
        ({"normalise": lambda x: x / 10}, ModelError, "does not survive saving"),
        ({"normalise": keras.layers.Lambda(lambda x: x / 10)}, ModelError, "Lambda does not survive saving"),
        ({"normalise": keras.layers.Flatten()}, ModelError, "Flatten cannot be the first layer"),
        ({"loss": "joy"}, ConfigError, "no loss 'joy'"),
        ({"metrics": ["joy"]}, ConfigError, "no metric 'joy'"),
        ({"fit_kwargs": {"shuffle": True}}, ConfigError, "fit_kwargs has 'shuffle'"),
        ({"fit_kwargs": {"validation_freq": 2}}, ModelError, "no epoch has a value of 'val_loss'"),
        ({"freeze": 2}, ConfigError, "freeze is 2 without init_from"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    small: Path, tmp_path: Path, options: dict[str, Any], kind: type[GotorbError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        train(small, tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model" / layout.MODEL_H5).exists()


@pytest.mark.parametrize(
    ("shape", "units", "message"),
    [((21, 21, 3), 1, r"takes stamps of \(21, 21, 3\)"), ((21, 21, 2), 2, r"output shape \(None, 2\)")],
)
def test_a_network_that_does_not_fit_the_stamps_is_refused(
    small: Path, tmp_path: Path, shape: tuple[int, ...], units: int, message: str
) -> None:
    def build(_: tuple[int, int, int]) -> keras.Model:
        return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(units)])

    with pytest.raises(ModelError, match=message):
        train(small, tmp_path, model=build)


def test_fit_options_are_passed_on(small: Path, tmp_path: Path) -> None:
    _, meta = train(small, tmp_path, epochs=3, fit_kwargs={"validation_freq": 2})
    assert len(meta["history"]["loss"]) == 3 and len(meta["history"]["val_loss"]) == 1
    assert meta["best_epoch"] == 1


def test_progress_bar_and_tensorboard_work_with_the_stream(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small, tmp_path, verbose=1, tensorboard=True)
    assert "1/1" in capsys.readouterr().out
    assert list((tmp_path / "model" / layout.TENSORBOARD_DIR).rglob("events.out.tfevents*"))
    train(small, tmp_path, tensorboard=tmp_path / "board")
    assert list((tmp_path / "board").rglob("events.out.tfevents*"))


@pytest.mark.slow
def test_mirrored_replicas_learn_and_repeat(small: Path, tmp_path: Path) -> None:
    code = f"""
import sys, tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from gotorb import classifier
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
options = {PLAIN!r} | {{"epochs": 2, "batch_size": 16}}
for out_dir in ("a", "b"):
    _, meta = classifier.train(sys.argv[1], out_dir=sys.argv[2] + "/" + out_dir, strategy=strategy, **options)
print(strategy.num_replicas_in_sync, meta["parameters"]["strategy"], *meta["history"]["loss"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(small), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    n_replicas, name, *losses = done.stdout.split()
    assert (n_replicas, name) == ("2", "MirroredStrategy")
    assert (tmp_path / "a/model/model.h5").read_bytes() == (tmp_path / "b/model/model.h5").read_bytes()
    _, meta = train(small, tmp_path, model="bayesian_vgg6", epochs=2, batch_size=16)
    assert sum(meta["counts"]["train"].values()) % 2 == 1, "a replica would get no row of the last batch"
    np.testing.assert_allclose([float(loss) for loss in losses], meta["history"]["loss"], rtol=0.05)


def test_a_batch_that_replicas_cannot_share_is_refused(small: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 31, which 2 replicas"):
        Stream(data=open_dataset(small), layers=("ptp",), batch_size=31, class_weights={0: 1.0, 1: 1.0}, n_replicas=2)


def test_several_machines_are_refused_with_the_reason(small: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    strategy = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    with pytest.raises(ConfigError, match="Keras 3 cannot fit under a strategy over several machines"):
        train(small, tmp_path, strategy=strategy)
