"""Features measured on stamps: profiles, counts, fits, symmetry, correlations, in units of noise and of the PSF.

>>> from gotorb.features import FeatureSet
>>> table = FeatureSet(size=55, layers=("science", "template", "difference")).measure(stamps)  # doctest: +SKIP
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gotorb.errors import ModelError
from gotorb.features.geometry import REFERENCE_FWHM, Geometry
from gotorb.features.groups import GROUPS, describe_feature
from gotorb.features.planes import make_planes

__all__ = ["FeatureSet", "describe_feature"]
LARGEST_FEATURE = 1e6
MEASURED_ROWS = 32
"""Stamps measured together, whose planes fit into the processor's cache."""


@dataclass(frozen=True)
class FeatureSet:
    """Features of stamps of one size, in the given layers.

    Attributes
    ----------
    size : int
        Side of the stamps, pixels.
    layers : tuple of str
        Layers of the stamps in their order; ``difference`` is one of them.
    fwhm : float
        Full width at half maximum of the survey's PSF, pixels; all radii scale with it.
    """

    size: int
    layers: tuple[str, ...]
    fwhm: float = REFERENCE_FWHM

    def __post_init__(self) -> None:
        if "difference" not in self.layers:
            raise ModelError(
                f"features need the layer 'difference', but the layers are {', '.join(self.layers)}; add it "
                "(train.layers)"
            )
        if self.size < 15:
            raise ModelError(f"features need stamps of at least 15 pixels, these have {self.size}; cut larger ones")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a stamp.

        Returns
        -------
        tuple of int
            (size, size, n_layers).
        """
        return self.size, self.size, len(self.layers)

    @cached_property
    def geometry(self) -> Geometry:
        """Pixels by their distance from the centre, and templates of the PSF."""
        return Geometry(self.size, self.fwhm)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the columns."""
        return tuple(self._measure(np.zeros((1, *self.shape), np.float32))[0])

    def measure(self, stamps: np.ndarray, *, threads: int | None = None) -> np.ndarray:
        """Measure stamps.

        Parameters
        ----------
        stamps : ndarray
            (n, size, size, n_layers) stamps in the survey's units, sky-subtracted or not; gaps are 0 or NaN.
        threads : int, optional
            CPU threads, which do not change the result; default: one per core.

        Returns
        -------
        ndarray
            (n, n_features) float32.
        """
        if stamps.shape[1:] != self.shape:
            raise ModelError(
                f"stamps of shape {stamps.shape[1:]} (size, size, layers) do not fit these features of stamps of "
                f"{self.shape}; give stamps of this size and these layers"
            )
        starts = range(0, len(stamps), MEASURED_ROWS)
        blocks = (stamps[start : start + MEASURED_ROWS] for start in starts)
        with ThreadPoolExecutor(min(threads or os.cpu_count() or 1, max(len(starts), 1))) as pool:
            parts = list(pool.map(lambda block: self._measure(block)[1], blocks))
        return np.concatenate(parts) if parts else np.empty((0, len(self.names)), np.float32)

    def _measure(self, stamps: np.ndarray) -> tuple[Sequence[str], np.ndarray]:
        planes = make_planes(np.asarray(stamps, np.float32), self.layers, self.geometry)
        found = {name: values for group in GROUPS.values() for name, values in group(planes).items()}
        columns = np.stack(list(found.values()), axis=1).astype(np.float32)
        columns = np.nan_to_num(columns, copy=False, posinf=LARGEST_FEATURE, neginf=-LARGEST_FEATURE)
        return tuple(found), np.clip(columns, -LARGEST_FEATURE, LARGEST_FEATURE)
