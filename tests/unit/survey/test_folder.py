"""A folder of FITS files as a survey: what the headers tell, and what they do not."""

import bz2
import gzip
import lzma

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.errors import MissingPart, SurveyError
from gotorb.survey.folder import is_fits, read_folder, read_image
from gotorb.survey.times import middle_jd

START = 59158.0
MIDDLE_JD = START + 2_400_000.5 + 60 / 86400


def write(path, **keys):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [16.5, 10.5]
    wcs.wcs.cdelt = [-1e-4, 1e-4]
    header = wcs.to_header()
    header.update(keys)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((20, 32), np.float32), header, "SUB")]).writeto(path)


@pytest.mark.parametrize(
    "keys",
    [
        {"MJD-OBS": START, "EXPTIME": 120.0},
        {"DATE-OBS": "2020-11-05T00:00:00", "EXPTIME": 120},
        {"DATE-OBS": "2020-11-05", "MJD-OBS": START, "EXPTIME": 120.0},
        {"DATE-BEG": "2020-11-05T00:00:00.0", "XPOSURE": 120.0},
        {"MJD-AVG": START + 60 / 86400, "MJD-OBS": START + 5},
        {"DATE-AVG": "2020-11-05T00:01:00"},
        {"DATE-AVG": "2020-11-05T00:02:09.184", "TIMESYS": "TT"},
        {"DATE-OBS": "2020-11-05", "UT": "00:00:00", "EXPTIME": 120},
        {"DATE-OBS": "2020-11-05", "TIME-OBS": "0:0:0.00", "EXPOSURE": 120.0},
        {"DATE-OBS": "2020/11/05", "UTC-OBS": "00:00", "EXPTIME": "120.0"},
        {"DATE-OBS": "2020-11-05 00:00:00", "EXPTIME": 120},
        {"MJD-OBS": f" {START}", "EXPTIME": " 120"},
        {"MJD-BEG": START, "MJD-END": START + 120 / 86400, "XPOSURE": 30.0},
        {"DATE-BEG": "2020-11-05T00:00:00", "DATE-END": "2020-11-05T00:02:00"},
        {"DATE-OBS": "2020-11-05", "UT": "00:00:00", "DATE-END": "2020-11-05", "UTEND": "00:02:00"},
        {"MJD-OBS": START, "MJD-END": START + 120 / 86400},
        {"DATE-BEG": "2020-11-05T00:00:00", "DATE-END": "2020-12-05T00:02:00", "EXPTIME": 120.0},
        {"DATE-OBS": "2020-11-05", "UT": "00:00:37", "EXPTIME": 120, "TIMESYS": "TAI"},
    ],
)
def test_middle_of_the_exposure_is_read_from_standard_keys(keys):
    assert middle_jd(fits.Header(keys)) == pytest.approx(MIDDLE_JD, abs=1e-8)


@pytest.mark.parametrize(
    "keys",
    [
        {"DATE-OBS": "2020-11-05", "UT": 3.0, "EXPTIME": 60.0},
        {"DATE-OBS": "2020-11-05", "UT": "12.5", "EXPTIME": 60.0},
        {"DATE-OBS": "05-11-20", "UT": "00:00:00", "EXPTIME": 60.0},
        {"MJD-OBS": START, "EXPTIME": "long"},
        {"DATE-BEG": "2020-11-05T00:02:00", "DATE-END": "2020-11-05T00:00:00"},
        {},
        {"MJD-OBS": START},
        {"DATE-OBS": "2020-11-05", "EXPTIME": 60.0},
        {"DATE-AVG": "yesterdayT"},
    ],
)
def test_header_that_does_not_tell_gives_none(keys):
    assert middle_jd(fits.Header(keys)) is None


def test_images_are_listed_with_centre_and_time(tmp_path):
    write(tmp_path / "b_diff.fits", **{"MJD-OBS": START, "EXPTIME": 120.0, "INSTRUME": "UT3"})
    write(tmp_path / "a_diff.fits", **{"MIDDLE": MIDDLE_JD, "MJD-OBS": START, "EXPTIME": 120.0})
    write(tmp_path / "a_exp0.fits")
    (tmp_path / "a_diff.txt").write_text("no image")
    images = read_folder(tmp_path, "*_diff*", ext="SUB")
    assert images["id"].tolist() == ["a_diff", "b_diff"]
    np.testing.assert_allclose(images[["ra_c", "dec_c"]], [[150.0, 2.0]] * 2, atol=1e-9)
    np.testing.assert_allclose(images["jd"], MIDDLE_JD, atol=1e-8)
    assert images["instrument"].tolist() == ["", "UT3"]
    assert read_folder(tmp_path, "a_diff.fits", ext="SUB", jd_key="MIDDLE")["jd"].tolist() == [MIDDLE_JD]


def test_broken_file_keeps_its_row_so_that_it_is_counted(tmp_path, caplog):
    write(tmp_path / "a.fits", **{"MJD-OBS": START, "EXPTIME": 120.0})
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "b.fits").write_bytes(whole[:4000])
    images = read_folder(tmp_path, ext="SUB")
    assert images["id"].tolist() == ["a", "b"]
    assert np.isnan(images["jd"].iloc[1])
    assert "b.fits" in caplog.text


def test_nothing_usable_is_told_with_the_reason(tmp_path):
    with pytest.raises(SurveyError, match=r"no FITS file matches '\*_diff\.fits' in "):
        read_folder(tmp_path, "*_diff.fits")
    write(tmp_path / "a.fits")
    with pytest.raises(SurveyError, match=r"none of 1 files in .* the first: no time in .*a\.fits.*give jd_key"):
        read_folder(tmp_path, ext="SUB")


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a_diff.FIT", bytes), ("a_diff.FITS", bytes), ("a_diff.fts", bytes), ("a_diff.fits.bz2", bz2.compress),
        ("a_diff.FITS.GZ", gzip.compress), ("a_diff.fts.xz", lzma.compress), ("a_diff.fz", bytes),
        ("a_diff.fits.fz", bytes),
    ],
)  # fmt: skip
def test_every_suffix_is_an_image(tmp_path, name, pack):
    write(tmp_path / "plain", **{"MJD-OBS": START, "EXPTIME": 120.0})
    (tmp_path / name).write_bytes(pack((tmp_path / "plain").read_bytes()))
    images = read_folder(tmp_path, "*_diff*", ext="SUB")
    assert images["id"].tolist() == ["a_diff"] and images["jd"][0] == pytest.approx(MIDDLE_JD, abs=1e-8)
    assert read_image(tmp_path / name, ext="SUB").to_dict() == images.iloc[0].to_dict()


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "fits", "a.fits.txt", "a.fitsx", "a.xz"])
def test_other_files_are_none(tmp_path, name):
    assert not is_fits(tmp_path / name)


def test_one_image_that_cannot_be_read_is_an_error(tmp_path):
    write(tmp_path / "a.fits")
    with pytest.raises(MissingPart, match="no time"):
        read_image(tmp_path / "a.fits", ext="SUB")
