"""How far two-body positions are off when the elements are old, and a word of warning when it matters."""

import logging
from pathlib import Path

import numpy as np

AGE_DAYS = (0, 30, 60, 100, 180, 365, 730)
DRIFT_ARCSEC = (0.0, 0.14, 0.5, 1.7, 6.0, 22.0, 60.0)
"""Typical main-belt object; measured against full ephemerides."""
TOLERABLE_ARCSEC = 1.0
"""The radius within which a detection is matched, unless params.yaml says otherwise."""

log = logging.getLogger(__name__)


def expected_drift(age_days: float) -> float:
    """Typical error [arcsec] of a two-body position so many days before or after the elements' epoch.

    Examples
    --------
    >>> expected_drift(-30), expected_drift(80)
    (0.14, 1.1)
    """
    return round(float(np.interp(abs(age_days), AGE_DAYS, DRIFT_ARCSEC)), 3)


def warn_of_drift(path: Path, epoch_mjd: float, field_mjd: float) -> None:
    """Log once, per process and catalogue, that its elements are too old or too young for a field."""
    if expected_drift(field_mjd - epoch_mjd) > TOLERABLE_ARCSEC:
        _warn(path, epoch_mjd, round(field_mjd - epoch_mjd))


_told: set[tuple[Path, float]] = set()


def _warn(path: Path, epoch_mjd: float, days: int) -> None:
    if (path, epoch_mjd) in _told:
        return
    _told.add((path, epoch_mjd))
    log.warning(
        "minor-planet catalogue %s: an image is %d days %s its elements, positions are off by some %.1f arcsec; "
        "run `gotorb catalogue update` or widen match_radius_arcsec",
        path,
        abs(days),
        "after" if days > 0 else "before",
        expected_drift(days),
    )
