"""Candidates of the survey's database as a data set to be looked at."""

import pandas as pd
import pytest

from gotorb import eyeball
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.errors import DataError


def test_candidates_come_without_labels_and_with_their_stamps(served, labelled, tiny_survey, tmp_path):
    every = pd.read_csv(tiny_survey / layout.CANDIDATES_CSV)
    known = open_dataset(labelled).table.iloc[0]
    ids = [*every["id"].iloc[[3, 9]], int(known["candidate_id"]), 99]
    data = open_dataset(eyeball.get_candidate_data(ids, out_dir=tmp_path, name="tonight"))
    assert set(data.table["candidate_id"]) == {str(id_) for id_ in ids[:3]}
    assert (data.labels == layout.UNKNOWN).all() and (data.table["metalabel"] == "").all()
    row = data.table.index[data.table["candidate_id"] == known["candidate_id"]][0]
    old = open_dataset(labelled).read_stamps([0])
    assert (data.read_stamps([row]) == old).all()
    assert "99" in (tmp_path / "tonight" / "tonight.log").read_text()
    assert len(eyeball.open_rows(tmp_path / "tonight").table) == 3


def test_unknown_candidates_are_one_line(served, tmp_path):
    with pytest.raises(DataError, match="none of 2 ids is a candidate"):
        eyeball.get_candidate_data([98, 99], out_dir=tmp_path, name="none")
