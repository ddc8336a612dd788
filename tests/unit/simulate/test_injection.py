"""Injection: sources come out as bright as they went in, in every plane and exposure, and nothing else changes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sep
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.core import layout
from gotorb.core.params import SurveyParams
from gotorb.errors import ConfigError, ImageError, MissingPart
from gotorb.simulate import injection, plan, scene
from tests.conftest import TINY_SEED
from tests.unit.simulate.test_survey import stored


@pytest.fixture(scope="module")
def visit(tiny_survey: Path) -> tuple[Path, list[Path]]:
    images = pd.read_csv(tiny_survey / layout.IMAGES_CSV)
    first = images[images["relatedimage"] == images["relatedimage"].iloc[-1]]
    paths = [stored(tiny_survey, path) for path in first["filepath"]]
    return paths[0], paths[1:]


def added_mag(before: Path, after: Path, plane: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Magnitudes of what was added, in a wide aperture."""
    with fits.open(before) as old, fits.open(after) as new:
        light = np.nan_to_num(new[plane].data.astype(float) - old[plane].data.astype(float))
        zero_point = new["IMAGE"].header["MAGZP"]
    return zero_point - 2.5 * np.log10(sep.sum_circle(np.ascontiguousarray(light), x, y, 13.0)[0])


def test_injected_flux_is_unbiased_in_planes_and_exposures(visit: tuple[Path, list[Path]], tmp_path: Path) -> None:
    image, exposures = visit
    out = tmp_path / "out.fits"
    sources = injection.inject(
        image, out, n_sources=12, mag_range=(16.0, 18.0), rng=np.random.default_rng(1), exposure_paths=exposures
    )
    listed = pd.read_csv(injection.sources_path(out))
    assert np.allclose(listed["mag"], sources["mag"])
    x, y = sources["x"].to_numpy(), sources["y"].to_numpy()
    alone = np.array([np.sort(np.hypot(x - a, y - b))[1] > 30 for a, b in zip(x, y, strict=True)])
    assert alone.sum() >= 4
    for plane in ("IMAGE", "DIFFERENCE"):
        bias = (added_mag(image, out, plane, x, y) - sources["mag"])[alone]
        assert abs(bias.median()) < 0.02
    for exposure in exposures:
        copy = injection.exposure_copy(exposure, out)
        own_x, own_y = WCS(fits.getheader(exposure, "IMAGE")).all_world2pix(sources["ra"], sources["dec"], 0)
        bias = (added_mag(exposure, copy, "IMAGE", own_x, own_y) - sources["mag"])[alone]
        assert abs(bias.median()) < 0.03


def test_injected_stars_are_as_bright_as_real_ones_of_their_magnitude(
    visit: tuple[Path, list[Path]], tiny_survey_params: SurveyParams, tmp_path: Path
) -> None:
    out = tmp_path / "out.fits"
    sources = injection.inject(visit[0], out, n_sources=40, mag_range=(15, 17), rng=np.random.default_rng(5))
    field = plan.plan_survey(tiny_survey_params, TINY_SEED)[-1]
    stars = scene.draw_sky(field, TINY_SEED).stars
    steady = ~stars.is_variable & (stars.mag > 14.5) & (stars.mag < 17)
    with fits.open(out) as hdus:
        pixels, header = np.nan_to_num(hdus["IMAGE"].data.astype(np.float64)), hdus["IMAGE"].header
    star_x, star_y = WCS(header).all_world2pix(stars.ra[steady], stars.dec[steady], 0)
    real = aperture_excess(pixels, star_x, star_y, stars.mag[steady], header["MAGZP"])
    pasted = aperture_excess(pixels, sources["x"], sources["y"], sources["mag"], header["MAGZP"])
    # the medians of about 10 and 40 sources of signal-to-noise 100 and more, with neighbours in some apertures
    assert abs(np.median(pasted) - np.median(real)) < 0.02


def aperture_excess(pixels: np.ndarray, x, y, mag, zero_point: float) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Magnitude in a 5-pixel aperture minus the true one, of sources well inside the image."""
    x, y, mag = np.asarray(x), np.asarray(y), np.asarray(mag)
    inside = (np.minimum(x, y) > 35) & (np.maximum(x, y) < len(pixels) - 35)
    flux = sep.sum_circle(np.ascontiguousarray(pixels), x[inside], y[inside], 5.0)[0]
    return zero_point - 2.5 * np.log10(flux) - mag[inside]


def test_psf_is_centred_normalised_and_mostly_inside_its_aperture(
    visit: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    psf = injection.measure_psf(fits.getdata(visit[0], "IMAGE").astype(np.float32), visit[0])
    assert psf.sum() == pytest.approx(1)
    y, x = np.mgrid[:29, :29]
    assert 0.85 < psf[np.hypot(x - 14, y - 14) <= 5].sum() <= 1
    assert (psf * x).sum() == pytest.approx(14, abs=0.25)
    assert (psf * y).sum() == pytest.approx(14, abs=0.25)


def test_the_template_and_the_original_stay(visit: tuple[Path, list[Path]], tmp_path: Path) -> None:
    before = visit[0].read_bytes()
    injection.inject(visit[0], tmp_path / "o.fits", n_sources=3, mag_range=(17, 18), rng=np.random.default_rng(2))
    assert visit[0].read_bytes() == before
    with fits.open(visit[0]) as old, fits.open(tmp_path / "o.fits") as new:
        assert np.array_equal(old["TEMPLATE"].data, new["TEMPLATE"].data, equal_nan=True)
        assert [hdu.name for hdu in old] == [hdu.name for hdu in new]


def test_mistakes_are_told_in_words(visit: tuple[Path, list[Path]], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with pytest.raises(ConfigError, match="name another file"):
        injection.inject(visit[0], visit[0], n_sources=1, mag_range=(17, 18), rng=rng)
    with pytest.raises(ConfigError, match="bright limit first"):
        injection.inject(visit[0], tmp_path / "o.fits", n_sources=1, mag_range=(18, 17), rng=rng)
    fits.PrimaryHDU().writeto(tmp_path / "bare.fits")
    with pytest.raises(MissingPart, match=r"no HDU 'IMAGE' in .*bare\.fits"):
        injection.inject(tmp_path / "bare.fits", tmp_path / "o.fits", n_sources=1, mag_range=(17, 18), rng=rng)
    (tmp_path / "text.fits").write_text("not FITS")
    with pytest.raises(ImageError, match=r"text\.fits"):
        injection.inject(tmp_path / "text.fits", tmp_path / "o.fits", n_sources=1, mag_range=(17, 18), rng=rng)
