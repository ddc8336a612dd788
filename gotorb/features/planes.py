"""Planes of stamps in units of their noise, with gaps masked and isolated hot pixels far from the source removed."""

from dataclasses import dataclass, field

import numpy as np

from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.features.geometry import Geometry
from gotorb.survey.pixels import LARGEST

LARGEST_Z = 1e4
"""Noise units at which pixels are clipped."""
GAP_NEIGHBOURS = 3
"""Smallest number of neighbours of value 0 for which a pixel of value 0 is a gap."""
SPIKE_SIGMA, SPIKE_RATIO = 10.0, 5.0
"""Smallest brightness of a hot pixel in noise units, and in units of its brightest neighbour."""


@dataclass(kw_only=True)
class Planes:
    """Planes of some stamps.

    Attributes
    ----------
    geometry : Geometry
    z : dict of str to ndarray
        (n, size, size) float32 for each layer: noise units above the median; gaps and hot pixels far away are 0.
    gaps : dict of str to ndarray
        (n, size, size) bool for each layer.
    noise : dict of str to ndarray
        (n,) standard deviation of each layer in the survey's units.
    sign : ndarray
        (n,) 1, or -1 for a negative source in the difference, whose plane is multiplied by it.
    """

    geometry: Geometry
    z: dict[str, np.ndarray]
    gaps: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    sign: np.ndarray
    _sorted: dict[str, np.ndarray] = field(default_factory=dict)

    def outwards(self, name: str) -> np.ndarray:
        """Pixels of a plane from the centre outwards.

        Parameters
        ----------
        name : str
            Of the layer.

        Returns
        -------
        ndarray
            (n, size * size).
        """
        if name not in self._sorted:
            flat = self.z[name].reshape(len(self.sign), -1)
            self._sorted[name] = np.take(flat, self.geometry.order, axis=1)
        return self._sorted[name]

    def known(self, name: str) -> np.ndarray:
        """1 for pixels with data, else 0, from the centre outwards.

        Parameters
        ----------
        name : str
            Of the layer.

        Returns
        -------
        ndarray
            (n, size * size) float32.
        """
        flat = ~self.gaps[name].reshape(len(self.sign), -1)
        return np.take(flat, self.geometry.order, axis=1).astype(np.float32)


def make_planes(stamps: np.ndarray, layers: tuple[str, ...], geometry: Geometry) -> Planes:
    """Express stamps in units of their noise.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers) in the survey's units.
    layers : tuple of str
        Names of the layers; ``difference`` is one of them.
    geometry : Geometry

    Returns
    -------
    Planes
    """
    z, gaps, noise = {}, {}, {}
    for place, name in enumerate(layers):
        plane = np.ascontiguousarray(stamps[..., place], np.float32)
        gaps[name] = find_gaps(plane)
        z[name], noise[name] = scale_plane(plane, gaps[name])
        remove_spikes(z[name], geometry)
    flat = z["difference"].reshape(len(stamps), -1)
    core = np.take(flat, geometry.order[: geometry.inside(2.0)], axis=1).sum(axis=1)
    sign = np.where(core < 0, np.float32(-1), np.float32(1))
    z["difference"] *= sign[:, None, None]
    return Planes(geometry=geometry, z=z, gaps=gaps, noise=noise, sign=sign)


def find_gaps(plane: np.ndarray) -> np.ndarray:
    """Find pixels without data: impossible values, or 0 among neighbours of 0.

    Parameters
    ----------
    plane : ndarray
        (n, size, size).

    Returns
    -------
    ndarray
        (n, size, size) bool.
    """
    gaps = ~(np.abs(plane) < LARGEST)  # NaN is not
    zero = (plane == 0) | gaps
    for row in np.flatnonzero(zero.sum(axis=(1, 2)) > GAP_NEIGHBOURS):
        padded = np.pad(zero[row], 1, mode="edge").astype(np.int8)
        rows = padded[:-2] + padded[1:-1] + padded[2:]
        gaps[row] |= zero[row] & (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] > GAP_NEIGHBOURS)
    return gaps


def scale_plane(plane: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the median and divide by the noise (1.4826 times the median absolute deviation).

    Parameters
    ----------
    plane : ndarray
        (n, size, size).
    gaps : ndarray
        (n, size, size) bool; left out, and 0 in the result.

    Returns
    -------
    z : ndarray
        (n, size, size) float32.
    noise : ndarray
        (n,) float32, above 0.
    """
    flat = np.where(gaps, np.float32(np.inf), plane).reshape(len(plane), -1)
    n_known = flat.shape[1] - np.count_nonzero(gaps.reshape(flat.shape), axis=1)
    middle = _known_median(flat, n_known)
    with np.errstate(invalid="ignore", over="ignore"):
        deviation = np.abs(flat - middle[:, None])
        noise = np.float32(MAD_TO_SIGMA) * _known_median(deviation, n_known)
        mean = np.where(np.isfinite(deviation), deviation, 0).sum(axis=1) / np.maximum(n_known, 1)
        noise = np.where(noise > 0, noise, np.where(mean > 0, mean, 1)).astype(np.float32)
        z = np.clip((flat - middle[:, None]) / noise[:, None], -LARGEST_Z, LARGEST_Z)
    z[gaps.reshape(z.shape)] = 0
    return z.reshape(plane.shape), noise


def _known_median(flat: np.ndarray, n_known: np.ndarray) -> np.ndarray:
    """Median of the finite values of each row, or 0 without any; infinite values are sorted last."""
    ordered, rows = np.sort(flat, axis=1), np.arange(len(flat))
    low = ordered[rows, np.maximum(n_known - 1, 0) // 2]
    high = ordered[rows, np.minimum(n_known // 2, flat.shape[1] - 1)]
    with np.errstate(invalid="ignore"):
        return np.where(n_known > 0, low / 2 + high / 2, 0).astype(np.float32)


def remove_spikes(z: np.ndarray, geometry: Geometry) -> None:
    """Set isolated bright pixels far from the centre to 0, in place.

    Parameters
    ----------
    z : ndarray
        (n, size, size) noise units.
    geometry : Geometry
    """
    row, y, x = np.nonzero((np.abs(z) > SPIKE_SIGMA) & geometry.far)
    if not len(row):
        return
    padded = np.pad(np.abs(z), ((0, 0), (1, 1), (1, 1)))
    around = np.stack([padded[row, y + dy, x + dx] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)])
    lone = around.max(axis=0) * SPIKE_RATIO < padded[row, y + 1, x + 1]
    z[row[lone], y[lone], x[lone]] = 0
