"""Gnomonic (TAN) world coordinates, vectorised and without header parsing."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Tan:
    """A TAN world coordinate system.

    Attributes
    ----------
    ra, dec : float
        Sky position of the reference pixel [deg, ICRS].
    x0, y0 : float
        Reference pixel, 0-based pixel centres.
    scale_deg : float
        Pixel side; East is towards smaller x when `angle_deg` is 0.
    angle_deg : float
        Rotation of the pixel grid.
    """

    ra: float
    dec: float
    x0: float
    y0: float
    scale_deg: float
    angle_deg: float = 0.0

    @property
    def matrix(self) -> Array:
        """CD matrix [deg per pixel]."""
        angle = np.deg2rad(self.angle_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.diag([-self.scale_deg, self.scale_deg]) @ turn

    def shifted(self, dx: float, dy: float) -> "Tan":
        """Grid in which every source lies (dx, dy) pixels further."""
        return replace(self, x0=self.x0 + dx, y0=self.y0 + dy)

    def to_pixel(self, ra: Array, dec: Array) -> tuple[Array, Array]:
        """Pixels x, y (0-based) of sky positions [deg]; NaN for the far hemisphere.

        >>> x, y = Tan(10, 20, 5, 6, 1e-4).to_pixel(np.array([10.0]), np.array([20.0]))
        >>> bool(np.allclose((x[0], y[0]), (5, 6)))
        True
        """
        dra = np.deg2rad(np.asarray(ra, dtype=float) - self.ra)
        dec, dec0 = np.deg2rad(np.asarray(dec, dtype=float)), np.deg2rad(self.dec)
        depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(dra)
        depth = np.where(depth > 0.1, depth, np.nan)
        xi = np.cos(dec) * np.sin(dra) / depth
        eta = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(dra)) / depth
        inverse = np.linalg.inv(self.matrix)
        xi, eta = np.rad2deg(xi), np.rad2deg(eta)
        return (
            self.x0 + inverse[0, 0] * xi + inverse[0, 1] * eta,
            self.y0 + inverse[1, 0] * xi + inverse[1, 1] * eta,
        )

    def to_sky(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Sky positions ra, dec [deg] of pixels (0-based)."""
        dx, dy = np.asarray(x, dtype=float) - self.x0, np.asarray(y, dtype=float) - self.y0
        cd = self.matrix
        xi, eta = np.deg2rad(cd[0, 0] * dx + cd[0, 1] * dy), np.deg2rad(cd[1, 0] * dx + cd[1, 1] * dy)
        dec0 = np.deg2rad(self.dec)
        depth = np.cos(dec0) - eta * np.sin(dec0)
        ra = self.ra + np.rad2deg(np.arctan2(xi, depth))
        dec = np.rad2deg(np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, depth)))
        return np.mod(ra, 360), dec

    def cards(self) -> dict[str, str | float]:
        """The header keys of this grid."""
        cd = self.matrix
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRVAL1": self.ra,
            "CRVAL2": self.dec,
            "CRPIX1": self.x0 + 1,
            "CRPIX2": self.y0 + 1,
            "CD1_1": float(cd[0, 0]),
            "CD1_2": float(cd[0, 1]),
            "CD2_1": float(cd[1, 0]),
            "CD2_2": float(cd[1, 1]),
            "RADESYS": "ICRS",
        }
