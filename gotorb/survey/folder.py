"""A survey that is a folder of FITS files, without a database."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.time import Time

from gotorb.errors import ImageError, MissingPart, SurveyError
from gotorb.survey.fits import Frame, open_frame

log = logging.getLogger(__name__)
MIDDLE_KEYS = ("MJD-AVG", "DATE-AVG")
START_KEYS = ("MJD-BEG", "DATE-BEG", "MJD-OBS", "DATE-OBS")
EXPOSURE_KEYS = ("EXPTIME", "XPOSURE", "TELAPSE")
SUFFIXES = (".fits", ".fit", ".fits.fz", ".fits.gz")


def read_folder(
    folder: Path | str, pattern: str = "*", *, ext: str | int = "DIFFERENCE", jd_key: str | None = None
) -> pd.DataFrame:
    """Images of a folder as `label_data.get_images` gives them.

    Parameters
    ----------
    folder : path
        Where the files are.
    pattern : str
        Which of them are difference images, as ``*_diff.fits``.
    ext : str or int
        HDU whose WCS and time hold for the image.
    jd_key : str, optional
        Header key that holds the middle of the exposure [JD, UTC]; when left out, see `middle_jd`.

    Returns
    -------
    DataFrame
        id (file name without suffix), filepath, ra_c, dec_c (deg, centre), jd (mid-exposure, UTC), instrument; in
        order of the names. A file that cannot be read keeps its row, with NaN for unknown values, so that
        `label_data.make` counts it.

    Raises
    ------
    SurveyError
        If no file matches, or none can be read.
    """
    paths = sorted(path for path in Path(folder).glob(pattern) if path.name.endswith(SUFFIXES))
    if not paths:
        raise SurveyError(f"no FITS file matches {pattern!r} in {Path(folder).resolve()}; correct folder or pattern")
    rows = [_read_row(path, ext, jd_key) for path in paths]
    if all(isinstance(row, ImageError) for row in rows):
        raise SurveyError(f"none of {len(rows)} files in {folder} can be used; the first: {rows[0]}")
    for row in rows:
        if isinstance(row, ImageError):
            log.warning("%s", row)
    blank = {"ra_c": np.nan, "dec_c": np.nan, "jd": np.nan, "instrument": ""}
    known = [blank if isinstance(row, ImageError) else row for row in rows]
    names = [{"id": _stem(path), "filepath": str(path)} for path in paths]
    return pd.DataFrame([name | row for name, row in zip(names, known, strict=True)])


def _stem(path: Path) -> str:
    suffix = max((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), key=len)
    return path.name.removesuffix(suffix)


def _read_row(path: Path, ext: str | int, jd_key: str | None) -> dict[str, object] | ImageError:
    try:
        with open_frame(path) as frame:
            height, width = frame.shape(ext)
            ra, dec = frame.wcs(ext).all_pix2world([[(width - 1) / 2, (height - 1) / 2]], 0)[0]
            jd = float(frame.key(jd_key, ext, 0)) if jd_key else _frame_jd(frame, ext)
            instrument = str(frame.header(ext).get("INSTRUME", frame.header(0).get("INSTRUME", "")))
    except ImageError as error:
        return error
    return {"ra_c": float(ra), "dec_c": float(dec), "jd": jd, "instrument": instrument}


def _frame_jd(frame: Frame, ext: str | int) -> float:
    """Mid-exposure of a file: by the HDU's header, else by the first one's."""
    for header in (frame.header(ext), frame.header(0)):
        jd = middle_jd(header)
        if jd is not None:
            return jd
    raise MissingPart(
        f"no time in {frame.path}: the headers have neither {' nor '.join(MIDDLE_KEYS)}, "
        f"nor one of {', '.join(START_KEYS)} with one of {', '.join(EXPOSURE_KEYS)}; give jd_key"
    )


def middle_jd(header: fits.Header) -> float | None:
    """Middle of an exposure by the standard keys of its header.

    MJD-AVG and DATE-AVG are the middle; MJD-BEG, DATE-BEG, MJD-OBS and DATE-OBS are taken for the start, to which
    half of the exposure time is added. TIMESYS (UTC when absent) is respected. A date without a time of day
    does not count.

    Parameters
    ----------
    header : Header

    Returns
    -------
    float or None
        JD, UTC; None when the keys are missing.

    References
    ----------
    FITS standard 4.0, section 9 (time coordinates).

    Examples
    --------
    >>> header = fits.Header({"DATE-OBS": "2020-11-05T00:00:00", "EXPTIME": 120.0})
    >>> round((middle_jd(header) - 2459158.5) * 86400, 3)
    60.0
    """
    scale = str(header.get("TIMESYS", "UTC")).strip().lower()
    for key in MIDDLE_KEYS:
        if (time := _parse(header.get(key), scale)) is not None:
            return float(time.utc.jd)
    length = next((header[key] for key in EXPOSURE_KEYS if isinstance(header.get(key), int | float)), None)
    for key in START_KEYS:
        if length is not None and (time := _parse(header.get(key), scale)) is not None:
            return float(time.utc.jd) + float(length) / 2 / 86400
    return None


def _parse(value: object, scale: str) -> Time | None:
    """A time of a header; None for none, for one that is no time, and for a date without a time of day."""
    known = scale if scale in Time.SCALES else "utc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # erfa calls years far ahead dubious
        try:
            if isinstance(value, int | float):
                return Time(float(value), format="mjd", scale=known)
            if isinstance(value, str) and "T" in value:
                return Time(value.strip(), format="isot", scale=known)
        except ValueError:
            return None
    return None
