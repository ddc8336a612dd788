"""Wrong calls of two models on the same rows."""

import numpy as np
import pandas as pd

from gotorb.evaluation.comparison import compare_calls, mcnemar

ROWS = pd.DataFrame({"label": [1] * 20 + [0] * 20, "metalabel": ["mp"] * 20 + ["randjunk"] * 20, "ut": ["1", "2"] * 20})


def test_one_sided_errors_are_significant_only_where_they_are() -> None:
    wrong = np.zeros(40, bool)
    wrong[:10] = True  # ten minor planets that the other finds
    table = compare_calls(ROWS, wrong, np.zeros(40, bool)).set_index("group")
    assert table.loc["metalabel mp", ["n", "wrong", "wrong_other", "only_one", "only_other"]].tolist() == [
        20,
        10,
        0,
        10,
        0,
    ]
    assert table.loc["metalabel mp", "p_value"] < 0.01
    assert table.loc["bogus", "p_value"] == 1
    assert table.loc["ut 1", "only_one"] == 5
    assert table.loc["all", "n"] == 40


def test_equal_numbers_of_errors_on_other_rows_do_not_differ() -> None:
    a, b = np.zeros(40, bool), np.zeros(40, bool)
    a[:5], b[5:10] = True, True
    row = compare_calls(ROWS, a, b).set_index("group").loc["all"]
    assert (row["only_one"], row["only_other"], row["p_value"]) == (5, 5, 1)


def test_exact_test_has_the_binomials_value() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 10) == 2 / 2**10
    assert mcnemar(3, 9) == mcnemar(9, 3)
