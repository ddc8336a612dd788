"""Pixels of a stamp by distance from its centre, and templates that are fitted to them.

Radii are in pixels for a PSF of `REFERENCE_FWHM`, and scale with the width of the PSF.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gotorb.core.constants import SIGMA_TO_FWHM

REFERENCE_FWHM = 3.1
"""Full width of the PSF, in pixels, for the radii below."""
STRETCH = (0.6, 2.5)
"""Smallest and largest factor by which radii scale with the width of the PSF."""
RING_EDGES = (0.0, 0.8, 1.6, 2.4, 3.3, 4.5, 6.0, 8.0, 11.0, 15.0, 22.0, 32.0)
FIT_RADIUS = 5.5
FIT_WIDTHS = (1.2, 1.6, 2.0, 2.5, 3.0, 3.6, 4.4, 5.5)
"""Full widths of the fitted Gaussians."""
FIT_STEPS = (-1.2, -0.6, 0.0, 0.6, 1.2)
"""Offsets of their centres along each axis."""
FIT_GRID = [(width, dy, dx) for width in FIT_WIDTHS for dy in FIT_STEPS for dx in FIT_STEPS]
FAR_RADIUS = 7.5
"""Radius beyond which a pixel is not part of the source."""
SMOOTH_FWHM = 2.0
"""Full width of the Gaussian for smoothing."""
SYMMETRY_HALF = 6
"""Half the side of the square that is compared with its mirror images."""


@dataclass(frozen=True)
class Geometry:
    """Index arrays and templates for stamps of one size and one width of the PSF.

    Attributes
    ----------
    size : int
        Side of the stamps, pixels.
    fwhm : float
        Full width at half maximum of the PSF, pixels.
    """

    size: int
    fwhm: float = REFERENCE_FWHM

    @property
    def stretch(self) -> float:
        """Factor from the radii of this file to pixels."""
        return float(np.clip(self.fwhm / REFERENCE_FWHM, *STRETCH))

    @cached_property
    def offsets(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, x) of each pixel from the centre, (size, size), in stretched units."""
        y, x = (np.mgrid[: self.size, : self.size] - (self.size - 1) / 2) / self.stretch
        return y, x

    @cached_property
    def order(self) -> np.ndarray:
        """Pixels (numbers into a flat stamp) from the centre outwards, (size * size,)."""
        return np.argsort(np.hypot(*self.offsets).ravel(), kind="stable")

    @cached_property
    def radius(self) -> np.ndarray:
        """Distance of each pixel from the centre, in the order of `order`."""
        return np.hypot(*self.offsets).ravel()[self.order]

    def inside(self, radius: float) -> int:
        """Number of pixels within a radius, which are the first ones of `order`.

        Parameters
        ----------
        radius : float
            Radius at the reference PSF, pixels.

        Returns
        -------
        int
            At least 1.
        """
        return max(int(np.searchsorted(self.radius, radius + 1e-9, side="right")), 1)

    @property
    def heart(self) -> tuple[int, int]:
        """Number of central pixels (1, or 4 of an even stamp), and of these and the 8 next to them."""
        n = 1 if self.size % 2 else 4
        return n, n + 8

    @cached_property
    def ring_starts(self) -> np.ndarray:
        """First pixel of each ring in `order`, and the end of the last; rings without pixels are left out."""
        starts = [0, *(self.inside(edge) for edge in RING_EDGES[1:])]
        return np.unique(starts)

    @cached_property
    def far(self) -> np.ndarray:
        """True for pixels beyond `FAR_RADIUS`, (size, size)."""
        return np.hypot(*self.offsets) > FAR_RADIUS

    @cached_property
    def fit_pixels(self) -> slice:
        """Pixels of `order` that a fit reads."""
        return slice(0, self.inside(FIT_RADIUS))

    @cached_property
    def _gaussians(self) -> np.ndarray:
        """Gaussians of peak 1 without their mean, (n_models, n_pixels), in the order of `FIT_GRID`."""
        y, x = (axis.ravel()[self.order][self.fit_pixels] for axis in self.offsets)
        full = [np.exp(-((y - b) ** 2 + (x - c) ** 2) / 2 * (SIGMA_TO_FWHM / a) ** 2) for a, b, c in FIT_GRID]
        return np.array(full) - np.mean(full, axis=1, keepdims=True)

    @cached_property
    def fit_models(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors of the Gaussians without their mean (n_pixels, n_models), with their widths and offsets."""
        unit = self._gaussians / np.linalg.norm(self._gaussians, axis=1)[:, None]
        widths, dy, dx = np.array(FIT_GRID).T
        return np.ascontiguousarray(unit.T, np.float32), widths.astype(np.float32), np.hypot(dy, dx).astype(np.float32)

    @cached_property
    def fit_peaks(self) -> np.ndarray:
        """Norm of each Gaussian of peak 1 without its mean, by which a projection is divided for the amplitude."""
        return np.linalg.norm(self._gaussians, axis=1).astype(np.float32)

    @cached_property
    def blur(self) -> np.ndarray:
        """(size, size) matrix B: ``B z B`` is the smoothed stamp in units of its own noise (B is symmetric)."""
        at = np.arange(self.size) / self.stretch
        kernel = np.exp(-((at[:, None] - at) ** 2) / 2 * (SIGMA_TO_FWHM / SMOOTH_FWHM) ** 2)
        middle = kernel[self.size // 2]
        return (kernel / np.linalg.norm(middle)).astype(np.float32)

    @cached_property
    def turns(self) -> tuple[np.ndarray, np.ndarray]:
        """Central square as flat pixel numbers, and the same turned by 180 and 90 degrees and mirrored twice."""
        half = min(SYMMETRY_HALF, (self.size - 1) // 2)
        low = (self.size - 1) // 2 - half
        pixels = np.arange(self.size**2).reshape(self.size, self.size)
        square = pixels[low : self.size - low, low : self.size - low]
        turned = (np.rot90(square, 2), np.rot90(square), square[::-1], square[:, ::-1])
        return square.ravel(), np.array([one.ravel() for one in turned])
