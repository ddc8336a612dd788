"""Detection of both signs in a difference image with sep, and the numbers an old pipeline measures."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import sep
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from gotorb.simulate.camera import Camera
from gotorb.simulate.coadd import cut_windows
from gotorb.simulate.projection import Tan
from gotorb.simulate.subtraction import Difference, Stars

Array = NDArray[np.floating]
THRESHOLD = 4.7
"""In units of the measured width of the matched-filtered difference."""
MERGE_PIXEL = 6.0
"""Of detections closer than this only the most significant stays: a bad star gives one row, not five."""
FLAT_ERROR = 0.025
"""Relative error of the light under a detection that the pipeline allows for."""
PATCH_HALF = 4
FEATURES = ("snr", "fwhm_ratio", "ellipticity", "negative_fraction")


class Detections(NamedTuple):
    """Detections of one difference image: a table and one patch (9, 9) of the difference per row, sign made positive.

    The table has x, y, ra, dec, mag, mag_err, snr, fwhm, ellipticity, flux, isdiffpos and the columns FEATURES.
    """

    table: pd.DataFrame
    patches: Array


def significance(difference: Difference, science: Array) -> Array:
    """Matched-filtered difference over its noise (sky and Poisson); zero without data."""
    empty = ~np.isfinite(difference.image)
    filled = np.where(empty, 0, difference.image)
    sigma = difference.fwhm / 2.355
    smooth = ndimage.gaussian_filter(filled, sigma, truncate=3)
    light = ndimage.gaussian_filter(np.where(np.isfinite(science), np.maximum(science, 0), 0), sigma, truncate=3)
    smooth /= np.sqrt(1 + light / (3 * difference.noise**2) + (FLAT_ERROR * light / difference.noise) ** 2)
    sample = smooth[::2, ::2][~empty[::2, ::2]]
    smooth /= 1.4826 * np.median(np.abs(sample - np.median(sample)))
    smooth[empty] = 0
    return smooth.astype(np.float32)


def detect(difference: Difference, science: Array, *, grid: Tan, camera: Camera) -> Detections:
    """Find and measure sources of both signs, ordered by y then x."""
    significant = significance(difference, science)
    filled = np.nan_to_num(difference.image, nan=0.0).astype(np.float32)
    correction = aperture_correction(np.nan_to_num(science, nan=0.0), difference.stars, difference.fwhm)
    parts = [_measure(sign, significant, filled, difference.fwhm, correction) for sign in (1, -1)]
    table = pd.concat([part[0] for part in parts], ignore_index=True)
    patches = np.concatenate([part[1] for part in parts])
    table["ra"], table["dec"] = grid.to_sky(table["x"].to_numpy(), table["y"].to_numpy())
    table["mag"] = camera.mag(table["flux"].to_numpy())
    table["mag_err"] = 1.0857 / table["snr"]
    kept = _strongest(table, MERGE_PIXEL)
    order = kept[np.lexsort((table["x"].to_numpy()[kept], np.rint(table["y"].to_numpy()[kept])))]
    return Detections(table.iloc[order].reset_index(drop=True), patches[order])


def _strongest(table: pd.DataFrame, radius: float) -> NDArray[np.intp]:
    """Rows without a more significant neighbour of either sign within a radius [pixel]."""
    places = table[["x", "y"]].to_numpy()
    rank = np.empty(len(places), dtype=np.intp)
    rank[np.argsort(-table["snr"].to_numpy(), kind="stable")] = np.arange(len(places))
    beaten = np.zeros(len(places), dtype=bool)
    pairs = cKDTree(places).query_pairs(radius, output_type="ndarray") if len(places) else np.zeros((0, 2), dtype=int)
    beaten[np.where(rank[pairs[:, 0]] > rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])] = True
    return np.flatnonzero(~beaten)


def _measure(
    sign: int, significant: Array, filled: Array, fwhm: float, correction: float
) -> tuple[pd.DataFrame, Array]:
    image = sign * filled
    found = sep.extract(sign * significant, THRESHOLD, minarea=3, filter_kernel=None, deblend_cont=0.05)
    x, y = _recentre(image, found["x"], found["y"], fwhm)
    patches = cut_windows(image, x, y, PATCH_HALF)
    radius = 1.5 * fwhm
    aperture, _, _ = sep.sum_circle(image, x, y, radius, subpix=5)
    core, _, _ = sep.sum_circle(image, x, y, 0.6 * fwhm, subpix=5)
    flux = np.where(aperture > 0, aperture, np.maximum(core, 1.0)) * correction
    half_light, _ = sep.flux_radius(image, x, y, np.full(len(x), 2.5 * fwhm), 0.5, subpix=5)
    table = pd.DataFrame({"x": x, "y": y, "flux": sign * flux, "snr": found["peak"].astype(float)})
    table["fwhm"] = np.clip(2 * np.nan_to_num(half_light, nan=0.0), 0.5, None)
    table["ellipticity"] = 1 - found["b"] / found["a"]
    table["isdiffpos"] = "t" if sign > 0 else "f"
    table["fwhm_ratio"] = table["fwhm"] / fwhm
    table["negative_fraction"] = (patches < -patches.std(axis=(1, 2), keepdims=True) / 2).mean(axis=(1, 2))
    return table, patches


def _recentre(image: Array, x: Array, y: Array, fwhm: float) -> tuple[Array, Array]:
    """Windowed centroids; the first position stays where the window ran off or left the image."""
    if len(x) == 0:
        return x, y
    new_x, new_y, flag = sep.winpos(image, x, y, np.full(len(x), fwhm / 2.355))
    good = (flag == 0) & (np.hypot(new_x - x, new_y - y) < 1)
    return np.where(good, new_x, x), np.where(good, new_y, y)


def aperture_correction(image: Array, stars: Stars, fwhm: float) -> float:
    """Total over aperture flux (radius 1.5 FWHM) from the brighter clean stars."""
    bright = np.argsort(-stars.flux, kind="stable")[: max(20, len(stars.flux) // 2)]
    x, y = stars.x[bright], stars.y[bright]
    inner, _, _ = sep.sum_circle(image, x, y, 1.5 * fwhm, subpix=5)
    outer, _, _ = sep.sum_circle(image, x, y, 5.0 * fwhm, subpix=5)
    ratio = (outer / inner)[inner > 0]
    return float(np.clip(np.median(ratio), 1.0, 1.4)) if len(ratio) else 1.0


def detect_stars(image: Array, *, grid: Tan, zero_point: float) -> pd.DataFrame:
    """Sources of one sky-subtracted exposure above 5 sigma: x, y, ra, dec, mag, fwhm, flux."""
    noise = float(1.4826 * np.median(np.abs(image[::3, ::3] - np.median(image[::3, ::3]))))
    found = sep.extract(image, 5.0, err=noise, minarea=5, deblend_cont=0.02)
    flux = np.maximum(found["flux"], 1.0)
    ra, dec = grid.to_sky(found["x"], found["y"])
    return pd.DataFrame(
        {
            "x": found["x"],
            "y": found["y"],
            "ra": ra,
            "dec": dec,
            "mag": zero_point - 2.5 * np.log10(flux),
            "fwhm": 2.355 * np.sqrt((found["a"] ** 2 + found["b"] ** 2) / 2),
            "flux": flux,
        }
    )
