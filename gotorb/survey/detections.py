"""The survey's table of detections in our own columns and units."""

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
import pandas as pd
from astropy import units
from astropy.coordinates import Angle
from astropy.io import fits

from gotorb.errors import InconsistentImage, MissingPart
from gotorb.survey.fits import Frame
from gotorb.survey.ids import find_bad_id
from gotorb.survey.planes import card_number

POSITION, SKY = ("x", "y"), ("ra", "dec")
MEASURED = ("mag", "fwhm", "snr", "realbogus", "cnn_realbogus")
COLUMNS = (*POSITION, *SKY, "mag", "id", *MEASURED[1:], "isdiffpos")
NUMBERS = {*POSITION, *SKY, *MEASURED}
NUMBER_CODES = set("BIJKED")
"""Types of FITS columns that hold one number a row."""
UNITS_WANTED = {"ra": units.deg, "dec": units.deg, "mag": units.mag}
UNIT_NAMES = {"h": "hourangle", "hr": "hourangle", "hour": "hourangle", "hours": "hourangle", "degree": "deg",
              "degrees": "deg", "degs": "deg", "deg.": "deg", "radian": "rad", "radians": "rad"}  # fmt: skip
"""Spellings of TUNIT that the standard does not know; an hour of right ascension is no hour of time."""
POSITIVE_WORDS = {"t", "true", "1", "1.0", "+1", "+", "y", "yes", "p", "pos", "positive"}
NEGATIVE_WORDS = {"f", "false", "0", "0.0", "-1", "-1.0", "-", "n", "no", "neg", "negative"}
SEXAGESIMAL = re.compile(r"\s*[+-]?\d+[: h\u00b0d]\s*\d+")


def read_detections(
    frame: Frame,
    ext: str,
    *,
    names: Mapping[str, str] | None = None,
    first_pixel: float = 0,
    wcs_ext: str | int | None = None,
) -> pd.DataFrame:
    """Detections of a difference image.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext : str
        HDU of the table.
    names : mapping, optional
        Our column name to the survey's, where they differ.
    first_pixel : float
        The survey's coordinate of the centre of the first pixel: 0, or 1 as SExtractor does.
    wcs_ext : str or int, optional
        HDU whose WCS gives ra and dec from x and y when they are missing in the table.

    Returns
    -------
    DataFrame
        x, y (0-based pixel centres), ra, dec (deg, ICRS), mag, id (str), fwhm (pixel), snr, realbogus,
        cnn_realbogus, positive (bool: brighter than the template). Columns other than the position that are missing are
        NaN. Rows with a position that is not finite are left out.

    Raises
    ------
    MissingPart
        If the HDU or a needed column is absent, or holds no numbers.
    InconsistentImage
        If a unit, an id or a sign of a detection cannot be understood.
    """
    rows = frame.table(ext)
    needed = POSITION if wcs_ext is not None else (*POSITION, *SKY)
    columns = _read_columns(frame, ext, rows, dict(names or {}), needed)
    if first_pixel:
        columns |= {name: columns[name] - first_pixel for name in POSITION}
    if wcs_ext is not None and not columns.keys() >= set(SKY):
        columns |= _sky(frame, wcs_ext, columns)
    table = pd.DataFrame({name: columns[name] for name in COLUMNS if name in columns})
    for name in MEASURED:
        if name not in table:
            table[name] = np.nan
    table["id"] = table["id"].astype(str) if "id" in table else [str(i) for i in range(len(table))]
    where = f"HDU {ext!r} of {frame.path}"
    table["positive"] = _is_positive(table.pop("isdiffpos"), where) if "isdiffpos" in table else True
    finite = np.isfinite(table[[*POSITION, *SKY]].to_numpy(float)).all(axis=1)
    table = table[finite].reset_index(drop=True)
    if problem := find_bad_id(table["id"]):  # blank, rounded or duplicate: it cannot name a detection
        _refuse_ids(problem, where)
    return table


def _read_columns(
    frame: Frame, ext: str, rows: fits.FITS_rec, names: dict[str, str], needed: Sequence[str]
) -> dict[str, np.ndarray]:
    """Columns that the table has, by our names.

    Raises
    ------
    MissingPart
        If a needed one is absent, or one holds no numbers where there should be.
    """
    held = rows.dtype.names or ()
    present = {name.lower(): name for name in held}
    columns = {}
    for ours in COLUMNS:
        wanted = names.get(ours, ours)
        theirs = present.get(wanted.lower())
        advice = f"set label_data.DETECTION_COLUMNS[{ours!r}] to your survey's name"
        if theirs is None:
            if ours in needed:
                raise MissingPart(
                    f"no column {wanted!r} in HDU {ext!r} of {frame.path} (has {', '.join(held)}); {advice}"
                )
            continue
        try:
            if ours in NUMBERS:
                columns[ours] = _in_our_unit(_numbers(rows, theirs, frame.header(ext), ours), rows, theirs, ours)
            else:
                columns[ours] = _native(rows[theirs])
        except ValueError as error:
            raise MissingPart(
                f"column {theirs!r} in HDU {ext!r} of {frame.path} does not hold one number a row ({error}); {advice}"
            ) from None
        if ours == "id" and columns[ours].dtype.kind not in "iuU":
            _refuse_ids(f"{columns[ours].dtype}", f"column {theirs!r} in HDU {ext!r} of {frame.path}")
    if "fwhm" in columns:
        columns["fwhm"] = _in_pixels(columns["fwhm"], rows, present[names.get("fwhm", "fwhm").lower()], frame)
    return columns


def _numbers(rows: fits.FITS_rec, name: str, header: fits.Header, ours: str) -> np.ndarray:
    """A column of numbers; NaN for blank text and for the stored value that stands for none (TNULL)."""
    column = rows.columns[name]
    stored = rows.view(np.ndarray)[name]  # TNULL is a stored value; the library has it scaled already
    if stored.dtype.kind == "S":
        return _numbers_of_text(rows, name, stored, column.null, ours)
    code = re.sub(r"\d", "", str(column.format))[:1]
    if stored.ndim != 1 or code not in NUMBER_CODES:
        raise ValueError(f"format {column.format}, shape {stored.shape}")
    number = 1 + list(rows.columns.names).index(name)
    scale, zero, null = (
        card_number(header, f"{key}{number}", default) for key, default in (("TSCAL", 1), ("TZERO", 0), ("TNULL", None))
    )
    values = _native(stored).astype(stored.dtype.newbyteorder("=") if stored.dtype.kind == "f" else float)
    values = values if scale == 1 and zero == 0 else values * scale + zero
    return values if null is None or stored.dtype.kind == "f" else np.where(stored == null, np.nan, values)


def _numbers_of_text(rows: fits.FITS_rec, name: str, stored: np.ndarray, null: object, ours: str) -> np.ndarray:
    """Numbers of a column of text, or of a table of text cards; sexagesimal positions become degrees."""
    column = np.asarray(rows[name])
    blank = {"", str(null).strip()}
    texts = np.char.strip(stored.astype(str))
    empty = np.isin(texts, list(blank))
    if column.dtype.kind in "iuf":
        return np.where(empty, np.nan, _native(column).astype(float))
    if ours in SKY and any(SEXAGESIMAL.match(text) for text in texts[~empty][:1]):
        return _degrees(texts, empty, ours)
    return np.array([np.nan if none else float(text) for text, none in zip(texts, empty, strict=True)])


def _degrees(texts: np.ndarray, empty: np.ndarray, ours: str) -> np.ndarray:
    """Degrees of sexagesimal text: hours of right ascension, degrees of declination."""

    values = np.full(len(texts), np.nan)
    values[~empty] = Angle(texts[~empty], unit=units.hourangle if ours == "ra" else units.deg).deg
    return values


def _in_our_unit(values: np.ndarray, rows: fits.FITS_rec, name: str, ours: str) -> np.ndarray:
    """Values of positions and magnitudes in degrees and magnitudes, by the column's unit (TUNIT)."""
    unit = _unit(rows, name)
    wanted = UNITS_WANTED.get(ours)
    if unit is None or wanted is None or unit == wanted or rows.view(np.ndarray)[name].dtype.kind == "S":
        return values
    try:
        return values * unit.to(wanted)
    except units.UnitConversionError:
        if ours in SKY:
            raise ValueError(f"unit {unit}") from None
        return np.full(len(values), np.nan)  # a flux under the name of a magnitude


def _unit(rows: fits.FITS_rec, name: str) -> units.UnitBase | None:
    """Unit of a column; None for none, and for text that is no unit."""
    text = str(rows.columns[name].unit or "").strip()
    if not text:
        return None
    try:
        return units.Unit(UNIT_NAMES.get(text.lower(), text))
    except ValueError:
        try:
            return units.Unit(text.lower())
        except ValueError:
            return None


def _in_pixels(values: np.ndarray, rows: fits.FITS_rec, name: str, frame: Frame) -> np.ndarray:
    """Widths in pixels; those in angles on the sky need the scale of an image, and are unknown without."""
    unit = _unit(rows, name)
    if unit is None or not unit.is_equivalent(units.deg):
        return values
    scale = frame.scale_arcsec()
    return values * (unit.to(units.arcsec) / scale) if scale else np.full(len(values), np.nan)


def _native(column: np.ndarray) -> np.ndarray:
    """FITS is big-endian and pandas is not; text comes without the blanks that fill it up."""
    column = np.asarray(column)
    if column.dtype.kind in "iuf":
        return column.astype(column.dtype.newbyteorder("="))
    if column.dtype.kind == "b":
        return column
    return np.char.strip(column.astype(str))


def _sky(frame: Frame, ext: str | int, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ra and dec of the positions by the image's WCS; NaN where the position is."""
    return dict(zip(SKY, frame.to_sky(ext, columns["x"], columns["y"]), strict=True))


def _is_positive(column: pd.Series, where: str) -> pd.Series:
    """True where a detection is brighter than the template; a word of unknown meaning is refused."""
    words = column.astype(str).str.strip().str.lower()
    unknown = ~words.isin(POSITIVE_WORDS | NEGATIVE_WORDS)
    if unknown.any():
        raise InconsistentImage(
            f"isdiffpos is {column[unknown].iloc[0]!r} in {unknown.sum()} of {len(column)} rows of {where}; it must be "
            "one of t, f, 1, 0, -1, positive, negative, or leave it out of label_data.DETECTION_COLUMNS"
        )
    return words.isin(POSITIVE_WORDS)


def _refuse_ids(problem: str, where: str) -> NoReturn:
    raise InconsistentImage(
        f"ids of {where}: {problem}; name a column of whole numbers or text, or none for row numbers"
    )
