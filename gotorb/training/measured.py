"""Models on measured features: ``measured``, trees alone, and ``fusion``, trees and a Bayesian network.

Both have the interface of a network for scoring: name, input shape, scores, posterior samples and latent vectors. A
posterior sample of the trees is the mean of a random group of trees. A sample of the fusion joins it with a Monte-Carlo
dropout sample of the network.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import numpy as np

from gotorb.core import layout
from gotorb.core.files import whole_file
from gotorb.core.params import BATCH_SIZE
from gotorb.errors import ModelError
from gotorb.features import FeatureSet
from gotorb.stamps.batches import N_ORIENTATIONS, Stamps, cut_batches, turn_stamps
from gotorb.training.trees import Trees, read_array

if TYPE_CHECKING:
    from gotorb.training.inference import CompiledModel

OpenNetwork = Callable[[bytes], "CompiledModel"]
KIND_ATTR = "gotorb_model"
MEASURED, FUSION = "measured", "fusion"
N_GROUPS = 20
"""Groups into which the trees are divided; each gives one posterior sample."""
SOFTEN = 0.0025
"""Smallest distance from 0 and 1 of a mean over trees in its logit."""
TREES_LOGIT = 2.0
"""Factor of the trees' logit: means over leaves are closer to 0.5 than scores of a network."""
SCORE_CLIP, LOGIT_CLIP = 1e-6, 60.0
"""Smallest distance of a network's scores from 0 and 1 in their logit, and largest logit."""
LARGEST_LATENT = 5.0
MAX_NETWORK = 2**29
"""Bytes of a network inside a model file."""


@dataclass(frozen=True)
class Sigmoid:
    """Platt scaling: probability = sigmoid(slope * logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        clipped = np.clip(self.slope * logits + self.offset, -LOGIT_CLIP, LOGIT_CLIP)
        return (1 / (1 + np.exp(-clipped))).astype(np.float32)


def tree_logits(means: np.ndarray) -> np.ndarray:
    """Logits of means over trees, which may be 0 or 1.

    Parameters
    ----------
    means : ndarray
        Means from 0 to 1, of any shape.

    Returns
    -------
    ndarray
        Finite logits of the same shape.
    """
    soft = SOFTEN + (1 - 2 * SOFTEN) * means
    return TREES_LOGIT * np.log(soft / (1 - soft))


def score_logits(scores: np.ndarray) -> np.ndarray:
    """Logits of the scores of a network.

    Parameters
    ----------
    scores : ndarray
        Scores from 0 to 1, of any shape.

    Returns
    -------
    ndarray
        Finite logits of the same shape.
    """
    safe = np.clip(np.asarray(scores, float), SCORE_CLIP, 1 - SCORE_CLIP)
    return np.log(safe / (1 - safe))


class OnFeatures:
    """Scores, posterior samples and latent vectors of a model on measured features, a batch of stamps at a time."""

    name: ClassVar[str]
    has_posterior: ClassVar[bool] = True
    calibration: Sigmoid

    @property
    def forest(self) -> Measured:
        """Trees and features of the model; a fusion holds those of its `measured`.

        Returns
        -------
        Measured
        """
        raise NotImplementedError

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Logits before the calibration.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.

        Returns
        -------
        ndarray
            (n,) logits.
        """
        raise NotImplementedError

    def sample_logits(self, batch: np.ndarray, groups: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Logits of posterior samples before the calibration.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.
        groups : ndarray of int
            (n_samples, n_trees of a group) groups of trees from `draw_groups`.
        seed : sequence of int
            Seed of the samples, and number of the batch.

        Returns
        -------
        ndarray
            (n, n_samples) logits.
        """
        raise NotImplementedError

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """Shape of the stamps, as for Keras models.

        Returns
        -------
        tuple
            (None, size, size, n_layers).
        """
        return None, *self.forest.features.shape

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Score stamps by all trees; a fusion also by its network without dropout.

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
        parts = [self.calibration(self.logits(batch)) for batch in self._batches(stamps, batch_size)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def sample(
        self, stamps: Stamps, n_samples: int, *, seed: int | None = None, batch_size: int = BATCH_SIZE
    ) -> np.ndarray:
        """Draw posterior samples: means over groups of trees, which a fusion joins with thinned networks.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        n_samples : int
            Samples per stamp.
        seed : int, optional
            Seed of groups and networks; default: a random one.
        batch_size : int
            Stamps that share thinned networks. Samples of trees alone do not depend on it.

        Returns
        -------
        ndarray
            (n, n_samples) float32 scores.
        """
        seed = secrets.randbits(64) if seed is None else seed
        groups = draw_groups(len(self.forest.trees), n_samples, seed)
        parts = [
            self.calibration(self.sample_logits(batch, groups, (seed, number)))
            for number, batch in enumerate(self._batches(stamps, batch_size))
        ]
        return np.concatenate(parts) if parts else np.empty((0, n_samples), np.float32)

    def latent(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Features in units of the spread of the training rows.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int
            Stamps measured at a time.

        Returns
        -------
        ndarray
            (n, n_features) float32.
        """
        own = self.forest
        parts = [(own.features.measure(batch) - own.mean) / own.spread for batch in self._batches(stamps, batch_size)]
        found = np.concatenate(parts) if parts else np.empty((0, len(own.mean)), np.float32)
        return np.clip(found, -LARGEST_LATENT, LARGEST_LATENT)

    def _batches(self, stamps: Stamps, batch_size: int) -> Iterator[np.ndarray]:
        return cut_batches(stamps, batch_size, shape=self.forest.features.shape, name=self.name)


@dataclass(frozen=True, kw_only=True)
class Measured(OnFeatures):
    """Trees on measured features.

    Attributes
    ----------
    features : FeatureSet
        Features measured on a stamp.
    trees : Trees
        Fitted trees.
    calibration : Sigmoid
        Map from the logit of the trees to a probability.
    mean, spread : ndarray
        (n_features,) mean and spread of the training rows, the units of the latent vector.
    """

    features: FeatureSet
    trees: Trees
    calibration: Sigmoid
    mean: np.ndarray
    spread: np.ndarray
    name: ClassVar[str] = MEASURED

    @property
    def forest(self) -> Measured:
        """The model itself; see `OnFeatures.forest`.

        Returns
        -------
        Measured
        """
        return self

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Logit of the mean over all trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.

        Returns
        -------
        ndarray
            (n,) logits.
        """
        return tree_logits(self.trees.leaves(self.features.measure(batch)).mean(axis=1))

    def sample_logits(self, batch: np.ndarray, groups: np.ndarray, seed: Sequence[int] = ()) -> np.ndarray:
        """Logit of the mean over each group of trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.
        groups : ndarray of int
            (n_samples, n_trees of a group) groups of trees from `draw_groups`.
        seed : sequence of int
            Not used.

        Returns
        -------
        ndarray
            (n, n_samples) logits.
        """
        leaves = self.trees.leaves(self.features.measure(batch))
        return tree_logits(np.stack([leaves[:, group].mean(axis=1) for group in groups], axis=1))

    def write(self, file: h5py.Group) -> None:
        """Write the model into a group.

        Parameters
        ----------
        file : h5py.Group
        """
        file.attrs[KIND_ATTR] = self.name
        calibration = {"slope": self.calibration.slope, "offset": self.calibration.offset}
        file.attrs["about"] = json.dumps(describe_features(self.features) | calibration)
        self.trees.write(file.create_group("trees"))
        for name in ("mean", "spread"):
            file.create_dataset(name, data=np.asarray(getattr(self, name), np.float32))

    @classmethod
    def read(cls, file: h5py.Group) -> Measured:
        """Read and check a model.

        Parameters
        ----------
        file : h5py.Group

        Returns
        -------
        Measured

        Raises
        ------
        ValueError
            If it is damaged, or was made for other features than this version measures.
        """
        about = _read_about(file)
        features = read_features(about)
        trees = Trees.read(file["trees"])
        mean, spread = (read_array(file, name, np.float32, len(features.names)) for name in ("mean", "spread"))
        if not trees.n_features == len(mean) == len(spread) == len(features.names):
            raise ValueError(f"its arrays are not of {len(features.names)} features")
        if not (np.isfinite(mean).all() and np.isfinite(spread).all() and (spread > 0).all()):
            raise ValueError("the spread of a feature is not a number above 0")
        return cls(features=features, trees=trees, calibration=_read_sigmoid(about), mean=mean, spread=spread)


@dataclass(frozen=True, kw_only=True)
class Fusion(OnFeatures):
    """Calibrated mean of the logits of a Bayesian network and of trees on measured features.

    Attributes
    ----------
    measured : Measured
        Trees.
    network : object
        Compiled network (`gotorb.training.inference.CompiledModel`).
    network_file : bytes
        Content of its model.h5.
    weight : float
        Weight of the network's logit; the trees' logit has 1 - weight.
    calibration : Sigmoid
        Map from the mean of the logits to a probability.
    orientations : int
        Orientations of a stamp over which the network's logits are averaged, 1 or 8; features do not depend on them.
    """

    measured: Measured
    network: CompiledModel
    network_file: bytes
    weight: float
    calibration: Sigmoid
    orientations: int
    name: ClassVar[str] = FUSION

    @property
    def forest(self) -> Measured:
        """Trees and features of the fusion.

        Returns
        -------
        Measured
        """
        return self.measured

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Weighted mean of the logits of the network without dropout and of all trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.

        Returns
        -------
        ndarray
            (n,) logits.
        """
        return join_logits(self.network_logits(batch), self.measured.logits(batch), self.weight)

    def sample_logits(self, batch: np.ndarray, groups: np.ndarray, seed: Sequence[int]) -> np.ndarray:
        """Weighted means of the logits of thinned networks and of groups of trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.
        groups : ndarray of int
            (n_samples, n_trees of a group) groups of trees from `draw_groups`.
        seed : sequence of int
            Seed of the samples, and number of the batch.

        Returns
        -------
        ndarray
            (n, n_samples) logits.
        """
        own = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
        network = self._sample_network(batch, len(groups), own)
        return join_logits(network, self.measured.sample_logits(batch, groups), self.weight)

    def network_logits(self, batch: np.ndarray) -> np.ndarray:
        """Logit of the network without dropout, averaged over orientations.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers) stamps.

        Returns
        -------
        ndarray
            (n,) logits.
        """
        turned = (turn_stamps(batch, np.full(len(batch), number)) for number in range(self.orientations))
        return np.asarray(np.mean([score_logits(self.network.score(one)) for one in turned], axis=0))

    def _sample_network(self, batch: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
        """Logits of thinned networks; sample i sees the stamps in orientation i modulo the number of orientations."""
        found = np.empty((len(batch), n_samples))
        for number in range(min(self.orientations, n_samples)):
            at = np.arange(number, n_samples, self.orientations)
            turned = turn_stamps(batch, np.full(len(batch), number))
            samples = self.network.sample(turned, len(at), seed=seed + number, batch_size=len(batch) or 1)
            found[:, at] = score_logits(samples)
        return found

    def write(self, file: h5py.Group) -> None:
        """Write the model into a group.

        Parameters
        ----------
        file : h5py.Group
        """
        file.attrs[KIND_ATTR] = self.name
        about = {"weight": self.weight, "slope": self.calibration.slope, "offset": self.calibration.offset}
        about |= {"orientations": self.orientations}
        file.attrs["about"] = json.dumps(about)
        file.create_dataset("network", data=np.frombuffer(self.network_file, np.uint8))
        self.measured.write(file.create_group(MEASURED))

    @classmethod
    def read(cls, file: h5py.Group, open_network: OpenNetwork) -> Fusion:
        """Read and check a model.

        Parameters
        ----------
        file : h5py.Group
        open_network : callable
            Opens a network from the bytes of its model.h5.

        Returns
        -------
        Fusion

        Raises
        ------
        ValueError, ModelError
            If it, or the network in it, is damaged.
        """
        about = _read_about(file)
        if not 0 <= float(about["weight"]) <= 1:
            raise ValueError(f"its network has the weight {about['weight']}")
        orientations = about.get("orientations", 1)
        if orientations not in (1, N_ORIENTATIONS):
            raise ValueError(f"it averages over {orientations} orientations")
        measured = Measured.read(file[MEASURED])
        content = read_array(file, "network", np.uint8, MAX_NETWORK).tobytes()
        network = open_network(content)
        if tuple(network.model.input_shape[1:]) != tuple(measured.input_shape[1:]):
            raise ValueError(f"its network takes {network.model.input_shape[1:]}, its trees {measured.input_shape[1:]}")
        return cls(
            measured=measured, network=network, network_file=content, weight=float(about["weight"]),
            calibration=_read_sigmoid(about), orientations=int(orientations),
        )  # fmt: skip


def describe_features(features: FeatureSet) -> dict[str, Any]:
    """Describe the features of the trees for a file.

    Parameters
    ----------
    features : FeatureSet
        Features.

    Returns
    -------
    dict
        size, layers, fwhm and names.
    """
    return {"size": features.size, "layers": features.layers, "fwhm": features.fwhm, "names": features.names}


def read_features(about: dict[str, Any]) -> FeatureSet:
    """Make the features from their description in a file.

    Parameters
    ----------
    about : dict
        From `describe_features`.

    Returns
    -------
    FeatureSet

    Raises
    ------
    ValueError
        If they are impossible, or differ from those of this version.
    """
    size, layers = int(about["size"]), tuple(map(str, about["layers"]))
    if not 15 <= size <= 255 or not set(layers) <= set(layout.LAYERS) or len(set(layers)) != len(layers):
        raise ValueError(f"it takes stamps of {size} pixels in the layers {layers}")
    if not 0.1 < float(about["fwhm"]) < 100:
        raise ValueError(f"it was made for a PSF of {about['fwhm']} pixels")
    features = FeatureSet(size, layers, float(about["fwhm"]))
    if list(features.names) != list(about["names"]):
        raise ValueError("its features differ from those of this version; train again")
    return features


def join_logits(network: np.ndarray, trees: np.ndarray, weight: float) -> np.ndarray:
    """Weighted mean of the logits of a network and of trees.

    Parameters
    ----------
    network, trees : ndarray
        Logits of the same shape.
    weight : float
        Weight of the network, 0 to 1.

    Returns
    -------
    ndarray
        Mean, of the same shape.
    """
    return weight * network + (1 - weight) * trees


def draw_groups(n_trees: int, n_groups: int, seed: int | None) -> np.ndarray:
    """Draw groups of trees: random orders of all trees, each cut into `N_GROUPS` groups.

    Parameters
    ----------
    n_trees, n_groups : int
        Number of trees, and of groups to draw. The first groups do not depend on the latter.
    seed : int or None
        Seed; None for a random one.

    Returns
    -------
    ndarray of int
        (n_groups, n_trees of a group) numbers of trees.
    """
    rng = np.random.default_rng(seed)
    size = max(n_trees // N_GROUPS, 1)
    rounds = -(-n_groups // (n_trees // size))
    orders = [rng.permutation(n_trees)[: n_trees // size * size].reshape(-1, size) for _ in range(rounds)]
    return np.concatenate(orders)[:n_groups]


def is_measured(model: object) -> bool:
    """Test for a model on measured features.

    Parameters
    ----------
    model : object
        Model of any kind.

    Returns
    -------
    bool
    """
    return isinstance(model, OnFeatures)


def find_network(model: Any) -> Any:
    """Find the network of a model.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion
        Model.

    Returns
    -------
    keras.Model or Measured
        Network of a fusion; other models unchanged.
    """
    return model.network.model if isinstance(model, Fusion) else model


def find_kind(path: Path) -> str | None:
    """Find the kind of a model file on measured features.

    Parameters
    ----------
    path : Path
        File.

    Returns
    -------
    str or None
        "measured" or "fusion"; None for a network, and for a file that is not HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            kind = file.attrs.get(KIND_ATTR)
    except OSError:
        return None
    return kind if isinstance(kind, str) else None


def read_measured(path: Path, open_network: OpenNetwork) -> Measured | Fusion:
    """Read a model on measured features without running any code in the file.

    Parameters
    ----------
    path : Path
        File.
    open_network : callable
        Function from the bytes of a model.h5 to the compiled network of a fusion.

    Returns
    -------
    Measured or Fusion

    Raises
    ------
    ModelError
        If the file is broken or hostile.
    """
    try:
        with h5py.File(path, "r") as file:
            kind = file.attrs[KIND_ATTR]
            if kind not in (MEASURED, FUSION):
                raise ValueError(f"it holds a model of kind {kind!r}")
            return Measured.read(file) if kind == MEASURED else Fusion.read(file, open_network)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, ModelError) as error:
        raise ModelError(f"{path} cannot be read as a model ({error}); train again or get the original") from None


def write_measured(path: Path, model: Measured | Fusion) -> Path:
    """Write a model on measured features, whole or not at all; equal models give equal bytes.

    Parameters
    ----------
    path : Path
        File.
    model : Measured or Fusion
        Model.

    Returns
    -------
    Path
        The same path.
    """
    with whole_file(path) as part, h5py.File(part, "w") as file:
        model.write(file)
    return path


def _read_about(file: h5py.Group) -> dict[str, Any]:
    about = json.loads(file.attrs["about"])
    if not isinstance(about, dict):
        raise ValueError("its description is not a table")
    return about


def _read_sigmoid(about: dict[str, Any]) -> Sigmoid:
    found = Sigmoid(float(about["slope"]), float(about["offset"]))
    if not (0 < found.slope < 1e3 and abs(found.offset) < 1e3):
        raise ValueError(f"its calibration is {found}")
    return found
