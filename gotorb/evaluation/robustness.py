"""Calls that change when pixels far from the source change: hot pixels and cosmic rays on clear detections.

Neither is part of the source, so a clear asteroid stays one. The norm of a layer, for instance, lets one bright pixel
in a corner hide it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.evaluation.intervals import wilson_interval

Score = Callable[[np.ndarray], np.ndarray]
Metrics = dict[str, Any]
CLEAR_REAL_SNR = 10.0
"""Signal-to-noise ratio from which a real row is clear."""
LEVELS = (100.0, 1000.0, 10_000.0)
"""Brightness of the added pixel in units of the difference's noise; the last is about full well."""
FAR_FWHM = 3.0
"""Distance from the source, in widths of the PSF, beyond which pixels are changed."""
USUAL_FWHM = 3.1
MOST_ROWS = 200
"""Clear rows of each kind that are tried."""


def add_hot_pixels(
    stamps: np.ndarray, layers: tuple[str, ...], level: float, *, min_radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Add one bright pixel far from the centre to each stamp, as in a coadd with a hot pixel or a cosmic ray.

    Parameters
    ----------
    stamps : ndarray
        (n, size, size, n_layers).
    layers : tuple of str
        Names of the layers; the template does not change.
    level : float
        In units of the noise of the difference, else of the first layer.
    min_radius : float
        Smallest distance from the centre, pixels.
    rng : numpy.random.Generator
        Draws the places.

    Returns
    -------
    ndarray
        A copy.
    """
    size = stamps.shape[1]
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    far = np.argwhere(np.hypot(y, x) > min(min_radius, size / 2 - 1))
    places = far[rng.integers(0, len(far), len(stamps))]
    unit = stamps[..., layers.index("difference") if "difference" in layers else 0].reshape(len(stamps), -1)
    noise = MAD_TO_SIGMA * np.median(np.abs(unit - np.median(unit, axis=1, keepdims=True)), axis=1)
    changed = stamps.copy()
    for place, name in enumerate(layers):
        if name != "template":
            changed[np.arange(len(stamps)), places[:, 0], places[:, 1], place] += (level * noise).astype(stamps.dtype)
    return changed


def find_clear(rows: pd.DataFrame, scores: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Row numbers of clear detections that are called as they are labelled.

    Parameters
    ----------
    rows : DataFrame
        label, snr.
    scores : ndarray
        (n,).
    threshold : float

    Returns
    -------
    dict
        real: real rows of S/N at least `CLEAR_REAL_SNR`; bogus: bogus rows of at most half the threshold.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [1, 0], "metalabel": ["mp", "randjunk"], "snr": 20.0, "missing_fraction": 0.0})
    >>> find_clear(rows, np.array([0.9, 0.1]), 0.5)
    {'real': array([0]), 'bogus': array([1])}
    """
    labels = rows["label"].to_numpy(int)
    snr = pd.to_numeric(rows["snr"], errors="coerce").to_numpy(float) if "snr" in rows else np.full(len(rows), np.inf)
    real = (labels == 1) & (np.nan_to_num(snr, nan=np.inf) >= CLEAR_REAL_SNR) & (scores >= threshold)
    return {
        "real": np.flatnonzero(real)[:MOST_ROWS],
        "bogus": np.flatnonzero((labels == 0) & (scores <= threshold / 2))[:MOST_ROWS],
    }


def measure_robustness(
    score: Score, stamps: np.ndarray, layers: tuple[str, ...], *, threshold: float, fwhm: float = USUAL_FWHM, seed: int
) -> Metrics:
    """Fraction of stamps whose call a bright pixel beyond three widths of the PSF changes, at any of `LEVELS`.

    Parameters
    ----------
    score : callable
        Scores (n,) of stamps.
    stamps : ndarray
        (n, size, size, n_layers) of clear detections.
    layers : tuple of str
    threshold : float
    fwhm : float
        Width of the PSF, pixels.
    seed : int
        Of the places.

    Returns
    -------
    dict
        n, changed, fraction, low, high (95 % Wilson), and by_level.
    """
    rng, before = np.random.default_rng(seed), score(stamps) >= threshold if len(stamps) else np.empty(0, bool)
    moved = np.zeros((len(LEVELS), len(stamps)), bool)
    for number, level in enumerate(LEVELS if len(stamps) else ()):
        hot = add_hot_pixels(stamps, layers, level, min_radius=FAR_FWHM * fwhm, rng=rng)
        moved[number] = (score(hot) >= threshold) != before
    n, changed = len(stamps), int(moved.any(axis=0).sum())
    low, high = wilson_interval(changed, n) or (None, None)
    by_level = {f"{level:g}": int(part.sum()) for level, part in zip(LEVELS, moved, strict=True)}
    return {"n": n, "changed": changed, "fraction": changed / n if n else None, "low": low, "high": high,
            "by_level": by_level}  # fmt: skip
