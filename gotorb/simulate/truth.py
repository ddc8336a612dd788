"""What each detection really is: matched with what was put in, never with how it scores."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gotorb.simulate.detector import Artefact, Labels

Array = NDArray[np.floating]
REAL_KINDS = ("asteroid", "supernova", "variable")
MATCH_PIXEL = 1.6
FLUX_RATIO = (0.3, 3.5)
"""A real source explains a detection whose flux is within these factors of the expected difference."""
BLEND_PIXEL = 8.0
"""Sources farther from a detection than this are not blended in it, however wide it is."""


class Injected(NamedTuple):
    """Sources whose light differs from the template, on the coadd's grid, arrays (n,).

    `flux` is the expected difference [electron], `kind` one of REAL_KINDS; host columns are empty or NaN without host.
    """

    x: Array
    y: Array
    flux: Array
    mag: Array
    kind: NDArray[np.str_]
    name: NDArray[np.str_]
    host: NDArray[np.str_]
    host_offset_arcsec: Array


class Fixed(NamedTuple):
    """Static light that a poor subtraction leaves: stars and galaxies on the coadd's grid, arrays (n,)."""

    star_x: Array
    star_y: Array
    star_flux: Array
    star_moves: NDArray[np.bool_]
    galaxy_x: Array
    galaxy_y: Array
    galaxy_radius: Array


def join_injected(parts: list[Injected]) -> Injected:
    """Sources of several kinds after each other."""
    return Injected(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def classify(table: pd.DataFrame, injected: Injected, fixed: Fixed, labels: Labels, *, warped: bool) -> pd.DataFrame:
    """Truth of each detection: columns kind, is_real, true_mag, name, host, host_offset_arcsec.

    Parameters
    ----------
    table : DataFrame
        Detections with x, y, flux (signed), fwhm [pixel].
    labels : ndarray of uint8
        Artefacts on the coadd's grid, already grown.
    warped : bool
        Whether the images of this visit were badly registered; star residuals are then dipoles.
    """
    x, y = table["x"].to_numpy(), table["y"].to_numpy()
    kind = _artefact_kinds(x, y, fixed, labels, warped=warped)
    row = _match_real(x, y, table["flux"].to_numpy(), injected)
    row, brighter = _match_blends(table, row, injected)
    is_real = row >= 0
    picked = np.where(is_real, row, 0)
    if len(injected.x) == 0:
        blank = np.full(len(x), "")
        columns = {"true_mag": np.full(len(x), np.nan), "name": blank, "host": blank}
        offset = np.full(len(x), np.nan)
    else:
        kind = np.where(is_real, injected.kind[picked], kind)
        columns = {"true_mag": np.where(is_real, injected.mag[picked] - brighter, np.nan)}
        columns |= {key: np.where(is_real, getattr(injected, key)[picked], "") for key in ("name", "host")}
        offset = np.where(is_real, injected.host_offset_arcsec[picked], np.nan)
    return pd.DataFrame({"kind": kind, "is_real": is_real.astype(int), **columns, "host_offset_arcsec": offset})


def _match_real(x: Array, y: Array, flux: Array, injected: Injected) -> NDArray[np.intp]:
    """Row of the injected source behind each detection, or -1; a source explains its nearest detection only."""
    row = np.full(len(x), -1)
    if len(x) == 0 or len(injected.x) == 0:
        return row
    distance = np.hypot(x[:, None] - injected.x, y[:, None] - injected.y)
    ratio = flux[:, None] / np.where(injected.flux == 0, np.nan, injected.flux)
    fits = (distance < MATCH_PIXEL) & (ratio > FLUX_RATIO[0]) & (ratio < FLUX_RATIO[1])
    distance = np.where(fits, distance, np.inf)
    for source in range(len(injected.x)):
        best = int(np.argmin(distance[:, source]))
        if np.isfinite(distance[best, source]) and row[best] < 0:
            row[best] = source
    return row


def _match_blends(table: pd.DataFrame, row: NDArray[np.intp], injected: Injected) -> tuple[NDArray[np.intp], Array]:
    """The brightest source behind each detection that no source explains alone but several free ones do together.

    Their light adds up to the detection's, its centre is at the detection, and they lie within its width. Gives rows,
    and by how many magnitudes all the light is brighter than that source.
    """
    row, brighter = row.copy(), np.zeros(len(row))
    free = ~np.isin(np.arange(len(injected.x)), row)
    for i in np.flatnonzero(row < 0):
        x, y, flux, fwhm = table[["x", "y", "flux", "fwhm"]].iloc[i]
        near = free & (np.hypot(injected.x - x, injected.y - y) < min(fwhm, BLEND_PIXEL)) & (injected.flux * flux > 0)
        light = injected.flux[near]
        if len(light) < 2 or not FLUX_RATIO[0] < flux / light.sum() < FLUX_RATIO[1]:
            continue
        centre = [np.average(place[near], weights=light) for place in (injected.x, injected.y)]
        if np.hypot(centre[0] - x, centre[1] - y) < MATCH_PIXEL:
            row[i] = np.flatnonzero(near)[np.argmax(np.abs(light))]
            brighter[i] = 2.5 * np.log10(np.abs(light).sum() / np.abs(light).max())
            free &= ~near
    return row, brighter


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
