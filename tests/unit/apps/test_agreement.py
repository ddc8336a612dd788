"""Kappa against scikit-learn, its interval against resampling."""

import numpy as np
import pandas as pd
import pytest

from gotorb.eyeball.decisions import DATA_SET, cohen_kappa, compare_labellers


def test_kappa_is_scikit_learns_and_its_interval_that_of_resampling() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(1)
    first, second = np.array([1, 1, 0, 0] * 100), np.array([1, 0, 0, 0] * 100)  # the second labeller is stricter
    kappa, low, high = cohen_kappa(first, second)
    assert kappa == pytest.approx(cohen_kappa_score(first, second))
    picks = rng.integers(0, 400, (400, 400))
    spread = np.std([cohen_kappa_score(first[pick], second[pick]) for pick in picks])
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.08)


def test_kappa_of_labellers_who_say_only_one_thing_is_not_defined() -> None:
    assert np.isnan(cohen_kappa(np.ones(5), np.ones(5))).all()
    assert np.isnan(cohen_kappa(np.array([]), np.array([]))).all()


def test_only_rows_that_both_decided_count() -> None:
    current = pd.DataFrame(
        [
            ("ann", "a", "real"),
            ("ann", "b", "bogus"),
            ("ann", "c", "unsure"),
            ("bob", "a", "real"),
            ("bob", "c", "real"),
        ],
        columns=["labeller", "id", "label"],
    )
    found = compare_labellers(current, pd.Series({"a": 1, "b": 1, "c": -1})).set_index(["first", "second"])
    assert found.loc[("ann", "bob"), "n"] == 1
    assert found.loc[("ann", DATA_SET), ["n", "percent"]].tolist() == [2, 50.0]
    assert found.loc[("bob", DATA_SET), "n"] == 1
