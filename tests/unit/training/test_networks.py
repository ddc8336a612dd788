"""Architecture of the networks, and what their first layers do."""

from pathlib import Path

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


def test_cropped_network_takes_whole_stamps_and_sees_their_middle(tmp_path: Path) -> None:
    import keras

    from gotorb.training import networks
    from gotorb.training.inference import latent_vectors, saliency_maps, sample_scores, score_stamps
    from gotorb.training.normalisation import find_crop

    assert networks.seen_shape((31, 31, 2), None) == (31, 31, 2)
    shape = networks.seen_shape((31, 31, 2), 21)
    plain = networks.build_network(models.bayesian_vgg6, shape, layers=("science", "difference"), normalise="clipped")
    whole = networks.crop_input(plain, 31)
    assert (whole.input_shape, find_crop(whole), find_crop(plain)) == ((None, 31, 31, 2), 21, 21)
    assert networks.crop_input(plain, 21) is plain
    stamps = np.random.default_rng(0).normal(3, 50, (4, 31, 31, 2)).astype(np.float32)
    middle = stamps[:, 5:26, 5:26]
    np.testing.assert_allclose(score_stamps(whole, stamps), score_stamps(plain, middle), atol=1e-6)
    np.testing.assert_allclose(latent_vectors(whole, stamps), latent_vectors(plain, middle), atol=1e-4)
    np.testing.assert_allclose(
        sample_scores(whole, stamps, 3, seed=1), sample_scores(plain, middle, 3, seed=1), atol=1e-6
    )
    maps = saliency_maps(whole, stamps)
    np.testing.assert_allclose(maps[:, 5:26, 5:26], saliency_maps(plain, middle), atol=1e-4)
    maps[:, 5:26, 5:26] = 0
    assert maps.shape == (4, 31, 31) and not maps.any()
    whole.save(tmp_path / "model.h5")
    kept = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_allclose(score_stamps(kept, stamps), score_stamps(plain, middle), atol=1e-6)


@pytest.mark.parametrize("crop", [33, 22])
def test_crops_off_the_middle_or_beyond_the_stamp_are_refused(crop: int) -> None:
    from gotorb.training.networks import seen_shape

    with pytest.raises(ConfigError, match=f"crop is {crop}, the stamps have 31 pixels; give null or a smaller odd"):
        seen_shape((31, 31, 2), crop)
