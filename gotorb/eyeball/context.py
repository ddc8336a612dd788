"""Facts next to a row: other detections of its source, automatic flags, and links to services by its position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from gotorb.classifier.sources import Detections
from gotorb.core.constants import MJD_ZERO
from gotorb.core.settings import Settings
from gotorb.visualise.flags import find_flags

if TYPE_CHECKING:
    from gotorb.dataset.store import Dataset

SAME_ARCSEC = 2.0
"""Detections closer than this are of one source."""
MOST_EARLIER = 30
FEWEST_PLACES, LARGEST_MISFIT = 5, 20.0
"""Rows that fix an image's geometry, and arcsec by which they may differ from it: more is no plain projection."""
UNIX_JD = 2440587.5


def jd_date(jd: float) -> datetime:
    """UTC of a Julian date.

    Parameters
    ----------
    jd : float

    Returns
    -------
    datetime

    Examples
    --------
    >>> jd_date(2459000.5).isoformat()
    '2020-05-31T00:00:00+00:00'
    """
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=jd - UNIX_JD)


def sexagesimal(value: float, *, digits: int = 2) -> str:
    """Degrees or hours with minutes and seconds, separated by spaces.

    Parameters
    ----------
    value : float
    digits : int
        Decimal places of the seconds.

    Returns
    -------
    str
        Signed text.

    Examples
    --------
    >>> sexagesimal(-10.5083), sexagesimal(5.99999999)
    ('-10 30 29.88', '+06 00 00.00')
    """
    total = round(abs(value) * 3600, digits)
    minutes, seconds = divmod(total, 60)
    whole, minutes = divmod(int(minutes), 60)
    return f"{'-' if value < 0 else '+'}{whole:02d} {minutes:02d} {seconds:0{digits + 3}.{digits}f}"


def make_links(row: Mapping[str, Any], templates: Mapping[str, str]) -> list[list[str]]:
    """Fill templates of addresses by the values of a row.

    Parameters
    ----------
    row : mapping
        ra and dec in degrees, jd, id, object_id; each may be absent or None.
    templates : mapping of str
        Name of a service to its address with {ra}, {dec}, {ra_hms}, {dec_dms}, {jd}, {mjd}, {date}, {year},
        {month}, {day}, {id} or {object_id}.

    Returns
    -------
    list of [name, address]
        Services that need a value missing from the row are left out.

    Examples
    --------
    >>> make_links({"ra": 10.0, "dec": -5.0}, {"a": "https://a.org/?p={ra},{dec}", "b": "https://b.org/{mjd}"})
    [['a', 'https://a.org/?p=10.0,-5.0']]
    """
    values = {
        name: str(row[name]) for name in ("ra", "dec", "jd", "id", "object_id") if row.get(name) not in (None, "")
    }
    if {"ra", "dec"} <= values.keys():
        values["ra_hms"] = sexagesimal(float(row["ra"]) / 15)[1:]
        values["dec_dms"] = sexagesimal(float(row["dec"]), digits=1)
    if "jd" in values:
        date = jd_date(float(row["jd"]))
        day = date.day + (date.hour + date.minute / 60 + date.second / 3600) / 24
        values |= {"mjd": f"{float(row['jd']) - MJD_ZERO:.5f}", "date": date.date().isoformat()}
        values |= {"year": f"{date:%Y}", "month": f"{date:%m}", "day": f"{day:05.2f}"}
    safe = {name: quote(value, safe=".,-") for name, value in values.items()}
    found = []
    for name, template in templates.items():
        try:
            found.append([name, template.format_map(safe)])
        except KeyError:
            continue
    return found


class Context:
    """Other detections and flags of the rows of a data set.

    Parameters
    ----------
    data : Dataset
    table : DataFrame
        Its rows, numbers as numbers (`Rows.table`).
    """

    def __init__(self, data: Dataset, table: pd.DataFrame) -> None:
        self.data, self.table = data, table

    @cached_property
    def _directions(self) -> np.ndarray | None:
        """Unit vectors (n, 3) of the rows; far away where the place is unknown."""
        if not {"ra", "dec"} <= set(self.table):
            return None
        ra, dec = (np.radians(self.table[name].to_numpy(float)) for name in ("ra", "dec"))
        vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)
        lost = ~np.isfinite(vectors).all(axis=1)
        vectors[lost] = 10.0 + np.arange(lost.sum())[:, None]
        return vectors

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return None if self._directions is None else cKDTree(self._directions)

    @cached_property
    def _objects(self) -> dict[str, np.ndarray]:
        """Row numbers of each named object with several rows."""
        if "object_id" not in self.table:
            return {}
        found = self.table.groupby("object_id", sort=False).indices
        return {str(name): rows for name, rows in found.items() if str(name) and len(rows) > 1}

    def others(self, row: int) -> list[int]:
        """Rows of the same object, or of the same place within `SAME_ARCSEC`, in the order of time.

        Parameters
        ----------
        row : int

        Returns
        -------
        list of int
            Without the row itself; at most `MOST_EARLIER`.
        """
        found = set(self._objects.get(str(self.table["object_id"].iloc[row]), ())) if self._objects else set()
        if self._tree is not None and self._directions is not None:
            found |= set(self._tree.query_ball_point(self._directions[row], np.radians(SAME_ARCSEC / 3600)))
        rows = np.array(sorted(int(other) for other in found if other != row), int)
        if "jd" in self.table and len(rows):
            rows = rows[np.argsort(self.table["jd"].to_numpy(float)[rows], kind="stable")]
        return [int(other) for other in rows[:MOST_EARLIER]]

    def plate(self, row: int) -> list[list[float]] | None:
        """Sky offsets of a pixel's step at a row: a linear fit to the places of the other rows of its image.

        Parameters
        ----------
        row : int

        Returns
        -------
        list of list of float or None
            Arcsec east and north of a step in x, and of one in y; None where fewer than `FEWEST_PLACES` rows, or
            rows on one line, show the image's geometry.
        """
        names = ("image_id", "x", "y", "ra", "dec")
        table = self.data.table
        if any(name not in table for name in names):
            return None
        key = table["image_id"].iloc[row]
        if key not in self._plates:
            own = table[table["image_id"] == key][list(names[1:])].apply(pd.to_numeric, errors="coerce").dropna()
            self._plates[key] = _fit_plate(own.to_numpy(float).T)
        return self._plates[key]

    @cached_property
    def _plates(self) -> dict[str, list[list[float]] | None]:
        return {}

    def flags(self, rows: Sequence[int]) -> list[list[str]]:
        """Automatic flags of rows: edge, bright star, dipole, cosmic ray, known object.

        Parameters
        ----------
        rows : sequence of int

        Returns
        -------
        list of list of str
        """
        if not len(rows):
            return []
        stamps = self.data.read_stamps(rows)
        table = self.data.table.iloc[list(rows)].reset_index(drop=True)
        number = table["number"].fillna("").astype(str) if "number" in table else pd.Series("", index=table.index)
        known = pd.DataFrame({"metalabel": table["metalabel"], "number": number})
        for name in ("n_seen", "missing_fraction"):
            known[name] = pd.to_numeric(table[name], errors="coerce") if name in table else np.nan
        n_exposures = 2 if {"min", "max"} <= set(self.data.layers) else 0  # one or several is all that is asked
        exposures = np.broadcast_to(np.float32(0), (*stamps.shape[:3], n_exposures))
        found = Detections(name="", table=known, stamps=stamps, layers=self.data.layers, exposures=exposures)
        return find_flags(found, Settings())[0]


def _fit_plate(places: np.ndarray) -> list[list[float]] | None:
    """Arcsec east and north of a step in x and in y from (4, n) x, y, ra, dec."""
    x, y, ra, dec = places
    if len(x) < FEWEST_PLACES:
        return None
    east = ((ra - ra[0] + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3600
    terms = np.stack([x - x[0], y - y[0], np.ones_like(x)], axis=1)
    fit, _, rank, _ = np.linalg.lstsq(terms, np.stack([east, (dec - dec[0]) * 3600], axis=1), rcond=None)
    if rank < terms.shape[1]:
        return None
    off = np.abs(terms @ fit - np.stack([east, (dec - dec[0]) * 3600], axis=1)).max()
    return [[float(f"{one:.6g}") for one in step] for step in fit[:2]] if off < LARGEST_MISFIT else None


def night_of(jd: float | None) -> str:
    """Date and time of a detection for the page, to the minute.

    Parameters
    ----------
    jd : float or None

    Returns
    -------
    str
        Empty where unknown.
    """
    return "" if jd is None or not np.isfinite(jd) else f"{jd_date(jd):%Y-%m-%d %H:%M}"
