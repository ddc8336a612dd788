"""The survey's table of detections in our own columns and units."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from astropy.io import fits

from gotorb.errors import MissingPart
from gotorb.survey.fits import Frame

POSITION, SKY = ("x", "y"), ("ra", "dec")
MEASURED = ("mag", "fwhm", "snr", "realbogus", "cnn_realbogus")
COLUMNS = (*POSITION, *SKY, "mag", "id", *MEASURED[1:], "isdiffpos")
NUMBERS = {*POSITION, *SKY, *MEASURED}


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
    table["positive"] = _is_positive(table.pop("isdiffpos")) if "isdiffpos" in table else True
    finite = np.isfinite(table[[*POSITION, *SKY]].to_numpy(float)).all(axis=1)
    return table[finite].reset_index(drop=True)


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
            columns[ours] = _numbers(rows, theirs) if ours in NUMBERS else _native(rows[theirs])
        except ValueError as error:
            raise MissingPart(
                f"column {theirs!r} in HDU {ext!r} of {frame.path} does not hold one number a row ({error}); {advice}"
            ) from None
    return columns


def _numbers(rows: fits.FITS_rec, name: str) -> np.ndarray:
    """A column of numbers; NaN for blank text and for the integer that stands for no value (TNULL)."""
    column = np.asarray(rows[name])
    if column.ndim != 1 or column.dtype.kind not in "iufSU":
        raise ValueError(f"type {column.dtype}, shape {column.shape}")
    values = _native(column)
    if values.dtype.kind == "U":
        return np.array([float(text) if text else np.nan for text in values])
    if values.dtype.kind == "f":
        return values
    blank = rows.columns[name].null
    return np.where(values == blank, np.nan, values) if isinstance(blank, int) else values.astype(float)


def _native(column: np.ndarray) -> np.ndarray:
    """FITS is big-endian and pandas is not; text comes without the blanks that fill it up."""
    column = np.asarray(column)
    if column.dtype.kind in "iuf":
        return column.astype(column.dtype.newbyteorder("="))
    return np.char.strip(column.astype(str))


def _sky(frame: Frame, ext: str | int, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Ra and dec of the positions by the image's WCS; NaN where the position is."""
    xy = np.column_stack([columns[name].astype(float) for name in POSITION])
    sky, finite = np.full(xy.shape, np.nan), np.isfinite(xy).all(axis=1)
    if finite.any():
        sky[finite] = frame.wcs(ext).all_pix2world(xy[finite], 0)
    return dict(zip(SKY, sky.T, strict=True))


def _is_positive(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower().isin(["t", "1", "true", "1.0"])
