"""Scores and posterior samples of a trained model."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from gotorb import classifier
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ModelError
from tests.model.conftest import Trained


@pytest.fixture(scope="module")
def stamps(trained: Trained) -> np.ndarray:
    return open_dataset(trained.data_dir).read_stamps(range(50), trained.meta["layers"])


def test_scores_do_not_depend_on_how_stamps_arrive(trained: Trained, stamps: np.ndarray) -> None:
    scores = classifier.predict(trained.model, stamps)
    assert scores.shape == (50,) and scores.dtype == np.float32
    np.testing.assert_allclose(classifier.predict(trained.run_dir, iter([stamps[:7], stamps[7:]])), scores, atol=1e-6)
    np.testing.assert_allclose(classifier.predict(trained.model, stamps, batch_size=13), scores, atol=1e-6)
    whole = classifier.predict(trained.run_dir, open_dataset(trained.data_dir))
    np.testing.assert_allclose(whole[:50], scores, atol=1e-6)


def test_scores_do_not_depend_on_the_unit_of_flux(trained: Trained, stamps: np.ndarray) -> None:
    """Float32 rounding alone separates them."""
    scaled = stamps * np.array([1e-3, 7.0, 40.0, 1e4], np.float32)
    np.testing.assert_allclose(
        classifier.predict(trained.model, scaled), classifier.predict(trained.model, stamps), atol=1e-4
    )


def test_layers_of_zeros_have_a_finite_score(trained: Trained) -> None:
    assert np.isfinite(classifier.predict(trained.model, np.zeros((2, 55, 55, 4), np.float32))).all()


def test_no_stamps_give_no_scores(trained: Trained) -> None:
    assert classifier.predict(trained.model, np.empty((0, 55, 55, 4), np.float32)).shape == (0,)
    assert classifier.dropout_pred(trained.model, np.empty((0, 55, 55, 4), np.float32)).shape == (0, 20)


def test_nan_and_misfit_stamps_are_refused(trained: Trained, stamps: np.ndarray) -> None:
    spoiled = stamps.copy()
    spoiled[33, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="stamp 33 holds NaN or infinity"):
        classifier.predict(trained.model, spoiled, batch_size=16)
    with pytest.raises(ModelError, match=r"shape \(55, 55, 3\).*takes \(55, 55, 4\)"):
        classifier.predict(trained.model, stamps[..., :3])


def test_posterior_samples_scatter_around_the_score(trained: Trained, stamps: np.ndarray) -> None:
    samples = classifier.dropout_pred(trained.model, stamps, nsamples=40, seed=1)
    scores = classifier.predict(trained.model, stamps)
    assert samples.shape == (50, 40) and samples.dtype == np.float32
    assert (samples.std(axis=1) > 0).all()
    error = samples.std(axis=1) / np.sqrt(40)
    assert (np.abs(samples.mean(axis=1) - scores) < 6 * error + 0.01).mean() > 0.9


def test_posterior_samples_repeat_with_the_seed_only(trained: Trained, stamps: np.ndarray) -> None:
    first = classifier.dropout_pred(trained.model, stamps, 5, seed=1)
    classifier.dropout_pred(trained.model, stamps[:3], 2)
    np.testing.assert_array_equal(classifier.dropout_pred(trained.run_dir, stamps, 5, seed=1), first)
    assert not np.array_equal(classifier.dropout_pred(trained.model, stamps, 5, seed=2), first)
    free = [classifier.dropout_pred(trained.model, stamps, 5) for _ in range(2)]
    assert not np.array_equal(*free)


def test_models_without_dropout_have_no_posterior(stamps: np.ndarray) -> None:
    from gotorb import models

    for model in (models.vgg6((55, 55, 4), spatial_dropout=0.0), models.bayesian_vgg6((55, 55, 4), dropout=0.0)):
        with pytest.raises(ModelError, match="no active dropout"):
            classifier.dropout_pred(model, stamps)


def test_sampling_leaves_batch_normalisation_as_it_was() -> None:
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization()(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    before = [weight.copy() for weight in model.get_weights()]
    classifier.dropout_pred(model, np.random.default_rng(0).normal(5, 1, (40, 8, 8, 1)), 3, seed=1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.layers[1].trainable


def test_broken_and_foreign_files_are_refused_in_one_line(trained: Trained, tmp_path: Path) -> None:
    whole = (trained.run_dir / "model.h5").read_bytes()
    cases = {"empty.h5": b"", "text.h5": b"not a model", "cut.h5": whole[: len(whole) // 2]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name} cannot be read as a model") as caught:
            classifier.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"no model\.h5 in"):
        classifier.load(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_code_inside_a_model_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inputs = keras.Input((4,))
    code = keras.layers.Lambda(lambda x, path=str(marker): (open(path, "w"), x)[1])(inputs)  # noqa: PTH123, SIM115
    keras.Model(inputs, keras.layers.Dense(1)(code)).save(tmp_path / "bad.h5")
    marker.unlink(missing_ok=True)
    with pytest.raises(ModelError, match="cannot be read as a model"):
        classifier.load(tmp_path / "bad.h5")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("units", 900_000_000, "declares 900000000 outputs"),
        ("kernel_size", [90_000, 90_000], "kernel or padding of more than 255 pixels"),
        ("batch_shape", [None, 90_000, 90_000, 4], "declares stamps of 32400000000 values"),
    ],
)
def test_declared_sizes_are_checked_before_they_are_allocated(
    trained: Trained, tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = tmp_path / "huge.h5"
    path.write_bytes((trained.run_dir / "model.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        layer = next(layer for layer in config["config"]["layers"] if key in layer["config"])
        layer["config"][key] = value
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ModelError, match=message):
        classifier.load(path)


def test_a_model_beside_another_meta_is_refused(trained: Trained, tmp_path: Path) -> None:
    from gotorb import models
    from gotorb.training.model_files import write_model

    (tmp_path / "meta.hkl").write_bytes((trained.run_dir / "meta.hkl").read_bytes())
    write_model(tmp_path / "model.h5", models.bayesian_vgg6((55, 55, 4)))
    with pytest.raises(ModelError, match=r"not the file that its meta\.hkl describes"):
        classifier.load(tmp_path)
