"""Times of other surveys' headers: scales, units and placeholders."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from gotorb.errors import InconsistentImage, SurveyError
from gotorb.survey.folder import read_folder, read_image
from gotorb.survey.times import keyed_jd, middle_jd

MIDDLE = Time("2020-11-05T03:05:05", scale="utc")
START = "2020-11-05T03:04:05"
SECOND = 1 / 86400


def seconds_off(header: fits.Header) -> float:
    jd = middle_jd(header)
    assert jd is not None
    return float((jd - MIDDLE.jd) * 86400)


@pytest.mark.parametrize(
    ("scale", "start"),
    [
        ("GPS", "2020-11-05T03:04:23"),
        ("gps", "2020-11-05T03:04:23.0"),
        ("TAI", "2020-11-05T03:04:42"),
        ("IAT", "2020-11-05T03:04:42"),
        ("TT", "2020-11-05T03:05:14.184"),
        ("TT(TAI)", "2020-11-05T03:05:14.184"),
        ("TT(BIPM08)", "2020-11-05T03:05:14.184"),
        ("TDT", "2020-11-05T03:05:14.184"),
        ("ET", "2020-11-05T03:05:14.184"),
        ("TDB", "2020-11-05T03:05:14.184"),
        ("UTC", START),
        ("UTC(NIST)", START),
        ("UT", START),
        ("GMT", START),
        ("", START),
    ],
)
@pytest.mark.parametrize("key", ["DATE-OBS", "MJD-BEG"])
def test_scales_become_utc(scale: str, start: str, key: str) -> None:
    value: Any = start if key[0] == "D" else Time(start).mjd
    header = fits.Header({key: value, "EXPTIME": 120.0, "TIMESYS": scale})
    assert abs(seconds_off(header)) < 0.01


@pytest.mark.parametrize("scale", ["LOCAL", "MST", "sidereal"])
def test_unknown_scales_give_no_time(scale: str) -> None:
    assert middle_jd(fits.Header({"DATE-OBS": START, "EXPTIME": 120.0, "TIMESYS": scale})) is None


@pytest.mark.parametrize(
    ("key", "value", "unit"),
    [
        ("XPOSURE", 120.0, None),
        ("XPOSURE", 120 * SECOND, "d"),
        ("TELAPSE", 120 * SECOND, "d"),
        ("TELAPSE", 2.0, "min"),
        ("XPOSURE", 120 / 3600, "h"),
        ("XPOSURE", 120_000, "ms"),
        ("EXPTIME", 120.0, "d"),
    ],
)
def test_durations_are_in_their_unit(key: str, value: float, unit: str | None) -> None:
    header = fits.Header({"DATE-BEG": START, key: value})
    if unit:
        header["TIMEUNIT"] = unit
    assert abs(seconds_off(header)) < 0.01


def test_a_unit_in_the_comment_goes_before() -> None:
    header = fits.Header([("DATE-BEG", START), ("TELAPSE", 120.0, "[s] open shutter"), ("TIMEUNIT", "d")])
    assert abs(seconds_off(header)) < 0.01


def test_a_duration_in_an_unknown_unit_gives_no_time() -> None:
    assert middle_jd(fits.Header({"DATE-BEG": START, "TELAPSE": 4.0, "TIMEUNIT": "pixel"})) is None


@pytest.mark.parametrize(
    "placeholder",
    [
        {"MJD-OBS": 0.0},
        {"MJD-AVG": 0},
        {"MJD-OBS": -1.0},
        {"MJD-OBS": 99999.0},
        {"MJD-BEG": 2459158.5},
        {"DATE-AVG": "1858-11-17T00:00:00"},
        {"DATE-BEG": "1970-01-01T00:00:00"},
        {"DATE-AVG": "0000-00-00T00:00:00"},
        {"MJD-OBS": True},
        {"MJD-OBS": 40587.0},
    ],
)
def test_placeholders_are_passed_over(placeholder: dict[str, Any]) -> None:
    header = fits.Header(placeholder | {"DATE-OBS": START, "EXPTIME": 120.0})
    assert abs(seconds_off(header)) < 0.01
    assert middle_jd(fits.Header(placeholder | {"EXPTIME": 120.0})) is None


@pytest.mark.parametrize(
    ("cards", "told"),
    [
        ({"MJD-OBS": 59157.5, "DATE-OBS": START}, "MJD-OBS 59157.5 and DATE-OBS"),
        ({"MJD-BEG": 51544.5, "DATE-BEG": START}, "MJD-BEG 51544.5"),
        ({"MJD-AVG": "59200.25", "DATE-AVG": START}, "MJD-AVG '59200.25'"),
        ({"MJD-OBS": 59158.75, "DATE-OBS": "2020-11-04", "UT": "18:00:00"}, "days apart"),
    ],
)
def test_two_forms_of_one_time_that_disagree_are_no_time(tmp_path: Path, cards: dict[str, Any], told: str) -> None:
    header = fits.Header(cards | {"EXPTIME": 120.0})
    assert middle_jd(header) is None
    path = tmp_path / "a.fits"
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 5.0, "CRPIX2": 5.0, "CDELT1": -1e-3, "CDELT2": 1e-3}
    fits.PrimaryHDU(np.zeros((10, 10), np.float32), fits.Header({**header, **wcs})).writeto(path)
    with pytest.raises(InconsistentImage, match=re.escape(told)):
        read_image(path, ext=0)


def test_two_forms_of_one_time_may_differ_by_their_rounding() -> None:
    header = fits.Header({"MJD-OBS": round(Time(START).mjd, 3), "DATE-OBS": START, "EXPTIME": 120.0})
    assert abs(seconds_off(header)) < 90


@pytest.mark.parametrize(
    ("key", "value", "more"),
    [
        ("JD_MID", MIDDLE.jd, {}),
        ("MJD-AVG", MIDDLE.mjd, {}),
        ("MIDMJD", f"{MIDDLE.mjd:.8f}", {}),
        ("DATE-AVG", MIDDLE.isot, {}),
        ("MJD-AVG", MIDDLE.tai.mjd, {"TIMESYS": "TAI"}),
        ("JD_MID", MIDDLE.tdb.jd, {"TIMESYS": "TDB"}),
        ("JD_UTC", MIDDLE.jd, {"TIMESYS": "TDB"}),
    ],
)
def test_a_named_key_may_hold_jd_mjd_or_text(key: str, value: Any, more: dict[str, str]) -> None:
    assert abs(keyed_jd(fits.Header({key: value} | more), key, "a.fits") - MIDDLE.jd) < 0.02 * SECOND


@pytest.mark.parametrize(
    ("key", "value"),
    [("MIDDLE", 0.0), ("MIDDLE", 1604545505.0), ("MIDDLE", 2020.84), ("MIDDLE", "noon"), ("BJD_MID", MIDDLE.jd),
     ("HJD", MIDDLE.jd), ("MIDDLE", 4657.128)],
)  # fmt: skip
def test_a_named_key_that_holds_no_time_costs_that_file(tmp_path: Path, key: str, value: Any) -> None:
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0})
    header.update({"CDELT1": -1e-3, "CDELT2": 1e-3, "CRPIX1": 8.0, "CRPIX2": 8.0, key: value})
    fits.PrimaryHDU(np.zeros((16, 16), np.float32), header).writeto(tmp_path / "a.fits")
    with pytest.raises(SurveyError, match=key):
        read_folder(tmp_path, ext=0, jd_key=key)
    header[key], good = (MIDDLE.jd, "b.fits") if key == "MIDDLE" else (value, "")
    if good:
        fits.PrimaryHDU(np.zeros((16, 16), np.float32), header).writeto(tmp_path / good)
        images = read_folder(tmp_path, ext=0, jd_key=key)
        assert np.isnan(images["jd"][0]) and images["jd"][1] == pytest.approx(MIDDLE.jd, abs=1e-8)
