"""Monte-Carlo dropout: posterior samples of a network, with shared parts computed once.

A sample is one thinned network, drawn for all stamps of a batch. A network without branches is cut at its dropouts.
Samples with equal masks up to some layer have equal activations up to there, so the samples form a tree: the root is
the part before the first dropout, the nodes are distinct sequences of masks, and the leaves are scores. Masks of whole
feature maps have few bits, and at a small rate most sequences start alike. The early, expensive convolutions are then
evaluated a few times instead of once per sample. The tree is walked depth first, with one set of activations per layer
in memory.

Other networks are sampled by one pass per sample (`Loop`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gotorb.errors import ModelError
from gotorb.training.backend import all_layers, frozen, keras, takes_training, tf

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
"""Layers with an argument ``training`` that do not depend on it here: the first is frozen, the second not quantised."""
TREE_SLICE = 64
"""Stamps that pass through the tree together and fit into the processor's cache; slices of a batch share masks."""
LOOP_SLICE = 32
"""Stamps of a pass whose masks fit into the processor's cache."""


def find_dropouts(model: keras.Model) -> list[keras.layers.Layer]:
    """Find the dropout layers of a model with a rate above 0, nested layers included.

    Parameters
    ----------
    model : keras.Model
        Network.

    Returns
    -------
    list of keras.layers.Layer
    """
    return [layer for layer in all_layers(model) if drops(layer)]


def drops(layer: Any) -> bool:
    """Test for a dropout layer with a rate above 0.

    Parameters
    ----------
    layer : object
        Layer.

    Returns
    -------
    bool
    """
    return isinstance(layer, DROPOUT_LAYERS) and layer.rate > 0


def _mask_shape(dropout: keras.layers.Layer, shape: tuple[int | None, ...]) -> tuple[int, ...] | None:
    """Shape of the mask of one sample, along the last axes of the input of a dropout layer.

    If whole feature maps are dropped, only the channels have an axis. None for a layer that does more than set
    activations to zero, or that takes stamps of any size.
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
    """Draw the masks of each dropout for each sample.

    Generators are seeded by `entropy`, the number of the batch and the number of the sample. The first samples do not
    depend on `n_samples`, and batches have different masks.

    Parameters
    ----------
    sites : sequence of (float, tuple of int)
        Rate and mask shape of each dropout, in the order of the network.
    n_samples : int
        Number of thinned networks.
    entropy, batch : int
        Seed, and number of the batch.

    Returns
    -------
    list of ndarray
        For each site (n_samples, \\*shape) bool, True for kept values.
    """
    generators = [np.random.default_rng([entropy, batch, sample]) for sample in range(n_samples)]
    drawn = [[rng.random(shape, np.float32) >= rate for rate, shape in sites] for rng in generators]
    return [np.stack(masks) for masks in zip(*drawn, strict=True)]


def _group_equal(masks: np.ndarray, samples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each distinct mask of some samples, with the samples that have it.

    >>> masks = np.array([[True, True], [True, False], [True, True]])
    >>> [members.tolist() for _, members in _group_equal(masks, np.arange(3))]
    [[0, 2], [1]]
    """
    groups: dict[bytes, list[int]] = {}
    for sample in samples.tolist():
        groups.setdefault(masks[sample].tobytes(), []).append(sample)
    return [(masks[members[0]], np.array(members)) for members in groups.values()]


class NotAChain(ModelError):
    """A network cannot be cut at its dropouts; `gotorb.training.inference` then samples it pass by pass."""


@dataclass(frozen=True)
class Stage:
    """A mask and the layers up to the next mask.

    Attributes
    ----------
    rate : float
        Fraction that the mask drops.
    shape : tuple of int
        Shape of the mask of one sample, along the last axes of the activations.
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

    A mask of whole feature maps scales them by a factor of at least 0, which commutes with ReLU and pooling. These
    layers move to the stage before, where more samples share them.

    Parameters
    ----------
    model : keras.Model
        Network with at least one active dropout.

    Returns
    -------
    Chain
        Parts of the network.

    Raises
    ------
    NotAChain
        If the network branches, is a subclass with its own code, or has a layer that differs in training.
    """
    chain = Chain([], [])
    layers = chain.prefix
    for layer, shape in _walk(model):
        if drops(layer):
            bits = _mask_shape(layer, shape)
            if bits is None or layer.rate >= 1:
                raise NotAChain(f"{type(layer).__name__} {layer.name!r} cannot be drawn for a whole batch")
            layers = []
            chain.stages.append(Stage(layer.rate, bits, layers))
        elif not isinstance(layer, DROPOUT_LAYERS):
            _refuse_training(layer)
            layers.append(layer)
    _advance([chain.prefix, *(stage.layers for stage in chain.stages)], [stage.shape for stage in chain.stages])
    return chain


def _walk(model: keras.Model) -> list[tuple[Any, tuple[int | None, ...]]]:
    """Layers with the shapes of their inputs, from the input to the output of the network."""
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
        # Keras records training=False for each dropout
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
    """Move layers that commute with the preceding mask to the part before it."""
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
    """Test for a layer that begins with a product of channels and a kernel, to which the mask can be applied."""
    if getattr(layer, "quantization_mode", None) is not None or layer.compute_dtype != "float32":
        return False
    if type(layer) in CONVOLUTIONS:
        return layer.groups == 1 and layer.data_format == "channels_last" and layer.padding != "causal"
    return type(layer) is keras.layers.Dense


class Tree:
    """Compiled parts of a network that was cut at its dropouts.

    Parameters
    ----------
    chain : Chain
        From `take_apart`.
    shape : tuple of int or None
        (None, size, size, n_layers), the shape of the stamps.
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
        """Fill the columns `members` of `samples`, which share the activations `values`."""
        if depth == len(self.nodes):
            samples[:, members] = values.numpy()[:, :1]
            return
        for mask, own in _group_equal(masks[depth], members):
            kept = tf.constant(mask / (1 - self.sites[depth][0]), tf.float32)
            self._descend(depth + 1, self.nodes[depth](values, kept), masks, own, samples)


def _compile_stage(stage: Stage, spec: tf.TensorSpec) -> Any:
    """Compile a function from the activations before a mask, and the mask, to those before the next mask.

    If a convolution or dense layer sums over the masked channels, the mask is applied to its kernel, which is smaller.
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
    """Compiled passes of a network that cannot be cut at its dropouts.

    Parameters
    ----------
    model : keras.Model
        Network with dropout.
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
    """Seed the generators of layers by `entropy`, and restore their states afterwards."""
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
    """Keep batch normalisation in its trained state during training passes."""
    with frozen(layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)):
        yield
