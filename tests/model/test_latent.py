"""Latent vectors: the flattened feature map of the network itself."""

import keras
import numpy as np
import pytest

from gotorb import classifier
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError, ModelError
from tests.model.conftest import Trained


def test_score_follows_from_the_latent_vectors(trained: Trained) -> None:
    data = open_dataset(trained.data_dir)
    stamps = data.read_stamps(range(70), trained.meta["layers"])
    vectors = classifier.latentvec_pred(trained.model, stamps)
    x = keras.ops.convert_to_tensor(vectors)
    for name in ("dense", "score"):
        x = trained.model.get_layer(name)(x)
    assert np.abs(np.asarray(x)[:, 0] - classifier.predict(trained.model, stamps)).max() < 1e-6


def test_data_set_and_batches_give_the_same_vectors(trained: Trained) -> None:
    data = open_dataset(trained.data_dir)
    whole = classifier.latentvec_pred(trained.run_dir, data)
    stamps = data.read_stamps(range(len(data)), trained.meta["layers"])
    assert whole.shape[0] == len(data)
    assert np.allclose(whole, classifier.latentvec_pred(trained.model, [stamps[:33], stamps[33:]]), atol=1e-6)


def test_other_networks_need_a_dense_layer(trained: Trained) -> None:
    stamps = keras.Input((21, 21, 2))
    flat = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(stamps))
    model = keras.Model(stamps, keras.layers.Dense(1, "sigmoid")(flat))
    assert classifier.latentvec_pred(model, np.ones((3, 21, 21, 2), np.float32)).shape == (3, 5)
    bare = keras.Model(stamps, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(1, 3)(stamps)))
    with pytest.raises(ModelError, match="no layer 'latent'"):
        classifier.latentvec_pred(bare, np.ones((1, 21, 21, 2), np.float32))


def test_stamps_without_a_number_are_refused(trained: Trained) -> None:
    stamps = np.full((1, *trained.model.input_shape[1:]), np.nan, np.float32)
    with pytest.raises(DataError, match="stamp 0"):
        classifier.latentvec_pred(trained.model, stamps)
