"""Ids are text or whole numbers, exactly, wherever they enter; an annotator's label reaches the row that was seen."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from gotorb import clean_data
from gotorb.core.params import ArchiveParams
from gotorb.dataset.split import link_groups
from gotorb.dataset.store import read_table, write_dataset
from gotorb.errors import DataError
from gotorb.eyeball.decisions import list_labels
from gotorb.import_data import import_stamps
from gotorb.labels.marshall import find_relabelled, read_labels
from gotorb.survey.ids import find_bad_id

BIG = 1151532211015015006


def make_rows(**columns: Any) -> pd.DataFrame:
    """Four detections; the two of each image have the same running numbers."""
    table = pd.DataFrame(
        {
            "id": ["a5", "a6", "b5", "b6"],
            "image_id": ["a", "a", "b", "b"],
            "candidate_id": ["5", "6", "5", "6"],
            "label": 0,
            "metalabel": "randjunk",
        }
    )
    return table.assign(**columns)


def write_csv(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "id_", [f"{BIG}.0", "1.151532211015015e+18", "1.151532211015015E18", "12.0", "1e5", "", " ", "nan", "None"]
)
def test_ids_of_a_csv_that_were_floats_or_are_blank_are_refused_with_the_row(tmp_path: Path, id_: str) -> None:
    path = write_csv(tmp_path, f"photometry_id,label\n{id_},1\n")
    with pytest.raises(DataError, match="in row 1"):
        find_relabelled(make_rows(), path)


@pytest.mark.parametrize("ids", [[str(BIG), str(BIG + 1), "7", "8"], ["ZTF18a", "x y", "007", "7"]])
def test_ids_of_a_csv_are_matched_exactly(tmp_path: Path, ids: list[str]) -> None:
    path = write_csv(tmp_path, f"photometry_id,label\n{ids[0]},1\n {ids[3]} ,1\n")
    rows, labels = find_relabelled(make_rows(candidate_id=ids), path)
    assert (rows.tolist(), labels.tolist()) == ([0, 3], [1, 1])


def test_an_id_that_is_in_several_images_needs_the_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"id 5 .* in 2 images .* image_id"):
        find_relabelled(make_rows(), write_csv(tmp_path, "photometry_id,label\n5,1\n"))
    rows, _ = find_relabelled(make_rows(), write_csv(tmp_path, "photometry_id,image_id,label\n5,b,1\n6,a,1\n"))
    assert rows.tolist() == [1, 2]


def test_both_labels_of_one_candidate_are_refused_and_of_two_images_are_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="id 5 has both labels"):
        find_relabelled(make_rows(), write_csv(tmp_path, "photometry_id,image_id,label\n5,a,1\n5,a,0\n"))
    rows, _ = find_relabelled(make_rows(), write_csv(tmp_path, "photometry_id,image_id,label\n5,a,1\n5,b,0\n"))
    assert rows.tolist() == [0]


def test_ids_of_the_database_are_whole_numbers(tmp_path: Path) -> None:
    assert read_labels(write_csv(tmp_path, f"photometry_id,label\n{BIG},1\n3,0\n")).to_dict() == {3: 0, BIG: 1}
    with pytest.raises(DataError, match=r"id 'ZTF18a' .* is no candidate id"):
        read_labels(write_csv(tmp_path, "photometry_id,label\nZTF18a,1\n"))


@pytest.mark.parametrize("seen", ["a5", "b6"])
def test_a_decision_on_the_page_reaches_the_row_that_was_looked_at(tmp_path: Path, seen: str) -> None:
    stamps = np.random.default_rng(0).normal(0, 1, (4, 5, 5, 6)).astype(np.float32)
    data = write_dataset(tmp_path / "data", make_rows(), [stamps])
    made = {"labeller": "ann", "id": seen, "label": "real", "blind": 0, "sequence": "", "model": "", "number": 1}
    list_labels(data, pd.DataFrame([made])).to_csv(tmp_path / "l.csv", index=False)
    new = read_table(clean_data.relabel(tmp_path / "l.csv", data, name="new"))
    assert new["id"][new["label"] == 1].tolist() == [seen]


def write_archive(folder: Path, ids: Any, **columns: Any) -> Path:
    """An archive of six stamps."""
    folder.mkdir()
    table = pd.DataFrame(
        {"candid": ids, "objectId": [f"o{i}" for i in range(6)], "night": "n", "proxy_label": [0, 1] * 3}
    )
    table.assign(**columns).to_csv(folder / "a_meta.csv", index=False)
    with h5py.File(folder / "a_stamps.h5", "w") as file:
        file["stamps"] = np.random.default_rng(0).normal(0, 1, (6, 15, 15, 3)).astype(np.float32)
        file["candid"] = np.asarray(ids, dtype=object) if isinstance(ids[0], str) else ids
    return folder


PARAMS = ArchiveParams(
    columns={"candidate_id": "candid", "object_id": "objectId", "image_id": ["night", "candid"]}, labels="proxy"
)


@pytest.mark.parametrize("ids", [[BIG + i for i in range(6)], ["x1", "x2", "007", "7", "a b", "ZTF1"]])
def test_ids_of_an_archive_are_kept_exactly(tmp_path: Path, ids: Any) -> None:
    made = import_stamps(write_archive(tmp_path / "a", ids), PARAMS, out_dir=tmp_path, name="d")
    assert read_table(made)["candidate_id"].tolist() == [str(one) for one in ids]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([BIG, BIG + 1, BIG, 4, 5, 6], rf"duplicate id {BIG} in row 3"),
        (["a", "b", "c", "d", "e", "a"], "duplicate id a in row 6"),
        ([float(BIG), 2.0, 3.0, 4.0, 5.0, 6.0], "float64"),
        (["1.0", "2.0", "3.0", "4.0", "5.0", "6.0"], "id 1.0 in row 1"),
    ],
)
def test_duplicate_and_rounded_ids_of_an_archive_are_refused(tmp_path: Path, ids: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        import_stamps(write_archive(tmp_path / "a", ids), PARAMS, out_dir=tmp_path, name="d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("blank", [None, "", " ", "nan", "None", "null", "NaN"])
def test_rows_without_an_object_form_no_group(tmp_path: Path, blank: Any) -> None:
    objects = [blank, "o1", blank, "o1", blank, "o2"]
    made = import_stamps(
        write_archive(tmp_path / "a", list(range(6)), objectId=objects), PARAMS, out_dir=tmp_path, name="d"
    )
    table = read_table(made)
    assert table["object_id"].tolist() == ["", "o1", "", "o1", "", "o2"]
    assert link_groups(table).tolist() == [0, 1, 2, 1, 3, 4]


@pytest.mark.parametrize("name", ["image_id", "object_id", "host_id"])
def test_what_programs_write_for_nothing_links_no_rows(name: str) -> None:
    rows = pd.DataFrame({name: ["nan", "nan", "None", "", "Nancy", "Nancy"]})
    assert link_groups(rows).tolist() == [0, 1, 2, 3, 4, 4]


@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"], ["1e5", "x"], ["7", "007"], []])
def test_sound_ids_have_no_fault(ids: list[Any]) -> None:
    assert find_bad_id(pd.Series(ids, dtype=object)) == ""
