"""Posterior samples by thinned networks: exact for each stamp, whatever the network."""

import logging
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from scipy.stats import ks_2samp

from gotorb import classifier, models
from gotorb.training.inference import make_sampler
from gotorb.training.mc_dropout import Loop, Tree, draw_masks, drops, take_apart

SHAPE = (20, 20, 2)
layers = keras.layers


def small_bayesian(dropout: float = 0.1) -> keras.Model:
    return models.bayesian_vgg6(SHAPE, dropout, block1=8, block2=8, dense=16)


def of_layers(*between: Any) -> keras.Model:
    return keras.Sequential([keras.Input(SHAPE), *between, layers.Dense(1, activation="sigmoid")])


def with_single_activations_dropped() -> keras.Model:
    """As models were before: elements, not feature maps, dropped after a convolution."""
    return of_layers(layers.Conv2D(4, 3, activation="relu"), layers.Dropout(0.2), layers.MaxPooling2D(2),
                     layers.Conv2D(4, 3), layers.Flatten(), layers.Dropout(0.2))  # fmt: skip


def without_convolution() -> keras.Model:
    return of_layers(layers.Flatten(), layers.Dense(8, activation="tanh"), layers.Dropout(0.5))


def with_one_dropout_on_the_stamps() -> keras.Model:
    return of_layers(layers.SpatialDropout2D(0.4), layers.Conv2D(3, 3, strides=2, use_bias=False), layers.Flatten())


def with_batch_normalisation() -> keras.Model:
    model = of_layers(
        layers.BatchNormalization(), layers.SpatialDropout2D(0.3), layers.BatchNormalization(), layers.LeakyReLU(0.2),
        layers.Conv2D(4, 3, dilation_rate=2, padding="same"), layers.SpatialDropout2D(0.3), layers.LeakyReLU(0.1),
        layers.GlobalAveragePooling2D(),
    )  # fmt: skip
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.3, 1.5, weight.shape) for weight in model.get_weights()])
    return model


def with_odd_dropouts() -> keras.Model:
    """Shared along rows, a rate of 0, two in a row, one at the very end of the convolutions."""
    return of_layers(layers.Dropout(0.2, noise_shape=(None, 1, 20, 2)), layers.Conv2D(6, 3, groups=2),
                     layers.Dropout(0.3, noise_shape=(None, 1, 1, 6)), layers.Dropout(0.0), layers.ReLU(),
                     layers.AveragePooling2D(2), layers.SpatialDropout2D(0.2), layers.Conv2D(4, 3, activation="relu"),
                     layers.Dropout(0.1), layers.SpatialDropout2D(0.2), layers.Flatten())  # fmt: skip


CHAINS = [
    small_bayesian, with_single_activations_dropped, without_convolution, with_one_dropout_on_the_stamps,
    with_batch_normalisation, with_odd_dropouts,
]  # fmt: skip


def with_a_branch() -> keras.Model:
    stamps = keras.Input(SHAPE)
    x = layers.SpatialDropout2D(0.3)(layers.Conv2D(4, 3, padding="same")(stamps))
    x = layers.Flatten()(layers.Concatenate()([x, stamps]))
    return keras.Model(stamps, layers.Dense(1, activation="sigmoid")(x))


def with_noise() -> keras.Model:
    return of_layers(layers.GaussianNoise(0.1), layers.Flatten(), layers.Dropout(0.3))


def with_gaussian_dropout() -> keras.Model:
    return of_layers(layers.Flatten(), layers.GaussianDropout(0.3))


def with_a_network_inside() -> keras.Model:
    return of_layers(keras.Sequential([layers.Flatten(), layers.Dropout(0.3)]))


def make_stamps(n: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(n, *SHAPE)).astype(np.float32)


def apply_by_hand(model: keras.Model, stamps: np.ndarray, n_samples: int, *, entropy: int, batch: int) -> np.ndarray:
    """Every layer of every sample, one after the other, with masks written out in full."""
    masks = draw_masks(make_tree(model).sites, n_samples, entropy=entropy, batch=batch)
    columns = []
    for sample in range(n_samples):
        values, own = stamps, iter(masks)
        for layer in model.layers:
            if drops(layer):
                values = values * (next(own)[sample] / np.float32(1 - layer.rate)).astype(np.float32)
            elif not isinstance(layer, layers.InputLayer):
                values = np.asarray(layer(values))
        columns.append(values[:, 0])
    return np.stack(columns, axis=1)


def make_tree(model: keras.Model) -> Tree:
    sampler = make_sampler(model)
    assert isinstance(sampler, Tree)
    return sampler


@pytest.mark.parametrize("build", CHAINS)
def test_samples_equal_masks_applied_layer_by_layer(build: Callable[[], keras.Model]) -> None:
    keras.utils.set_random_seed(5)
    model, stamps = build(), make_stamps(7)
    samples = classifier.dropout_pred(model, stamps, 12, seed=4, batch_size=4)
    expected = [apply_by_hand(model, part, 12, entropy=4, batch=k) for k, part in enumerate((stamps[:4], stamps[4:]))]
    np.testing.assert_allclose(samples, np.concatenate(expected), rtol=0, atol=1e-6)
    assert (samples.std(axis=1) > 0).all()


@pytest.mark.parametrize("build", [small_bayesian, with_single_activations_dropped, with_odd_dropouts])
def test_samples_are_distributed_as_by_keras_own_dropout(build: Callable[[], keras.Model]) -> None:
    keras.utils.set_random_seed(5)
    model, stamps, n = build(), make_stamps(4), 800
    ours = next(make_tree(model).sample(iter([stamps]), n, entropy=1))
    plain = next(Loop(model).sample(iter([stamps]), n, entropy=2))
    error = plain.std(axis=1) * np.sqrt(2 / n)
    assert (np.abs(ours.mean(axis=1) - plain.mean(axis=1)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(axis=1), plain.std(axis=1), rtol=0.12)
    assert min(ks_2samp(one, other).pvalue for one, other in zip(ours, plain, strict=True)) > 1e-3


def test_a_batch_shares_networks_and_the_next_has_others() -> None:
    model, twins = small_bayesian(0.2), np.repeat(make_stamps(1), 4, axis=0)
    samples = classifier.dropout_pred(model, twins, 10, seed=3, batch_size=2)
    np.testing.assert_allclose(samples[0], samples[1], atol=1e-6)
    np.testing.assert_allclose(samples[2], samples[3], atol=1e-6)
    assert not np.allclose(samples[0], samples[2], atol=1e-6)


def test_samples_of_a_batch_do_not_depend_on_what_follows_or_how_many_are_drawn() -> None:
    model, stamps = small_bayesian(), make_stamps(200)
    samples = classifier.dropout_pred(model, stamps, 6, seed=3, batch_size=150)
    first = classifier.dropout_pred(model, stamps[:150], 9, seed=3, batch_size=150)
    np.testing.assert_allclose(samples[:150], first[:, :6], atol=1e-6)


def test_equal_beginnings_of_masks_are_evaluated_once() -> None:
    model = small_bayesian(1e-7)
    tree, calls = make_tree(model), []
    tree.nodes = [lambda *args, node=node: (calls.append(node), node(*args))[1] for node in tree.nodes]
    next(tree.sample(iter([make_stamps(3)]), 50, entropy=0))
    assert len(calls) == len(tree.nodes) == 5


def test_layers_that_commute_with_a_mask_move_before_it() -> None:
    chain = take_apart(small_bayesian())
    names = [[layer.name for layer in stage.layers] for stage in chain.stages]
    assert names == [["conv1b", "pool1"], ["conv2a"], ["conv2b", "pool2"], ["latent", "dense"], ["score"]]


def test_samples_follow_the_weights() -> None:
    model, stamps = small_bayesian(), make_stamps(3)
    tree = make_tree(model)
    before = next(tree.sample(iter([stamps]), 4, entropy=0))
    model.set_weights([weight * 1.5 for weight in model.get_weights()])
    after = next(tree.sample(iter([stamps]), 4, entropy=0))
    assert not np.allclose(before, after, atol=1e-4)
    np.testing.assert_allclose(after, apply_by_hand(model, stamps, 4, entropy=0, batch=0), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (with_a_branch, "has several inputs"),
        (with_noise, "acts differently in training"),
        (with_gaussian_dropout, "GaussianDropout .* cannot be drawn for a whole batch"),
        (with_a_network_inside, "acts differently in training"),
    ],
)
def test_other_networks_are_sampled_pass_by_pass_and_say_so(
    build: Callable[[], keras.Model], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, stamps = build(), make_stamps(40)
    with caplog.at_level(logging.DEBUG, "gotorb.training.inference"):
        samples = classifier.dropout_pred(model, stamps, 6, seed=1)
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert re.search(f"is sampled pass by pass: .*{reason}", record.getMessage())
    assert samples.shape == (40, 6) and (samples.std(axis=1) > 0).all()
    np.testing.assert_array_equal(classifier.dropout_pred(model, stamps, 6, seed=1), samples)
