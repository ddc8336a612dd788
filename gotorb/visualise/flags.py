"""Flags of detections: edge, bright star, dipole, cosmic ray, known object."""

from __future__ import annotations

import logging

import numpy as np

from gotorb.catalogues.crossmatch import find_nearest
from gotorb.catalogues.galaxies import find_galaxies
from gotorb.catalogues.minor_planets import Field, make_provider
from gotorb.classifier.sources import Detections
from gotorb.core import layout
from gotorb.core.constants import MAD_TO_SIGMA
from gotorb.core.settings import Settings
from gotorb.errors import CatalogueError

log = logging.getLogger(__name__)
CENTRE_PIXELS = 6
"""A dipole's two halves lie within this distance of the middle, a star's neighbourhood begins there."""
LOBE_SIGMA, LOBE_RATIO = 5.0, 0.4
"""A dipole has light of both signs, each so many sigma and the lesser this fraction of the greater at least."""
STAR_SIGMA = 300.0
MP_ARCSEC, GALAXY_ARCSEC, GALAXY_MAG = 1.5, 10.0, 18.0
FLAGS = ("edge", "bright star", "dipole", "cosmic ray", "minor planet", "galaxy")


def find_flags(found: Detections, settings: Settings) -> tuple[list[list[str]], list[str]]:
    """Flags and minor planet of each detection.

    Minor planets are looked up when GOTORB_MPC_CATALOGUE is set and galaxies when CATSHTM_DIR is, for images only.
    Rows of other sources carry what their survey knows.

    Parameters
    ----------
    found : Detections
    settings : Settings

    Returns
    -------
    flags : list of list of str
        Some of `FLAGS`, for each detection.
    planets : list of str
        "" for none.
    """
    planets = _planets(found, settings)
    rings, cores = _ring(found), _core(found)
    marks = {
        "edge": found.table["missing_fraction"].to_numpy() > 0,
        "bright star": _bright(found, rings),
        "dipole": _dipoles(found, cores),
        "cosmic ray": (found.table["n_seen"].to_numpy() == 1) & (found.exposures.shape[-1] > 1),
        "minor planet": np.array([bool(name) for name in planets], bool),
        "galaxy": _galaxies(found, settings),
    }
    return [[name for name in FLAGS if marks[name][row]] for row in range(len(found))], planets


def _distance(found: Detections) -> np.ndarray:
    y, x = np.indices(found.stamps.shape[1:3]) - found.stamps.shape[1] // 2
    return np.hypot(x, y)


def _ring(found: Detections) -> np.ndarray:
    return _distance(found) > CENTRE_PIXELS


def _core(found: Detections) -> np.ndarray:
    return _distance(found) <= CENTRE_PIXELS


def _above_noise(found: Detections, layer: str) -> np.ndarray | None:
    """(n, pixels) of a layer in sigma above its median; None when there is no such layer."""
    if layer not in found.layers:
        return None
    values = found.stamps[..., found.layers.index(layer)].reshape(len(found), -1)
    level = np.median(values, axis=1, keepdims=True)
    sigma = MAD_TO_SIGMA * np.median(np.abs(values - level), axis=1, keepdims=True)
    return (values - level) / np.where(sigma > 0, sigma, np.inf)


def _bright(found: Detections, ring: np.ndarray) -> np.ndarray:
    values = _above_noise(found, "template")
    if values is None or not len(found):
        return np.zeros(len(found), bool)
    return values[:, ring.ravel()].max(axis=1, initial=-np.inf) > STAR_SIGMA


def _dipoles(found: Detections, core: np.ndarray) -> np.ndarray:
    values = _above_noise(found, "difference")
    if values is None or not len(found):
        return np.zeros(len(found), bool)
    inside = values[:, core.ravel()]
    up, down = inside.max(axis=1), -inside.min(axis=1)
    lesser, greater = np.minimum(up, down), np.maximum(up, down)
    return (lesser > LOBE_SIGMA) & (lesser > LOBE_RATIO * greater)


def _planets(found: Detections, settings: Settings) -> list[str]:
    light = found.table["metalabel"].isin(layout.SYNTHETIC)  # these name whose light they carry, not what they are
    known = found.table["number"].astype(str).where(~light, "").tolist()
    if found.field is None or not settings.gotorb_mpc_catalogue:
        return known
    ra, dec, radius, epoch = found.field
    try:
        near = make_provider("pympc", settings).find(Field(ra, dec, radius + 0.05, epoch))
    except CatalogueError as error:
        log.warning("no minor planets: %s", error)
        return known
    index, apart = find_nearest(found.table["ra"], found.table["dec"], near["ra"], near["dec"])
    names = near["name"].astype(str).tolist()
    return [names[row] if far <= MP_ARCSEC else before for row, far, before in zip(index, apart, known, strict=True)]


def _galaxies(found: Detections, settings: Settings) -> np.ndarray:
    if found.field is None or not settings.catshtm_dir:
        return np.zeros(len(found), bool)
    ra, dec, radius, _ = found.field
    try:
        near = find_galaxies(settings.catshtm_dir, ra, dec, radius_arcsec=radius * 3600 + 60, max_mag=GALAXY_MAG)
    except CatalogueError as error:
        log.warning("no galaxies: %s", error)
        return np.zeros(len(found), bool)
    return find_nearest(found.table["ra"], found.table["dec"], near["ra"], near["dec"])[1] <= GALAXY_ARCSEC
