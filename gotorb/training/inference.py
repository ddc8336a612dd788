"""Scores, posterior samples, latent vectors and saliency maps of stamps, by compiled functions.

A source of stamps is an array, or anything that yields arrays; one batch at a time is in memory.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator

import numpy as np

from gotorb.core.params import BATCH_SIZE
from gotorb.errors import ModelError
from gotorb.stamps.batches import Stamps, check_scores, cut_batches
from gotorb.training.backend import keras, tf
from gotorb.training.mc_dropout import Loop, NotAChain, Tree, find_dropouts, take_apart
from gotorb.training.measured import Measured, OnFeatures, find_network, is_measured
from gotorb.training.normalisation import find_crop

LOG = logging.getLogger(__name__)
Compiled = Callable[[tf.Tensor], tf.Tensor]
SAMPLING_BATCH_SIZE = 256
"""Stamps that share masks."""
LATENT = "latent"
"""Name of the layer with the flattened feature maps in our networks."""


class CompiledModel:
    """Compiled scoring and sampling of a network or of a model on measured features.

    Functions are compiled at first use.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion
        Model; a network has one sigmoid output.
    """

    def __init__(self, model: keras.Model | OnFeatures) -> None:
        self.model = model
        self.own = model if isinstance(model, OnFeatures) else None
        self.has_posterior = has_posterior(model)
        self._score: Compiled | None = None
        self._sampler: Tree | Loop | None = None

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Score stamps; see `score_stamps`.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int
            Stamps scored at a time.

        Returns
        -------
        ndarray
            (n,) float32 scores.
        """
        if self.own is not None:
            return self.own.score(stamps, batch_size=batch_size)
        self._score = self._score or _compile_score(self.model)
        parts = [self._score(tf.constant(batch)).numpy() for batch in check_batches(self.model, stamps, batch_size)]
        return check_scores(np.concatenate(parts) if parts else np.empty(0, np.float32), name=self.model.name)

    def sample(
        self, stamps: Stamps, n_samples: int, *, seed: int | None = None, batch_size: int = SAMPLING_BATCH_SIZE
    ) -> np.ndarray:
        """Draw posterior samples; see `sample_scores`.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        n_samples : int
            Samples per stamp.
        seed : int, optional
            Seed; default: a random one.
        batch_size : int
            Stamps that share thinned networks.

        Returns
        -------
        ndarray
            (n, n_samples) float32 scores.

        Raises
        ------
        ModelError
            If the model has no active dropout.
        NotFinite
            If a sample is NaN or infinite.
        """
        if self.own is not None:
            return self.own.sample(stamps, n_samples, seed=seed, batch_size=batch_size)
        if not self.has_posterior:
            raise ModelError(
                f"model {self.model.name!r} has no active dropout layer and no posterior; train bayesian_vgg6 with "
                "dropout above 0, or use classifier.predict"
            )
        self._sampler = self._sampler or make_sampler(self.model)
        entropy = secrets.randbits(64) if seed is None else seed
        parts = list(self._sampler.sample(check_batches(self.model, stamps, batch_size), n_samples, entropy=entropy))
        samples = np.concatenate(parts) if parts else np.empty((0, n_samples), np.float32)
        return check_scores(samples, name=self.model.name)


def has_posterior(model: keras.Model | OnFeatures) -> bool:
    """Test a model for a posterior, from dropout layers or from trees.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion
        Model.

    Returns
    -------
    bool
    """
    return is_measured(model) or bool(find_dropouts(model))


def score_stamps(model: keras.Model, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Score stamps without dropout.

    Parameters
    ----------
    model : keras.Model
        Network with one sigmoid output.
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
    NotFinite
        If a score is NaN or infinite.
    """
    return CompiledModel(model).score(stamps, batch_size=batch_size)


def measure_speed(model: keras.Model, stamps: np.ndarray) -> float:
    """Measure the speed of scoring on this machine, after compilation.

    Parameters
    ----------
    model : keras.Model
        Network with one sigmoid output.
    stamps : ndarray
        (n, size, size, n_layers) stamps; a thousand or more give a stable result.

    Returns
    -------
    float
        Stamps per second, without dropout.
    """
    compiled = CompiledModel(model)
    compiled.score(stamps[:BATCH_SIZE])
    begun = time.perf_counter()
    compiled.score(stamps)
    return len(stamps) / (time.perf_counter() - begun)


def sample_scores(
    model: keras.Model,
    stamps: Stamps,
    n_samples: int,
    *,
    seed: int | None = None,
    batch_size: int = SAMPLING_BATCH_SIZE,
) -> np.ndarray:
    """Draw posterior samples of scores by Monte-Carlo dropout.

    A sample is one thinned network, drawn for each batch of stamps (`gotorb.training.mc_dropout`). The samples of a
    stamp are independent, with the distribution of passes with dropout. Stamps of a batch share networks, so their
    samples are correlated. Networks that branch are sampled pass by pass, with masks for each stamp.

    Parameters
    ----------
    model : keras.Model
        Network with at least one dropout layer.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    n_samples : int
        Number of thinned networks. The first samples do not depend on it.
    seed : int, optional
        Seed; default: a random one. Equal seed, stamps and batch size give equal samples.
    batch_size : int
        Stamps in memory, which share networks.

    Returns
    -------
    ndarray
        (n, n_samples) float32 scores.

    Raises
    ------
    ModelError
        If the model has no active dropout.

    References
    ----------
    Gal & Ghahramani 2016 (ICML): Monte-Carlo dropout.
    """
    return CompiledModel(model).sample(stamps, n_samples, seed=seed, batch_size=batch_size)


def make_sampler(model: keras.Model) -> Tree | Loop:
    """Build the fastest sampler of a network: a tree if it can be cut at its dropouts, else pass by pass.

    Parameters
    ----------
    model : keras.Model
        Network with dropout.

    Returns
    -------
    Tree or Loop
    """
    try:
        return Tree(take_apart(model), model.input_shape)
    except NotAChain as reason:
        LOG.debug("%s is sampled pass by pass: %s", model.name, reason)
        return Loop(model)


def _compile_score(model: keras.Model) -> Compiled:
    spec = tf.TensorSpec(model.input_shape)
    return tf.function(lambda batch: model(batch, training=False)[:, 0], input_signature=[spec])


def check_batches(model: keras.Model, stamps: Stamps, batch_size: int) -> Iterator[np.ndarray]:
    """Cut any source of stamps into checked float32 batches.

    Parameters
    ----------
    model : keras.Model
        Network that takes the stamps.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Largest number of stamps in a batch.

    Returns
    -------
    iterator of ndarray
        Batches (at most batch_size, size, size, n_layers).
    """
    return cut_batches(stamps, batch_size, shape=tuple(model.input_shape[1:]), name=model.name)


def latent_vectors(model: keras.Model, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Compute latent vectors of stamps, without dropout; for a model on measured features, its features.

    Parameters
    ----------
    model : keras.Model
        Network with a layer ``latent``, or with a dense layer that reads a flat vector.
    stamps : ndarray or iterable of ndarray
        (n, size, size, n_layers), or batches of these.
    batch_size : int
        Stamps taken at a time.

    Returns
    -------
    ndarray
        (n, n_features) float32.

    Raises
    ------
    ModelError
        If the network has no such layer, or takes stamps of another shape.
    DataError
        If a stamp is not finite.
    """
    if isinstance(model, OnFeatures):
        return model.latent(stamps, batch_size=batch_size)
    model = _copy_layers(model)
    inner = keras.Model(model.inputs, _find_latent(model))
    compiled = tf.function(
        lambda batch: inner(batch, training=False), input_signature=[tf.TensorSpec(model.input_shape)]
    )
    parts = [compiled(tf.constant(batch)).numpy() for batch in check_batches(model, stamps, batch_size)]
    vectors = np.concatenate(parts) if parts else np.empty((0, inner.output_shape[-1]), np.float32)
    return check_scores(vectors, name=model.name)


def _copy_layers(model: keras.Model) -> keras.Model:
    """The same network of new layers; one that was put behind another first layer has layers of several outputs."""
    copy = type(model).from_config(model.get_config())  # clone_model also compiles, by names of metrics not known
    copy.set_weights(model.get_weights())
    return copy


def _find_latent(model: keras.Model) -> keras.KerasTensor:
    """Output of the layer ``latent``, else the input of the first dense layer."""
    for layer in model.layers:
        if layer.name == LATENT:
            return layer.output
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense) and len(layer.input.shape) == 2:
            return layer.input
    raise ModelError(f"network {model.name!r} has no layer {LATENT!r} and no dense layer; name a layer {LATENT!r}")


def saliency_maps(model: keras.Model, stamps: np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Compute maps of the evidence for the chosen class by Grad-CAM.

    The channels of the last convolution are summed with weights, their mean gradients of the logit of the score (with
    the sign reversed for scores below 0.5). Positive values are resized to the stamp.

    Parameters
    ----------
    model : keras.Model or Fusion
        Network with one sigmoid output and a convolution, or a fusion with such a network.
    stamps : ndarray
        (n, size, size, n_layers) stamps.
    batch_size : int
        Stamps taken at a time.

    Returns
    -------
    ndarray
        (n, size, size) maps from 0 to 1; 0 throughout if no pixel supports the class.

    Raises
    ------
    ModelError
        If the network has no convolution, or does not end in a dense layer.

    References
    ----------
    Selvaraju et al. 2017 (ICCV): Grad-CAM.
    """
    if isinstance(model, Measured):
        raise ModelError(f"model {model.name!r} has trees and no saliency map; leave --saliency out")
    model = _copy_layers(find_network(model))
    last = [layer for layer in model.layers if len(layer.output.shape) == 4 and "conv" in layer.name.lower()]
    if not last or not isinstance(model.layers[-1], keras.layers.Dense):
        raise ModelError(
            f"network {model.name!r} has no saliency map, for which it needs a convolution and a dense layer at its "
            "end; leave --saliency out"
        )
    head = model.layers[-1]
    inner = keras.Model(model.inputs, [last[-1].output, head.input])
    seen = find_crop(model)
    parts = [_maps(inner, head, seen, tf.constant(batch)) for batch in check_batches(model, stamps, batch_size)]
    return np.concatenate(parts) if parts else np.empty(stamps.shape[:3], np.float32)


def _maps(inner: keras.Model, head: keras.layers.Dense, seen: int, batch: tf.Tensor) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(batch)
        features, last = inner(batch, training=False)
        logit = (tf.matmul(last, head.kernel) + head.bias)[:, 0]  # a score near 0 or 1 has lost its gradient
        spoken = tf.abs(logit)
    weights = tf.reduce_mean(tape.gradient(spoken, features), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1, keepdims=True))
    heat = tf.image.resize(heat, (seen, seen))
    heat = tf.image.resize_with_crop_or_pad(heat, *batch.shape[1:3])[..., 0]  # 0 where the network sees nothing
    peak = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, peak).numpy()
