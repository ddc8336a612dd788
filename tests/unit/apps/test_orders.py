"""Orders and filters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import eyeball
from gotorb.errors import DataError
from gotorb.eyeball.rows import Filters, find_given, keep_rows, order_rows, usable_orders
from tests.unit.apps.small import make_small

ROWS = pd.DataFrame(
    {
        "id": list("abcde"),
        "label": [1, 0, 1, 0, -1],
        "metalabel": ["mp", "randjunk", "mp", "glxresid", ""],
        "ut": ["1", "2", "1", "2", "1"],
        "mag": [16.0, 17.0, 18.0, np.nan, 19.0],
        "score": [0.95, 0.75, 0.2, 0.1, 0.5],
        "bald": [0.1, 0.3, 0.2, np.nan, 0.0],
        "doubt": [np.nan, 0.7, 0.9, np.nan, np.nan],
    }
)
ALL = np.ones(5, bool)
NOBODY = pd.DataFrame(columns=["labeller", "id", "label"])


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("as_is", [0, 1, 2, 3, 4]),
        ("uncertain", [4, 1, 2, 3, 0]),
        ("bald", [1, 2, 0, 4, 3]),
        ("disagreement", [2, 1, 3, 0, 4]),
        ("suspects", [2, 1]),
    ],
)
def test_orders(order: str, rows: list[int]) -> None:
    assert order_rows(ROWS, order, ALL).tolist() == rows


def test_confidence_decides_what_is_uncertain_where_it_is_known() -> None:
    sure = ROWS.assign(confidence=[0.1, 0.9, 0.5, 0.7, 0.8])
    assert order_rows(sure, "uncertain", ALL).tolist() == [0, 2, 3, 4, 1]


def test_random_is_the_seeds_and_filters_do_not_change_it() -> None:
    first = order_rows(ROWS, "random", ALL, seed=1).tolist()
    assert sorted(first) == [0, 1, 2, 3, 4]
    assert first == order_rows(ROWS, "random", ALL, seed=1).tolist()
    assert any(order_rows(ROWS, "random", ALL, seed=seed).tolist() != first for seed in range(2, 9))
    kept = np.array([True, False, True, True, False])
    assert order_rows(ROWS, "random", kept, seed=1).tolist() == [row for row in first if kept[row]]


def test_orders_need_their_columns() -> None:
    usable = usable_orders(ROWS[["id", "label", "metalabel"]])
    assert [name for name, is_usable in usable.items() if is_usable] == ["as_is", "random"]
    assert all(usable_orders(ROWS).values())


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        (Filters(metalabels=("mp", "")), [0, 2, 4]),
        (Filters(telescopes=("2",)), [1, 3]),
        (Filters(min_mag=17.0, max_mag=18.0), [1, 2]),
        (Filters(rows=(4, 0, 99)), [0, 4]),
        (Filters(metalabels=("mp",), min_mag=17.0), [2]),
    ],
)
def test_filters(filters: Filters, rows: list[int]) -> None:
    assert np.flatnonzero(keep_rows(ROWS, filters, NOBODY, "ann")).tolist() == rows


@pytest.mark.parametrize(
    ("who", "rows"),
    [("mine_left", [2, 3, 4]), ("mine", [0, 1]), ("second", [2]), ("disputed", [1]), ("all", [0, 1, 2, 3, 4])],
)
def test_filters_by_what_people_decided(who: str, rows: list[int]) -> None:
    current = pd.DataFrame(
        [("ann", "a", "real"), ("ann", "b", "real"), ("bob", "b", "bogus"), ("bob", "c", "real")],
        columns=["labeller", "id", "label"],
    )
    assert np.flatnonzero(keep_rows(ROWS, Filters(who=who), current, "ann")).tolist() == rows


@pytest.mark.parametrize("text", [
    "id,score\nrow-0007,1\nrow-0003,1\nrow-0007,1\nnot-here,0\n", "x,candidate_id\n1,9007\n2,9003\n",
    "photometry_id,label\n9007,1\n9003,0\n", "row-0007\nrow-0003\n", "9007\n9003\n",
])  # fmt: skip
def test_a_file_of_ids_gives_its_rows_in_its_order(tmp_path: Path, text: str) -> None:
    data_dir, path = make_small(tmp_path / "data"), tmp_path / "ids.csv"
    path.write_text(text)
    opened = eyeball.open_rows(data_dir)
    given = find_given(path, opened.data.table)
    assert given == (7, 3)
    table = replace(opened, given=given).table
    kept = keep_rows(table, Filters(rows=given), NOBODY, "ann")
    assert order_rows(table, "as_is", kept).tolist() == [7, 3]


def test_a_file_without_known_ids_is_refused(tmp_path: Path) -> None:
    table = eyeball.open_rows(make_small(tmp_path / "data")).data.table
    for name, text in (("none.csv", "id\nx\n"), ("empty.csv", ""), ("absent.csv", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            find_given(tmp_path / name, table)
