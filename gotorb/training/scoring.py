"""Scores and posterior samples of stamps, a batch at a time, by compiled functions.

A batch is all that is in memory; a source may be an array or anything that yields arrays.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from gotorb.errors import DataError, ModelError

Stamps = np.ndarray | Iterable[np.ndarray]
Compiled = Callable[[np.ndarray], tf.Tensor]
BATCH_SIZE = 256
SAMPLING_BATCH_SIZE = 32
"""Masks of larger batches no longer fit the processor's cache."""
DROPOUT_LAYERS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)


class CompiledModel:
    """A model's scoring and sampling, compiled at first use and used for any number of sources.

    Parameters
    ----------
    model : keras.Model
        With one sigmoid output.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.dropouts = find_dropouts(model)
        self._score: Compiled | None = None
        self._samplers: dict[int, Compiled] = {}

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Deterministic scores (n,); see `score_stamps`."""
        self._score = self._score or _compile_score(self.model)
        parts = [self._score(batch).numpy() for batch in _batches(self.model, stamps, batch_size)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def sample(
        self, stamps: Stamps, n_samples: int, *, seed: int | None = None, batch_size: int = SAMPLING_BATCH_SIZE
    ) -> np.ndarray:
        """Posterior samples (n, n_samples); see `sample_scores`."""
        if not self.dropouts:
            raise ModelError(
                f"model {self.model.name!r} has no active dropout layer, so all samples would be equal; "
                "train bayesian_vgg6 with dropout above 0, or use classifier.predict"
            )
        with _seeded(self.dropouts, seed), _frozen_batch_norms(self.model):
            if n_samples not in self._samplers:
                self._samplers[n_samples] = _compile_sampler(self.model, n_samples)
            sampler = self._samplers[n_samples]
            parts = [sampler(batch).numpy().T for batch in _batches(self.model, stamps, batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, n_samples), np.float32)


def score_stamps(model: keras.Model, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Deterministic scores, dropout off.

    Parameters
    ----------
    model : keras.Model
        With one sigmoid output.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Stamps scored at a time.

    Returns
    -------
    ndarray
        (n,) float32, between 0 and 1.

    Raises
    ------
    DataError
        If a stamp is not finite.
    ModelError
        If the stamps' shape is not the model's.
    """
    return CompiledModel(model).score(stamps, batch_size=batch_size)


def sample_scores(
    model: keras.Model,
    stamps: Stamps,
    n_samples: int,
    *,
    seed: int | None = None,
    batch_size: int = SAMPLING_BATCH_SIZE,
) -> np.ndarray:
    """Posterior samples of the scores: dropout stays on, each pass draws new masks for each stamp.

    Parameters
    ----------
    model : keras.Model
        With at least one dropout layer.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    n_samples : int
        Passes.
    seed : int, optional
        Same seed, stamps and batch size: same samples. Fresh randomness when left out.
    batch_size : int
        Stamps held at a time.

    Returns
    -------
    ndarray
        (n, n_samples) float32.

    Raises
    ------
    ModelError
        If the model has no active dropout.
    """
    return CompiledModel(model).sample(stamps, n_samples, seed=seed, batch_size=batch_size)


def find_dropouts(model: keras.Model) -> list[keras.layers.Layer]:
    """Dropout layers of a model, nested ones included, that drop anything."""
    layers = (layer for layer in model._flatten_layers() if isinstance(layer, DROPOUT_LAYERS))
    return [layer for layer in layers if layer.rate > 0]


def _compile_score(model: keras.Model) -> Compiled:
    return tf.function(lambda batch: model(batch, training=False)[:, 0], input_signature=[_signature(model)])


def _compile_sampler(model: keras.Model, n_samples: int) -> Compiled:
    @tf.function(input_signature=[_signature(model)])
    def sample(batch: tf.Tensor) -> tf.Tensor:
        samples = tf.TensorArray(tf.float32, n_samples)
        for index in tf.range(n_samples):
            samples = samples.write(index, model(batch, training=True)[:, 0])
        return samples.stack()

    return sample


def _signature(model: keras.Model) -> tf.TensorSpec:
    return tf.TensorSpec(model.input_shape, tf.float32)


def _batches(model: keras.Model, stamps: Stamps, batch_size: int) -> Iterator[np.ndarray]:
    """Cut any source of stamps to checked float32 batches of at most `batch_size`."""
    first = 0
    for block in [stamps] if isinstance(stamps, np.ndarray) else stamps:
        for start in range(0, len(block), batch_size):
            batch = np.asarray(block[start : start + batch_size], np.float32)
            _check_batch(model, batch, first)
            yield batch
            first += len(batch)


def _check_batch(model: keras.Model, batch: np.ndarray, first: int) -> None:
    if batch.shape[1:] != model.input_shape[1:]:
        raise ModelError(
            f"stamps of shape {batch.shape[1:]} (size, size, layers) do not fit model {model.name!r}, which takes "
            f"{model.input_shape[1:]}; give the size and the layers that the model was trained on"
        )
    finite = np.isfinite(batch).all(axis=(1, 2, 3))
    if not finite.all():
        raise DataError(
            f"stamp {first + int(np.argmin(finite))} holds NaN or infinity and has no score; "
            "gotorb.survey.pixels.fill_missing fills pixels without data"
        )


@contextmanager
def _seeded(dropouts: list[keras.layers.Layer], seed: int | None) -> Iterator[None]:
    """Start the layers' own generators from `seed`, and put them back as they were."""
    states = [layer.seed_generator.state for layer in dropouts]
    before = [state.numpy() for state in states]
    seeds = np.random.SeedSequence(seed).generate_state(len(states), np.uint32)
    for state, start in zip(states, seeds, strict=True):
        state.assign(np.array([start, 0], before[0].dtype))
    try:
        yield
    finally:
        for state, old in zip(states, before, strict=True):
            state.assign(old)


@contextmanager
def _frozen_batch_norms(model: keras.Model) -> Iterator[None]:
    """Keep batch normalisation in its trained state although the pass is a training one."""
    frozen = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
