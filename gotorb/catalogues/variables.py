"""Known variable stars (such as ATLAS-VAR, Heinze et al. 2018): positions of a csv, FITS, VOTable or ECSV table."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy import units
from astropy.coordinates import Angle
from astropy.table import Table

from gotorb.core.logs import one_line
from gotorb.core.untrusted import BROKEN_PACKING, MOST_COLUMNS, MOST_HEADER, unpack_known
from gotorb.errors import CatalogueError

log = logging.getLogger(__name__)
NAMES = {
    "ra": ("ra", "raj2000", "ra_j2000", "_raj2000", "ra_icrs", "raicrs", "ra_deg", "radeg", "alpha_j2000", "alpha"),
    "dec": ("dec", "dej2000", "decj2000", "dec_j2000", "_dej2000", "de_icrs", "deicrs", "dec_deg", "decdeg", "dedeg",
            "delta_j2000", "delta", "decl"),
}  # fmt: skip
"""Names of the columns of position in any case; the first that is there is taken."""
MANY = 50
"""Rows from which the range of positions shows their unit."""
ODD = *BROKEN_PACKING, ValueError, TypeError, KeyError, IndexError, UnicodeError


def read_variables(path: Path | str) -> pd.DataFrame:
    """Positions of known variable stars.

    Parameters
    ----------
    path : path
        csv, FITS, VOTable or ECSV, packed (.gz, .bz2, .xz) or not, told by its content. The columns of position are
        called ra and dec, RAJ2000 and DEJ2000 or the like, in any case. They are degrees, in the unit that the file
        tells, or sexagesimal text (hours and degrees).

    Returns
    -------
    DataFrame
        ra, dec (deg, ICRS); rows without a position are left out with a warning.

    Raises
    ------
    CatalogueError
        If the file is missing, unreadable, without a needed column, or a position is impossible.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w+", suffix=".csv") as file:
    ...     print("RAJ2000,DEJ2000", "12:00:00,-30:30:00", sep="\\n", file=file, flush=True)
    ...     stars = read_variables(file.name)
    >>> stars.round(6).to_dict("records")
    [{'ra': 180.0, 'dec': -30.5}]
    """
    path = Path(path)
    try:
        table = _read_table(path)
    except FileNotFoundError:
        raise CatalogueError(f"no catalogue of variables {path}; correct clean.variables in params.yaml") from None
    except ODD as error:
        reason = one_line(error, 150)
        raise CatalogueError(f"{path} cannot be read as a table ({reason}); give csv, FITS, VOTable or ECSV") from None
    places = _coordinates(table) or {
        ours: _degrees(table, _find_column(table, ours, path), ours, path) for ours in NAMES
    }
    known = np.isfinite(places["ra"]) & np.isfinite(places["dec"])
    if not known.all():
        log.warning("%d of %d rows of %s have no position", int((~known).sum()), len(known), path)
    stars = pd.DataFrame(places)[known].reset_index(drop=True)
    _check_places(stars, path)
    return stars


def _read_table(path: Path) -> Any:
    """The file as an astropy table."""

    with path.open("rb") as file:
        unpacked = unpack_known(file, path.stat().st_size)
        data = file.read() if unpacked is None else unpacked
    start = data[:500].lstrip().lower()
    with warnings.catch_warnings(action="ignore"):  # on units and ids that astropy finds odd
        if data.startswith(b"SIMPLE  ="):
            return Table.read(io.BytesIO(data), format="fits")
        if start.startswith(b"<") and b"votable" in data[:5000].lower():
            return Table.read(io.BytesIO(data), format="votable")
        if start.startswith(b"# %ecsv"):
            return Table.read(data.decode(), format="ascii.ecsv")
        if data[:MOST_HEADER].partition(b"\n")[0].count(b",") > MOST_COLUMNS:
            raise ValueError(f"more than {MOST_COLUMNS} columns")
        rows = pd.read_csv(io.BytesIO(data), comment="#", skipinitialspace=True)
        if rows.shape[1] == 1:
            rows = pd.read_csv(io.BytesIO(data), comment="#", sep=r"\s*[;|\t]\s*|\s+", engine="python")
        return Table.from_pandas(rows)


def _coordinates(table: Any) -> dict[str, np.ndarray] | None:
    """Positions of a column of sky coordinates, which ECSV may hold; None without one."""
    for name in table.colnames:
        if hasattr(table[name], "icrs"):
            sky = table[name].icrs
            return {"ra": np.ma.filled(sky.ra.deg, np.nan), "dec": np.ma.filled(sky.dec.deg, np.nan)}
    return None


def _find_column(table: Any, ours: str, path: Path) -> str:
    lower = {str(name).strip().lower(): name for name in table.colnames}
    found = next((lower[name] for name in NAMES[ours] if name in lower), None)
    if found is None:
        raise CatalogueError(f"no column {ours!r} in {path} (has {', '.join(map(str, table.colnames))}); rename it")
    return str(found)


def _degrees(table: Any, name: str, ours: str, path: Path) -> np.ndarray:
    """Column in degrees, NaN where it is masked or empty."""

    column = table[name]
    masked = np.ma.getmaskarray(np.ma.asarray(column)) if hasattr(column, "mask") else np.zeros(len(column), bool)
    values = np.asarray(np.ma.getdata(column))
    if values.dtype.kind in "OSU":
        pairs = zip(values, masked, strict=True)
        return np.array([np.nan if hidden else _angle(one, ours, path) for one, hidden in pairs], float)
    unit = getattr(column, "unit", None)
    try:
        scale = 1.0 if unit is None or str(unit) == "" else units.Unit(_unit_name(unit, ours)).to(units.deg)
    except (ValueError, TypeError, units.UnitConversionError):
        raise CatalogueError(f"{name} of {path} is in {str(unit)!r}; give degrees, radians or hours") from None
    return np.where(masked, np.nan, values.astype(float)) * scale


def _unit_name(unit: Any, ours: str) -> Any:
    """Unit of an angle: hours of a right ascension are hours of angle."""
    return "hourangle" if ours == "ra" and str(unit).strip().lower() in ("h", "hr", "hour", "hours") else unit


def _angle(value: Any, ours: str, path: Path) -> float:
    """Degrees of a number in text, or of sexagesimal text; NaN of nothing."""

    text = (value.decode(errors="replace") if isinstance(value, bytes) else "" if value is None else str(value)).strip()
    if text.lower() in ("", "nan", "null", "none", "--"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(Angle(text, unit="hourangle" if ours == "ra" else "deg").deg)
    except (ValueError, TypeError, ArithmeticError):
        raise CatalogueError(
            f"{ours} {text[:40]!r} in {path} is no position; give degrees, or hours:minutes:seconds and "
            "degrees:minutes:seconds"
        ) from None


def _check_places(stars: pd.DataFrame, path: Path) -> None:
    """Refuse positions that cannot be, and those that fill the sky only in radians or hours."""
    wrong = ~(stars["ra"].between(-180, 360) & stars["dec"].between(-90, 90))
    if wrong.any():
        ra, dec = stars[wrong].iloc[0]
        raise CatalogueError(f"{path} has a star at {ra:g}, {dec:g} deg; give degrees, or a unit that FITS tells")
    if len(stars) < MANY:
        return
    width, height = np.ptp(stars["ra"]), np.ptp(stars["dec"])
    if width > 0.9 * 2 * np.pi and stars["ra"].max() <= 2 * np.pi and 1 < height <= np.pi:
        raise CatalogueError(f"{path} has positions like radians (ra up to {stars['ra'].max():.3f}); give degrees")
    if 0.9 * 24 < width <= 24 and stars["ra"].max() <= 24 and stars["ra"].min() >= 0 and height > 60:
        raise CatalogueError(f"{path} has right ascensions like hours (up to {stars['ra'].max():.3f}); give degrees")
