"""Where and when the embedded survey points: fields on a lattice along the ecliptic, visits on different nights."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from gotorb.errors import ConfigError
from gotorb.params import SurveyParams
from gotorb.simulate import orbits
from gotorb.simulate.camera import Camera
from gotorb.simulate.projection import Tan

CAMERA = Camera()
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


@dataclass(frozen=True)
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
        return Tan(self.ra, self.dec, middle, middle, CAMERA.pixel_arcsec / 3600, self.angle_deg)


def stream(seed: int, field: int, *purpose: int) -> np.random.Generator:
    """Random generator of one purpose of one field; independent of every other."""
    return np.random.default_rng([seed, field, *purpose])


def plan_survey(params: SurveyParams, seed: int) -> list[Field]:
    """All fields and visits of a survey.

    A field's place depends on the seed, its number and the image size only, so more fields leave the first ones
    as they are.

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
    """Fields for the old scores: of their own random streams, smaller, two visits each."""
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
        index, ra, dec, int(rng.integers(1, 9)), params.size, float(rng.normal(0, 1.5)), params.n_exposures, visits
    )
