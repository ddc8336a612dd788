"""Pixels are physical values whatever the file stores, and only those asked for are read."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gotorb.errors import ImageError, InconsistentImage, MissingPart
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import KINDS, NX, NY, make_header, write_image

HALF = {np.int16: 1 << 15, np.int32: 1 << 31, np.int64: 1 << 63}


@pytest.mark.parametrize("kind", KINDS)
def test_plane_and_values_are_those_of_astropy(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path / "a.fits", kind)
    expected = fits.getdata(path, "IMAGE")
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.4, NX - 0.6, 200), rng.uniform(-0.4, NY - 0.6, 200)
    with open_frame(path) as frame:
        np.testing.assert_array_equal(frame.plane("IMAGE"), expected)
        assert frame.shape("IMAGE") == (NY, NX)
        values = frame.values_at("IMAGE", x, y)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected[np.rint(y).astype(int), np.rint(x).astype(int)].astype(np.float32))


@pytest.mark.parametrize("kind", ["float32", "scaled", "squares.fz"])
def test_values_off_the_image_are_nan(tmp_path: Path, kind: str) -> None:
    x = np.array([-0.6, NX - 0.4, 5.0, 5.0, np.nan, 1e9, -1e300, np.inf, 5.0])
    y = np.array([5.0, 5.0, -0.6, NY - 0.4, 5.0, 5.0, 5.0, 5.0, 5.0])
    with open_frame(write_image(tmp_path / "a.fits", kind)) as frame:
        values = frame.values_at("IMAGE", x, y)
        assert np.isnan(values[:-1]).all() and np.isfinite(values[-1])
        assert frame.values_at("IMAGE", np.empty(0), np.empty(0)).shape == (0,)


def write_stored(path: Path, stored: np.ndarray, **keys: float) -> Path:
    """Write numbers as they are stored, and how they are scaled."""
    hdu = fits.ImageHDU(stored)
    hdu.header.update(keys)
    hdu.writeto(path)
    return path


@pytest.mark.parametrize("stored_type", [np.uint8, np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("keys", [{"BSCALE": 0.1, "BZERO": 3.7}, {"BZERO": 40.0}, {"BSCALE": 2.5}])
def test_scaled_numbers_are_those_of_astropy_to_the_bit(
    tmp_path: Path, stored_type: type, keys: dict[str, float]
) -> None:
    stored = (np.random.default_rng(2).random((20, 30)) * 250).astype(stored_type)
    path = write_stored(tmp_path / "a.fits", stored, **keys)
    with open_frame(path) as frame:
        plane = frame.plane(1)
    expected = fits.getdata(path, 1)
    assert plane.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("stored_type", HALF)
def test_unsigned_integers_keep_every_digit(tmp_path: Path, stored_type: type) -> None:
    largest = np.iinfo(stored_type).max
    stored = np.array([[-largest - 1, -largest, -1], [0, 1, largest]], stored_type)
    path = write_stored(tmp_path / "a.fits", stored, BZERO=HALF[stored_type], BSCALE=1)
    with open_frame(path) as frame:
        plane = frame.plane(1)
    np.testing.assert_array_equal(plane, fits.getdata(path, 1))
    assert plane[1, 2] == 2 * largest + 1 and plane.dtype.kind == "u"


@pytest.mark.parametrize("keys", [{"BLANK": 0}, {"BLANK": 7, "BZERO": 32768}, {"BLANK": 7, "BSCALE": 0.5}])
def test_blank_is_nan_in_every_integer_image(tmp_path: Path, keys: dict[str, float]) -> None:
    stored = np.full((9, 9), 3, np.int16)
    stored[4, 4] = keys["BLANK"]
    with open_frame(write_stored(tmp_path / "a.fits", stored, **keys)) as frame:
        missing = np.isnan(frame.plane(1))
    assert missing[4, 4] and missing.sum() == 1


def test_few_positions_decompress_few_tiles(tmp_path: Path) -> None:
    with open_frame(write_image(tmp_path / "a.fits", "squares.fz")) as frame:
        x, y = np.array([130.0, 300.0]), np.array([64.0, 200.0])
        blocks = list(frame.blocks("IMAGE", x, y, 10))
    assert [(block.first_y, block.first_x, *block.pixels.shape) for block in blocks] == [
        (0, 0, 128, 256),
        (128, 256, 128, 128),
    ]


def test_blocks_of_rows_hold_each_wanted_row_once(tmp_path: Path) -> None:
    with open_frame(write_image(tmp_path / "a.fits", "rows.fz")) as frame:
        x, y = np.array([5.0, 300.0, 7.0]), np.array([20.0, 25.0, 280.0])
        blocks = list(frame.blocks("IMAGE", x, y, 4))
    assert [(block.first_y, len(block.pixels[:, :])) for block in blocks] == [(16, 14), (276, 9)]


@pytest.mark.parametrize("shape", [(1, 20, 30), (600,), (2, 3, 4, 5)])
def test_an_image_of_other_than_two_axes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros(shape, np.float32), name="IMAGE")]).writeto(
        tmp_path / "a.fits"
    )
    with open_frame(tmp_path / "a.fits") as frame:
        for read in (frame.plane, frame.shape):
            with pytest.raises(MissingPart, match=r"'IMAGE' in .* holds no 2-d image .*name another HDU"):
                read("IMAGE")


def test_damaged_tiles_are_told_in_one_line(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits", "gzip.fz")
    content = bytearray(path.read_bytes())
    with fits.open(path, disable_image_compression=True) as hdus:
        heap = hdus[1].fileinfo()["datLoc"] + hdus[1].header["NAXIS1"] * hdus[1].header["NAXIS2"]
    content[heap : heap + 2000] = bytes(2000)
    path.write_bytes(content)
    with (
        open_frame(path) as frame,
        pytest.raises(ImageError, match=r"cannot be decompressed .*copy it again") as caught,
    ):
        frame.plane("IMAGE")
    assert "\n" not in str(caught.value)


def test_positions_far_off_the_image_have_no_pixel_even_where_the_distortion_runs_away(tmp_path: Path) -> None:
    header = make_header()
    header.update({"A_ORDER": 3, "A_3_0": 1e-6, "B_ORDER": 3, "B_0_3": 1e-6})
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((NY, NX)), header, "IMAGE")]).writeto(path)
    ra = np.array([150.0, 150.15, 151.0, 330.0, 240.0, 150.0, np.nan, np.inf, -210.0])
    dec = np.array([2.0, 2.1, 2.0, -2.0, 0.0, 92.0, 2.0, 2.0, 2.0])
    with open_frame(path) as frame:
        x, y = frame.to_pixels("IMAGE", ra, dec)
    assert np.isfinite(x[[0, -1]]).all() and x[0] == pytest.approx(x[-1])
    inside = (x > 0) & (x < NX) & (y > 0) & (y < NY)
    assert inside.tolist() == [True] + [False] * 7 + [True]


def write_cards(path: Path, cards: dict[str, object]) -> Path:
    """An image of small integers whose header is changed behind the library's back."""
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.arange(12, dtype=np.int16).reshape(3, 4), name="IMAGE")]).writeto(
        path
    )
    with fits.open(path) as hdus:
        header, info = hdus[1].header.copy(), hdus[1].fileinfo()
    header.update(cards)
    content = path.read_bytes()
    path.write_bytes(content[: info["hdrLoc"]] + header.tostring().encode() + content[info["datLoc"] :])
    return path


@pytest.mark.parametrize(
    ("cards", "right"),
    [
        ({"BSCALE": "0.5", "BZERO": "10"}, np.arange(12) * 0.5 + 10),
        ({"BSCALE": " 2 "}, np.arange(12) * 2.0),
        ({"BZERO": "1.0E2"}, np.arange(12) + 100.0),
        ({"BSCALE": "1.0", "BZERO": "0.0"}, np.arange(12)),
        ({"BLANK": "5"}, np.where(np.arange(12) == 5, np.nan, np.arange(12))),
    ],
)
def test_numbers_in_quotes_are_numbers(tmp_path: Path, cards: dict[str, object], right: np.ndarray) -> None:
    with open_frame(write_cards(tmp_path / "a.fits", cards)) as frame:
        np.testing.assert_array_equal(np.asarray(frame.plane("IMAGE"), float), right.reshape(3, 4))


@pytest.mark.parametrize("cards", [{"BSCALE": "one"}, {"BZERO": "32768 ADU"}, {"BLANK": "none"}, {"BSCALE": True}])
def test_a_scale_that_is_no_number_is_refused(tmp_path: Path, cards: dict[str, object]) -> None:
    (name,) = cards
    with open_frame(write_cards(tmp_path / "a.fits", cards)) as frame, pytest.raises(InconsistentImage, match=name):
        frame.plane("IMAGE")
