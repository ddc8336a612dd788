"""Stamp archives: what is read, and that files that do not belong together are refused in one line."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from gotorb.core.params import ArchiveParams
from gotorb.errors import DataError
from gotorb.survey.archives import open_archive, open_stamps
from gotorb.survey.pixels import prepare_stamps
from tests.unit.survey.synthetic import make_table, real_data, write_archive

PARAMS = ArchiveParams()


def replace(folder: Path, **arrays: np.ndarray | None) -> None:
    """Put other arrays into the hdf5 of an archive; None takes one away."""
    with h5py.File(folder / "my_stamps.h5", "a") as file:
        for name, array in arrays.items():
            del file[name]
            if array is not None:
                file[name] = array


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive")


def test_rows_and_stamps_keep_their_order(archive: Path) -> None:
    source = open_archive(archive, PARAMS)
    assert source.table["candid"].tolist() == make_table(9)["candid"].tolist() == source.ids.tolist()
    with h5py.File(archive / "my_stamps.h5") as file:
        raw = file["stamps"][:]
    read = np.concatenate([stamps for stamps, _ in source.batches(4)])
    np.testing.assert_array_equal(read, prepare_stamps(raw, PARAMS.background)[0])


def test_ids_of_nineteen_digits_are_not_rounded(archive: Path) -> None:
    ids = (np.arange(9) + 2**61 + 1).astype(np.int64)
    replace(archive, candid=ids)
    table = make_table(9).assign(candid=ids)
    table.to_csv(archive / "my_meta.csv", index=False)
    assert open_archive(archive, PARAMS).ids.tolist() == [str(one) for one in ids]


def test_an_hdf5_alone_needs_no_csv(archive: Path) -> None:
    source = open_archive(archive / "my_stamps.h5", PARAMS)
    assert list(source.table) == ["candid"]
    replace(archive, candid=None)
    assert open_archive(archive / "my_stamps.h5", PARAMS).ids.tolist() == [str(row) for row in range(9)]


def test_pixels_without_data_become_zero_and_are_counted() -> None:
    raw = np.full((2, 21, 21, 3), 100, np.float32)
    raw[0, :7, :, 1] = np.nan
    raw[1, 0, 0, 0], raw[1, 0, 1, 0], raw[1, :, :, 2] = np.inf, np.finfo(np.float32).min, np.nan
    stamps, missing = prepare_stamps(raw, "none")
    assert np.isfinite(stamps).all() and stamps.dtype == np.float32
    assert (stamps[0, :7, :, 1] == 0).all() and (stamps[1, 0, :2, 0] == 0).all()
    np.testing.assert_allclose(missing, [1 / 3, 1])
    assert np.abs(prepare_stamps(raw, "median")[0]).max() == 0
    raw[0, :14, :, 1] = np.finfo(np.float32).min
    assert np.abs(prepare_stamps(raw, "median")[0]).max() == 0, "no median of gaps"


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"stamps": None}, "no array stamps"),
        ({"stamps": np.zeros((9, 63, 63, 2))}, r"shape \(9, 63, 63, 2\)"),
        ({"stamps": np.zeros((9, 63, 61, 3))}, "expected"),
        ({"stamps": np.zeros((9, 63, 63))}, "expected"),
        ({"stamps": np.zeros((0, 63, 63, 3)), "candid": np.zeros(0, int)}, "no stamps"),
        ({"stamps": np.full((9, 2, 2, 3), b"x")}, "no numbers"),
        ({"candid": np.arange(5)}, "9 stamps and 5 ids"),
        ({"candid": np.arange(9)}, "number or order"),
        ({"candid": None}, r"no array 'candid' of row ids .* set label\.archive\.ids_key .* the csv's 'candid'"),
        ({"stamps": np.zeros((8, 63, 63, 3)), "candid": np.arange(8)}, "number or order"),
    ],
)
def test_an_hdf5_that_does_not_fit_is_refused(archive: Path, arrays: dict[str, np.ndarray | None], says: str) -> None:
    replace(archive, **arrays)
    with pytest.raises(DataError, match=says) as caught:
        open_archive(archive, PARAMS)
    assert "\n" not in str(caught.value) and "my_" in str(caught.value)


def test_a_group_in_place_of_the_array_is_refused(archive: Path) -> None:
    replace(archive, stamps=None)
    with h5py.File(archive / "my_stamps.h5", "a") as file:
        file["stamps/row0"] = np.zeros((63, 63, 3))
    with pytest.raises(DataError, match="no array stamps"):
        open_archive(archive, PARAMS)


def test_a_csv_without_the_ids_says_what_it_has(archive: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'sourceid' of row ids in .*my_meta\.csv \(has jd, rcid, .*ids_key"):
        open_archive(archive, ArchiveParams(columns={"candidate_id": "sourceid"}))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", 'candid\n"never closed', "candid\n\x00\xff"])
def test_a_csv_that_does_not_fit_is_refused(archive: Path, text: str) -> None:
    (archive / "my_meta.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"my_meta\.csv"):
        open_archive(archive, PARAMS)


def test_files_that_are_absent_or_many_are_named_with_their_parameter(archive: Path) -> None:
    (archive / "my_meta.csv").unlink()
    with pytest.raises(DataError, match=r"0 files match '\*_meta\.csv'.*table_file"):
        open_archive(archive, PARAMS)
    (archive / "more_stamps.h5").write_bytes(b"")
    with pytest.raises(DataError, match="2 files match"):
        open_archive(archive, PARAMS)
    with pytest.raises(DataError, match=r"no .*absent"):
        open_stamps(archive / "absent", PARAMS)


def test_a_truncated_hdf5_is_refused(archive: Path) -> None:
    path = archive / "my_stamps.h5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read as a stamp archive"):
        open_archive(path, PARAMS)


def test_ids_are_one_column(archive: Path) -> None:
    params = ArchiveParams(columns={"candidate_id": ["jd", "rcid"]})
    with pytest.raises(DataError, match=r"columns\.candidate_id"):
        open_archive(archive, params)


def test_the_middle_is_kept(archive: Path) -> None:
    params = ArchiveParams(size=25, background="none")
    source = open_archive(archive, params)
    with h5py.File(archive / "my_stamps.h5") as file:
        raw = file["stamps"][:, 19:44, 19:44]
    np.testing.assert_array_equal(next(source.batches())[0], raw)
    assert source.size == 25
    for size, says in ((26, "smaller odd number"), (65, "have 63 pixels")):
        with pytest.raises(DataError, match=says):
            open_archive(archive, ArchiveParams(size=size))


def test_the_real_archive_opens_as_described() -> None:
    source = open_archive(real_data("ztf"), PARAMS)
    assert (len(source), source.size, source.table["objectId"].nunique()) == (1412, 63, 1269)
    stamps, missing = next(source.batches(32))
    assert np.isfinite(stamps).all() and missing.max() <= 1


def test_an_archive_of_one_group_for_each_row_is_refused() -> None:
    with pytest.raises(DataError, match="no array stamps among"):
        open_archive(real_data("other_surveys") / "other_stamps.h5", PARAMS)
