"""Training end to end on a small data set: what is promised of the model folder."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from gotorb import classifier
from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.errors import ConfigError, DataError, GotorbError, ModelError
from gotorb.training.meta import DECODERS
from tests.model.blobs import make_blobs, small_network
from tests.model.conftest import OPTIONS, STAYS_GRAPH, Trained


def test_training_learns_the_blobs(trained: Trained) -> None:
    assert max(trained.meta["history"]["val_auc"]) > 0.95
    assert trained.epochs_seen == list(range(6))


def test_folder_holds_log_meta_and_model(trained: Trained) -> None:
    assert {path.name for path in trained.run_dir.iterdir()} >= {"model.log", "meta.hkl", "model.h5"}
    assert "epoch 5" in (trained.run_dir / "model.log").read_text()


def test_default_folder_carries_the_time(blobs: Path) -> None:
    from gotorb.training.model_files import make_run_dir

    first, second = make_run_dir(blobs, None), make_run_dir(blobs, None)
    assert first != second
    assert pd.Series([first.name, second.name]).str.fullmatch(r"model_\d{6}-\d{6}").all()
    first.rmdir(), second.rmdir()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_plain_keras_opens_the_model_and_gives_the_same_scores(trained: Trained) -> None:
    stamps = open_dataset(trained.data_dir).read_stamps(range(20), trained.meta["layers"])
    plain = keras.models.load_model(trained.run_dir / "model.h5")
    np.testing.assert_array_equal(plain.predict(stamps, verbose=0)[:, 0], classifier.predict(trained.model, stamps))


def test_same_seed_gives_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "data"
    other.mkdir()
    for name in (layout.LABELS_CSV, layout.STAMPS_H5):
        (other / name).write_bytes((trained.data_dir / name).read_bytes())
    classifier.train(other, **OPTIONS)
    for name in (layout.MODEL_H5, layout.META_HKL):
        assert (other / "model" / name).read_bytes() == (trained.run_dir / name).read_bytes(), name


def test_meta_names_the_rows_of_each_part_and_no_absolute_path(trained: Trained) -> None:
    meta = trained.meta
    ids = np.concatenate([meta["split"][part] for part in layout.SPLITS])
    assert sorted(ids) == sorted(open_dataset(trained.data_dir).ids)
    assert meta["data_dir"] == ".."
    assert str(trained.data_dir).encode() not in (trained.run_dir / layout.META_HKL).read_bytes()
    assert 0 < meta["threshold"] < 1
    assert meta["layers"] == ["science", "template", "difference", "ptp"]


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_ctrl_c_keeps_the_best_weights_and_writes_the_files(blobs: Path, tmp_path: Path) -> None:
    def press_ctrl_c(epoch: int, numbers: dict[str, float]) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    model, meta = classifier.train(blobs, small_network, on_epoch=press_ctrl_c, out_dir=tmp_path, **OPTIONS)
    assert meta["interrupted"] and meta["best_epoch"] == 0
    loaded = classifier.load(tmp_path / "model").model
    for mine, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_patience_ends_training(blobs: Path, tmp_path: Path) -> None:
    options = OPTIONS | {"epochs": 5, "learning_rate": 1e-9}
    _, meta = classifier.train(blobs, small_network, patience=1, monitor="val_auc", out_dir=tmp_path, **options)
    assert len(meta["history"]["loss"]) < 5


def edited(blobs: Path, tmp_path: Path, **columns: Any) -> Path:
    """Copy of 60 rows with some columns replaced."""
    data = open_dataset(blobs)
    table = data.table.iloc[:60].assign(**columns)
    return write_dataset(tmp_path / "edited", table, [data.read_stamps(range(60))])


SPLIT = ["train"] * 30 + ["validation"] * 15 + ["test"] * 15


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": 1}, "bogus rows; both classes are needed"),
        ({"label": 2}, "label 2.* is none of"),
        ({"label": 0.5}, "label 0.5.* is none of"),
        ({"label": -1}, "none of the 60 rows"),
        ({"split": "holdout"}, "split 'holdout' of row 'row-00000'"),
        ({"split": SPLIT, "label": [1] * 30 + [0] * 30}, "the train part .* 30 real and 0 bogus"),
    ],
)
def test_unfit_labels_are_refused_in_one_line(
    blobs: Path, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        classifier.train(edited(blobs, tmp_path, **columns))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "edited").glob("model_*"))


def test_nan_stamp_is_refused_by_its_id(blobs: Path, tmp_path: Path) -> None:
    import h5py

    data_dir = edited(blobs, tmp_path, split=SPLIT)
    with h5py.File(layout.stamps_path(data_dir), "r+") as file:
        file[layout.STAMPS_KEY][17, 3, 4, 0] = np.nan
    with pytest.raises(DataError, match=r"row 17 \(id 'row-00017'\).*NaN"):
        classifier.train(data_dir)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "vgg7"}, ModelError, "no network 'vgg7' .*vgg6, bayesian_vgg6"),
        ({"layers": ["science", "sky"]}, DataError, "no layer 'sky'"),
        ({"class_weights": "heavy"}, ConfigError, "class_weights is 'heavy'"),
        ({"optimizer": "downhill"}, ConfigError, "no optimizer 'downhill'"),
        ({"model_kwargs": {"depth": 3}}, ModelError, "cannot be built with .*depth"),
        ({"monitor": "val_joy", "epochs": 1}, ConfigError, "val_joy"),
        ({"monitor": "val_joy", "monitor_mode": "max", "epochs": 1}, ModelError, "no quantity .val_joy."),
        ({"threads": 97}, ConfigError, "TensorFlow already runs"),
    ],
)
def test_impossible_options_are_refused(
    trained: Trained, tmp_path: Path, options: dict[str, Any], kind: type[GotorbError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        classifier.train(trained.data_dir, out_dir=tmp_path, **options)


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_unknown_rows_are_left_out_and_counted(blobs: Path, tmp_path: Path) -> None:
    labels = open_dataset(blobs).labels[:60].copy()
    labels[:5] = layout.UNKNOWN
    data_dir = edited(blobs, tmp_path, split=SPLIT, label=labels)
    _, meta = classifier.train(data_dir, "vgg6", epochs=1, layers=["difference"])
    assert meta["counts"]["unknown"] == 5
    assert "row-00000" not in meta["split"]["train"]
    assert meta["model"] == "vgg6"


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_few_rows_of_a_class_are_told(blobs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = [1] * 20 + [0] * 10 + [1] * 12 + [0] * 3 + [1, 0] * 7 + [1]
    classifier.train(edited(blobs, tmp_path, split=SPLIT, label=labels), small_network, epochs=1, layers=["difference"])
    assert "the validation part" in caplog.text and "12 real and 3 bogus rows: few to go by" in caplog.text
    assert "the train part" not in caplog.text


def test_meta_is_plain_and_tells_what_was_done(trained: Trained) -> None:
    import h5py

    meta, found = trained.meta, {}
    assert meta["preprocessing"] == {"normalise": "l2", "inside_model": True} and meta["parent"] is None
    assert meta["data_digest"] == data_digest(trained.data_dir)
    assert meta["parameters"]["epochs"] == 6 and len(meta["history"]["val_loss"]) == 6
    with h5py.File(trained.run_dir / layout.META_HKL, "r") as file:
        table = file["hickle_types_table"]
        file["data"].visititems(lambda name, node: found.update({name: node.attrs.get("type")}))
        bases = [table.file[table.file[kind].attrs["base_type"]].name for kind in found.values() if kind]
    kinds = {name.rsplit("/", 1)[-1] for name in bases}
    assert kinds <= set(DECODERS), "only plain types, nothing to unpickle"


def test_validation_stamps_are_not_turned_during_training(blobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gotorb.training import data as training_data

    data, turned = open_dataset(blobs), []
    monkeypatch.setattr(training_data, "turn_stamps", lambda stamps, _: turned.append(len(stamps)) or stamps)
    source = training_data.Stream(data=data, layers=("ptp",), batch_size=64, class_weights={0: 1.0, 1: 1.0})
    list(source.validation(np.arange(100)))
    assert turned == []
    list(source.training(np.arange(100), seed=1, augment=True).take(2))
    assert turned[:2] == [64, 36]


@pytest.mark.usefixtures("eager")
@pytest.mark.filterwarnings(STAYS_GRAPH)
def test_a_function_may_build_the_network(tmp_path: Path) -> None:
    def tiny(input_shape: tuple[int, int, int]) -> keras.Model:
        stamps = keras.Input(input_shape)
        return keras.Model(stamps, keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(stamps)))

    data_dir = make_blobs(tmp_path, n=120, size=21)
    model, meta = classifier.train(data_dir, tiny, epochs=1)
    assert meta["parameters"]["model"] == "tiny"
    assert model.input_shape == (None, 21, 21, 4)
