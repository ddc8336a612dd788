"""Models on measured features: ``measured``, trees alone, and ``fusion``, trees and a Bayesian network.

Both look like a network to all that scores stamps: a name, an input shape, scores, posterior samples and latent
vectors. A posterior sample of the trees is the mean of a random group of them; one of the fusion joins it with a
Monte-Carlo dropout sample of the network.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
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
"""Groups into which the trees are divided; each is a posterior sample."""
SOFTEN = 0.0025
"""Distance from 0 and 1 of a mean over trees before its logit is taken."""
TREES_LOGIT = 2.0
"""Factor of the trees' logit, whose means over leaves are closer to one half than a network's scores."""
SCORE_CLIP, LOGIT_CLIP = 1e-6, 60.0
"""Distance of a network's scores from 0 and 1 before their logit is taken, and the largest logit."""
LARGEST_LATENT = 5.0
MAX_NETWORK = 2**29
"""Bytes of a network inside a model file."""


@dataclass(frozen=True)
class Sigmoid:
    """Platt scaling: probability = sigmoid(slope * logit + offset)."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return (1 / (1 + np.exp(-np.clip(self.slope * logits + self.offset, -LOGIT_CLIP, LOGIT_CLIP)))).astype(
            np.float32
        )


def tree_logits(means: np.ndarray) -> np.ndarray:
    """Logit of means over trees, which may be 0 or 1.

    Parameters
    ----------
    means : ndarray
        Between 0 and 1.

    Returns
    -------
    ndarray
        Finite, of the same shape.
    """
    soft = SOFTEN + (1 - 2 * SOFTEN) * means
    return TREES_LOGIT * np.log(soft / (1 - soft))


def score_logits(scores: np.ndarray) -> np.ndarray:
    """Logit of a network's scores.

    Parameters
    ----------
    scores : ndarray
        Between 0 and 1.

    Returns
    -------
    ndarray
        Finite, of the same shape.
    """
    safe = np.clip(np.asarray(scores, float), SCORE_CLIP, 1 - SCORE_CLIP)
    return np.log(safe / (1 - safe))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Trees on measured features.

    Attributes
    ----------
    features : FeatureSet
        What is measured on a stamp.
    trees : Trees
    calibration : Sigmoid
        From the trees' logit to a probability.
    mean, spread : ndarray
        (n_features,) of the training rows; the latent vector is a stamp's features in these units.
    """

    features: FeatureSet
    trees: Trees
    calibration: Sigmoid
    mean: np.ndarray
    spread: np.ndarray
    name: ClassVar[str] = MEASURED
    has_posterior: ClassVar[bool] = True

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(None, size, size, n_layers), as Keras' models say it."""
        return None, self.features.size, self.features.size, len(self.features.layers)

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Score stamps by all trees.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int

        Returns
        -------
        ndarray
            (n,) float32.
        """
        parts = [self.calibration(self.logits(batch)) for batch in self.batches(stamps, batch_size)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def sample(
        self, stamps: Stamps, n_samples: int, *, seed: int | None = None, batch_size: int = BATCH_SIZE
    ) -> np.ndarray:
        """Posterior samples: means over groups of trees. They do not depend on the batch.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        n_samples : int
        seed : int, optional
            Fresh randomness when left out.
        batch_size : int

        Returns
        -------
        ndarray
            (n, n_samples) float32.
        """
        groups = draw_groups(len(self.trees), n_samples, seed)
        parts = [self.calibration(self.group_logits(batch, groups)) for batch in self.batches(stamps, batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, n_samples), np.float32)

    def latent(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Features in units of the training rows' spread.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int

        Returns
        -------
        ndarray
            (n, n_features) float32.
        """
        parts = [(self.features.measure(batch) - self.mean) / self.spread for batch in self.batches(stamps, batch_size)]
        found = np.concatenate(parts) if parts else np.empty((0, len(self.mean)), np.float32)
        return np.clip(found, -LARGEST_LATENT, LARGEST_LATENT)

    def batches(self, stamps: Stamps, batch_size: int) -> Iterator[np.ndarray]:
        """Cut stamps to checked batches.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
        batch_size : int

        Returns
        -------
        iterator of ndarray
        """
        return cut_batches(stamps, batch_size, shape=tuple(self.input_shape[1:]), name=self.name)  # type: ignore[arg-type]

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Logit of the mean over all trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers).

        Returns
        -------
        ndarray
            (n,).
        """
        return tree_logits(self.trees.leaves(self.features.measure(batch)).mean(axis=1))

    def group_logits(self, batch: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Logit of the mean over each group of trees.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers).
        groups : ndarray
            (n_groups, n_trees of a group) from `draw_groups`.

        Returns
        -------
        ndarray
            (n, n_groups).
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
class Fusion:
    """Calibrated mean of the logits of a Bayesian network and of trees on measured features.

    Attributes
    ----------
    measured : Measured
    network : object
        The network, compiled (`gotorb.training.inference.CompiledModel`).
    network_file : bytes
        Its model.h5.
    weight : float
        Of the network's logit; the trees' has the rest of 1.
    calibration : Sigmoid
        From the mean of the logits to a probability.
    orientations : int
        Orientations of a stamp over which the network's logits are averaged, 1 or 8; the features are alike in all.
    """

    measured: Measured
    network: CompiledModel
    network_file: bytes
    weight: float
    calibration: Sigmoid
    orientations: int
    name: ClassVar[str] = FUSION
    has_posterior: ClassVar[bool] = True

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(None, size, size, n_layers), as Keras' models say it."""
        return self.measured.input_shape

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Score stamps by all trees, and the network without dropout.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int

        Returns
        -------
        ndarray
            (n,) float32.
        """
        parts = []
        for batch in self.measured.batches(stamps, batch_size):
            network, trees = self.network_logits(batch), self.measured.logits(batch)
            parts.append(self.calibration(join_logits(network, trees, self.weight)))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def network_logits(self, batch: np.ndarray) -> np.ndarray:
        """Logit of the network without dropout, averaged over orientations.

        Parameters
        ----------
        batch : ndarray
            (n, size, size, n_layers).

        Returns
        -------
        ndarray
            (n,).
        """
        turned = (turn_stamps(batch, np.full(len(batch), number)) for number in range(self.orientations))
        return np.asarray(np.mean([score_logits(self.network.score(one)) for one in turned], axis=0))

    def _sample_network(self, batch: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
        """Logits of thinned networks; sample i sees the stamps in orientation i modulo the number of orientations."""
        found = np.empty((len(batch), n_samples))
        for number in range(min(self.orientations, n_samples)):
            at = np.arange(number, n_samples, self.orientations)
            turned = turn_stamps(batch, np.full(len(batch), number))
            found[:, at] = score_logits(
                self.network.sample(turned, len(at), seed=seed + number, batch_size=len(batch) or 1)
            )
        return found

    def sample(
        self, stamps: Stamps, n_samples: int, *, seed: int | None = None, batch_size: int = BATCH_SIZE
    ) -> np.ndarray:
        """Posterior samples: a thinned network joined with a group of trees.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        n_samples : int
        seed : int, optional
            Fresh randomness when left out.
        batch_size : int
            Stamps that share thinned networks.

        Returns
        -------
        ndarray
            (n, n_samples) float32.
        """
        seed = secrets.randbits(64) if seed is None else seed
        groups, parts = draw_groups(len(self.measured.trees), n_samples, seed), []
        for number, batch in enumerate(self.measured.batches(stamps, batch_size)):
            own = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
            network = self._sample_network(batch, n_samples, own)
            trees = self.measured.group_logits(batch, groups)
            parts.append(self.calibration(join_logits(network, trees, self.weight)))
        return np.concatenate(parts) if parts else np.empty((0, n_samples), np.float32)

    def latent(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Features in units of the training rows' spread; see `Measured.latent`.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int

        Returns
        -------
        ndarray
            (n, n_features) float32.
        """
        return self.measured.latent(stamps, batch_size=batch_size)

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
    """What a file must tell of the features that its trees read.

    Parameters
    ----------
    features : FeatureSet

    Returns
    -------
    dict
        size, layers, fwhm and names.
    """
    return {"size": features.size, "layers": features.layers, "fwhm": features.fwhm, "names": features.names}


def read_features(about: dict[str, Any]) -> FeatureSet:
    """Features that `describe_features` described.

    Parameters
    ----------
    about : dict

    Returns
    -------
    FeatureSet

    Raises
    ------
    ValueError
        If they are impossible, or others than this version measures.
    """
    size, layers = int(about["size"]), tuple(map(str, about["layers"]))
    if not 15 <= size <= 255 or not set(layers) <= set(layout.LAYERS) or len(set(layers)) != len(layers):
        raise ValueError(f"it takes stamps of {size} pixels in the layers {layers}")
    if not 0.1 < float(about["fwhm"]) < 100:
        raise ValueError(f"it was made for a PSF of {about['fwhm']} pixels")
    features = FeatureSet(size, layers, float(about["fwhm"]))
    if list(features.names) != list(about["names"]):
        raise ValueError("it was made for other features than this version measures; train again")
    return features


def join_logits(network: np.ndarray, trees: np.ndarray, weight: float) -> np.ndarray:
    """Weighted mean of two logits.

    Parameters
    ----------
    network, trees : ndarray
        Of the same shape.
    weight : float
        Of the network, 0 to 1.

    Returns
    -------
    ndarray
    """
    return weight * network + (1 - weight) * trees


def draw_groups(n_trees: int, n_groups: int, seed: int | None) -> np.ndarray:
    """Draw groups of trees: each order of the trees is cut to `N_GROUPS` groups, then the next order is drawn.

    Parameters
    ----------
    n_trees : int
    n_groups : int
    seed : int or None
        Fresh randomness for None. The first groups are the same however many are drawn.

    Returns
    -------
    ndarray of int
        (n_groups, n_trees of a group).
    """
    rng = np.random.default_rng(seed)
    size = max(n_trees // N_GROUPS, 1)
    rounds = -(-n_groups // (n_trees // size))
    orders = [rng.permutation(n_trees)[: n_trees // size * size].reshape(-1, size) for _ in range(rounds)]
    return np.concatenate(orders)[:n_groups]


def is_measured(model: object) -> bool:
    """True for a model on measured features.

    Parameters
    ----------
    model : object

    Returns
    -------
    bool
    """
    return isinstance(model, (Measured, Fusion))


def find_network(model: Any) -> Any:
    """Network of a fusion; another model as it is.

    Parameters
    ----------
    model : keras.Model, Measured or Fusion

    Returns
    -------
    keras.Model or Measured
    """
    return model.network.model if isinstance(model, Fusion) else model


def find_kind(path: Path) -> str | None:
    """Kind of a model file that is not a Keras network.

    Parameters
    ----------
    path : Path

    Returns
    -------
    str or None
        None for a network, and for a file that is no HDF5.
    """
    try:
        with h5py.File(path, "r") as file:
            kind = file.attrs.get(KIND_ATTR)
    except OSError:
        return None
    return kind if isinstance(kind, str) else None


def read_measured(path: Path, open_network: OpenNetwork) -> Measured | Fusion:
    """Read a model on measured features; nothing in the file is run.

    Parameters
    ----------
    path : Path
    open_network : callable
        Opens the network of a fusion from the bytes of its model.h5.

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
    """Write a model on measured features whole or not at all; equal models give equal bytes.

    Parameters
    ----------
    path : Path
    model : Measured or Fusion

    Returns
    -------
    Path
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
