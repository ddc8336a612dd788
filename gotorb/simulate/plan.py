"""Camera, pixel grid and pointings: fields on a lattice along the ecliptic, visits on different nights."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from gotorb.core.params import SurveyParams
from gotorb.errors import ConfigError
from gotorb.simulate import orbits

Array = NDArray[np.floating]
FIRST_NIGHT_MJD = 59155
"""2020 November 2, noon to noon; the Sun is then at ecliptic longitude 220."""
OPPOSITION_LON_DEG = 42.0
LON_REACH_DEG, LAT_REACH_DEG, MAX_DEC_DEG = 50.0, 9.0, 33.0
TRAINING_FIELD = 100_000
"""Fields from this number on never appear in a survey; the old scores are trained on them."""
VISIT_SLOTS = 10
FIRST_IMAGE_ID = 1000
# What a random stream is for: second level of the seed sequence [seed, field, purpose, ...].
POINTING, SKY, BELT, TEMPLATE, VISIT, ORBIT = range(6)


@dataclass(frozen=True, kw_only=True)
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

    def flux(self, mag: Array | float) -> Array:
        """Convert magnitudes to electrons of one exposure.

        Parameters
        ----------
        mag : array_like

        Returns
        -------
        ndarray

        Examples
        --------
        >>> float(np.round(Camera().flux(22.5), 6))
        60.0
        """
        return np.asarray(10 ** (-0.4 * (np.asarray(mag, dtype=float) - self.image_zero_point)))

    def mag(self, flux: Array | float) -> Array:
        """Convert electrons of one exposure to magnitudes; the sign of the flux is ignored.

        Parameters
        ----------
        flux : array_like

        Returns
        -------
        ndarray
        """
        return np.asarray(self.image_zero_point - 2.5 * np.log10(np.maximum(np.abs(flux), 1e-6)))

    def side_deg(self, size: int) -> float:
        """Side of an image in degrees.

        Parameters
        ----------
        size : int
            Pixels.

        Returns
        -------
        float
        """
        return size * self.pixel_arcsec / 3600


CAMERA = Camera()


@dataclass(frozen=True, kw_only=True)
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
        """Grid in which every source lies (dx, dy) pixels further.

        Parameters
        ----------
        dx, dy : float
            Pixels.

        Returns
        -------
        Tan
        """
        return replace(self, x0=self.x0 + dx, y0=self.y0 + dy)

    def to_pixel(self, ra: Array, dec: Array) -> tuple[Array, Array]:
        """Convert sky positions to pixels.

        Parameters
        ----------
        ra, dec : ndarray
            Deg, ICRS.

        Returns
        -------
        x, y : ndarray
            0-based; NaN for the far hemisphere.

        Examples
        --------
        >>> grid = Tan(ra=10, dec=20, x0=5, y0=6, scale_deg=1e-4)
        >>> x, y = grid.to_pixel(np.array([10.0]), np.array([20.0]))
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
        """Convert pixels to sky positions.

        Parameters
        ----------
        x, y : ndarray
            0-based.

        Returns
        -------
        ra, dec : ndarray
            Deg, ICRS.
        """
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


@dataclass(frozen=True)
class Visit:
    """One pointing on one night.

    Attributes
    ----------
    field, number : int
        Which field, and which visit of it.
    mjd_utc : float
        Middle of the visit.
    image_id : int
        Id of the difference image; the ids of the exposures follow it.
    run : int
        Number of the first exposure in the survey's log of exposures.
    """

    field: int
    number: int
    mjd_utc: float
    image_id: int
    run: int

    @property
    def night(self) -> str:
        """Calendar date of the evening, the name of the folder."""
        return datetime.fromtimestamp((np.floor(self.mjd_utc - 0.5) - 40587) * 86400, tz=UTC).strftime("%Y-%m-%d")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One pointing: centre [deg], unit telescope, grid of the template and its visits."""

    index: int
    ra: float
    dec: float
    unit: int
    size: int
    angle_deg: float
    n_exposures: int
    visits: tuple[Visit, ...]

    @property
    def grid(self) -> Tan:
        """Pixel grid whose reference pixel is the image's centre."""
        middle = (self.size - 1) / 2
        scale = CAMERA.pixel_arcsec / 3600
        return Tan(ra=self.ra, dec=self.dec, x0=middle, y0=middle, scale_deg=scale, angle_deg=self.angle_deg)


def stream(seed: int, field: int, *purpose: int) -> np.random.Generator:
    """Random generator of one purpose of one field; independent of every other.

    Parameters
    ----------
    seed, field : int
        Seed of the survey and number of the field.
    *purpose : int
        One of the constants POINTING to ORBIT or of another module, then numbers such as the visit's.

    Returns
    -------
    Generator
    """
    return np.random.default_rng([seed, field, *purpose])


def plan_survey(params: SurveyParams, seed: int) -> list[Field]:
    """All fields and visits of a survey.

    A field's place depends on the seed, its number and the image size only, so more fields leave the first ones
    as they are.

    Parameters
    ----------
    params : SurveyParams
        Size and number of fields and visits.
    seed : int
        Of the survey.

    Returns
    -------
    list of Field

    Raises
    ------
    ConfigError
        If the lattice has fewer places than fields.
    """
    places = _lattice(CAMERA.side_deg(params.size), seed)
    if params.n_fields > len(places):
        raise ConfigError(
            f"survey.n_fields is {params.n_fields} in params.yaml: only {len(places)} fields of {params.size} pixels "
            "fit along the ecliptic; lower n_fields or survey.size"
        )
    return [_make_field(index, places[index], params, seed) for index in range(params.n_fields)]


def plan_training(params: SurveyParams, seed: int) -> list[Field]:
    """Fields for the old scores: of their own random streams, smaller, two visits each.

    Parameters
    ----------
    params : SurveyParams
        Of the survey; `n_training_fields` counts.
    seed : int
        Of the survey.

    Returns
    -------
    list of Field
    """
    small = params.model_copy(update={"size": min(params.size, 640), "n_visits": 2})
    places = _lattice(CAMERA.side_deg(small.size), seed + 1)
    return [_make_field(TRAINING_FIELD + k, places[k], small, seed) for k in range(params.n_training_fields)]


def _lattice(side_deg: float, seed: int) -> np.ndarray:
    """Shuffled field centres (n, 2) [deg ICRS], apart by more than a field."""
    step = max(1.0, 1.5 * side_deg)
    lon = np.arange(OPPOSITION_LON_DEG - LON_REACH_DEG, OPPOSITION_LON_DEG + LON_REACH_DEG, step)
    lat = np.arange(-LAT_REACH_DEG, LAT_REACH_DEG + step / 2, step)
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.deg2rad(lon), np.deg2rad(lat)))
    vector = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    x, y, z = orbits.to_equator(vector).T
    centres = np.stack([np.mod(np.rad2deg(np.arctan2(y, x)), 360), np.rad2deg(np.arcsin(z))], axis=1)
    centres = centres[np.abs(centres[:, 1]) < MAX_DEC_DEG]
    return np.random.default_rng([seed, 0, POINTING]).permutation(centres)


def _make_field(index: int, place: np.ndarray, params: SurveyParams, seed: int) -> Field:
    rng = stream(seed, index, POINTING)
    nights = FIRST_NIGHT_MJD + np.cumsum(stream(seed, index, POINTING, 1).integers(3, 7, params.n_visits))
    hours = stream(seed, index, POINTING, 2).uniform(-0.02, 0.02, params.n_visits)
    times = nights + 0.5 + rng.uniform(0.38, 0.62) + hours
    first = index % TRAINING_FIELD * params.n_visits
    visits = tuple(
        Visit(
            field=index,
            number=number,
            mjd_utc=float(mjd),
            image_id=FIRST_IMAGE_ID + (first + number) * VISIT_SLOTS,
            run=400_000 + (first + number) * VISIT_SLOTS,
        )
        for number, mjd in enumerate(times)
    )
    ra, dec = (float(part) for part in np.round(place + rng.uniform(-0.05, 0.05, 2), 6))
    return Field(
        index=index,
        ra=ra,
        dec=dec,
        unit=int(rng.integers(1, 9)),
        size=params.size,
        angle_deg=float(rng.normal(0, 1.5)),
        n_exposures=params.n_exposures,
        visits=visits,
    )
