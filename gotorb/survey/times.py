"""Times in FITS headers: scales, units of durations, and placeholders."""

import re
import warnings
from typing import Any

import numpy as np
from astropy import units
from astropy.io import fits
from astropy.time import Time, TimeDelta

from gotorb.core.constants import MJD_ZERO
from gotorb.errors import InconsistentImage

MIDDLE_KEYS = ("MJD-AVG", "DATE-AVG")
START_KEYS = ("MJD-BEG", "DATE-BEG", "MJD-OBS", "DATE-OBS")
END_KEYS = {"MJD-BEG": "MJD-END", "DATE-BEG": "DATE-END"}
"""Start and end of what went into an image: the middle lies between them."""
OTHER_END_KEYS = {"MJD-OBS": "MJD-END", "DATE-OBS": "DATE-END"}
"""The same by older keys, for headers without an exposure time."""
LONGEST_DAYS = 1.0
"""Between start and end; a longer time is that of a stack of nights, which has no one middle."""
TIME_OF_DAY_KEYS = {
    "DATE-OBS": ("TIME-OBS", "UTC-OBS", "UT-OBS", "UTSTART", "UT", "UTC"),
    "DATE-BEG": ("TIME-BEG",),
    "DATE-END": ("TIME-END", "UTC-END", "UT-END", "UTEND"),
}
"""Keys of the time of day, for dates that have none."""
TIME_OF_DAY = re.compile(r"\d{1,2}:\d{1,2}(:\d{1,2}(\.\d*)?)?Z?")
OLD_DATE = re.compile(r"^(\d\d)/(\d\d)/(\d\d)$")
"""DD/MM/YY of the years 1900 to 1999, as FITS wrote dates before 1998."""
EXPOSURE_KEYS = ("EXPTIME", "XPOSURE", "TELAPSE", "EXPOSURE")
IN_TIMEUNIT = ("XPOSURE", "TELAPSE")
"""Durations that the standard counts in TIMEUNIT; EXPTIME is in seconds by custom."""
FIRST_JD, LAST_JD = 2_415_020.5, 2_488_069.5
"""Years 1900 to 2100: no image is older, and no time beyond is one."""
GPS_TO_TAI_S = 19.0
UNIX_START, UNIX_START_MJD = "1970-01-01T00:00:00", 40587.0
"""Zero of many clocks: the placeholder of a header that was never filled in."""
PAIRED_KEYS = (("MJD-OBS", "DATE-OBS"), ("MJD-BEG", "DATE-BEG"), ("MJD-AVG", "DATE-AVG"))
SAME_DAYS = 0.5
"""Keys of one time in two forms; where they differ by more, it is not known which one is right."""
SCALES = {"": "utc", "UT": "utc", "GMT": "utc", "IAT": "tai", "TDT": "tt", "ET": "tt", "GPS": "gps"}
"""Scales that the standard knows under another name than astropy."""
OTHER_PLACE = ("BJD", "HJD", "RJD", "TJD")
"""Beginnings of keys of barycentric, heliocentric and shortened dates: up to 8 minutes, or 2,400,000 days, away."""


def read_scale(header: fits.Header) -> str | None:
    """Time scale of a header's times (TIMESYS), a realisation in brackets left out.

    Parameters
    ----------
    header : Header

    Returns
    -------
    str or None
        astropy's name, or ``gps``; None for a local or unknown scale.

    Examples
    --------
    >>> read_scale(fits.Header({"TIMESYS": "TT(TAI)"}))
    'tt'
    """
    name = re.sub(r"\(.*\)", "", str(header.get("TIMESYS", ""))).strip().upper()
    scale = SCALES.get(name, name.lower())
    return scale if scale == "gps" or (scale in Time.SCALES and scale != "local") else None


def read_time(value: Any, scale: str | None) -> Time | None:
    """Time of a header card.

    Parameters
    ----------
    value : object
        MJD, or ISO 8601 text with a time of day.
    scale : str or None
        From `read_scale`.

    Returns
    -------
    Time or None
        UTC; None for anything else, and for a time before 1900 or after 2100, which only holds a place.
    """
    if scale is None or isinstance(value, bool) or str(value).strip().startswith(UNIX_START):
        return None
    known = "tai" if scale == "gps" else scale
    with warnings.catch_warnings(action="ignore"):  # erfa calls years far ahead dubious
        try:
            if isinstance(value, int | float):
                if value == UNIX_START_MJD:
                    return None
                time = Time(float(value), format="mjd", scale=known)
            elif isinstance(value, str) and "T" in value:
                time = Time(value.strip(), format="isot", scale=known)
            else:
                return None
            if not FIRST_JD <= float(time.jd) <= LAST_JD:
                return None
            return (time + TimeDelta(GPS_TO_TAI_S, format="sec") if scale == "gps" else time).utc
        except ValueError:
            return None


def exposure_days(header: fits.Header) -> float | None:
    """Duration of an exposure.

    Parameters
    ----------
    header : Header

    Returns
    -------
    float or None
        Days. The unit is that in square brackets at the start of the card's comment, else TIMEUNIT for XPOSURE and
        TELAPSE, else the second. None when no key holds a duration.
    """
    for key in EXPOSURE_KEYS:
        value = as_number(header.get(key))
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < np.inf:
            unit = _time_unit(header, key)
            return None if unit is None else float(value) * unit
    return None


def _time_unit(header: fits.Header, key: str) -> float | None:
    """Days of the unit of a duration; None when it is not a unit of time."""
    told = re.match(r"\s*\[\s*(\w+)\s*\]", header.comments[key])
    if told:
        try:
            return float(units.Unit(told[1]).to(units.day))
        except (ValueError, units.UnitConversionError):
            pass  # brackets are not always about units
    name = str(header.get("TIMEUNIT", "s")).strip() if key in IN_TIMEUNIT else "s"
    try:
        return float(units.Unit(name or "s", format="fits").to(units.day))
    except (ValueError, units.UnitConversionError):
        return None


def middle_jd(header: fits.Header) -> float | None:
    """Middle of an exposure by the standard keys of its header.

    MJD-AVG and DATE-AVG are the middle, or it lies between MJD-BEG and MJD-END, DATE-BEG and DATE-END; else MJD-BEG,
    DATE-BEG, MJD-OBS and DATE-OBS are taken for the start, to which half of the exposure time is added. Numbers may
    be text. A date without a time of day takes that of TIME-OBS, UT and the like, or does not count. TIMESYS (UTC when
    absent) and TIMEUNIT (s) are respected. A time before 1900 or after 2100 does not count. Where MJD-OBS and DATE-OBS
    (or another such pair) are more than half a day apart, there is no time.

    Parameters
    ----------
    header : Header

    Returns
    -------
    float or None
        JD, UTC; None when the keys are missing or contradict each other.

    References
    ----------
    FITS standard 4.0, section 9 (time coordinates).

    Examples
    --------
    >>> header = fits.Header({"DATE-OBS": "2020-11-05T00:00:00", "EXPTIME": 120.0})
    >>> round((middle_jd(header) - 2459158.5) * 86400, 3)
    60.0
    """
    if find_contradiction(header):
        return None
    for key in MIDDLE_KEYS:
        if (jd := _jd(header, key)) is not None:
            return jd
    length = exposure_days(header)
    between = _between(header, END_KEYS)
    if between is not None or length is None:
        return _between(header, OTHER_END_KEYS) if between is None else between
    starts = (_jd(header, key) for key in START_KEYS)
    return next((jd + length / 2 for jd in starts if jd is not None), None)


def find_contradiction(header: fits.Header) -> str:
    """Two keys of one time that hold different ones.

    Parameters
    ----------
    header : Header

    Returns
    -------
    str
        The keys and their values; "" when they agree.
    """
    for pair in PAIRED_KEYS:
        first, second = (_jd(header, key) for key in pair)
        if first is not None and second is not None and abs(first - second) > SAME_DAYS:
            told = " and ".join(f"{key} {header[key]!r}" for key in pair)
            return f"{told} are {abs(first - second):.3g} days apart"
    return ""


def _between(header: fits.Header, ends: dict[str, str]) -> float | None:
    """Middle of the first pair of start and end that makes sense, JD in UTC."""
    for start, end in ends.items():
        first, last = _jd(header, start), _jd(header, end)
        if first is not None and last is not None and 0 <= last - first < LONGEST_DAYS:
            return (first + last) / 2
    return None


def _jd(header: fits.Header, key: str) -> float | None:
    """Time under a key, JD in UTC; a date takes its time of day from the key next to it."""
    value, scale = header.get(key), read_scale(header)
    if key.startswith("MJD"):
        value = as_number(value)
    elif isinstance(value, str) and "T" not in value:
        day = OLD_DATE.sub(r"19\3-\2-\1", value.strip())
        clock = (str(header.get(other, "")).strip() for other in TIME_OF_DAY_KEYS.get(key, ()))
        found = next((one for one in clock if TIME_OF_DAY.fullmatch(one)), None)
        value = f"{day.replace('/', '-')}T{_full_clock(found)}" if found else day.replace(" ", "T")
    time = read_time(value, scale)
    return None if time is None else float(time.jd)


def _full_clock(text: str) -> str:
    """Time of day with two digits in each place: 3:4 becomes 03:04:00."""
    parts = [*text.removesuffix("Z").split(":"), "0"][:3]
    whole, dot, rest = parts[2].partition(".")
    return f"{int(parts[0]):02d}:{int(parts[1]):02d}:{int(whole):02d}{dot}{rest or '0' * bool(dot)}"


def as_number(value: Any) -> Any:
    """Value of a card; the number in a text that is one.

    Parameters
    ----------
    value : object

    Returns
    -------
    object

    Examples
    --------
    >>> as_number(" 120.0 "), as_number("long"), as_number(3)
    (120.0, 'long', 3)
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def keyed_jd(header: fits.Header, key: str, where: str) -> float:
    """Time under a header key that holds the middle of the exposure as JD, MJD or ISO 8601 text.

    The scale is that of TIMESYS, unless the key's name says UTC.

    Parameters
    ----------
    header : Header
    key : str
    where : str
        File named in errors.

    Returns
    -------
    float
        JD, UTC.

    Raises
    ------
    InconsistentImage
        If it is no time between 1900 and 2100, or one of the Sun's place.
    """
    value = header[key]
    if key.upper().startswith(OTHER_PLACE):
        raise InconsistentImage(
            f"{key} of {where} is a heliocentric, barycentric or shortened date; name a key of JD or MJD, UTC"
        )
    value = as_number(value)
    if isinstance(value, int | float) and FIRST_JD <= value <= LAST_JD:
        value = float(value) - MJD_ZERO
    time = read_time(value, "utc" if "UTC" in key.upper() else read_scale(header))
    if time is None:
        raise InconsistentImage(
            f"{key} of {where} is {header[key]!r} (TIMESYS {header.get('TIMESYS', 'UTC')!r}), which is no JD, MJD or "
            "ISO time between 1900 and 2100; name another key"
        )
    return float(time.jd)
