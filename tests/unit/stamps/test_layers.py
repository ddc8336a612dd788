"""Stamps of every kind of file are those of the plain astropy way, pixel for pixel."""

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.plain_stamps import STACKED, open_planes, plain_stamps
from gotorb.stamps.layers import Extensions, Planes, cut_planes
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import KINDS, NX, NY, make_header, write_image

SIZE = 25
POINTING = {"plain": (150.0, 2.0), "ra 0": (0.0, 2.0), "pole": (80.0, 89.9), "south pole": (10.0, -89.95)}


def sky_of(header: fits.Header, n: int = 20, margin: float = 20) -> SkyCoord:
    """Positions on and around an image: inside, over its edges and just off it."""
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-margin, NX + margin, n), rng.uniform(-margin, NY + margin, n)
    return SkyCoord.from_pixel(x, y, WCS(header))


def write_files(folder: Path, kind: str, ra: float = 150.0, dec: float = 2.0) -> tuple[Path, list[Path]]:
    """A difference image and two exposures that point a little elsewhere."""
    stacked = write_image(folder / "stacked.fits", kind, STACKED, ra=ra, dec=dec)
    exposures = [
        write_image(folder / f"r{i}.fits", kind, seed=10 + i, ra=ra, dec=dec + 0.004 * (i + 1)) for i in range(2)
    ]
    return stacked, exposures


def ours(stacked: Path, exposures: list[Path], sky: SkyCoord) -> Planes:
    with open_frame(stacked) as frame:
        return cut_planes(frame, exposures, sky.ra.deg, sky.dec.deg, size=SIZE, extensions=Extensions())


def plain_way(stacked: Path, exposures: list[Path], sky: SkyCoord) -> np.ndarray:
    with open_planes(stacked, exposures) as planes:
        return plain_stamps(planes, sky, size=SIZE)


def joined(planes: Planes) -> np.ndarray:
    return np.concatenate([planes.stacked, planes.exposures], axis=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_stamps_of_every_kind_of_file_equal_the_plain_ones(tmp_path: Path, kind: str) -> None:
    stacked, exposures = write_files(tmp_path, kind)
    sky = sky_of(make_header())
    stamps = joined(ours(stacked, exposures, sky))
    plain = plain_way(stacked, exposures, sky)
    assert stamps.dtype == np.float32 and stamps.dtype.isnative
    assert 0.02 < np.isnan(stamps).mean() < 0.5
    np.testing.assert_array_equal(stamps, plain)


@pytest.mark.parametrize("pointing", POINTING)
def test_stamps_equal_the_plain_ones_across_ra_zero_and_at_the_poles(tmp_path: Path, pointing: str) -> None:
    ra, dec = POINTING[pointing]
    stacked, exposures = write_files(tmp_path, "float32", ra, dec)
    sky = sky_of(make_header(ra=ra, dec=dec))
    np.testing.assert_array_equal(joined(ours(stacked, exposures, sky)), plain_way(stacked, exposures, sky))


def test_a_position_that_an_exposure_does_not_show_is_nan_in_that_exposure_alone(tmp_path: Path) -> None:
    stacked = write_image(tmp_path / "stacked.fits", "float32", STACKED)
    exposures = [write_image(tmp_path / "a.fits"), write_image(tmp_path / "b.fits", ra=330.0, dec=-40.0)]
    planes = ours(stacked, exposures, SkyCoord([150.0], [2.0], unit="deg"))
    assert np.isfinite(planes.exposures[..., 0]).all() and np.isnan(planes.exposures[..., 1]).all()
    layers = planes.layers()
    np.testing.assert_array_equal(layers[..., 4], planes.exposures[..., 0])
    assert (layers[..., 3] == 0).all()


@pytest.mark.parametrize("n_exposures", [1, 2, 4])
def test_layers_are_the_planes_and_range_minimum_maximum_of_the_exposures(n_exposures: int) -> None:
    rng = np.random.default_rng(1)
    stacked = rng.normal(size=(20, 9, 9, 3)).astype(np.float32)
    exposures = rng.normal(size=(20, 9, 9, n_exposures)).astype(np.float32)
    exposures[rng.random(exposures.shape) < 0.2] = np.nan
    exposures[3] = np.nan
    layers = Planes(stacked, exposures).layers()
    np.testing.assert_array_equal(layers[..., :3], stacked)
    missing = np.isnan(exposures).all(axis=-1)
    low = np.where(np.isnan(exposures), np.inf, exposures).min(axis=-1)
    high = np.where(np.isnan(exposures), -np.inf, exposures).max(axis=-1)
    expected = np.stack([high - low, low, high], axis=-1)
    np.testing.assert_array_equal(layers[..., 3:], np.where(missing[..., None], np.nan, expected))


@pytest.mark.parametrize("kind", ["float32", "rows.fz", "gz"])
def test_no_positions_give_no_stamps(tmp_path: Path, kind: str) -> None:
    stacked, exposures = write_files(tmp_path, kind)
    planes = ours(stacked, exposures, SkyCoord([], [], unit="deg"))
    assert planes.stacked.shape == (0, SIZE, SIZE, 3) and planes.exposures.shape == (0, SIZE, SIZE, 2)
    assert planes.layers().shape == (0, SIZE, SIZE, 6)


def test_measured_positions_go_before_those_of_the_wcs(tmp_path: Path) -> None:
    stacked, exposures = write_files(tmp_path, "float32")
    x, y = np.array([200.0]), np.array([100.0])
    with open_frame(stacked) as frame:
        planes = cut_planes(
            frame, exposures, np.array([150.0]), np.array([2.0]), size=5, extensions=Extensions(), xy=(x, y)
        )
        np.testing.assert_array_equal(planes.stacked[0, ..., 2], frame.plane("DIFFERENCE")[98:103, 198:203])
