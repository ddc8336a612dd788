"""Labels of ready-made stamps follow the rules and columns that params.yaml names, and say which rule it was."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb.core import layout
from gotorb.core.params import ArchiveParams
from gotorb.errors import DataError
from gotorb.labels.archive import label_archive
from gotorb.survey.archives import open_stamps
from pipelines.repro import SOURCES_YAML, merge
from tests.unit.survey.packets import asteroid, rubin_record, wire
from tests.unit.survey.synthetic import make_table, real_data

PROJECT = Path(__file__).parents[3]
PARAMS = ArchiveParams(
    columns={
        "candidate_id": "candid",
        "image_id": ["jd", "rcid"],
        "object_id": "objectId",
        "mag": "magpsf",
        "ra": "ra",
    },
    asteroid_columns={"distance": "ssdistnr", "mag": "ssmagnr", "name": "ssnamenr"},
    catalogued_column="proxy_catalog",
    old_score_column="drb_used",
    peer_columns=("peer",),
)
PROXY = PARAMS.model_copy(update={"labels": "proxy"})


def params_of(source: str) -> ArchiveParams:
    """Section label.archive as `make repro SOURCE=source` has it."""
    import yaml

    known = yaml.safe_load(SOURCES_YAML.read_text())
    tree = merge(yaml.safe_load((PROJECT / layout.PARAMS_YAML).read_text()), known[source]["params"])
    return ArchiveParams.model_validate(tree["label"]["archive"])


@pytest.mark.parametrize("params", [PARAMS, PROXY])
def test_asteroids_are_real_and_low_scores_bogus(params: ArchiveParams) -> None:
    rows = label_archive(make_table(9), params)
    assert rows["label"].tolist() == [1, 0, -1] * 3
    assert rows["metalabel"].iloc[0] == "mp" and rows["metalabel"].iloc[2] == "unlabelled"
    assert (rows["rule"] != "").tolist() == [True, True, False] * 3
    assert rows["number"].tolist()[:3] == ["0", "", ""]
    assert list(rows)[: len(layout.LABEL_COLUMNS)] == list(layout.LABEL_COLUMNS) and "peer_peer" in rows


def test_the_same_asteroid_on_two_nights_is_one_object() -> None:
    rows = label_archive(make_table(4).assign(ssnamenr="433"), PARAMS)
    assert rows["object_id"].tolist() == ["mp:433", "ZTF001", "ZTF002", "mp:433"]
    assert rows["image_id"].nunique() == 4


def test_an_asteroid_without_a_name_is_still_one() -> None:
    rows = label_archive(make_table(3).assign(ssnamenr=None), PARAMS)
    assert (rows["label"].iloc[0], rows["number"].iloc[0]) == (1, "unnamed")


@pytest.mark.parametrize(
    ("column", "value", "label"),
    [
        ("ssdistnr", 2.0, 1),
        ("ssdistnr", 2.01, -1),
        ("ssdistnr", -999.0, -1),
        ("ssmagnr", 20.4, 1),
        ("ssmagnr", 20.6, -1),
        ("ssmagnr", -999.0, -1),
        ("magpsf", np.nan, -1),
    ],
)
def test_an_asteroid_is_near_and_as_bright_as_expected(column: str, value: float, label: int) -> None:
    table = make_table(1).assign(**{column: value})
    assert label_archive(table, PARAMS)["label"].tolist() == [label]


@pytest.mark.parametrize(("score", "label"), [(0.29, 0), (0.3, -1), (np.nan, -1), ("no score", -1)])
def test_bogus_is_below_the_limit(score: object, label: int) -> None:
    table = make_table(2).iloc[1:].assign(drb_used=score)
    assert label_archive(table, PARAMS)["label"].tolist() == [label]


def test_known_objects_are_never_bogus() -> None:
    table = make_table(2).assign(drb_used=0.01, proxy_catalog=1)
    assert label_archive(table, PARAMS)["metalabel"].tolist() == ["mp", "catalogued"]


@pytest.mark.parametrize(
    "params",
    [
        PARAMS.model_copy(update={"old_score_column": "absent"}),
        PARAMS.model_copy(update={"catalogued_column": "absent"}),
        PARAMS.model_copy(update={"peer_columns": ("absent",)}),
        PARAMS.model_copy(update={"asteroid_columns": {"distance": "absent"}}),
        PARAMS.model_copy(update={"columns": {"candidate_id": "candid", "image_id": ["jd", "absent"]}}),
        PROXY.model_copy(update={"proxy_column": "absent"}),
    ],
)
def test_an_absent_column_is_named_with_its_parameter(params: ArchiveParams) -> None:
    with pytest.raises(DataError, match=r"no column 'absent' in the archive .*label\.archive\.") as caught:
        label_archive(make_table(3), params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", ["real", 2, 0.5])
def test_odd_labels_are_refused(odd: object) -> None:
    table = make_table(3).assign(proxy_label=pd.Series([1, 0, odd], dtype=object))
    with pytest.raises(DataError, match="labels are 1"):
        label_archive(table, PROXY)


def test_hostile_text_in_ids_stays_text() -> None:
    names = ['=HYPERLINK("x")', "a\nb,c", "../../x"]
    rows = label_archive(make_table(3).assign(candid=names, ssnamenr=None), PARAMS)
    assert rows["id"].tolist() == names


def test_the_real_archive_has_the_counts_of_its_description() -> None:
    params = params_of("archive")
    rows = label_archive(open_stamps(real_data("ztf"), params).table, params)
    assert rows["label"].value_counts().to_dict() == {1: 868, 0: 155, -1: 389}
    assert (rows["metalabel"] == "mp").sum() == 185


def test_real_packets_are_labelled_without_columns_that_packets_lack() -> None:
    params = params_of("packets")
    rows = label_archive(open_stamps(real_data("ztf_packets"), params).table, params)
    assert (rows["metalabel"] == "mp").sum() == 6
    assert (rows["label"] == layout.BOGUS).sum() >= 2
    assert not ((rows["label"] == layout.BOGUS) & (rows["metalabel"] == "mp")).any()


def test_unmatched_alerts_get_no_label_but_by_the_survey_score_which_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (score, planet) in enumerate([(0.9, True), (0.9, False), (0.1, False), (0.1, True)]):
        ephemeris = {"ephOffset": 0.1, "ephVmag": 23.9} if planet else {}
        record = rubin_record(alert_id=number, ssObjectId=21 if planet else None, reliability=score)
        record |= {"ssSource": asteroid("10.0", **ephemeris)} if planet else {}
        (tmp_path / f"{number}.bin").write_bytes(wire(record, "10.0"))
    params = params_of("packets")
    rows = label_archive(open_stamps(tmp_path, params).table, params)
    assert rows["metalabel"].tolist() == ["mp", "unlabelled", "lowscore", "mp"]
    assert rows["rule"].iloc[2].endswith("copies the survey's score") and "copy the survey's own score" in caplog.text
    assert rows["object_id"].tolist() == ["mp:21", "77", "77", "mp:21"] and (rows["image_id"] == "5_3").all()
    without = label_archive(open_stamps(tmp_path, params).table, params.model_copy(update={"old_score_column": None}))
    assert without["label"].tolist() == [1, -1, -1, 1]
