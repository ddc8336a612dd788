"""The parts of a FITS file are read by name, and a part that is not there is named."""

import gc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gotorb.errors import ImageError, MissingPart
from gotorb.stamps.layers import Extensions, cut_planes
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import write_image

STACKED = ("IMAGE", "TEMPLATE", "DIFFERENCE")
TABLE = {"x": [100.0, 2.0], "y": [50.0, 290.0], "ra": [150.0, 150.02], "dec": [2.0, 2.01]}


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


def test_absent_file_names_the_settings_to_check(tmp_path):
    with pytest.raises(ImageError, match="GOTOPHOTO_STORAGEDIR"), open_frame(tmp_path / "no.fits"):
        pass


def test_an_image_costs_no_open_file_and_no_map_when_it_is_done(tmp_path):
    """160 small images of several kinds, stamps of each: what this process holds open stays the same."""
    paths = [
        write_image(tmp_path / f"{kind}.fits", kind, STACKED, table=TABLE)
        for kind in ("float32", "scaled", "rows.fz", "gz")
    ]
    paths += [paths[0]] * (40 - len(paths))
    exposures = [write_image(tmp_path / f"r{i}.fits", seed=i) for i in range(2)]
    x, y, *sky = (np.array(values) for values in TABLE.values())
    held = set()
    gc.collect()
    gc.disable()  # nothing may wait for the collector
    try:
        for i in range(160):
            with open_frame(paths[i % len(paths)]) as frame:
                cut_planes(frame, [], *sky, size=15, extensions=Extensions(), xy=(x, y))
                if i % 20 == 0:
                    read_detections(frame, "PHOTOMETRY_DIFF")
                    cut_planes(frame, exposures, *sky, size=15, extensions=Extensions())
            if i % 20 == 19:
                held.add((open_files(), maps_of(tmp_path)))
    finally:
        gc.enable()
    assert len(held) == 1 and held.pop()[1] == 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def maps_of(folder: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(folder))
