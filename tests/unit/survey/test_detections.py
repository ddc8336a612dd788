"""The survey's table becomes ours: 0-based positions on the sky, and nothing invented."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb.errors import MissingPart
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import write_image

EXT = "PHOTOMETRY_DIFF"
TABLE: dict[str, Any] = {
    "x": [1.0, 2.0, 3.0], "y": [11.0, 12.0, 13.0], "ra": [150.0, 150.1, 150.2], "dec": [2.0, 2.1, 2.2],
    "mag": [18.0, 19.0, 20.0],
}  # fmt: skip


def read(folder: Path, table: dict[str, Any], **options: Any) -> pd.DataFrame:
    path = write_image(folder / "a.fits", names=("DIFFERENCE",), table=table)
    with open_frame(path) as frame:
        return read_detections(frame, EXT, **options)


def without(*names: str) -> dict[str, Any]:
    return {name: values for name, values in TABLE.items() if name not in names}


def test_positions_counted_from_one_become_zero_based(tmp_path: Path) -> None:
    table = read(tmp_path, TABLE, first_pixel=1)
    assert table["x"].tolist() == [0.0, 1.0, 2.0] and table["y"].tolist() == [10.0, 11.0, 12.0]
    assert table["ra"].tolist() == TABLE["ra"]


@pytest.mark.parametrize("left_out", [("ra", "dec"), ("ra",), ("dec",)])
def test_absent_sky_positions_come_from_the_wcs(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    path = write_image(
        tmp_path / "a.fits", names=("DIFFERENCE",), table=without(*left_out) | {"x": [1.0, 200.0, 399.0]}
    )
    with open_frame(path) as frame:
        table = read_detections(frame, EXT, first_pixel=1, wcs_ext="DIFFERENCE")
        x, y = frame.to_pixels("DIFFERENCE", table["ra"], table["dec"])
    np.testing.assert_allclose(x, [0.0, 199.0, 398.0], atol=1e-3)
    np.testing.assert_allclose(y, [10.0, 11.0, 12.0], atol=1e-3)


def test_sky_positions_of_the_table_go_before_those_of_the_wcs(tmp_path: Path) -> None:
    assert read(tmp_path, TABLE, wcs_ext="DIFFERENCE")["ra"].tolist() == TABLE["ra"]


@pytest.mark.parametrize("name", ["x", "y", "ra", "dec"])
def test_a_missing_position_is_named_with_the_columns_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        MissingPart, match=rf"no column '{name}' in HDU 'PHOTOMETRY_DIFF' .*has .*mag.*DETECTION_COLUMNS"
    ):
        read(tmp_path, without(name))


def test_a_renamed_column_is_found_whatever_its_case(tmp_path: Path) -> None:
    table = read(tmp_path, without("x") | {"XWIN_IMAGE": [7.0, 8.0, 9.0]}, names={"x": "xwin_image"})
    assert table["x"].tolist() == [7.0, 8.0, 9.0]


def test_what_was_not_measured_is_nan(tmp_path: Path) -> None:
    table = read(tmp_path, without("mag"))
    assert table[["mag", "fwhm", "snr", "realbogus", "cnn_realbogus"]].isna().all(axis=None)
    assert table["id"].tolist() == ["0", "1", "2"] and table["positive"].all()


@pytest.mark.parametrize("name", ["x", "y", "ra", "dec"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite_are_left_out(tmp_path: Path, name: str, value: float) -> None:
    table = read(tmp_path, TABLE | {name: [TABLE[name][0], value, TABLE[name][2]]}, wcs_ext="DIFFERENCE")
    assert table["mag"].tolist() == [18.0, 20.0]


def test_a_position_that_is_not_finite_has_no_place_on_the_sky_either(tmp_path: Path) -> None:
    table = read(tmp_path, without("ra", "dec") | {"x": [1.0, np.nan, np.inf]}, wcs_ext="DIFFERENCE")
    assert table["x"].tolist() == [1.0]


@pytest.mark.parametrize("table", [TABLE, without("ra", "dec", "mag")])
def test_an_empty_table_gives_no_detections(tmp_path: Path, table: dict[str, Any]) -> None:
    empty = read(tmp_path, {name: np.empty(0) for name in table}, first_pixel=1, wcs_ext="DIFFERENCE")
    assert len(empty) == 0
    assert {"x", "y", "ra", "dec", "mag", "id", "fwhm", "realbogus", "positive"} <= set(empty.columns)


def test_integers_are_numbers_and_their_blank_is_nan(tmp_path: Path) -> None:
    columns = [fits.Column(name, "D", array=values) for name, values in without("mag", "x").items()]
    columns += [
        fits.Column("x", "J", array=[4, -99, 6], null=-99),
        fits.Column("mag", "I", array=[18, 19, -1], null=-1),
    ]
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name=EXT)]).writeto(path)
    with open_frame(path) as frame:
        table = read_detections(frame, EXT)
    assert table["x"].tolist() == [4.0, 6.0]
    np.testing.assert_array_equal(table["mag"], [18.0, np.nan])


def test_text_comes_without_blanks_and_blank_numbers_are_nan(tmp_path: Path) -> None:
    table = read(
        tmp_path, TABLE | {"id": ["a1  ", " b2", "c3"], "x": ["1.5", "   ", "3e0"], "mag": ["", "19", "20.5 "]}
    )
    assert table["id"].tolist() == ["a1", "c3"]
    assert table["x"].tolist() == [1.5, 3.0]
    np.testing.assert_array_equal(table["mag"], [np.nan, 20.5])


@pytest.mark.parametrize("values", [["north", "1", "2"], np.ones((3, 2)), [True, False, True]])
def test_a_column_that_holds_no_number_is_named(tmp_path: Path, values: Any) -> None:
    path = tmp_path / "a.fits"
    columns = [fits.Column(name, "D", array=column) for name, column in without("x").items()]
    code = "5A" if isinstance(values[0], str) else "L" if isinstance(values[0], bool) else "2D"
    columns.append(fits.Column("x", code, array=np.asarray(values)))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name=EXT)]).writeto(path)
    with (
        open_frame(path) as frame,
        pytest.raises(MissingPart, match=r"column 'x' in HDU .* one number a row") as caught,
    ):
        read_detections(frame, EXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("signs", [["t", "f", "T "], [True, False, True], [1, -1, 1], [1.0, 0.0, 1.0], ["1", "0", "1"]])
def test_signs_are_understood_in_every_spelling(tmp_path: Path, signs: Any) -> None:
    assert read(tmp_path, TABLE | {"isdiffpos": signs})["positive"].tolist() == [True, False, True]


def test_a_table_of_text_cards_is_read_too(tmp_path: Path) -> None:
    columns = [fits.Column(name, "E15.7", array=np.array(values)) for name, values in TABLE.items()]
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns, name=EXT)]).writeto(path)
    with open_frame(path) as frame:
        table = read_detections(frame, EXT)
    assert table["x"].tolist() == TABLE["x"] and table["x"].dtype.isnative


def test_columns_of_the_machines_own_byte_order_and_packed_files_read_alike(tmp_path: Path) -> None:
    plain = read(tmp_path, TABLE)
    path = write_image(tmp_path / "b.fits", "gz", ("DIFFERENCE",), table=TABLE)
    with open_frame(path) as frame:
        pd.testing.assert_frame_equal(read_detections(frame, EXT), plain)
    assert all(dtype.isnative for dtype in plain.dtypes if isinstance(dtype, np.dtype))
