"""The survey's table of detections in our own columns and units."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gotorb.errors import MissingPart
from gotorb.survey.frames import Frame

REQUIRED = ("x", "y", "ra", "dec", "mag")
OPTIONAL = ("id", "fwhm", "snr", "realbogus", "cnn_realbogus", "isdiffpos")
COLUMNS = REQUIRED + OPTIONAL


def read_detections(frame: Frame, ext: str, *, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Detections of a difference image.

    Parameters
    ----------
    frame : Frame
        The open file.
    ext : str
        HDU of the table.
    names : mapping, optional
        Our column name to the survey's, where they differ.

    Returns
    -------
    DataFrame
        x, y (0-based pixel centres), ra, dec (deg, ICRS), mag, id (str), fwhm (pixel), snr, realbogus,
        cnn_realbogus, positive (bool: brighter than the template). Rows with a position that is not finite
        are left out.

    Raises
    ------
    MissingPart
        If the HDU or a required column is absent.
    """
    rows = frame.table(ext)
    names = dict(names or {})
    held = rows.dtype.names or ()
    present = {name.lower(): name for name in held}
    columns = {}
    for ours in COLUMNS:
        theirs = present.get(names.get(ours, ours).lower())
        if theirs is not None:
            columns[ours] = _native(rows[theirs])
        elif ours in REQUIRED:
            raise MissingPart(
                f"no column {names.get(ours, ours)!r} in HDU {ext!r} of {frame.path} "
                f"(has {', '.join(held)}); "
                f"set label_data.DETECTION_COLUMNS[{ours!r}] to your survey's name"
            )
    table = pd.DataFrame(columns)
    for ours in ("fwhm", "snr", "realbogus", "cnn_realbogus"):
        if ours not in table:
            table[ours] = np.nan
    table["id"] = table["id"].astype(str) if "id" in table else [str(i) for i in range(len(table))]
    table["positive"] = _is_positive(table.pop("isdiffpos")) if "isdiffpos" in table else True
    finite = np.isfinite(table[["x", "y", "ra", "dec"]].to_numpy(float)).all(axis=1)
    return table[finite].reset_index(drop=True)


def _native(column: np.ndarray) -> np.ndarray:
    """FITS is big-endian and pandas is not."""
    column = np.asarray(column)
    return column.astype(column.dtype.newbyteorder("=")) if column.dtype.kind in "iuf" else column.astype(str)


def _is_positive(column: pd.Series) -> pd.Series:
    return column.astype(str).str.strip().str.lower().isin(["t", "1", "true", "1.0"])
