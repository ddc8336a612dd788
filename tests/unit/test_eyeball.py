"""From decisions to a new version of the data set."""

import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import eyeball
from gotorb.core import layout
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.store import open_dataset, read_table
from gotorb.dataset.versions import compare_datasets
from gotorb.errors import ConfigError, DataError
from gotorb.eyeball.decisions import Event, Journal
from tests.unit.apps.small import make_small, write_answers
from tests.unit.cli.conftest import gotorb, project  # noqa: F401


@pytest.fixture
def decided(tmp_path: Path) -> Path:
    """Ten rows, labels 0 and 1 in turn; ann and bob have looked at some."""
    data_dir = make_small(tmp_path / "data", n=10)
    votes = {
        "ann": {0: "real", 1: "real", 2: "real", 3: "bogus", 4: "unsure", 5: "flag", 6: "real"},
        "bob": {0: "real", 2: "bogus", 3: "bogus", 5: "real"},
    }
    journal = Journal(data_dir / layout.EYEBALL_DB)
    for who, kinds in votes.items():
        journal.append(
            [Event(uuid=str(uuid.uuid4()), labeller=who, id=f"row-{row:04d}", kind=kind) for row, kind in kinds.items()]
        )
    journal.append([Event(uuid=str(uuid.uuid4()), labeller="ann", id="row-of-another-set", kind="real")])
    return data_dir


def test_export_is_a_new_version_in_which_people_win(decided: Path, tmp_path: Path) -> None:
    before = read_table(decided)
    new_dir = eyeball.export(decided, name="new")
    after = read_table(new_dir)
    assert np.flatnonzero((after["label"] != before["label"]).to_numpy()).tolist() == [0, 3, 6]
    assert after["metalabel"][[0, 3, 6]].tolist() == ["marshall"] * 3
    assert after["rule"][[0, 6]].tolist() == ["eyeball: ann, bob", "eyeball: ann"]
    changes = pd.read_csv(new_dir / layout.CHANGES_CSV)
    assert changes["id"].tolist() == ["row-0000", "row-0003", "row-0006"]
    pd.testing.assert_frame_equal(read_table(decided), before)
    votes = pd.read_csv(new_dir / layout.EYEBALL_CSV)
    assert len(votes) == 11 and set(votes["labeller"]) == {"ann", "bob"}
    assert compare_datasets(decided, new_dir).n_same == 7
    assert not [line for line in verify_dataset(new_dir) if "bytes" in line or "disagree" in line]


def test_flagged_and_unsure_rows_can_go(decided: Path) -> None:
    new_dir = eyeball.export(decided, name="new", flagged="remove", unsure="remove")
    gone = set(read_table(decided)["id"]) - set(read_table(new_dir)["id"])
    assert gone == {"row-0004", "row-0005"}
    assert len(open_dataset(new_dir)) == 8
    with pytest.raises(ConfigError, match="unknown action"):
        eyeball.export(decided, name="other", flagged="eat")


def test_export_writes_the_same_bytes_again(decided: Path) -> None:
    one, two = (eyeball.export(decided, name=name) for name in ("one", "two"))
    for name in (layout.LABELS_CSV, layout.STAMPS_H5, layout.CHANGES_CSV, layout.EYEBALL_CSV, layout.CARD_JSON):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_labels_of_candidates_are_what_add_marshall_cands_reads(decided: Path, tmp_path: Path) -> None:
    from gotorb.labels.marshall import read_labels

    assert eyeball.write_labels(decided, tmp_path / "labels.csv") == 4
    assert read_labels(tmp_path / "labels.csv").to_dict() == {9000: 1, 9001: 1, 9003: 0, 9006: 1}


def test_nothing_decided_is_one_line(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data", n=4)
    with pytest.raises(DataError, match=layout.EYEBALL_DB):
        eyeball.export(data_dir)
    Journal(data_dir / layout.EYEBALL_DB)
    with pytest.raises(DataError, match="no decision on any row"):
        eyeball.export(data_dir, name="new")


def test_predictions_are_joined_by_id(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data", n=4)
    (data_dir / "model_x").mkdir()
    path = data_dir / "model_x" / layout.PREDICTIONS_CSV
    pd.DataFrame({"id": ["row-0002", "row-0000"], "score": [0.9, 0.1], "mean": [0.8, 0.2]}).to_csv(path, index=False)
    rows = eyeball.open_rows(data_dir)
    assert rows.opinions.name == "model_x"
    assert rows.table["score"].fillna(-1).tolist() == [0.2, -1, 0.8, -1]
    pd.DataFrame({"id": ["other"], "score": [0.9]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="knows none of the 4 rows"):
        eyeball.open_rows(data_dir, predictions=path)


def test_explorer_as_one_file_asks_no_network(tmp_path: Path) -> None:
    data_dir = make_small(tmp_path / "data", n=30)
    model = write_answers(data_dir, open_dataset(data_dir).labels, np.random.default_rng(5))
    path = eyeball.explore(data_dir, str(model), tmp_path / "explorer.html", most_stamps=10)
    page = path.read_text()
    assert "http://" not in page and "https://" not in page and "/static/" not in page
    assert "default-src &#x27;none&#x27;" in page and "connect-src &#x27;none&#x27;" in page
    again = eyeball.explore(data_dir, str(model), tmp_path / "again.html", most_stamps=10)
    assert again.read_bytes() == path.read_bytes()


def test_command_exports_and_tells_agreement(decided: Path, gotorb) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    said = gotorb("eyeball", "export", str(decided), "--name", "new")
    assert (said.code, said.out.strip()) == (0, str(decided.parent / "new"))
    assert "7 rows are the same" in said.err
    assert "ann" in gotorb("eyeball", "agreement", str(decided)).out
    assert gotorb("eyeball", "eat", str(decided)).code == 2
    assert "is not possible" in gotorb("eyeball", str(decided), "--order", "bald").err
