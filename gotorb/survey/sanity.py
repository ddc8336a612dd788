"""Checks of an image before it gets labels: place, time, grid and table must fit each other.

One wrong card would make every known asteroid of an image bogus. What cannot be right raises `InconsistentImage`,
with the numbers; what is odd is a line of text, which the run logs as a warning.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gotorb.core.constants import MJD_ZERO
from gotorb.errors import InconsistentImage, MissingPart
from gotorb.survey.fits import Frame
from gotorb.survey.times import FIRST_JD, LAST_JD

MAX_OFFSET_ARCSEC, MAX_OFFSET_PIXEL = 2.0, 3.0
"""Largest distance of a position in the table from the WCS at x, y: the larger of the two holds."""
ODD_OFFSET_PIXEL, MANY_ROWS = 0.7, 5
"""Median offset that deserves a warning, such as FIRST_PIXEL off by one, where there are as many rows."""
OFF_IMAGE_PIXEL = 1.0
"""Detections further outside the edge than this are not on the image."""
MOST_OUTSIDE = 0.1
"""Fraction of the detections outside, or off the WCS, from which on the whole table is refused."""
SAME_GRID_PIXEL, SAME_SHAPE = 0.5, 0.03
"""Largest shift of planes on one grid; largest difference of scale and orientation of planes that are cut alike."""
SPARSE = 9
"""Step, in pixels, of the first look at a stamp: only those that show one value there are read whole."""
_ALONG = np.linspace(0, 1, 9)
OUTLINE = np.concatenate(
    [[[0.5], [0.5]], *([_ALONG, 0 * _ALONG + end] for end in (0, 1)), *([0 * _ALONG + end, _ALONG] for end in (0, 1))],
    1,
)
"""The middle of an image and points of its edges, in units of its sides: they decide the circle around it."""
CIRCLE_MARGIN_DEG = 0.01
"""Width, beyond the footprint, of the circle that minor planets are asked for in."""


class Circle(NamedTuple):
    """A circle on the sky: centre [deg, ICRS] and radius [deg]."""

    ra: float
    dec: float
    radius_deg: float


def separation_arcsec(ra: ArrayLike, dec: ArrayLike, ra_to: ArrayLike, dec_to: ArrayLike) -> np.ndarray:
    """Distances between pairs of positions.

    Parameters
    ----------
    ra, dec, ra_to, dec_to : array_like
        (n,) or scalar, deg.

    Returns
    -------
    ndarray
        (n,) arcsec; NaN for positions that are none.
    """
    lon, lat, lon_to, lat_to = (np.radians(np.asarray(value, float)) for value in (ra, dec, ra_to, dec_to))
    half = np.sin((lat_to - lat) / 2) ** 2 + np.cos(lat) * np.cos(lat_to) * np.sin((lon_to - lon) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


def check_place_and_time(ra_c: float, dec_c: float, jd: float, where: str) -> None:
    """Refuse a centre or an epoch that cannot be.

    Parameters
    ----------
    ra_c, dec_c : float
        Centre, deg, ICRS.
    jd : float
        Mid-exposure.
    where : str
        Image named in errors.

    Raises
    ------
    InconsistentImage
        If one is not finite, the declination is beyond a pole, or the epoch is not in the years 1900 to 2100.
    """
    if not (math.isfinite(ra_c) and math.isfinite(dec_c) and abs(dec_c) <= 90 and -360 <= ra_c <= 360):
        raise InconsistentImage(
            f"centre ra_c {ra_c}, dec_c {dec_c} of {where} is no place on the sky; get_images() must give degrees"
        )
    if math.isfinite(jd) and FIRST_JD <= jd <= LAST_JD:
        return
    looks = ""
    if FIRST_JD <= jd + MJD_ZERO <= LAST_JD:
        looks = f", which looks like MJD: add {MJD_ZERO}"
    elif 1900 <= jd <= 2100:
        looks = ", which looks like a year"
    elif 3e8 < jd < 5e9:
        looks = ", which looks like seconds since 1970"
    raise InconsistentImage(
        f"epoch jd {jd} of {where} is not between the years 1900 and 2100{looks}; get_images() must give JD, UTC"
    )


def find_circle(frame: Frame, ext: str | int, ra_c: float, dec_c: float) -> Circle:
    """Smallest circle around an image's centre that holds the whole image, and a little margin.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext : str or int
        HDU whose WCS holds.
    ra_c, dec_c : float
        Centre that the survey gives, deg, ICRS.

    Returns
    -------
    Circle

    Raises
    ------
    InconsistentImage
        If the centre is not on the image by its WCS.
    """
    ny, nx = frame.shape(ext)
    ra, dec = frame.to_sky(ext, OUTLINE[0] * nx - 0.5, OUTLINE[1] * ny - 0.5)
    middle = float(ra[0]), float(dec[0])
    on_sky = np.isfinite(ra)
    if not (np.isfinite(middle).all() and on_sky.any()):
        raise InconsistentImage(f"the WCS of HDU {ext!r} in {frame.path} gives its own pixels no place; solve it again")
    edge = separation_arcsec(ra_c, dec_c, ra[on_sky], dec[on_sky]).max() / 3600
    reach = separation_arcsec(*middle, ra[on_sky], dec[on_sky]).max() / 3600
    off = float(separation_arcsec(ra_c, dec_c, *middle)) / 3600
    if off > reach:
        raise InconsistentImage(
            f"centre ra_c {ra_c:.4f}, dec_c {dec_c:.4f} of {frame.path} is {off:.3g} deg from the image's middle "
            f"{middle[0]:.4f}, {middle[1]:.4f} by its WCS (half its diagonal: {reach:.3g}); correct get_images() or "
            "solve the image again"
        )
    return Circle(ra_c, dec_c, float(edge) + CIRCLE_MARGIN_DEG)


def check_detections(frame: Frame, ext: str | int, detections: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Compare the table of detections with the image: its size, and its WCS at x, y.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext : str or int
        HDU that the positions belong to.
    detections : DataFrame
        x, y (0-based), ra, dec (deg, ICRS).

    Returns
    -------
    detections : DataFrame
        Those on the image, whose positions agree.
    warnings : list of str
        Odd things that are no reason to refuse.

    Raises
    ------
    InconsistentImage
        If many are off the image, or their positions disagree with the WCS.
    """
    if len(detections) == 0:
        return detections, []
    detections, notes = _keep_inside(frame, ext, detections)
    x, y, ra, dec = (detections[name].to_numpy(float) for name in ("x", "y", "ra", "dec"))
    by_wcs = frame.to_sky(ext, x, y)
    offset = separation_arcsec(ra, dec, *by_wcs)
    scale = frame.astrometry(ext).scale_arcsec
    agree = offset <= max(MAX_OFFSET_ARCSEC, MAX_OFFSET_PIXEL * scale)
    if _too_many(~agree):
        median = np.median(np.where(np.isnan(offset), np.inf, offset))
        raise InconsistentImage(
            f"ra, dec of {np.count_nonzero(~agree)} of {len(offset)} detections of {frame.path} disagree with the WCS "
            f"of HDU {ext!r} at their x, y by {median:.3g} arcsec in the median{guess_cause(ra, dec, *by_wcs)}; "
            "correct the table's columns or their units (TUNIT), FIRST_PIXEL, or solve the image again"
        )
    median = float(np.median(offset[agree])) / scale
    if median > ODD_OFFSET_PIXEL and len(offset) >= MANY_ROWS:
        notes.append(f"ra, dec of {frame.path} are {median:.2g} pixels from the WCS at x, y; check FIRST_PIXEL")
    if not agree.all():
        notes.append(f"{np.count_nonzero(~agree)} detections of {frame.path} disagree with the WCS and are left out")
        detections = detections[agree].reset_index(drop=True)
    return detections, notes


def _keep_inside(frame: Frame, ext: str | int, detections: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    ny, nx = frame.shape(ext)
    x, y = detections["x"].to_numpy(float), detections["y"].to_numpy(float)
    margin = 0.5 + OFF_IMAGE_PIXEL
    inside = (x >= -margin) & (x <= nx - 1 + margin) & (y >= -margin) & (y <= ny - 1 + margin)
    n_outside = np.count_nonzero(~inside)
    if _too_many(~inside):
        raise InconsistentImage(
            f"{n_outside} of {len(x)} detections of {frame.path} lie outside HDU {ext!r} of {nx} x {ny} pixels "
            f"(x {x.min():.1f} to {x.max():.1f}, y {y.min():.1f} to {y.max():.1f}); give x, y in the frame of that "
            "image, not of a mosaic or of a binned one"
        )
    if n_outside:
        note = f"{n_outside} of {len(x)} detections of {frame.path} lie outside the image and are left out"
        return detections[inside].reset_index(drop=True), [note]
    return detections, []


def _too_many(wrong: np.ndarray) -> bool:
    n_wrong = np.count_nonzero(wrong)
    return bool(n_wrong > MOST_OUTSIDE * len(wrong) and (n_wrong >= 3 or n_wrong == len(wrong)))


def guess_cause(
    ra: np.ndarray, dec: np.ndarray, ra_to: ArrayLike, dec_to: ArrayLike, *, near_arcsec: float = 60.0
) -> str:
    """Likely cause of positions that are far from where they should be.

    Parameters
    ----------
    ra, dec : ndarray
        (n,) as they are.
    ra_to, dec_to : array_like
        (n,) or scalar, deg, where they should be.
    near_arcsec : float
        Distance that explains them.

    Returns
    -------
    str
        `` (they look like radians)`` or another unit or order; "" when nothing explains them.
    """
    tries = {
        "radians": (np.degrees(ra), np.degrees(dec)),
        "hours of right ascension": (ra * 15, dec),
        "exchanged ra and dec": (dec, ra),
        "arcseconds": (ra / 3600, dec / 3600),
        "arcminutes": (ra / 60, dec / 60),
    }
    near = {name: np.nanmedian(separation_arcsec(*place, ra_to, dec_to)) for name, place in tries.items()}
    name = min(near, key=lambda one: near[one])
    return f" (they look like {name})" if near[name] < near_arcsec else ""


def find_grid(frame: Frame, ext: str, reference: str) -> bool:
    """Tell whether a plane shares the grid of the difference image.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext, reference : str
        HDUs of the plane and of the difference.

    Returns
    -------
    bool
        False when the plane is to be cut by its own WCS.

    Raises
    ------
    InconsistentImage
        If it has another shape and no WCS, or another scale or orientation.
    """
    same_shape = frame.shape(ext) == frame.shape(reference)
    if ext == reference or (same_shape and frame.wcs_cards(ext) == frame.wcs_cards(reference)):
        return True
    try:
        own = frame.astrometry(ext)
    except MissingPart as error:
        if same_shape:
            return True
        raise InconsistentImage(
            f"HDU {ext!r} in {frame.path} has shape {frame.shape(ext)} and HDU {reference!r} {frame.shape(reference)}, "
            f"and it cannot be cut by its own WCS ({error}); write both on one grid"
        ) from None
    ny, nx = frame.shape(reference)
    x, y = np.array([0.0, nx - 1, 0, nx - 1]), np.array([0.0, 0, ny - 1, ny - 1])
    there = own.to_pixels(*frame.to_sky(reference, x, y), (4 * max(frame.shape(ext)), 4 * max(frame.shape(ext))))
    if same_shape and np.hypot(there[0] - x, there[1] - y).max() < SAME_GRID_PIXEL:
        return True
    _check_shape(frame, ext, reference, np.array(there), np.array([x, y]))
    return False


def _check_shape(frame: Frame, ext: str, reference: str, there: np.ndarray, here: np.ndarray) -> None:
    """Refuse a plane that a shift does not bring onto the difference: its stamps would show another sky."""
    design = np.column_stack([here.T, np.ones(here.shape[1])])
    finite = np.isfinite(there).all(axis=0)
    if np.count_nonzero(finite) >= 3:
        linear = np.linalg.lstsq(design[finite], there.T[finite], rcond=None)[0][:2].T
        if np.abs(linear - np.eye(2)).max() < SAME_SHAPE:
            return
        what = f"another scale or orientation (matrix {np.round(linear, 3).tolist()})"
    else:
        what = "another place on the sky"
    raise InconsistentImage(
        f"HDU {ext!r} in {frame.path} has {what} than HDU {reference!r} by its WCS; resample it to the same grid"
    )


def find_empty(planes: np.ndarray) -> np.ndarray:
    """Mark stamps without any structure: no data, or one value everywhere.

    Parameters
    ----------
    planes : ndarray
        (n, size, size, k); NaN where there are no data.

    Returns
    -------
    ndarray of bool
        (n, k).
    """
    if not planes.size:
        return np.zeros((len(planes), planes.shape[-1]), bool)
    empty = _one_value(planes[:, ::SPARSE, ::SPARSE])
    doubtful = empty.any(axis=1)
    empty[doubtful] = _one_value(planes[doubtful])
    return empty


def _one_value(planes: np.ndarray) -> np.ndarray:
    filled = np.where(np.isfinite(planes), planes, 0)
    return filled.max(axis=(1, 2)) == filled.min(axis=(1, 2))


def check_stamps(stacked: np.ndarray, exposures: np.ndarray, where: str) -> tuple[np.ndarray, list[str]]:
    """Check that stamps show something.

    Parameters
    ----------
    stacked : ndarray
        (n, size, size, 3): science, template, difference.
    exposures : ndarray
        (n, size, size, n_exposures).
    where : str
        Image named in errors.

    Returns
    -------
    kept : ndarray of bool
        (n,) rows whose science image and difference are not empty.
    warnings : list of str

    Raises
    ------
    InconsistentImage
        If half of the rows are empty, or the exposures show none of them.
    """
    empty, unseen = find_empty(stacked), find_empty(exposures)
    kept = ~(empty[:, 0] | empty[:, 2])
    n, n_empty, notes = len(kept), np.count_nonzero(~kept), []
    if n_empty * 2 >= n and (n_empty >= 3 or n_empty == n) and n:
        raise InconsistentImage(
            f"the science image or the difference is empty at {n_empty} of {n} detections of {where}; check the HDU "
            "names and the positions in the table"
        )
    if n and exposures.shape[-1] and unseen.all():
        raise InconsistentImage(
            f"none of {exposures.shape[-1]} exposures of {where} shows any of {n} detections; "
            "get_individual_images() must give the exposures of this image, with a WCS each"
        )
    if n_empty:
        notes.append(f"{n_empty} detections of {where} lie where there are no data and are left out")
    if n and empty[:, 1].all():
        notes.append(f"the template of {where} is empty at all of {n} detections")
    return kept, notes
