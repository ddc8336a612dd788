"""A survey that is a folder of FITS files, without a database."""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd

from gotorb.errors import ImageError, InconsistentImage, MissingPart, SurveyError
from gotorb.survey.fits import Frame, open_frame
from gotorb.survey.times import EXPOSURE_KEYS, MIDDLE_KEYS, START_KEYS, find_contradiction, keyed_jd, middle_jd

log = logging.getLogger(__name__)
SUFFIX = re.compile(r"\.(fits|fit|fts)(\.(fz|gz|bz2|xz))?$|\.fz$", re.IGNORECASE)
"""Ends of the names of FITS files, packed or not."""


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
        Header key that holds the middle of the exposure (JD, MJD or ISO 8601, in the header's TIMESYS); when left
        out, see `survey.times.middle_jd`.

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
    paths = sorted(path for path in Path(folder).glob(pattern) if is_fits(path))
    if not paths:
        raise SurveyError(f"no FITS file matches {pattern!r} in {Path(folder).resolve()}; correct folder or pattern")
    rows = [_try_row(path, ext, jd_key) for path in paths]
    if all(isinstance(row, ImageError) for row in rows):
        raise SurveyError(f"none of {len(rows)} files in {folder} can be used; the first: {rows[0]}")
    for row in rows:
        if isinstance(row, ImageError):
            log.warning("%s", row)
    blank = {"ra_c": np.nan, "dec_c": np.nan, "jd": np.nan, "instrument": ""}
    known = [blank if isinstance(row, ImageError) else row for row in rows]
    names = [{"id": _stem(path), "filepath": str(path)} for path in paths]
    return pd.DataFrame([name | row for name, row in zip(names, known, strict=True)])


def is_fits(path: Path) -> bool:
    """True for a file that is named as a FITS file, in capitals or not, packed or not.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_fits(Path(name)) for name in ("a.FIT", "a.fts.bz2", "a.fits.fz", "a.gz")]
    [True, True, True, False]
    """
    return SUFFIX.search(path.name) is not None


def read_image(path: Path | str, *, ext: str | int = "DIFFERENCE", jd_key: str | None = None) -> pd.Series:
    """One image as a row of `read_folder`.

    Parameters
    ----------
    path, ext, jd_key
        As for `read_folder`; `path` is the file.

    Returns
    -------
    Series
        id, filepath, ra_c, dec_c (deg), jd (mid-exposure, UTC), instrument.

    Raises
    ------
    ImageError
        If the file cannot be read, or its header has no WCS or time.
    """
    path = Path(path)
    return pd.Series({"id": _stem(path), "filepath": str(path)} | _read_row(path, ext, jd_key), dtype=object)


def _stem(path: Path) -> str:
    return SUFFIX.sub("", path.name)


def _try_row(path: Path, ext: str | int, jd_key: str | None) -> dict[str, object] | ImageError:
    try:
        return _read_row(path, ext, jd_key)
    except ImageError as error:
        return error


def _read_row(path: Path, ext: str | int, jd_key: str | None) -> dict[str, object]:
    with open_frame(path) as frame:
        ra, dec = frame.centre(ext)
        jd = _keyed_jd(frame, ext, jd_key) if jd_key else _frame_jd(frame, ext)
        instrument = str(frame.header(ext).get("INSTRUME", frame.header(0).get("INSTRUME", "")))
    return {"ra_c": ra, "dec_c": dec, "jd": jd, "instrument": instrument}


def _keyed_jd(frame: Frame, ext: str | int, key: str) -> float:
    """Time under a key of the HDU's header, else of the first one's."""
    frame.key(key, ext, 0)
    header = frame.header(ext) if key in frame.header(ext) else frame.header(0)
    return keyed_jd(header, key, str(frame.path))


def _frame_jd(frame: Frame, ext: str | int) -> float:
    """Mid-exposure of a file: by the HDU's header, else by the first one's."""
    for header in (frame.header(ext), frame.header(0)):
        jd = middle_jd(header)
        if jd is not None:
            return jd
        if contradiction := find_contradiction(header):
            raise InconsistentImage(f"{contradiction} in {frame.path}; correct the header, or give jd_key")
    raise MissingPart(
        f"no time in {frame.path}: the headers have neither {' nor '.join(MIDDLE_KEYS)}, "
        f"nor one of {', '.join(START_KEYS)} with one of {', '.join(EXPOSURE_KEYS)}, between 1900 and 2100 in a known "
        f"scale (TIMESYS {frame.header(ext).get('TIMESYS', 'UTC')!r}); give jd_key"
    )
