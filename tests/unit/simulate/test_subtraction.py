"""Kernel fit, convolution, coadd and detector: each against a case whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.signal import fftconvolve

from gotorb.errors import SurveyError
from gotorb.simulate import exposure, psf, scene, subtraction, visit
from gotorb.simulate.exposure import Artefacts, Exposure
from gotorb.simulate.plan import Camera, Tan

CAMERA = Camera()
SIZE = 400
ROUND = psf.Psf(fwhm=2.2, beta=3.0, bend=(0, 0, 0), shear=(0, 0, 0, 0), coma=(0, 0, 0))


def star_field(n: int, rng: np.random.Generator, size: int = SIZE) -> np.ndarray:
    image = np.zeros((size, size))
    flux = 10 ** rng.uniform(3.5, 5, n)
    psf.add_stars(image, rng.uniform(20, size - 20, n), rng.uniform(20, size - 20, n), flux, ROUND)
    return image


def test_stars_carry_their_flux_and_sit_where_asked() -> None:
    image = np.zeros((401, 401))
    bent = psf.Psf(
        fwhm=2.5, beta=4.0, bend=(0, 0, 0), shear=(0.05, -0.03, 0, 0), coma=(0.1, 0.05, 0), trefoil=(0.06, -0.05, 0)
    )
    psf.add_stars(image, np.array([200.3]), np.array([199.8]), np.array([1e6]), bent)
    y, x = np.mgrid[:401, :401]
    assert image.sum() == pytest.approx(1e6, rel=0.005)
    assert (image * x).sum() / image.sum() == pytest.approx(200.3, abs=0.02)
    assert (image * y).sum() / image.sum() == pytest.approx(199.8, abs=0.02)


def test_a_galaxy_is_its_profile_convolved_with_the_psf() -> None:
    plain = psf.Psf(fwhm=2.8, beta=3.0, bend=(0, 0, 0), shear=(0.04, -0.02, 0, 0), coma=(0, 0, 0))
    place, flux = np.array([75.3]), np.array([1e5])
    one = scene.Galaxies(*(np.array([value]) for value in (0.0, 0.0, 17.0, 5.0, 1.0, 0.6, 0.7, 0.0)))
    image, nucleus = np.zeros((2, 151, 151), dtype=np.float32)
    psf.add_galaxies(image, place, place, flux, galaxies=one, psf=plain)
    psf.add_stars(nucleus, place, place, psf.NUCLEUS * flux, plain)
    fine = (np.arange(5 * 151) - 2) / 5  # five points a pixel
    disc = _exponential_disc(fine - 75.3, radius=5.0, ratio=0.6, angle=0.7)
    steps = np.arange(-100, 101) / 5
    x, y = steps[None, :], steps[:, None]
    stretched = np.hypot((1 - 0.04) * x + 0.02 * y, (1 + 0.04) * y + 0.02 * x) / psf.moffat_width(2.8, 3.0)
    point = (1 + stretched**2) ** -3.0
    expected = 25 * (1 - psf.NUCLEUS) * 1e5 * fftconvolve(disc, point / point.sum(), mode="same")[2::5, 2::5]
    seen = np.s_[50:102, 50:102]
    assert (image - nucleus)[seen].sum() == pytest.approx(expected[seen].sum(), rel=0.003)
    assert np.abs((image - nucleus) - expected)[seen].max() < 0.005 * expected.max()


def _exponential_disc(line: np.ndarray, *, radius: float, ratio: float, angle: float) -> np.ndarray:
    """An inclined disc of unit sum that ends at six half-light radii, on a square grid."""
    x, y = line[None, :], line[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    r = np.hypot(along * np.sqrt(ratio), across / np.sqrt(ratio)) / radius
    light = np.where(r < 6, np.exp(-1.678 * r), 0)
    return light / light.sum()


def test_trefoil_is_what_a_third_of_a_turn_repeats_and_half_a_turn_does_not() -> None:
    local = psf.LocalPsf(*(np.full((1, 1, 1), value) for value in (3.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.05)))
    angle = 0.2 + np.deg2rad([0.0, 120.0, 180.0])
    light = psf.profile(2 * np.cos(angle)[None, None], 2 * np.sin(angle)[None, None], local, 3.0).ravel()
    assert light[1] == pytest.approx(light[0]) and abs(light[2] / light[0] - 1) > 0.02


def test_windows_of_a_change_are_the_coadd_minus_the_coadd_without_it() -> None:
    rng = np.random.default_rng(9)
    exposures = [_exposure(rng, dx, dy) for dx, dy in ((0.0, 0.0), (3.4, -2.2), (-7.1, 5.6))]
    still = [one._replace(image=one.image - one.change) for one in exposures]
    x, y = np.array([60.2, 30.0, 2.0]), np.array([50.4, 30.0, 60.0])
    for method in ("median", "mean", "clipped"):
        both = [visit.coadd(images, 25.0, method).image for images in (exposures, still)]
        whole = psf.cut_windows(np.nan_to_num(both[0] - both[1]), x, y, 8)
        made = visit.coadd(exposures, 25.0, method)
        windows = visit.cut_stack(exposures, made, x, y, half=8).brought_by(lambda part: part.change)
        assert np.abs(whole[0]).max() > 100 > np.abs(whole[1]).max()
        assert windows == pytest.approx(whole, abs=1e-2)


def _exposure(rng: np.random.Generator, dx: float, dy: float) -> Exposure:
    """Noise and one new star, on a grid moved by dx, dy."""
    change = np.zeros((120, 120), dtype=np.float32)
    psf.add_stars(change, np.array([60.0 + dx]), np.array([50.0 + dy]), np.array([5e3]), ROUND)
    image = change + 5 * rng.standard_normal(change.shape, dtype=np.float32)
    grid = Tan(ra=10.0, dec=5.0, x0=60 + dx, y0=60 + dy, scale_deg=1.24 / 3600)
    return Exposure(image, 0 * change, change, exposure.no_artefacts(120), grid, 59160.0, ROUND, 25.0 + 0.01 * dx)


def test_kernel_fit_recovers_a_known_kernel_and_flux_ratio() -> None:
    rng = np.random.default_rng(5)
    reference = star_field(150, rng)
    true_kernel = np.zeros((21, 21))
    true_kernel[10, 10] = 1
    true_kernel = 1.1 * ndimage.shift(ndimage.gaussian_filter(true_kernel, 1.2), (0.2, -0.3), order=3)
    target = ndimage.convolve(reference, true_kernel) + 3.0
    noisy = [image + 2 * rng.standard_normal(image.shape) for image in (reference, target)]
    stars = subtraction.find_stars(noisy[1].astype(np.float32) - 3, CAMERA)
    empty = np.zeros(reference.shape, dtype=bool)
    fitted = subtraction.fit_kernel(subtraction.cut_stamps(noisy[0], noisy[1], stars, empty, CAMERA), noise=3.0)
    matched = subtraction.apply_kernel(reference.astype(np.float32), fitted)
    assert fitted.sum_at(np.array(0.0), np.array(0.0)) == pytest.approx(1.1 * true_kernel.sum() / 1.1, rel=0.003)
    assert np.abs(matched - target)[30:-30, 30:-30].max() < 0.015 * target.max()
    assert fitted.background[0] == pytest.approx(3.0, abs=0.3)


def test_difference_noise_is_what_the_two_images_and_the_kernel_predict() -> None:
    rng = np.random.default_rng(6)
    light = star_field(120, rng)
    template = (light + 5 * rng.standard_normal(light.shape)).astype(np.float32)
    science = (ndimage.gaussian_filter(light, 1.0) + 8 * rng.standard_normal(light.shape)).astype(np.float32)
    difference = subtraction.subtract(science, template, CAMERA)
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1
    expected = np.hypot(8, 5 * np.sqrt((ndimage.gaussian_filter(impulse, 1.0) ** 2).sum()))
    assert difference.convolved == "template"
    assert difference.noise == pytest.approx(expected, rel=0.05)


def test_pixels_without_data_stay_nan_and_grow() -> None:
    rng = np.random.default_rng(7)
    light = star_field(120, rng)
    images = [(light + rng.standard_normal(light.shape)).astype(np.float32) for _ in range(2)]
    images[0][:10] = np.nan
    difference = subtraction.subtract(images[0], images[1], CAMERA).image
    assert np.isnan(difference[: 10 + subtraction.GROWN_MASK]).all()
    assert np.isfinite(difference[10 + subtraction.GROWN_MASK :]).all()


def test_too_few_stars_is_an_error_with_numbers() -> None:
    rng = np.random.default_rng(8)
    empty_sky = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    with pytest.raises(SurveyError, match=r"only \d+ clean stars .* 8 needed"):
        subtraction.subtract(empty_sky, empty_sky.copy(), CAMERA)


def test_shift_moves_stars_by_the_pixels_asked_and_blanks_what_was_not_seen() -> None:
    image, moved_truth = np.zeros((120, 120)), np.zeros((120, 120))
    psf.add_stars(image, np.array([60.0]), np.array([50.0]), np.array([1e4]), ROUND)
    psf.add_stars(moved_truth, np.array([63.4]), np.array([47.7]), np.array([1e4]), ROUND)
    moved = visit.shift_image(image, 3.4, -2.3)
    assert np.isnan(moved[:, :3]).all() and np.isnan(moved[-2:]).all()
    assert np.nanmax(np.abs(moved - moved_truth)) < 0.02 * image.max()


def test_median_ignores_missing_exposures_and_needs_two() -> None:
    layers = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [9.0, 3.0, 4.0]])[:, None, :]
    combined = visit.combine(layers, "median")[0]
    assert combined[:2].tolist() == [2.0, 2.0]
    assert np.isnan(combined[2])
    assert visit.combine(layers, "mean")[0][0] == pytest.approx(4.0)


def test_a_clipped_mean_leaves_out_a_cosmic_ray_and_keeps_a_faint_trail() -> None:
    layers = np.array([[1.0, 0.0], [2.0, 90.0], [900.0, 0.0]])[:, None, :]
    assert visit.combine(layers, "clipped")[0].tolist() == [1.5, 30.0]


def test_saturated_pixels_are_masked_where_the_pipeline_does_so() -> None:
    rng = np.random.default_rng(3)
    exposures = [_exposure(rng, dx, 0.0) for dx in (0.0, 4.0, -3.0)]
    for one in exposures:
        column = round(60 + one.grid.x0 - 60)
        one.artefacts.labels[30:60, column] = exposure.Artefact.BLEED
    plain, masked = (visit.coadd(exposures, 25.0, "median", masks=masks) for masks in (False, True))
    assert np.isfinite(plain.image[30:60, 60]).all() and np.isnan(masked.image[30:60, 60]).all()
    assert masked.regions[25, 60] == exposure.Artefact.MASK and plain.regions[25, 60] == 0
    assert np.isfinite(masked.image[:, 80]).sum() == np.isfinite(plain.image[:, 80]).sum()


def test_crosstalk_mirrors_bright_pixels_and_says_so() -> None:
    image, artefacts = np.zeros((60, 60), dtype=np.float32), exposure.no_artefacts(60)
    image[20, 10] = CAMERA.full_well
    exposure._add_crosstalk(image, artefacts, 0.002, CAMERA)
    assert image[20, 49] == artefacts.light[20, 49] == pytest.approx(0.002 * CAMERA.full_well)
    assert np.argwhere(artefacts.labels == exposure.Artefact.CROSSTALK).tolist() == [[20, 49]]


def test_bleeding_keeps_the_charge_and_stays_in_its_columns() -> None:
    image = np.full((200, 50), 500.0, dtype=np.float32)
    image[100, 25] = 1e6
    artefacts = Artefacts(np.zeros_like(image), np.zeros(image.shape, dtype=np.uint8))
    before, plain = float(image.astype(float).sum()), image.copy()
    exposure.saturate(image, artefacts, CAMERA)
    assert image.max() <= CAMERA.full_well * 1.0001
    assert float(image.astype(float).sum()) == pytest.approx(before, rel=1e-4)
    assert set(np.nonzero(artefacts.labels)[1]) == {25}
    assert image == pytest.approx(plain + artefacts.light, rel=1e-6)


@pytest.mark.parametrize("wider", ["science", "template"])
def test_share_of_a_change_is_what_this_subtraction_finds_less_without_it(wider: str) -> None:
    rng = np.random.default_rng(8)
    light = star_field(120, rng)
    sharp, wide = (image + 3 * rng.standard_normal(light.shape) for image in (light, ndimage.gaussian_filter(light, 1)))
    science, template = (wide, sharp) if wider == "science" else (sharp, wide)
    new, residual = np.zeros_like(light), np.zeros_like(light)
    for image, x in ((new, 150.0), (new, 200.0), (residual, 200.0), (residual, 250.0)):
        psf.add_stars(image, np.array([x]), np.array([200.0]), np.array([4e3]), ROUND)
    science = (science + new + residual).astype(np.float32)
    difference = subtraction.subtract(science, template.astype(np.float32), CAMERA)
    table = pd.DataFrame({"x": [150.0, 200.0, 250.0], "y": 200.0})
    half = subtraction.window_half(difference)
    change = psf.cut_windows(new, table["x"].to_numpy(), table["y"].to_numpy(), half)
    whole = psf.cut_windows(difference.image, table["x"].to_numpy(), table["y"].to_numpy(), half)
    seen = subtraction.seen_in_difference(table, change, difference)
    share, total = (subtraction.match_filter(table, windows, difference) for windows in (seen, whole))
    share /= total
    assert difference.convolved == ("template" if wider == "science" else "science")
    assert share == pytest.approx([1.0, 0.5, 0.0], abs=0.05)
