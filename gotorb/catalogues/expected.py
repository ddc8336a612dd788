"""Minor planets expected on an image against those found: a check of epoch, observatory and WCS."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from gotorb.catalogues.crossmatch import chord, unit_vectors
from gotorb.errors import InconsistentImage
from gotorb.survey.fits import Frame

FAR_ARCSEC, CLUSTER_ARCSEC, SPREAD = 90.0, 2.0, 0.2
"""Largest common offset that is looked for, its scatter, and the part of it by which it differs between minor planets:
they move at different speeds, so that a wrong epoch shifts them differently."""
LEAST_CLUSTER, CHANCE = 4, 1e-5
"""Minor planets that a common offset needs, and the largest probability that it is there by chance."""
MOST_PLANETS, MOST_PAIRS = 100, 5000
"""Minor planets, the brightest first, and pairs with detections that an offset is looked for among."""
LEAST_EXPECTED, LEAST_FOUND = 5, 0.1
"""Expected minor planets of a run, and the found fraction of their brighter half, below which labels are wrong."""
LEAST_BRIGHT = 4
"""Bright minor planets of one image of which none is found that deserve a warning."""
ODD_OFFSET_ARCSEC, ODD_OFFSET_FRACTION = 0.5, 0.5
"""Median offset that deserves a warning: the larger of this, and this fraction of the match radius."""
ALL_ROWS = slice(None)
CAUSES = "a wrong epoch (jd), observatory (GOTORB_OBSERVATORY) or WCS, or an old catalogue of minor planets"


class Expected(NamedTuple):
    """Minor planets of one image.

    Attributes
    ----------
    n_expected : int
        Brighter than the limit, on pixels with data.
    n_matched : int
        Of these, with a detection within the match radius.
    n_bright, n_bright_matched : int
        The same of their brighter half, which every survey with the right limit detects.
    offset_ra_arcsec, offset_dec_arcsec : float
        Median of detection minus catalogue over the matches; NaN without.
    """

    n_expected: int
    n_matched: int
    n_bright: int
    n_bright_matched: int
    offset_ra_arcsec: float
    offset_dec_arcsec: float


def list_expected(frame: Frame, ext: str | int, planets: pd.DataFrame, *, mag_limit: float) -> pd.DataFrame:
    """Minor planets brighter than a limit that fall on pixels with data.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext : str or int
        HDU of the difference image.
    planets : DataFrame
        name, ra, dec (deg), mag (V).
    mag_limit : float
        V.

    Returns
    -------
    DataFrame
        The same columns, and x, y (0-based), brightest first.

    Examples
    --------
    >>> from gotorb.survey.fits import open_frame
    >>> planets = pd.DataFrame({"name": ["bright", "faint"], "mag": [18.0, 21.0]})
    >>> with open_frame("images/visit.fits") as frame:
    ...     ra, dec = frame.centre("DIFFERENCE")
    ...     found = list_expected(frame, "DIFFERENCE", planets.assign(ra=ra, dec=dec), mag_limit=20)
    >>> found[["name", "x", "y"]].round(1)
         name     x     y
    0  bright  50.0  50.0
    """
    mag = planets["mag"].to_numpy(float)
    bright = np.flatnonzero(mag < mag_limit)
    bright = bright[np.argsort(mag[bright], kind="stable")]
    x, y = frame.to_pixels(ext, *(planets[name].to_numpy(float)[bright] for name in ("ra", "dec")))
    ny, nx = frame.shape(ext)
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero((x >= 0) & (x <= nx - 1) & (y >= 0) & (y <= ny - 1))
    if len(inside):
        inside = inside[np.isfinite(frame.values_at(ext, x[inside], y[inside]))]
    return planets.iloc[bright[inside]].reset_index(drop=True).assign(x=x[inside], y=y[inside])


def offsets_arcsec(detections: np.ndarray, planets: np.ndarray) -> np.ndarray:
    """Detection minus minor planet, row by row.

    Parameters
    ----------
    detections, planets : ndarray
        (n, 2) ra, dec (deg).

    Returns
    -------
    ndarray
        (n, 2) towards East and North.

    Examples
    --------
    >>> offsets_arcsec(np.array([[0.001, 60.0]]), np.array([[359.999, 60.0]])).round(3).tolist()
    [[3.6, 0.0]]
    """
    east, north = (detections - planets).T
    east = ((east + 180) % 360 - 180) * np.cos(np.radians(planets[:, 1]))
    return np.column_stack([east, north]) * 3600


def _places(table: pd.DataFrame, rows: np.ndarray | slice = ALL_ROWS) -> np.ndarray:
    """(n, 2) ra, dec, deg; columns first, since a selection of a table's rows costs more than all else here."""
    return np.column_stack([table["ra"].to_numpy(float)[rows], table["dec"].to_numpy(float)[rows]])


def compare(
    expected: pd.DataFrame, detections: pd.DataFrame, chosen: pd.DataFrame, *, able: np.ndarray, radius_arcsec: float
) -> Expected:
    """Count the expected minor planets that were found.

    Parameters
    ----------
    expected : DataFrame
        From `list_expected`.
    detections : DataFrame
        Detections on the image: ra, dec (deg).
    chosen : DataFrame
        Labelled detections: ra, dec, metalabel, number (name of the minor planet).
    able : ndarray of bool
        (n,) detections that can be minor planets; without any, no common offset is looked for.
    radius_arcsec : float
        Match radius.

    Returns
    -------
    Expected

    Raises
    ------
    InconsistentImage
        If far more of them have a detection at one common offset beyond the match radius than within it.

    Examples
    --------
    >>> expected = pd.DataFrame({"name": ["Ceres", "Vesta"], "ra": [10.0, 11.0], "dec": [2.0, 2.0], "mag": [9.0, 8.0]})
    >>> found = pd.DataFrame({"ra": [10.0], "dec": [2.0], "metalabel": ["mp"], "number": ["Ceres"]})
    >>> compare(expected, found, found, able=np.array([True]), radius_arcsec=2.0)[:2]
    (2, 1)
    """
    real = np.flatnonzero((chosen["metalabel"] == "mp").to_numpy())
    row_of = dict(zip(chosen["number"].to_numpy()[real], real, strict=True))
    pairs = [(row, row_of[name]) for row, name in enumerate(expected["name"]) if name in row_of]
    found, offset = np.zeros(len(expected), bool), np.full(2, np.nan)
    if pairs:
        places, theirs = np.transpose(pairs)
        found[places] = True
        offset = np.median(offsets_arcsec(_places(chosen, theirs), _places(expected, places)), axis=0)
    _refuse_shift(expected, _places(detections, able), int(found.sum()), radius_arcsec)
    half = (len(expected) + 1) // 2
    return Expected(len(expected), int(found.sum()), half, int(found[:half].sum()), float(offset[0]), float(offset[1]))


def _refuse_shift(expected: pd.DataFrame, detections: np.ndarray, n_matched: int, radius_arcsec: float) -> None:
    """Refuse an image whose minor planets are all detected at one offset."""
    found = find_shift(_places(expected), detections, n_matched=n_matched)
    if found is not None and np.hypot(*found[1]) > radius_arcsec:
        n_shifted, (east, north) = found
        raise InconsistentImage(
            f"{n_shifted} of {len(expected)} expected minor planets are detected at one offset of {east:+.1f} "
            f"arcsec in right ascension and {north:+.1f} in declination, {n_matched} within {radius_arcsec:g}; "
            f"look for {CAUSES}, or widen match_radius_arcsec"
        )


def find_shift(
    expected: np.ndarray, detections: np.ndarray, *, n_matched: int
) -> tuple[int, tuple[float, float]] | None:
    """Common offset of detections from minor planets.

    Parameters
    ----------
    expected, detections : ndarray
        (n, 2) ra, dec (deg); the brightest minor planets first.
    n_matched : int
        Minor planets that are detected at their places.

    Returns
    -------
    (n_shifted, (east, north)) or None
        Minor planets with a detection at the offset, and the offset [arcsec]; None when there are not many more than
        by chance, and than are at their places.

    Examples
    --------
    >>> planets = np.column_stack([np.linspace(10, 11, 12), np.linspace(2, 3, 12)])
    >>> find_shift(planets, planets + [0, 20 / 3600], n_matched=0)[0]
    12
    """
    from scipy.stats import poisson  # 33 MB, which servers of pages do without

    if len(expected) < LEAST_CLUSTER or len(detections) == 0:
        return None
    places = expected[:MOST_PLANETS]
    planets, sky = cKDTree(unit_vectors(*places.T)), cKDTree(unit_vectors(*detections.T))
    near = planets.query_ball_tree(sky, chord(FAR_ARCSEC))
    which = np.repeat(np.arange(len(places)), [len(rows) for rows in near])
    if not 0 < len(which) <= MOST_PAIRS:  # a crowd hides any offset
        return None
    rows = np.concatenate([np.asarray(found, int) for found in near])
    offsets = offsets_arcsec(detections[rows], places[which])
    reach = CLUSTER_ARCSEC + SPREAD * np.hypot(*offsets.T)
    groups = cKDTree(offsets).query_ball_point(offsets, reach)
    counts = np.array([len(set(which[members].tolist())) for members in groups])
    by_chance = poisson.sf(counts - 2, len(which) * (reach / FAR_ARCSEC) ** 2) * len(which)
    best = int(np.argmin(by_chance))
    if counts[best] < max(LEAST_CLUSTER, 2 * n_matched + 1) or by_chance[best] > CHANCE:
        return None
    shift = np.median(offsets[groups[best]], axis=0)
    return int(counts[best]), (float(shift[0]), float(shift[1]))


def describe(found: Expected, where: str) -> list[str]:
    """Suspicious results of one image.

    Parameters
    ----------
    found : Expected
    where : str
        Image named in the text.

    Returns
    -------
    list of str

    Examples
    --------
    >>> describe(Expected(9, 0, 5, 0, np.nan, np.nan), "f012.fits")[0][:50]
    'matched 0 of 9 expected minor planets of f012.fits'
    """
    if found.n_bright >= LEAST_BRIGHT and found.n_matched == 0:
        return [f"matched 0 of {found.n_expected} expected minor planets of {where}; look for {CAUSES}"]
    return []


def summarise(images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum over images.

    Parameters
    ----------
    images : sequence of dict
        Fields of `Expected`; images without them are left out.

    Returns
    -------
    dict
        n_expected, n_matched, n_bright, n_bright_matched, and the medians of the offsets (None without a match).

    Examples
    --------
    >>> counts = {"n_expected": 5, "n_matched": 4, "n_bright": 2, "n_bright_matched": 2}
    >>> image = counts | {"offset_ra_arcsec": 0.1, "offset_dec_arcsec": -0.1}
    >>> found = summarise([image, image])
    >>> found["n_expected"], found["n_matched"]
    (10, 8)
    """
    known = [image for image in images if "n_expected" in image]
    sums: dict[str, Any] = {name: int(sum(image[name] for image in known)) for name in Expected._fields[:4]}
    for name in Expected._fields[4:]:
        values = [image[name] for image in known if image[name] is not None and np.isfinite(image[name])]
        sums[name] = float(np.median(values)) if values else None
    return sums


def find_problems(images: Sequence[dict[str, Any]], *, radius_arcsec: float) -> tuple[str, list[str]]:
    """Check the images of a run together.

    Parameters
    ----------
    images : sequence of dict
        Fields of `Expected` by image.
    radius_arcsec : float
        Match radius.

    Returns
    -------
    problem : str
        Reason not to train on the labels; "" for none.
    warnings : list of str
        Odd results.

    Examples
    --------
    >>> image = {"n_expected": 40, "n_matched": 0, "n_bright": 20, "n_bright_matched": 0}
    >>> image |= {"offset_ra_arcsec": np.nan, "offset_dec_arcsec": np.nan}
    >>> find_problems([image], radius_arcsec=2.0)[0][:45]
    'matched 0 of 40 expected minor planets; look '
    """
    known = [image for image in images if "n_expected" in image]
    total = summarise(known)
    problem, warnings = "", []
    if total["n_expected"] >= LEAST_EXPECTED and total["n_bright_matched"] < LEAST_FOUND * total["n_bright"]:
        problem = f"matched {total['n_matched']} of {total['n_expected']} expected minor planets; look for {CAUSES}"
    elif known and total["n_expected"] == 0:
        warnings.append("no minor planet is expected on these images, so that none of the labels is real; add images")
    elif known and total["n_matched"] == 0:
        warnings.append(
            f"matched none of {total['n_expected']} expected minor planets, so that none of the labels is real; "
            f"add images, or look for {CAUSES}"
        )
    if total["offset_ra_arcsec"] is not None:
        offset = np.hypot(total["offset_ra_arcsec"], total["offset_dec_arcsec"])
        if (
            offset > max(ODD_OFFSET_ARCSEC, ODD_OFFSET_FRACTION * radius_arcsec)
            and total["n_matched"] >= LEAST_EXPECTED
        ):
            warnings.append(
                f"matched minor planets are {total['offset_ra_arcsec']:+.2f} arcsec in right ascension and "
                f"{total['offset_dec_arcsec']:+.2f} in declination from the catalogue; look for {CAUSES}"
            )
    return problem, warnings
