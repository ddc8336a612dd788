"""Objects of the Transient Name Server, read, matched with scored detections, and counted."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.errors import DataError
from gotorb.evaluation.truth import match_tns, read_tns, tns_completeness, write_tns

HEADER = '"objid","name_prefix","name","ra","declination","redshift","type","discoverydate","discoverymag"'
ROWS = [
    '"1","SN","2026abc","359.99999","-12.5","0.01","SN Ia","2026-02-01 06:00:00.000","18.3"',
    '"2","AT","2026xyz","10.25","4.5","","","2026-02-03","20.1"',
]


def write_csv(path: Path, *rows: str, dated: bool = True) -> Path:
    text = "\n".join(['"2026-03-01 00:00:00"'] * dated + [HEADER, *rows])
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("tns_public_objects.csv", text)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "dated"), [("tns.csv", True), ("tns.csv", False), ("tns.csv.zip", True)])
def test_public_csv_is_read(tmp_path: Path, name: str, dated: bool) -> None:
    objects = read_tns(write_csv(tmp_path / name, *ROWS, dated=dated))
    assert objects["name"].tolist() == ["2026abc", "2026xyz"]
    assert objects["type"].tolist() == ["SN Ia", ""]
    assert objects["jd"].tolist() == [2461072.75, 2461074.5]
    assert objects["mag"].tolist() == [18.3, 20.1]


@pytest.mark.parametrize(
    ("row", "word"), [('"3","AT","2026bad","","4.5","","","2026-02-03","20"', "2026bad"), (None, "declination")]
)
def test_other_files_are_refused(tmp_path: Path, row: str | None, word: str) -> None:
    path = tmp_path / "tns.csv"
    if row is None:
        path.write_text("name,ra\n2026abc,10\n2026abd,11\n")
    else:
        write_csv(path, *ROWS, row)
    with pytest.raises(DataError, match=word):
        read_tns(path)


def test_objects_are_matched_over_the_seam_and_only_within_the_radius(tmp_path: Path) -> None:
    objects = read_tns(write_csv(tmp_path / "tns.csv", *ROWS))
    near, far = 0.00001, 10.25 + 3 / 3600
    detections = pd.DataFrame(
        {"ra": [near, 359.99999, far], "dec": [-12.5, -12.5, 4.5], "jd": [7.0, 5.0, 5.0], "score": [0.9, 0.3, 1.0]}
    )
    (found,) = match_tns(objects, detections, threshold=0.5).itertuples()
    assert (found.name, found.n_detections, found.n_real, found.delay_days) == ("2026abc", 2, 1, 2.0)
    (missed,) = match_tns(objects, detections, threshold=0.95).itertuples()
    assert not missed.found and np.isnan(missed.delay_days) and missed.best_score == 0.9
    assert len(match_tns(objects, detections.head(0), threshold=0.5)) == 0


def test_completeness_has_counts_and_intervals() -> None:
    matched = pd.DataFrame({"mag": [18.1, 18.2, 18.7, np.nan, 20.0], "found": [True, True, False, True, False]})
    table = tns_completeness(matched, width_mag=0.5)
    assert table[["low_mag", "n", "n_found"]].to_numpy().tolist() == [[18.0, 2, 2], [18.5, 1, 0], [20.0, 1, 0]]
    assert (table["low"] <= table["fraction"]).all() and (table["fraction"] <= table["high"]).all()


def test_supernovae_of_a_survey_find_their_own_detections(tmp_path: Path) -> None:
    truth = {"candidate_id": [1, 2, 3, 4], "image_id": [10, 11, 11, 11], "true_mag": [18.0, 18.5, 20.0, 17.0]}
    truth |= {"kind": ["supernova", "supernova", "supernova", "asteroid"], "name": ["sn1", "sn1", "sn2", "Ceres"]}
    candidates = pd.DataFrame(
        {"id": [1, 2, 3, 4], "image_id": [10, 11, 11, 11], "ra": [5.0, 5.0, 6.0, 7.0], "dec": 1.0}
    )
    images = pd.DataFrame({"id": [10, 11], "jd": [2461000.25, 2461003.5]})
    for name, table in ((layout.TRUTH_CSV, pd.DataFrame(truth)), (layout.CANDIDATES_CSV, candidates),
                        (layout.IMAGES_CSV, images)):  # fmt: skip
        table.to_csv(tmp_path / name, index=False)
    assert write_tns(tmp_path, tmp_path / "tns.csv") == 2
    objects = read_tns(tmp_path / "tns.csv")
    assert objects[["name", "mag"]].to_numpy().tolist() == [["sn1", 18.0], ["sn2", 20.0]]
    detections = candidates.assign(
        jd=candidates["image_id"].map(images.set_index("id")["jd"]), score=[0.1, 0.9, 0.9, 0.9]
    )
    matched = match_tns(objects, detections, threshold=0.5)
    assert np.allclose(matched["first_jd"], objects["jd"], atol=1e-5)
    assert matched["delay_days"].tolist() == [3.25, 0.0]
