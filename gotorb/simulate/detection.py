"""Detection of both signs in a difference image: measurements and old scores of a pipeline, and the truth.

The scores, a forest on catalogue features and a small network on pixels, are both mediocre; they are trained on fields
of their own, which no survey contains. The truth is matched with the simulated sources and never with scores.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import sep
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.errors import SurveyError
from gotorb.simulate.exposure import Artefact, Labels
from gotorb.simulate.plan import CAMERA, Camera, Tan
from gotorb.simulate.psf import cut_windows
from gotorb.simulate.scene import Fixed, Injected
from gotorb.simulate.subtraction import CleanStars, Difference, robust_noise

Array = NDArray[np.floating]
THRESHOLD = 4.7
"""In units of the measured width of the matched-filtered difference."""
MERGE_PIXEL = 6.0
"""Of detections closer than this only the most significant stays: a bad star gives one row, not five."""
FLAT_ERROR = 0.025
"""Relative error of the light under a detection that the pipeline allows for."""
PATCH_HALF = 4
FEATURES = ("snr", "fwhm_ratio", "ellipticity", "negative_fraction")
MIN_PER_CLASS = 5


class Detections(NamedTuple):
    """Detections of one difference image: a table and one patch (9, 9) of the difference per row, sign made positive.

    The table has x, y, ra, dec, mag, mag_err, snr, fwhm, ellipticity, flux, isdiffpos and the columns FEATURES.
    """

    table: pd.DataFrame
    patches: Array


def _significance(difference: Difference, science: Array) -> Array:
    """Matched-filtered difference over its noise (sky and Poisson); zero without data."""
    empty = ~np.isfinite(difference.image)
    filled = np.where(empty, 0, difference.image)
    sigma = difference.fwhm / 2.355
    smooth = ndimage.gaussian_filter(filled, sigma, truncate=3)
    light = ndimage.gaussian_filter(np.where(np.isfinite(science), np.maximum(science, 0), 0), sigma, truncate=3)
    smooth /= np.sqrt(1 + light / (3 * difference.noise**2) + (FLAT_ERROR * light / difference.noise) ** 2)
    sample = smooth[::2, ::2][~empty[::2, ::2]]
    smooth /= MAD_TO_SIGMA * np.median(np.abs(sample - np.median(sample)))
    smooth[empty] = 0
    return smooth.astype(np.float32)


def detect(difference: Difference, science: Array, *, grid: Tan, camera: Camera) -> Detections:
    """Find and measure sources of both signs, ordered by y then x.

    Parameters
    ----------
    difference : Difference
        Subtraction with its clean stars.
    science : ndarray (h, w)
        The science image.
    grid : Tan
        Of the images.
    camera : Camera
        Gives magnitudes.

    Returns
    -------
    Detections
    """
    significant = _significance(difference, science)
    filled = np.nan_to_num(difference.image, nan=0.0).astype(np.float32)
    correction = _aperture_correction(np.nan_to_num(science, nan=0.0), difference.stars, difference.fwhm)
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


def _aperture_correction(image: Array, stars: CleanStars, fwhm: float) -> float:
    """Total over aperture flux (radius 1.5 FWHM) from the brighter clean stars."""
    bright = np.argsort(-stars.flux, kind="stable")[: max(20, len(stars.flux) // 2)]
    x, y = stars.x[bright], stars.y[bright]
    inner, _, _ = sep.sum_circle(image, x, y, 1.5 * fwhm, subpix=5)
    outer, _, _ = sep.sum_circle(image, x, y, 5.0 * fwhm, subpix=5)
    ratio = (outer / inner)[inner > 0]
    return float(np.clip(np.median(ratio), 1.0, 1.4)) if len(ratio) else 1.0


def detect_stars(image: Array, *, grid: Tan, zero_point: float) -> pd.DataFrame:
    """Sources of one sky-subtracted exposure above 5 sigma: x, y, ra, dec, mag, fwhm, flux.

    Parameters
    ----------
    image : ndarray (h, w)
        Finite everywhere [electron].
    grid : Tan
        Of the image.
    zero_point : float
        Magnitude of one electron.

    Returns
    -------
    DataFrame
    """
    found = sep.extract(image, 5.0, err=robust_noise(image), minarea=5, deblend_cont=0.02)
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


@dataclass(frozen=True)
class Scorers:
    """Trained scores; both give values from 0 (bogus) to 1 (real)."""

    forest: RandomForestClassifier
    network: MLPClassifier

    def score(self, detections: Detections) -> pd.DataFrame:
        """Score detections by both classifiers.

        Parameters
        ----------
        detections : Detections

        Returns
        -------
        DataFrame
            realbogus and cnn_realbogus, rounded to 1e-4.
        """
        if len(detections.table) == 0:
            return pd.DataFrame({"realbogus": [], "cnn_realbogus": []}, dtype=float)
        old = self.forest.predict_proba(_features(detections.table))[:, 1]
        new = self.network.predict_proba(_pixels(detections.patches))[:, 1]
        return pd.DataFrame({"realbogus": np.round(old, 4), "cnn_realbogus": np.round(new, 4)})


def train_scorers(samples: list[tuple[Detections, Array]], seed: int) -> Scorers:
    """Train both scores on (detections, 1 real or 0 bogus) of the training fields.

    Parameters
    ----------
    samples : list of (Detections, ndarray (n,))
        Of each visit: detections, and 1 for real, 0 for bogus.
    seed : int
        Of the survey.

    Returns
    -------
    Scorers

    Raises
    ------
    SurveyError
        If the training fields hold fewer than five detections of a class.
    """
    real = np.concatenate([answer for _, answer in samples]).astype(int) if samples else np.zeros(0, dtype=int)
    if min(real.sum(), (1 - real).sum()) < MIN_PER_CLASS:
        raise SurveyError(
            f"{real.sum()} real and {(1 - real).sum()} bogus detections in the training fields, {MIN_PER_CLASS} of "
            "each needed for the old scores; raise survey.n_training_fields or survey.size in params.yaml"
        )
    features = np.concatenate([_features(detections.table) for detections, _ in samples])
    pixels = np.concatenate([_pixels(detections.patches) for detections, _ in samples])
    forest = RandomForestClassifier(60, max_depth=6, min_samples_leaf=4, class_weight="balanced", random_state=seed)
    network = MLPClassifier((16,), alpha=0.1, solver="lbfgs", max_iter=60, tol=0.0, random_state=seed)
    return Scorers(forest.fit(features, real), _fit_quietly(network, pixels, real))


def _fit_quietly(network: MLPClassifier, pixels: Array, real: NDArray) -> MLPClassifier:
    """Fit with a fixed number of steps; that they do not converge is meant."""
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return network.fit(pixels, real)


def _features(table: pd.DataFrame) -> Array:
    values = table[list(FEATURES)].to_numpy(dtype=float)
    return np.sign(values) * np.log1p(np.abs(values))


def _pixels(patches: Array) -> Array:
    flat = patches.reshape(len(patches), -1).astype(float)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


REAL_SHARE = 0.5
"""A detection is real when more than this share of it goes away with the change; the rest is residual or noise."""
REACH_FWHM = 2.0
"""Sources farther from a detection than this do not make it, nor are they blended in it."""
BLEND_FLUX = 0.1
"""A source in reach is blended in a detection if it has more than this share of its maker's flux."""
SHAPE_HALF = 5
"""Half side [pixel] of the area in which a residual is compared with its mirror image."""


class Causes(NamedTuple):
    """Parts of the light in the matched-filtered difference at each detection [electron per pixel].

    `total` is the detection, `change` the part of sources that changed, `static` that of the others, `brightness` the
    light of these in the science image, arrays (n,); `artefacts` (n, number of kinds) that of each artefact; `residual`
    (n, side, side) is the static part as an image. The rest of the total is noise.
    """

    total: Array
    change: Array
    static: Array
    brightness: Array
    artefacts: Array
    residual: Array


def classify(
    table: pd.DataFrame, causes: Causes, injected: Injected, fixed: Fixed, regions: Labels, *, fwhm: float
) -> pd.DataFrame:
    """Truth of each detection: columns kind, is_real, n_sources, true_mag, name, host, host_offset_arcsec.

    A detection is real if it would mostly not be there without the astrophysical changes; it is named after the one
    that gives it most light; `n_sources` counts those blended in it, and `true_mag` is that of all their light. A
    source makes one detection at most; others that it makes are fragments. The rest is named by the cause that gives
    it most light of its own sign.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y, flux (signed) [pixel, electron].
    causes : Causes
        Parts of each detection.
    injected : Injected
        Astrophysical changes of the visit.
    fixed : Fixed
        Stars and galaxies of the field.
    regions : ndarray of uint8
        Areas of the coadd that suffer from missing pixels: edge and mask.
    fwhm : float
        Of point sources in the difference [pixel].

    Returns
    -------
    DataFrame
    """
    x, share = table["x"].to_numpy(), causes.change / np.where(causes.total == 0, np.nan, causes.total)
    light = _light(table, share, injected, fwhm)
    row = _makers(light)
    is_real = row >= 0
    kind = np.where(share > REAL_SHARE, "fragment", _name_causes(table, causes, fixed, regions, fwhm))
    columns: dict[str, NDArray] = {"is_real": is_real.astype(int)}
    if len(injected.x) == 0:
        blank = np.full(len(x), "")
        columns |= {"n_sources": columns["is_real"], "true_mag": np.full(len(x), np.nan), "name": blank, "host": blank}
        columns["host_offset_arcsec"] = np.full(len(x), np.nan)
        return pd.DataFrame({"kind": kind, **columns})
    kind = np.where(is_real, injected.kind[row], kind)
    blended = (light > 0) & (np.abs(injected.flux) > BLEND_FLUX * np.abs(injected.flux[row])[:, None])
    columns["n_sources"] = np.where(is_real, blended.sum(axis=1), 0)
    brighter = 2.5 * np.log10(np.where(is_real, light.sum(axis=1) / np.maximum(light.max(axis=1), 1e-9), 1))
    columns["true_mag"] = np.where(is_real, injected.mag[row] - brighter, np.nan)
    columns |= {key: np.where(is_real, getattr(injected, key)[row], "") for key in ("name", "host")}
    columns["host_offset_arcsec"] = np.where(is_real, injected.host_offset_arcsec[row], np.nan)
    return pd.DataFrame({"kind": kind, **columns})


def _light(table: pd.DataFrame, share: Array, injected: Injected, fwhm: float) -> Array:
    """Light, (n, n sources), that each source adds to each detection of the changes, through the matched filter."""
    x, y, sign = table["x"].to_numpy(), table["y"].to_numpy(), np.sign(table["flux"].to_numpy())
    distance = np.hypot(x[:, None] - injected.x, y[:, None] - injected.y)
    width = np.sqrt(2) * fwhm / 2.355  # of a point source behind the filter
    light = sign[:, None] * injected.flux * np.exp(-0.5 * (distance / width) ** 2)
    return np.where((distance < REACH_FWHM * fwhm) & (light > 0) & (share[:, None] > REAL_SHARE), light, 0)


def _makers(light: Array) -> NDArray[np.intp]:
    """Row of the source that gives each detection most light and no other detection more; -1 for none."""
    if 0 in light.shape:
        return np.full(len(light), -1)
    rows = np.arange(len(light))
    best = np.argmax(light, axis=1)
    return np.where((light[rows, best] > 0) & (np.argmax(light, axis=0)[best] == rows), best, -1)


def _name_causes(table: pd.DataFrame, causes: Causes, fixed: Fixed, regions: Labels, fwhm: float) -> NDArray[np.str_]:
    """Cause of each detection that gives it most light of its sign; saturation where it rules the light."""
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    noise = causes.total - causes.change - causes.static - causes.artefacts.sum(axis=1)
    parts = np.column_stack([causes.artefacts, causes.static, noise]) * np.sign(causes.total)[:, None]
    parts[:, Artefact.NONE] = -np.inf
    most, source = np.argmax(parts, axis=1), _name_sources(x, y, causes.residual, fixed, fwhm)
    names = np.array([kind.name.lower() for kind in Artefact])
    kind = names[np.minimum(most, len(names) - 1)].astype("U16")
    kind = np.where(most == len(names), source, kind)
    row, column = (np.clip(np.rint(at).astype(int), 0, n - 1) for at, n in zip((y, x), regions.shape, strict=True))
    suffers, bright = regions[row, column], causes.brightness > CAMERA.sky_electrons
    rest = np.where(suffers > 0, names[suffers], np.where(bright, source, "noise"))  # photon noise of a bright source
    kind = np.where(most > len(names), rest, kind)
    return np.where(np.abs(causes.artefacts[:, Artefact.BLEED]) > np.abs(causes.total) / 2, "bleed", kind)


def _name_sources(x: Array, y: Array, residual: Array, fixed: Fixed, fwhm: float) -> NDArray[np.str_]:
    """Kind of residual that static light leaves: of a star or, where it gives more light, a galaxy.

    A dipole is more unlike its mirror image about the star than like it: the star was displaced.
    """
    width, radius = fwhm / 1.02, np.hypot(fixed.galaxy_radius, fwhm / 2) / 1.68  # Moffat of index 3, exponential disc
    from_star = np.hypot(x[:, None] - fixed.star_x, y[:, None] - fixed.star_y)
    from_galaxy = np.hypot(x[:, None] - fixed.galaxy_x, y[:, None] - fixed.galaxy_y)
    star = fixed.star_flux * 2 / np.pi / width**2 * (1 + (from_star / width) ** 2) ** -3
    galaxy = fixed.galaxy_flux * np.exp(-from_galaxy / radius) / (2 * np.pi * radius**2)
    near = np.argmax(star, axis=1) if star.size else np.zeros(len(x), dtype=int)
    reach = residual.shape[1] // 2 - SHAPE_HALF if len(x) else 0
    kind = np.full(len(x), "star_residual", dtype="U16")
    for k, image in enumerate(residual if star.size else ()):
        low = [
            int(np.clip(np.rint(at[near[k]]) - np.rint(own[k]), -reach, reach)) + reach
            for at, own in ((fixed.star_y, y), (fixed.star_x, x))
        ]
        part = image[low[0] : low[0] + 2 * SHAPE_HALF + 1, low[1] : low[1] + 2 * SHAPE_HALF + 1]
        if (part * part[::-1, ::-1]).sum() < 0:
            kind[k] = "dipole"
    return np.where(star.sum(axis=1) < galaxy.sum(axis=1), "galaxy_residual", kind)
