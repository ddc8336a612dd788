"""A bad FITS file says what is wrong with it."""

import numpy as np
import pytest
from astropy.io import fits

from gotorb.errors import ImageError, MissingPart, TruncatedImage
from gotorb.survey.detections import read_detections
from gotorb.survey.frames import open_frame


@pytest.fixture
def image_path(tmp_path):
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 5.0, "CRPIX1": 20.0})
    header.update({"CRPIX2": 30.0, "CDELT1": -3e-4, "CDELT2": 3e-4, "jd": 2459000.5})
    columns = [fits.Column(name, "D", array=np.array([1.0, np.nan, 3.0])) for name in ("X", "y", "ra", "dec", "mag")]
    sign = fits.Column("isdiffpos", "1A", array=np.array(["t", "f", "f"]))
    path = tmp_path / "r1.fits"
    fits.HDUList(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(np.ones((60, 40), np.float32), header, "IMAGE"),
            fits.BinTableHDU.from_columns([*columns, sign], name="PHOTOMETRY_DIFF"),
        ]
    ).writeto(path)
    return path


def test_reads_pixels_keys_and_wcs(image_path):
    with open_frame(image_path) as frame:
        assert frame.plane("IMAGE").shape == (60, 40)
        assert frame.key("jd", "IMAGE", 0) == 2459000.5
        x, y = frame.wcs("IMAGE").all_world2pix([[10.0, 5.0]], 0)[0]
    assert (x, y) == pytest.approx((19.0, 29.0))


def test_detections_have_our_names_signs_and_no_nan(image_path):
    with open_frame(image_path) as frame:
        table = read_detections(frame, "PHOTOMETRY_DIFF")
    assert table["x"].tolist() == [1.0, 3.0]
    assert table["positive"].tolist() == [True, False]
    assert table["x"].dtype.isnative
    assert table["realbogus"].isna().all()


def test_missing_column_is_named_with_those_there(image_path):
    with open_frame(image_path) as frame, pytest.raises(MissingPart, match=r"no column 'xwin' .*has X, y, ra"):
        read_detections(frame, "PHOTOMETRY_DIFF", names={"x": "xwin"})


def test_missing_hdu_is_named_with_those_there(image_path):
    with open_frame(image_path) as frame, pytest.raises(MissingPart, match=r"no HDU 'DIFFERENCE' .*has .*IMAGE, PHOT"):
        frame.plane("DIFFERENCE")


def test_missing_key_is_named(image_path):
    with open_frame(image_path) as frame, pytest.raises(MissingPart, match="no header key 'ncoadd'"):
        frame.key("ncoadd", "IMAGE", 0)


def test_table_hdu_is_no_image_and_image_hdu_no_table(image_path):
    with open_frame(image_path) as frame:
        with pytest.raises(MissingPart, match="is not a table"):
            frame.table("IMAGE")
        with pytest.raises(MissingPart, match="no celestial WCS"):
            frame.wcs("PHOTOMETRY_DIFF")


@pytest.mark.parametrize("keep", [100, 3000, 8640, 12000, 20000])
def test_truncated_file_is_called_truncated_wherever_it_ends(image_path, keep):
    whole = image_path.read_bytes()
    assert keep < len(whole)
    image_path.write_bytes(whole[:keep])
    with pytest.raises(TruncatedImage, match="copy it again"), open_frame(image_path) as frame:
        frame.plane("IMAGE")


def test_text_file_is_not_fits(tmp_path):
    path = tmp_path / "notes.fits"
    path.write_text("hello" * 1000)
    with pytest.raises(ImageError, match="cannot be read as FITS"), open_frame(path):
        pass


def test_absent_file_names_the_settings_to_check(tmp_path):
    with pytest.raises(ImageError, match="GOTOPHOTO_STORAGEDIR"), open_frame(tmp_path / "no.fits"):
        pass
