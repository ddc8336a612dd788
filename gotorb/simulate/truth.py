"""Truth of each detection, matched with the simulated sources and never with scores."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb.simulate.exposure import Artefact, Labels
from gotorb.simulate.scene import Fixed, Injected

Array = NDArray[np.floating]
REAL_SHARE = 0.5
"""A detection is real when more than this share of it goes away with the change; the rest is residual or noise."""
REACH_FWHM = 2.0
"""Sources farther from a detection than this do not make it, nor are they blended in it."""
BLEND_FLUX = 0.1
"""A source in reach is blended in a detection if it has more than this share of its maker's flux."""


def classify(
    table: pd.DataFrame, share: Array, injected: Injected, fixed: Fixed, labels: Labels, *, fwhm: float, warped: bool
) -> pd.DataFrame:
    """Truth of each detection: columns kind, is_real, n_sources, true_mag, name, host, host_offset_arcsec.

    A detection is real if it would mostly not be there without the astrophysical changes; it is named after the one
    that gives it most light; `n_sources` counts those blended in it, and `true_mag` is that of all their light. A
    source makes one detection at most.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y, flux (signed) [pixel, electron].
    share : ndarray (n,)
        How much of each detection the changes make: see `subtraction.share_of_change`.
    injected : Injected
        Astrophysical changes of the visit.
    fixed : Fixed
        Stars and galaxies of the field.
    labels : ndarray of uint8
        Artefacts on the coadd's grid, already grown.
    fwhm : float
        Of point sources in the difference [pixel].
    warped : bool
        True when the images of this visit were badly registered; star residuals are then dipoles.

    Returns
    -------
    DataFrame
    """
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    kind = _artefact_kinds(x, y, fixed, labels, warped=warped)
    light = _light(table, share, injected, fwhm)
    row = _makers(light)
    is_real = row >= 0
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


def _artefact_kinds(x: Array, y: Array, fixed: Fixed, labels: Labels, *, warped: bool) -> NDArray[np.str_]:
    column = np.clip(np.rint(x).astype(int), 0, labels.shape[1] - 1)
    line = np.clip(np.rint(y).astype(int), 0, labels.shape[0] - 1)
    mark = labels[line, column]
    kind = np.full(len(x), "noise", dtype="U16")
    kind[mark == Artefact.GHOST] = "ghost"
    near_galaxy = _near(x, y, fixed.galaxy_x, fixed.galaxy_y, 2 * fixed.galaxy_radius + 2) >= 0
    kind[near_galaxy] = "galaxy_residual"
    reach = np.clip(1.5 + 1.1 * np.log10(np.maximum(fixed.star_flux, 10) / 300), 1.5, 9)
    star = _near(x, y, fixed.star_x, fixed.star_y, reach)
    moved = (star >= 0) & (warped | (fixed.star_moves[np.maximum(star, 0)] if len(fixed.star_moves) else False))
    kind[star >= 0] = "star_residual"
    kind[moved] = "dipole"
    for artefact in Artefact:
        if artefact > Artefact.GHOST:
            kind[mark == artefact] = artefact.name.lower()
    return kind


def _near(x: Array, y: Array, other_x: Array, other_y: Array, reach: Array) -> NDArray[np.intp]:
    """Row of the nearest other source (relative to its reach) within its reach, or -1."""
    if len(x) == 0 or len(other_x) == 0:
        return np.full(len(x), -1)
    relative = np.hypot(x[:, None] - other_x, y[:, None] - other_y) / reach
    nearest = np.argmin(relative, axis=1)
    return np.where(relative[np.arange(len(x)), nearest] < 1, nearest, -1)
