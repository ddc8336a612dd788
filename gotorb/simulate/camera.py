"""The telescope and its detector: what turns a magnitude into electrons and a pixel into sky."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Camera:
    """One unit telescope.

    Numbers are those of GOTO's prototype, rounded, with a zero point at which an asteroid of V 20.2 is half complete.

    Attributes
    ----------
    pixel_arcsec : float
        Side of a pixel.
    exposure_s, gap_s : float
        Length of an exposure and the time between two.
    zero_point : float
        Magnitude of a source that gives one electron per second.
    sky_mag : float
        Dark sky [mag per square arcsec].
    read_noise, full_well : float
        In electrons.
    """

    pixel_arcsec: float = 1.24
    exposure_s: float = 60.0
    gap_s: float = 11.0
    zero_point: float = 22.5
    sky_mag: float = 20.6
    read_noise: float = 12.0
    full_well: float = 42_000.0

    @property
    def image_zero_point(self) -> float:
        """Magnitude of one electron in one exposure."""
        return self.zero_point + 2.5 * float(np.log10(self.exposure_s))

    @property
    def sky_electrons(self) -> float:
        """Sky level of one exposure [electron per pixel]."""
        rate = 10 ** (-0.4 * (self.sky_mag - self.zero_point)) * self.pixel_arcsec**2
        return rate * self.exposure_s

    @property
    def pixel_noise(self) -> float:
        """Noise of an empty pixel of one exposure [electron]."""
        return float(np.sqrt(self.sky_electrons + self.read_noise**2))

    def flux(self, mag: Array | float) -> Array:
        """Electrons of one exposure from magnitudes.

        >>> float(np.round(Camera().flux(22.5), 6))
        60.0
        """
        return np.asarray(10 ** (-0.4 * (np.asarray(mag, dtype=float) - self.image_zero_point)))

    def mag(self, flux: Array | float) -> Array:
        """Magnitudes from electrons of one exposure; the sign of the flux is ignored."""
        return np.asarray(self.image_zero_point - 2.5 * np.log10(np.maximum(np.abs(flux), 1e-6)))

    def side_deg(self, size: int) -> float:
        """Side of an image of `size` pixels."""
        return size * self.pixel_arcsec / 3600
