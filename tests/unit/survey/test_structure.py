"""A FITS file is opened whole or refused in one line that says what is wrong with it."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from gotorb.errors import ImageError, MissingPart, TruncatedImage
from gotorb.survey.detections import read_detections
from gotorb.survey.fits import open_frame
from tests.unit.survey.images import make_header, write_image

TABLE = {"x": [1.0, 2.0], "y": [3.0, 4.0], "ra": [150.0, 150.1], "dec": [2.0, 2.1], "id": ["a", "b"]}
BLOCK = 2880


def write_whole(folder: Path, kind: str) -> Path:
    """A file with every part that a cut can hit: two images, and a table with a heap behind its rows."""
    path = write_image(folder / "whole.fits", kind, ("IMAGE", "DIFFERENCE"), table=TABLE)
    lists = np.array([np.arange(500), np.arange(900)], dtype=object)
    heap = fits.BinTableHDU.from_columns([fits.Column("list", "PJ()", array=lists)], name="LISTS")
    with fits.open(path) as hdus:
        fits.HDUList([*hdus, heap]).writeto(folder / "a.fits")
    return folder / "a.fits"


def read_all(path: Path) -> None:
    """Everything that labelling reads."""
    with open_frame(path) as frame:
        frame.plane("IMAGE")
        frame.values_at("DIFFERENCE", np.array([5.0]), np.array([5.0]))
        read_detections(frame, "PHOTOMETRY_DIFF")
        frame.table("LISTS")


def ends_of_hdus(path: Path) -> set[int]:
    with fits.open(path) as hdus:
        return {hdu.fileinfo()["datLoc"] + hdu.fileinfo()["datSpan"] for hdu in hdus}


@pytest.mark.parametrize("kind", ["float32", "scaled", "squares.fz", "rows.fz"])
def test_a_file_cut_anywhere_is_truncated_and_never_lacks_a_part(tmp_path: Path, kind: str) -> None:
    path = write_whole(tmp_path, kind)
    read_all(path)
    content, ends = path.read_bytes(), ends_of_hdus(path)
    near_ends = {end + step for end in ends for step in (-BLOCK, -1, 1, 8, 80, BLOCK - 1, BLOCK, BLOCK + 80)}
    anywhere = np.random.default_rng(3).integers(0, len(content), 60).tolist()
    for keep in sorted({0, 1, 9, 80, *near_ends, *anywhere} - ends):
        if keep < len(content):
            path.write_bytes(content[:keep])
            with pytest.raises(TruncatedImage, match="copy it again") as caught:
                read_all(path)
            assert "\n" not in str(caught.value), keep


def test_a_cut_between_two_hdus_is_seen_where_the_file_counts_them(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits", names=("IMAGE", "TEMPLATE"))
    fits.setval(path, "NEXTEND", value=2)
    read_everything = path.read_bytes()
    path.write_bytes(read_everything[: sorted(ends_of_hdus(path))[-2]])
    with pytest.raises(TruncatedImage, match="1 extensions but NEXTEND declares 2; copy it again"), open_frame(path):
        pass


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_packed_file_cut_anywhere_is_truncated(tmp_path: Path, kind: str) -> None:
    path = write_image(tmp_path / "a.fits", kind)
    content = path.read_bytes()
    for keep in [0, 1, 2, 3, 5, 8, 20, 1000, len(content) // 2, len(content) - 9, len(content) - 1]:
        path.write_bytes(content[:keep])
        with pytest.raises(TruncatedImage, match="copy it again"), open_frame(path):
            pass


def test_a_file_packed_after_it_was_cut_is_truncated(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits")
    path.write_bytes(gzip.compress(path.read_bytes()[:-3000]))
    with pytest.raises(TruncatedImage, match="headers declare"), open_frame(path):
        pass


@pytest.mark.parametrize("n_bytes", [BLOCK, 10 * BLOCK, 512, 1])
def test_zeros_behind_the_last_hdu_are_padding(tmp_path: Path, n_bytes: int) -> None:
    path = write_whole(tmp_path, "float32")
    path.write_bytes(path.read_bytes() + bytes(n_bytes))
    read_all(path)


@pytest.mark.parametrize("rest", [b"left over from a longer file" * 200, bytes(BLOCK) + b"x"])
def test_other_bytes_behind_the_last_hdu_are_refused(tmp_path: Path, rest: bytes) -> None:
    path = write_whole(tmp_path, "float32")
    path.write_bytes(path.read_bytes() + rest)
    with pytest.raises(ImageError, match=rf"{len(rest)} bytes behind its last HDU .*copy it again"), open_frame(path):
        pass


def damage_gzip(path: Path) -> None:
    content = bytearray(gzip.compress(np.random.default_rng(1).bytes(3000) * 3))
    content[1000:1100] = bytes(100)
    path.write_bytes(content)


NO_FITS: dict[str, Callable[[Path], object]] = {
    "html": lambda path: path.write_text("<!DOCTYPE html><html><body>404 not found</body></html>"),
    "long html": lambda path: path.write_text("<html>" * 5000),
    "noise": lambda path: path.write_bytes(np.random.default_rng(1).bytes(9000)),
    "zeros": lambda path: path.write_bytes(bytes(9000)),
    "packed text": lambda path: path.write_bytes(gzip.compress(b"hello" * 1000)),
    "damaged gzip": damage_gzip,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", NO_FITS)
def test_what_is_not_fits_is_unreadable_not_truncated(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.fits"
    NO_FITS[kind](path)
    with pytest.raises(ImageError, match=r"a\.fits cannot be read as FITS .*leave it out") as caught, open_frame(path):
        pass
    assert type(caught.value) is ImageError and "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_unreadable(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits")
    path.chmod(0)
    with pytest.raises(ImageError, match="Permission denied"), open_frame(path):
        pass


@pytest.mark.parametrize("kind", ["float32", "scaled", "squares.fz"])
def test_flipped_bytes_give_values_or_one_line(tmp_path: Path, kind: str) -> None:
    path = write_whole(tmp_path, kind)
    content, rng = path.read_bytes(), np.random.default_rng(7)
    with fits.open(path, disable_image_compression=True) as hdus:
        headers = [(hdu.fileinfo()["hdrLoc"], hdu.fileinfo()["datLoc"]) for hdu in hdus]
    for turn in range(120):
        broken = bytearray(content)
        start, stop = headers[turn % len(headers)] if turn % 2 else (0, len(content))
        for place in rng.integers(start, stop, 3):
            broken[place] = rng.integers(32, 127)
        path.write_bytes(broken)
        try:
            read_all(path)
        except ImageError as error:
            assert "\n" not in str(error)


def test_a_missing_hdu_in_a_whole_file_is_missing(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.fits")
    with open_frame(path) as frame, pytest.raises(MissingPart, match="no HDU 'DIFFERENCE'"):
        frame.plane("DIFFERENCE")


@pytest.mark.parametrize("bad", [{"CTYPE1": "RA---XXX"}, {"CRVAL2": 95.0}, {"CRPIX1": "abc"}, {"CUNIT1": "parsnip"}])
def test_a_wcs_that_contradicts_itself_is_told_in_one_line(tmp_path: Path, bad: dict[str, object]) -> None:
    header = make_header()
    header.update(bad)
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((9, 9)), header, "IMAGE")]).writeto(path)
    with open_frame(path) as frame, pytest.raises(MissingPart, match=r"WCS that cannot be used .*solve it") as caught:
        frame.to_pixels("IMAGE", np.array([150.0]), np.array([2.0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("last", ["image", "table"])
def test_a_last_block_without_its_filling_is_whole(tmp_path: Path, packed: bool, last: str) -> None:
    pixels = np.arange(6300, dtype=np.float32).reshape(90, 70)
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.arange(33.0))], name="CAT")
    image = fits.ImageHDU(pixels, name="SCI")
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), *([table, image] if last == "image" else [image, table])]).writeto(path)
    n_bytes = pixels.nbytes if last == "image" else 33 * 8
    content = path.read_bytes()[: -(-n_bytes % BLOCK)]
    path.write_bytes(gzip.compress(content) if packed else content)
    with open_frame(path) as frame:
        np.testing.assert_array_equal(frame.plane("SCI"), pixels)
        assert frame.table("CAT")["x"].tolist() == list(range(33))
    short = content[:-4]
    path.write_bytes(gzip.compress(short) if packed else short)
    with pytest.raises(TruncatedImage), open_frame(path):
        pass
