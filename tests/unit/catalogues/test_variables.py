"""Catalogues of variable stars in every form that they come in; what cannot be a position is refused."""

import bz2
import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table

from gotorb.catalogues.variables import read_variables
from gotorb.errors import CatalogueError

RA, DEC = [10.0, 150.5, 359.75], [-5.0, 0.25, 89.5]
FORMS = {"v.fits": "fits", "v.FIT": "fits", "v.vot": "votable", "v.xml": "votable", "v.ecsv": "ascii.ecsv",
         "v.csv": "ascii.csv", "v.dat": "ascii.ecsv"}  # fmt: skip
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("columns", [("ra", "dec"), ("RAJ2000", "DEJ2000"), ("RA_ICRS", "DE_ICRS")])
def test_every_form_is_read(tmp_path: Path, name: str, packed: str, columns: tuple[str, str]) -> None:
    table = Table({"id": ["a", "b", "c"], columns[0]: RA, columns[1]: DEC})
    table.write(tmp_path / name, format=FORMS[name])
    path = tmp_path / (name + packed)
    path.write_bytes(PACKERS[packed]((tmp_path / name).read_bytes()))
    np.testing.assert_allclose(read_variables(path), np.column_stack([RA, DEC]), atol=1e-12)


@pytest.mark.parametrize("separator", [" ", "   ", "\t", ";", " | "])
def test_other_separators_are_read(tmp_path: Path, separator: str) -> None:
    rows = [["ra", "dec"], *zip(map(str, RA), map(str, DEC), strict=True)]
    (tmp_path / "v.txt").write_text("\n".join(separator.join(row) for row in rows))
    np.testing.assert_allclose(read_variables(tmp_path / "v.txt"), np.column_stack([RA, DEC]))


@pytest.mark.parametrize("frame", ["icrs", "galactic", "fk4"])
def test_a_column_of_coordinates_is_read_in_any_frame(tmp_path: Path, frame: str) -> None:
    places = SkyCoord(RA, DEC, unit="deg").transform_to(frame)
    Table({"name": ["a", "b", "c"], "place": places}).write(tmp_path / "v.ecsv")
    np.testing.assert_allclose(read_variables(tmp_path / "v.ecsv"), np.column_stack([RA, DEC]), atol=1e-6)


@pytest.mark.parametrize("form", ["fits", "votable", "ascii.ecsv"])
def test_masked_rows_are_left_out(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    table = Table(
        {"ra": MaskedColumn(RA, mask=[False, True, False]), "dec": MaskedColumn(DEC, mask=[False, False, True])}
    )
    table.write(tmp_path / "v", format=form)
    assert read_variables(tmp_path / "v").to_numpy().tolist() == [[10.0, -5.0]]
    assert "2 of 3 rows" in caplog.text


@pytest.mark.parametrize(
    ("ra", "dec"),
    [
        ("10:00:00", "+01:30:00"), ("10 00 00.0", "+01 30 00"), ("10h00m00s", "1d30m00s"), ("10h 0m 0s", "01:30"),
        ("150.0", "1.5"), ("150d00m00s", "+01:30:00.0"),
    ],
)  # fmt: skip
def test_sexagesimal_positions_are_hours_and_degrees(tmp_path: Path, ra: str, dec: str) -> None:
    path = tmp_path / "v.csv"
    path.write_text(f"name,ra,dec\nx,{ra},{dec}\ny,00:00:10,-00:00:30\nz,,\n")
    np.testing.assert_allclose(read_variables(path), [[150.0, 1.5], [10 / 240, -30 / 3600]], atol=1e-9)


@pytest.mark.parametrize(
    ("unit", "scale"), [(u.rad, np.pi / 180), (u.hourangle, 1 / 15), (u.h, 1 / 15), (u.arcsec, 3600)]
)
@pytest.mark.parametrize("form", ["fits", "ascii.ecsv"])
def test_units_of_the_file_are_obeyed(tmp_path: Path, unit: u.Unit, scale: float, form: str) -> None:
    table = Table({"ra": np.array(RA) * scale * unit, "dec": np.array(DEC) * u.deg})
    if unit == u.hourangle and form == "fits":
        pytest.skip("FITS knows no hour angle, only h")
    if unit == u.rad:
        table["dec"] = np.radians(DEC) * u.rad
    table.write(tmp_path / "v", format=form)
    np.testing.assert_allclose(read_variables(tmp_path / "v"), np.column_stack([RA, DEC]), atol=1e-9)


WRONG = {
    "text": "ra,dec\nhere,there\n",
    "beyond": "ra,dec\n10,95\n",
    "julian date": "ra,dec\n2459000.5,10\n",
    "no column": "x,y\n1,2\n",
    "no table": "\x00\x01\x02",
    "html": "<html><body>not found</body></html>",
    "radians": "ra,dec\n" + "".join(f"{6.28 * k / 99},{1.5 * (k % 9 / 4 - 1)}\n" for k in range(100)),
    "hours": "ra,dec\n" + "".join(f"{23.99 * k / 99},{80 * (k % 9 / 4 - 1)}\n" for k in range(100)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_catalogue_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "v.csv"
    path.write_text(WRONG[kind])
    with pytest.raises(CatalogueError, match=r"v\.csv") as caught:
        read_variables(path)
    assert "\n" not in str(caught.value)


def test_a_small_field_is_no_radians(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.uniform(1, 3, 200), rng.uniform(-1, 1, 200)])
    Table(rows, names=["ra", "dec"]).write(tmp_path / "v.fits")
    np.testing.assert_allclose(read_variables(tmp_path / "v.fits"), rows)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_a_cut_file_is_told(tmp_path: Path, kept: float) -> None:
    Table({"ra": RA * 200, "dec": DEC * 200}).write(tmp_path / "v.fits")
    path = tmp_path / "v.fits.gz"
    packed = gzip.compress((tmp_path / "v.fits").read_bytes())
    path.write_bytes(packed[: int(kept * len(packed))])
    with pytest.raises(CatalogueError, match=r"v\.fits\.gz"):
        read_variables(path)
