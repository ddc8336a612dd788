"""The survey's table becomes ours: 0-based positions on the sky, and nothing invented."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb.errors import InconsistentImage, MissingPart
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import make_hdu, make_header, write_image

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


def write_columns(path: Path, columns: list[fits.Column], cards: dict[str, Any] | None = None) -> Path:
    """A table of positions in the middle of an image, and some columns of any kind; cards are put in as they are."""
    place = [fits.Column(name, "D", array=np.array([150.0, 160.0, 170.0])) for name in ("x", "y")]
    held = {column.name.lower() for column in columns}
    table = fits.BinTableHDU.from_columns([*(c for c in place if c.name not in held), *columns], name=EXT)
    fits.HDUList([fits.PrimaryHDU(), make_hdu("float32", "DIFFERENCE", make_header()), table]).writeto(path)
    if cards:
        with fits.open(path) as hdus:
            header, info = hdus[2].header.copy(), hdus[2].fileinfo()
        header.update(cards)
        content = path.read_bytes()
        path.write_bytes(content[: info["hdrLoc"]] + header.tostring().encode() + content[info["datLoc"] :])
    return path


def read_columns(path: Path, columns: list[fits.Column], cards: dict[str, Any] | None = None) -> pd.DataFrame:
    with open_frame(write_columns(path, columns, cards)) as frame:
        return read_detections(frame, EXT, wcs_ext="DIFFERENCE")


@pytest.mark.parametrize(
    ("code", "stored", "null", "cards", "right"),
    [
        ("I", np.array([18000, -32768, 19500], "i2"), -32768, {"TSCAL3": 0.001, "TZERO3": 0.0}, [18, np.nan, 19.5]),
        ("J", np.array([80, -1, 95], "i4"), -1, {"TSCAL3": 0.1, "TZERO3": 10.0}, [18, np.nan, 19.5]),
        ("B", np.array([80, 255, 95], "u1"), 255, {"TSCAL3": 0.1, "TZERO3": 10.0}, [18, np.nan, 19.5]),
        ("I", np.array([-32750, 32767, -32748], "i2"), 32767, {"TZERO3": 32768}, [18, np.nan, 20]),
        ("J", np.array([-(2**31) + 18, 0, -(2**31) + 20], "i4"), 0, {"TZERO3": 2**31}, [18, np.nan, 20]),
        ("I", np.array([180, -9, 195], "i2"), -9, {"TSCAL3": "0.1"}, [18, np.nan, 19.5]),
    ],
)
def test_the_stored_number_stands_for_no_value(
    tmp_path: Path, code: str, stored: np.ndarray, null: int, cards: dict[str, Any], right: list[float]
) -> None:
    column = fits.Column("mag", code, array=stored, null=null)
    np.testing.assert_allclose(read_columns(tmp_path / "a.fits", [column], cards)["mag"], right)


def test_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    column = fits.Column("mag", "I", array=np.array([1, 2, 3], "i2"))
    with pytest.raises(InconsistentImage, match="TSCAL3"):
        read_columns(tmp_path / "a.fits", [column], {"TSCAL3": "unknown"})


def test_blank_text_cards_of_a_table_are_no_value(tmp_path: Path) -> None:
    columns = [fits.Column(name, "E15.7", array=np.array(values)) for name, values in TABLE.items() if name != "mag"]
    columns.append(fits.Column("mag", "I6", array=np.array([18, -99, 20]), null="-99"))
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns, name=EXT)]).writeto(path)
    with open_frame(path) as frame:
        np.testing.assert_array_equal(read_detections(frame, EXT)["mag"], [18.0, np.nan, 20.0])


@pytest.mark.parametrize(
    ("ra_unit", "dec_unit", "factors"),
    [
        ("rad", "rad", (np.pi / 180, np.pi / 180)),
        ("radians", "radians", (np.pi / 180, np.pi / 180)),
        ("h", "deg", (1 / 15, 1)),
        ("hour", "degrees", (1 / 15, 1)),
        ("hourangle", "", (1 / 15, 1)),
        ("arcmin", "arcmin", (60, 60)),
        ("arcsec", "arcsec", (3600, 3600)),
        ("mas", "mas", (3.6e6, 3.6e6)),
        ("DEG", "Degree", (1, 1)),
        ("deg (J2000)", "", (1, 1)),
    ],
)
def test_units_of_positions_are_read(tmp_path: Path, ra_unit: str, dec_unit: str, factors: tuple[float, float]) -> None:
    columns = [
        fits.Column(name, "D", array=np.array(TABLE[name]) * factor, unit=unit or None)
        for name, unit, factor in zip(("ra", "dec"), (ra_unit, dec_unit), factors, strict=True)
    ]
    table = read_columns(tmp_path / "a.fits", columns)
    np.testing.assert_allclose(table[["ra", "dec"]].T, [TABLE["ra"], TABLE["dec"]], rtol=1e-12)


@pytest.mark.parametrize("unit", ["pixel", "mm", "Jy"])
def test_a_position_in_a_unit_that_is_no_angle_is_named(tmp_path: Path, unit: str) -> None:
    columns = [fits.Column(name, "D", array=np.array(TABLE[name]), unit=unit) for name in ("ra", "dec")]
    with pytest.raises(MissingPart, match=f"'ra' .*unit {'pix' if unit == 'pixel' else unit}"):
        read_columns(tmp_path / "a.fits", columns)


def test_sexagesimal_positions_are_degrees(tmp_path: Path) -> None:
    columns = [
        fits.Column("ra", "12A", array=np.array(["10:00:00.00", "10:00:24.00", "10:00:48.00"])),
        fits.Column("dec", "12A", array=np.array(["+02:00:00.0", "+02:06:00.0", "-00:12:00.0"])),
    ]
    table = read_columns(tmp_path / "a.fits", columns)
    np.testing.assert_allclose(table["ra"], TABLE["ra"])
    np.testing.assert_allclose(table["dec"], [2.0, 2.1, -0.2])


@pytest.mark.parametrize(("unit", "value"), [("arcsec", 3.72), ("deg", 3.72 / 3600), ("pixel", 3.0), (None, 3.0)])
def test_widths_are_pixels(tmp_path: Path, unit: str | None, value: float) -> None:
    column = fits.Column("fwhm", "D", array=np.full(3, value), unit=unit)
    np.testing.assert_allclose(read_columns(tmp_path / "a.fits", [column])["fwhm"], 3.0, rtol=2e-3)


def test_a_flux_is_no_magnitude(tmp_path: Path) -> None:
    column = fits.Column("mag", "D", array=np.array([3.0, 4.0, 5.0]), unit="Jy")
    assert read_columns(tmp_path / "a.fits", [column])["mag"].isna().all()


@pytest.mark.parametrize(
    ("code", "ids", "problem"),
    [
        ("D", [1151532211015015006.0, 2.0, 3.0], "float64"),
        ("E", [1.0, 2.0, 3.0], "float32"),
        ("L", [True, False, True], "bool"),
        ("24A", ["1151532211015015006.0", "2.0", "3.0"], "1151532211015015006.0 in row 1"),
        ("24A", ["1.15e+18", "b", "c"], "1.15e\\+18 in row 1"),
        ("24A", ["1e18", "2e18", "3e18"], "1e18 in row 1"),
        ("K", [7, 8, 7], "duplicate id 7 in row 3"),
        ("8A", ["a", "", "c"], "no id in row 2"),
        ("8A", ["a", "b", "nan"], "no id in row 3"),
    ],
)
def test_ids_that_name_no_row_are_refused_with_the_row(tmp_path: Path, code: str, ids: Any, problem: str) -> None:
    with pytest.raises(InconsistentImage, match=problem):
        read_columns(tmp_path / "a.fits", [fits.Column("id", code, array=np.array(ids))])


@pytest.mark.parametrize(
    ("code", "ids"),
    [
        ("K", [9223372036854775807, 2**53 + 1, 1]),
        ("J", [1, 2, 3]),
        ("24A", ["1151532211015015006", "ZTF18abc", "x-1"]),
        ("8A", ["12345e67", "0a1b2c3d", "ffffffff"]),
    ],
)
def test_text_and_whole_numbers_are_kept_exactly(tmp_path: Path, code: str, ids: Any) -> None:
    table = read_columns(tmp_path / "a.fits", [fits.Column("id", code, array=np.array(ids))])
    assert table["id"].tolist() == [str(one) for one in ids]


@pytest.mark.parametrize(
    "signs", [["positive", "negative", "pos"], ["+", "-", "+1"], ["yes", "no", "Y"], ["TRUE", "FALSE", "t"]]
)
def test_words_of_the_sign_are_understood(tmp_path: Path, signs: Any) -> None:
    assert read(tmp_path, TABLE | {"isdiffpos": signs})["positive"].tolist() == [True, False, True]


@pytest.mark.parametrize("signs", [["up", "down", "up"], ["t", "f", "?"], [0.93, 0.2, 0.5], [1, 2, 1], ["t", "", "f"]])
def test_unknown_words_of_the_sign_are_refused(tmp_path: Path, signs: Any) -> None:
    with pytest.raises(InconsistentImage, match="isdiffpos"):
        read(tmp_path, TABLE | {"isdiffpos": signs})
