"""Architecture of the networks, and what their first layers do."""

import numpy as np
import pytest

from gotorb import models
from gotorb.errors import ConfigError, ModelError


@pytest.mark.parametrize(("shape", "n"), [((55, 55, 4), 222_113), ((63, 63, 3), 312_081), ((30, 30, 3), 49_937)])
def test_networks_have_the_published_size_and_take_other_stamps(shape: tuple[int, int, int], n: int) -> None:
    for build in (models.bayesian_vgg6, models.vgg6):
        model = build(shape)
        assert model.count_params() == n
        assert model.output_names == ["score"]
        assert model.output_shape == (None, 1)


def test_dropout_follows_every_layer_of_the_bayesian_network() -> None:
    from gotorb.training.mc_dropout import find_dropouts

    model = models.bayesian_vgg6((30, 30, 3), 0.2)
    assert [layer.name for layer in find_dropouts(model)] == ["drop1a", "drop1b", "drop2a", "drop2b", "drop"]
    assert {layer.rate for layer in find_dropouts(model)} == {0.2}


def test_first_layers_normalise_each_layer_of_each_stamp() -> None:
    import keras

    model = models.vgg6((20, 20, 2))
    first = keras.Model(model.input, model.get_layer("restore_pixels").output)
    stamps = np.random.default_rng(0).normal(3, 50, (4, 20, 20, 2)).astype(np.float32)
    stamps[1, :, :, 0] = 0
    unit = first(stamps).numpy()
    norms = np.sqrt((stamps.astype(float) ** 2).sum(axis=(1, 2), keepdims=True))
    np.testing.assert_allclose(unit, stamps / np.where(norms > 0, norms, 1), rtol=1e-5)


def test_stamps_too_small_are_refused() -> None:
    models.vgg6((20, 20, 1))
    with pytest.raises(ConfigError, match="19 x 19 pixels are too small"):
        models.vgg6((19, 19, 1))


def test_networks_are_found_by_name_or_given() -> None:
    assert models.find_network("bayesian_vgg6") is models.bayesian_vgg6
    assert models.find_network(len) is len  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no network 'resnet'"):
        models.find_network("resnet")
