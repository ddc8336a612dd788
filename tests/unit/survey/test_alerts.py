"""Alert packets: stamps come out where they belong; a bad packet is told and passed over, whatever is in it."""

import gzip
import io
import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from gotorb.errors import DataError, PacketError
from gotorb.survey.alerts import MAX_BYTES, QUADRANT, find_packets, open_packets, read_packet, stream_packets
from tests.unit.survey.synthetic import SIZE, make_image, pack, real_data, write_packet


def test_a_packet_gives_its_record_and_stamp(tmp_path: Path) -> None:
    record, stamp = read_packet(write_packet(tmp_path / "a.avro", 2**61 + 1))
    assert (record["candid"], record["objectId"], record["ra"]) == (str(2**61 + 1), "ZTF18abcdefg", 150.1)
    np.testing.assert_array_equal(stamp, np.stack([make_image(layer) for layer in range(3)], axis=-1))


@pytest.mark.parametrize(
    ("x", "y", "rows", "columns"),
    [
        (20.0, 1500.0, slice(0, 63), slice(12, 63)),
        (QUADRANT[0] - 20.0, 1500.0, slice(0, 63), slice(0, 51)),
        (1500.0, 20.0, slice(12, 63), slice(0, 63)),
        (1500.0, QUADRANT[1] - 20.0, slice(0, 51), slice(0, 63)),
        (20.0, QUADRANT[1] - 20.0, slice(0, 51), slice(12, 63)),
    ],
)
def test_a_cutout_cropped_by_the_edge_keeps_its_source_in_the_middle(
    tmp_path: Path, x: float, y: float, rows: slice, columns: slice
) -> None:
    whole = np.stack([make_image(layer) for layer in range(3)], axis=-1)
    _, stamp = read_packet(write_packet(tmp_path / "a.avro", images=whole[rows, columns], xpos=x, ypos=y))
    np.testing.assert_array_equal(stamp[rows, columns], whole[rows, columns])
    assert np.isfinite(stamp).sum() == whole[rows, columns].size
    assert np.unravel_index(np.nanargmax(stamp[..., 2]), (SIZE, SIZE)) == (31, 31)


def bomb() -> bytes:
    return gzip.compress(bytes(20 * MAX_BYTES))


def table() -> bytes:
    buffer = io.BytesIO()
    fits.BinTableHDU(pd.DataFrame({"a": [1]}).to_records(index=False)).writeto(buffer)
    return gzip.compress(buffer.getvalue())


def huge_header() -> bytes:
    cards = [("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "2"), ("NAXIS1", "2000000000"), ("NAXIS2", "2000000000")]
    text = "".join(f"{name:<8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    return gzip.compress(text.ljust(2880).encode())


BAD_CUTOUTS = {
    "missing": None,
    "not gzip": b"SIMPLE  = T",
    "empty": b"",
    "cut short": pack(make_image())[:-200],
    "not FITS": gzip.compress(b"<html>not found</html>"),
    "a bomb": bomb(),
    "a table": table(),
    "a huge header": huge_header(),
    "too large": pack(np.zeros((64, 63), np.float32)),
    "one line": pack(np.zeros(63, np.float32)),
    "a cube": pack(np.zeros((3, 63, 63), np.float32)),
}


@pytest.mark.parametrize("kind", BAD_CUTOUTS)
def test_a_bad_cutout_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    path = write_packet(tmp_path / "a.avro", cutouts={"cutoutTemplate": BAD_CUTOUTS[kind]})
    with pytest.raises(PacketError, match=r"cutoutTemplate of .*a\.avro cannot be read") as caught:
        read_packet(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("leave_out", ["candid", "objectId", "candidate", "cutoutScience"])
def test_an_absent_field_is_told(tmp_path: Path, leave_out: str) -> None:
    path = write_packet(tmp_path / "a.avro", leave_out=(leave_out,))
    with pytest.raises(PacketError, match=r"a\.avro"):
        read_packet(path)


def test_a_candid_of_nothing_and_a_position_of_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(PacketError, match="candid"):
        read_packet(write_packet(tmp_path / "a.avro", None))
    with pytest.raises(PacketError, match=r"xpos of .* is 'left', not a number"):
        read_packet(write_packet(tmp_path / "a.avro", xpos="left"))


@pytest.mark.parametrize("length", [0, 3, 40, 2000, -30])
def test_a_truncated_packet_is_told(tmp_path: Path, length: int) -> None:
    path = write_packet(tmp_path / "a.avro")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PacketError, match="cannot be read as an Avro packet") as caught:
        read_packet(path)
    assert "\n" not in str(caught.value)


def test_other_files_named_avro_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    rng = np.random.default_rng(0)
    for content in (b"<html>" * 99, rng.bytes(5000), b"Obj\x01" + rng.bytes(500), bytes(MAX_BYTES + 1)):
        path.write_bytes(content)
        with pytest.raises(PacketError):
            read_packet(path)


def test_flipped_bytes_give_a_packet_or_one_line(tmp_path: Path) -> None:
    path = write_packet(tmp_path / "a.avro")
    whole, rng = path.read_bytes(), np.random.default_rng(4)
    for _ in range(150):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            broken[place] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            assert read_packet(path)[1].shape == (SIZE, SIZE, 3)
        except PacketError as error:
            assert "\n" not in str(error)


def test_one_bad_packet_never_stops_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        write_packet(tmp_path / f"{number}.avro", number)
    (tmp_path / "2.avro").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        folder = open_packets(find_packets(tmp_path))
    assert folder.table["candid"].tolist() == ["0", "1", "3", "4"] and folder.n_skipped == 1
    assert "2.avro" in caplog.text
    assert [len(stamps) for stamps, _ in folder.batches(3)] == [3, 1]
    small = open_packets(find_packets(tmp_path), size=25)
    assert next(small.batches())[0].shape == (4, 25, 25, 3)
    streamed = pd.concat([table for table, _ in stream_packets(find_packets(tmp_path), 2)])
    assert streamed["candid"].tolist() == ["0", "1", "3", "4"]


def test_no_usable_packet_is_one_error_that_shows_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.avro").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of 1 alert packets.*a\.avro"):
        open_packets(find_packets(tmp_path))
    with pytest.raises(DataError, match="none of 0"):
        open_packets([])


def test_packets_of_an_older_schema_have_an_empty_drb(tmp_path: Path) -> None:
    write_packet(tmp_path / "a.avro", leave_out=("drb",))
    assert open_packets(find_packets(tmp_path)).table["drb"].isna().all()


def test_a_real_packet_gives_the_stamp_of_the_archive_up_to_its_rounding() -> None:
    archive, paths = real_data("ztf"), find_packets(real_data("ztf_packets"))
    with h5py.File(archive / "ztf_stamps.h5") as file:
        rows = {str(candid): row for row, candid in enumerate(file["candid"][:])}
        rows = {name.decode() if isinstance(name, bytes) else name: row for name, row in rows.items()}
        for path in paths:
            record, stamp = read_packet(path)
            kept = file["stamps"][rows[record["candid"]]]
            np.testing.assert_array_equal(np.isnan(stamp), np.isnan(kept))
            # half a step; a step is at most a tenth of the noise
            noise = 1.4826 * np.nanmedian(np.abs(stamp - np.nanmedian(stamp, axis=(0, 1))), axis=(0, 1))
            assert (np.nanmax(np.abs(stamp - kept), axis=(0, 1)) <= 0.1 * noise).all()
