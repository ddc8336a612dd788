"""Monte-Carlo dropout: posterior samples of a network, whose common parts are computed once.

A sample is one thinned network, drawn for all stamps of a batch. A network that is a chain (each layer feeds the next)
is cut at its dropouts. Samples with the same masks up to some layer have the same activations up to there, so all
samples form a tree: its root is the part before the first dropout, its nodes are the distinct beginnings of masks, its
leaves are scores. With few bits in a mask (whole feature maps) and a small rate most beginnings are equal, and the
early, costly convolutions are evaluated a few times instead of once for each sample. The tree is walked depth first:
one set of activations for each layer is held in memory.

Other networks are sampled by one pass for each sample (`Loop`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotorb.errors import ModelError
from gotorb.training.backend import all_layers, keras, takes_training, tf

CHANNEL_DROPOUTS = (keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D)
DROPOUT_LAYERS = (
    keras.layers.Dropout,
    *CHANNEL_DROPOUTS,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
)
POOLS = tuple(
    getattr(keras.layers, f"{kind}Pooling{n}D")
    for kind in ("Max", "Average", "GlobalMax", "GlobalAverage")
    for n in (1, 2, 3)
)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
SAME_IN_TRAINING = (keras.layers.BatchNormalization, keras.layers.Dense)
"""Layers told of training that need not be: the first stays as it was trained, the second heeds it when quantised."""
TREE_SLICE = 64
"""Stamps that go through the tree together, few enough for the processor's cache; a batch's slices share its masks."""
LOOP_SLICE = 32
"""Masks of more stamps no longer fit the processor's cache."""


def find_dropouts(model: keras.Model) -> list[keras.layers.Layer]:
    """Dropout layers of a model with a rate above 0, nested ones included.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    list of keras.layers.Layer
    """
    return [layer for layer in all_layers(model) if drops(layer)]


def drops(layer: Any) -> bool:
    """True for a dropout layer with a rate above 0.

    Parameters
    ----------
    layer : object

    Returns
    -------
    bool
    """
    return isinstance(layer, DROPOUT_LAYERS) and layer.rate > 0


def _mask_shape(dropout: keras.layers.Layer, shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Shape of the mask of one sample.

    Parameters
    ----------
    dropout : keras Layer
        That drops something.
    shape : tuple of int or None
        Of its input, stamps first.

    Returns
    -------
    tuple of int or None
        Along the last axes of its input; all axes but the channels share a bit when whole feature maps are dropped.
        None for a layer that does more than switch activations off, or takes stamps of any size.
    """
    if None in shape[1:]:
        return None
    sizes = [int(size or 1) for size in shape[1:]]
    if type(dropout) in CHANNEL_DROPOUTS:
        channels_last = getattr(dropout, "data_format", "channels_last") == "channels_last"
        return (sizes[-1],) if channels_last else None
    if type(dropout) is not keras.layers.Dropout:
        return None
    shared = (dropout.noise_shape or shape)[1:]
    bits = [size if given is None else int(given) for size, given in zip(sizes, shared, strict=True)]
    while len(bits) > 1 and bits[0] == 1:
        bits.pop(0)
    return tuple(bits)


def draw_masks(
    sites: Sequence[tuple[float, tuple[int, ...]]], n_samples: int, *, entropy: int, batch: int
) -> list[np.ndarray]:
    """Draw the kept values of each dropout of each sample.

    The generator starts from `entropy`, the number of the batch and the number of the sample: sample 3 is the same
    whether 5 or 50 are drawn, and no two batches share masks.

    Parameters
    ----------
    sites : sequence of (float, tuple of int)
        Rate and mask shape of each dropout, in the order of the network.
    n_samples : int
        Thinned networks.
    entropy, batch : int
        Seed, and number of the batch.

    Returns
    -------
    list of ndarray
        For each site (n_samples, \\*shape) bool.
    """
    generators = [np.random.default_rng([entropy, batch, sample]) for sample in range(n_samples)]
    drawn = [[rng.random(shape, np.float32) >= rate for rate, shape in sites] for rng in generators]
    return [np.stack(masks) for masks in zip(*drawn, strict=True)]


def _group_equal(masks: np.ndarray, samples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gather samples of equal masks.

    Parameters
    ----------
    masks : ndarray of bool
        (n_samples, \\*shape) masks of one dropout.
    samples : ndarray of int
        Samples to look at.

    Returns
    -------
    list of (ndarray, ndarray)
        Each distinct mask, and the samples that have it.

    Examples
    --------
    >>> masks = np.array([[True, True], [True, False], [True, True]])
    >>> [members.tolist() for _, members in _group_equal(masks, np.arange(3))]
    [[0, 2], [1]]
    """
    groups: dict[bytes, list[int]] = {}
    for sample in samples.tolist():
        groups.setdefault(masks[sample].tobytes(), []).append(sample)
    return [(masks[members[0]], np.array(members)) for members in groups.values()]


class NotAChain(ModelError):
    """A network cannot be taken apart, with the reason; `gotorb.training.inference` then samples it pass by pass."""


@dataclass(frozen=True)
class Stage:
    """A mask and the layers between it and the next one.

    Attributes
    ----------
    rate : float
        Fraction that the mask drops.
    shape : tuple of int
        Of the mask of one sample; it applies to the last axes of the activations.
    layers : list of keras Layer
        Layers after the mask, in order, without dropout.
    """

    rate: float
    shape: tuple[int, ...]
    layers: list[keras.layers.Layer]


@dataclass(frozen=True)
class Chain:
    """The layers before the first dropout, and a stage for each dropout."""

    prefix: list[keras.layers.Layer]
    stages: list[Stage]


def take_apart(model: keras.Model) -> Chain:
    """Cut a network at its dropouts.

    A mask of whole feature maps scales them by a factor >= 0, which commutes with ReLU and pooling; these move to
    the stage before, where more samples share them.

    Parameters
    ----------
    model : keras.Model
        With at least one dropout that drops something.

    Returns
    -------
    Chain
        That computes what the model does.

    Raises
    ------
    NotAChain
        If the network branches, has code of its own, or a layer that acts differently in training.
    """
    chain = Chain([], [])
    layers = chain.prefix
    for layer, shape in _walk(model):
        if drops(layer):
            bits = _mask_shape(layer, shape)
            if bits is None or layer.rate >= 1:
                raise NotAChain(f"{type(layer).__name__} {layer.name!r} cannot be drawn for all stamps at once")
            layers = []
            chain.stages.append(Stage(layer.rate, bits, layers))
        elif not isinstance(layer, DROPOUT_LAYERS):
            _refuse_training(layer)
            layers.append(layer)
    _advance([chain.prefix, *(stage.layers for stage in chain.stages)], [stage.shape for stage in chain.stages])
    return chain


def _walk(model: keras.Model) -> list[tuple[Any, tuple[int | None, ...]]]:
    """Each layer with its input's shape, from the input to the output."""
    outputs = getattr(model, "outputs", None)
    if not type(model).__module__.startswith("keras.") or outputs is None:
        raise NotAChain("the network is a class of its own")
    if len(outputs) != 1 or len(model.inputs) != 1:
        raise NotAChain("the network has several inputs or outputs")
    found = []
    tensor = outputs[0]
    while tensor is not model.inputs[0]:
        history = tensor._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        # training=False is what Keras notes of any dropout
        given = [value for value in node.arguments.kwargs.values() if value is not None and value is not False]
        if len(node.input_tensors) != 1 or len(node.arguments.args) != 1 or given:
            raise NotAChain(f"layer {history.operation.name!r} has several inputs or arguments of its own")
        tensor = node.input_tensors[0]
        found.append((history.operation, tensor.shape))
    return found[::-1]


def _refuse_training(layer: Any) -> None:
    if not isinstance(layer, keras.layers.Layer):
        raise NotAChain(f"{layer.name!r} is no layer")
    if takes_training(layer) and not isinstance(layer, SAME_IN_TRAINING):
        raise NotAChain(f"layer {layer.name!r} acts differently in training")


def _advance(parts: Sequence[list[keras.layers.Layer]], masks: Sequence[tuple[int, ...]]) -> None:
    """Move layers that commute with the mask before them to the part before it."""
    for before, after, shape in zip(parts, parts[1:], masks, strict=False):
        while len(shape) == 1 and after and _commutes(after[0]):
            before.append(after.pop(0))


def _commutes(layer: keras.layers.Layer) -> bool:
    if type(layer) in POOLS:
        return getattr(layer, "data_format", "channels_last") == "channels_last"
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold
    if type(layer) is keras.layers.Activation:
        return layer.activation in (keras.activations.relu, keras.activations.linear)
    return type(layer) is keras.layers.LeakyReLU


def _is_linear(layer: keras.layers.Layer) -> bool:
    """True for a layer that begins with a product of its last input axis and a kernel, which the mask can thin."""
    if getattr(layer, "quantization_mode", None) is not None or layer.compute_dtype != "float32":
        return False
    if type(layer) in CONVOLUTIONS:
        return layer.groups == 1 and layer.data_format == "channels_last" and layer.padding != "causal"
    return type(layer) is keras.layers.Dense


class Tree:
    """The compiled parts of a network that was taken apart.

    Parameters
    ----------
    chain : Chain
        Made by `take_apart`.
    shape : tuple of int or None
        Of the stamps, (None, size, size, n_layers).
    """

    def __init__(self, chain: Chain, shape: tuple[int | None, ...]) -> None:
        self.sites = [(stage.rate, stage.shape) for stage in chain.stages]
        self.root = _compile_part(lambda stamps: _through(chain.prefix, stamps), tf.TensorSpec(shape))
        self.nodes: list[Any] = []
        for stage in chain.stages:
            before = self.nodes[-1] if self.nodes else self.root
            self.nodes.append(_compile_stage(stage, tf.TensorSpec(before.output_shapes, before.output_dtypes)))

    def sample(self, batches: Iterator[np.ndarray], n_samples: int, *, entropy: int) -> Iterator[np.ndarray]:
        """Sample the posterior of each batch of stamps.

        Parameters
        ----------
        batches : iterator of ndarray
            (n, size, size, n_layers) each.
        n_samples : int
        entropy : int
            Seed of the masks.

        Yields
        ------
        ndarray
            (n, n_samples) float32.
        """
        for number, batch in enumerate(batches):
            masks = draw_masks(self.sites, n_samples, entropy=entropy, batch=number)
            samples = np.empty((len(batch), n_samples), np.float32)
            for start in range(0, len(batch), TREE_SLICE):
                part = slice(start, start + TREE_SLICE)
                self._descend(0, self.root(tf.constant(batch[part])), masks, np.arange(n_samples), samples[part])
            yield samples

    def _descend(
        self, depth: int, values: tf.Tensor, masks: list[np.ndarray], members: np.ndarray, samples: np.ndarray
    ) -> None:
        """Fill the columns `members` of `samples`, which have the activations `values` in common."""
        if depth == len(self.nodes):
            samples[:, members] = values.numpy()[:, :1]
            return
        for mask, own in _group_equal(masks[depth], members):
            kept = tf.constant(mask / (1 - self.sites[depth][0]), tf.float32)
            self._descend(depth + 1, self.nodes[depth](values, kept), masks, own, samples)


def _compile_stage(stage: Stage, spec: tf.TensorSpec) -> Any:
    """Activations before a mask and the mask in, activations before the next mask out.

    A mask of the channels that a convolution or dense layer sums over is put on the kernel, which is smaller.
    """
    first, rest = stage.layers[:1], stage.layers[1:]
    if len(stage.shape) == 1 and first and _is_linear(first[0]):

        def pass_on(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            return _through(rest, _apply(first[0], values, first[0].kernel * mask[:, None]))
    else:

        def pass_on(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
            return _through(stage.layers, values * tf.cast(mask, values.dtype))

    return _compile_part(pass_on, spec, tf.TensorSpec(stage.shape))


def _compile_part(function: Callable[..., tf.Tensor], *specs: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=specs).get_concrete_function()


def _through(layers: list[keras.layers.Layer], values: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        values = layer(values, training=False) if takes_training(layer) else layer(values)
    return values


def _apply(layer: Any, values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Apply a convolution or dense layer with another kernel."""
    dense = isinstance(layer, keras.layers.Dense)
    values = tf.tensordot(values, kernel, 1) if dense else layer.convolution_op(values, kernel)
    values = tf.nn.bias_add(values, layer.bias) if layer.use_bias else values
    return values if layer.activation is None else layer.activation(values)


class Loop:
    """The passes of a network, compiled; for networks that cannot be taken apart.

    Parameters
    ----------
    model : keras.Model
        With dropout.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        layers = all_layers(model)
        self.random = [layer for layer in layers if getattr(layer, "seed_generator", None) is not None]
        self._samplers: dict[int, Callable[[tf.Tensor], tf.Tensor]] = {}

    def sample(self, batches: Iterator[np.ndarray], n_samples: int, *, entropy: int) -> Iterator[np.ndarray]:
        """Sample the posterior of each batch of stamps.

        Parameters
        ----------
        batches : iterator of ndarray
            (n, size, size, n_layers) each.
        n_samples : int
        entropy : int
            Seed of the masks.

        Yields
        ------
        ndarray
            (n, n_samples) float32.
        """
        with _seeded(self.random, entropy), _frozen_batch_norms(self.model):
            if n_samples not in self._samplers:
                self._samplers[n_samples] = _compile_loop(self.model, n_samples)
            sampler = self._samplers[n_samples]
            for batch in batches:
                starts = range(0, len(batch), LOOP_SLICE)
                parts = [sampler(tf.constant(batch[start : start + LOOP_SLICE])) for start in starts]
                yield np.concatenate([part.numpy().T for part in parts])


def _compile_loop(model: keras.Model, n_samples: int) -> Callable[[tf.Tensor], tf.Tensor]:
    def sample(batch: tf.Tensor) -> tf.Tensor:
        samples = tf.TensorArray(tf.float32, n_samples)
        for index in tf.range(n_samples):
            samples = samples.write(index, model(batch, training=True)[:, 0])
        return samples.stack()

    return tf.function(sample, input_signature=[tf.TensorSpec(model.input_shape)]).get_concrete_function()


@contextmanager
def _seeded(random: list[keras.layers.Layer], entropy: int) -> Iterator[None]:
    """Start the layers' own generators from `entropy`, and put them back as they were."""
    states = [layer.seed_generator.state for layer in random]
    before = [state.numpy() for state in states]
    seeds = np.random.SeedSequence(entropy).generate_state(len(states), np.uint32)
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
    norms = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    frozen = [layer for layer in norms if layer.trainable]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
