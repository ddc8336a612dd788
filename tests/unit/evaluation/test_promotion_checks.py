"""The gate on planted results: which slices there are, and what counts as worse."""

import numpy as np
import pandas as pd
import pytest

from gotorb.evaluation.promotion_checks import (
    Limits,
    check_auc,
    check_calibration,
    check_parity,
    check_slices,
    declared_slices,
)

N = 400


@pytest.fixture
def rows() -> pd.DataFrame:
    numbers = np.arange(N)
    return pd.DataFrame(
        {
            "snr": np.where(numbers % 4 == 0, 5.0, 20.0),
            "host_offset_arcsec": np.where(numbers % 5 == 0, 1.0, np.nan),
            "ut": np.where(numbers % 2 == 0, 3, 4),
            "metalabel": np.where(numbers < 10, "marshall", np.where(numbers % 3 == 0, "mp", "randjunk")),
        }
    )


def failed(rows: pd.DataFrame, wrong: np.ndarray, before: np.ndarray, **limits: float) -> list[str]:
    checks = list(check_slices(rows, wrong, before, Limits(**limits)))
    return [check.name for check in checks if not check.passed]


def test_slices_are_faint_nuclear_each_telescope_and_each_metalabel(rows: pd.DataFrame) -> None:
    counts = {name: int(inside.sum()) for name, inside in declared_slices(rows).items()}
    assert counts == {
        "faint (S/N 5 to 10)": 100,
        "nuclear (within 1.5 arcsec)": 80,
        "telescope 3": 200,
        "telescope 4": 200,
        "metalabel marshall": 10,
        "metalabel mp": int((rows["metalabel"] == "mp").sum()),
        "metalabel randjunk": int((rows["metalabel"] == "randjunk").sum()),
    }
    assert declared_slices(rows[["ut"]].replace(3, "")).keys() == {"telescope 4"}


@pytest.mark.parametrize(
    ("column", "value", "name"), [("ut", 4, "telescope 4"), ("metalabel", "mp", "metalabel mp"), ("snr", 5.0, "faint")]
)
def test_only_the_planted_slice_fails_and_tells_its_numbers(
    rows: pd.DataFrame, column: str, value: object, name: str
) -> None:
    """Errors move from the rest of the rows into one slice: as a whole the model is not worse."""
    inside = (rows[column] == value).to_numpy()
    wrong, before = np.zeros(N, bool), np.zeros(N, bool)
    wrong[np.flatnonzero(inside)[:12]] = True
    before[np.flatnonzero(~inside)[:12]] = True
    (bad,) = (check for check in check_slices(rows, wrong, before, Limits()) if not check.passed)
    assert bad.name.startswith(name)
    assert bad.numbers["wrong"] >= 12 and f"{bad.numbers['wrong']} of {inside.sum()} wrong" in bad.text
    assert bad.numbers["p"] < 0.01


def test_equal_and_better_models_pass(rows: pd.DataFrame) -> None:
    before = np.arange(N) % 10 == 0
    assert failed(rows, before, before) == []
    assert failed(rows, np.zeros(N, bool), before) == []


def test_bad_luck_passes_and_alpha_decides(rows: pd.DataFrame) -> None:
    """Five new errors and none less in a slice: p = 1/32."""
    wrong, before = np.zeros(N, bool), np.zeros(N, bool)
    wrong[np.flatnonzero(rows["ut"] == 4)[:5]] = True
    assert failed(rows, wrong, before) == []
    assert "telescope 4" in failed(rows, wrong, before, alpha=1 / 32)


def test_small_slices_are_told_but_decide_nothing(rows: pd.DataFrame) -> None:
    wrong = np.arange(N) < 10
    before = np.zeros(N, bool)
    assert "metalabel marshall" not in failed(rows, wrong, before)
    assert "metalabel marshall" in failed(rows, wrong, before, min_rows=10)


def test_auc_fails_only_where_the_whole_interval_is_below() -> None:
    labels, rng = np.arange(N) % 2, np.random.default_rng(1)
    good, bad = labels + rng.normal(0, 0.3, N), labels + rng.normal(0, 3, N)
    assert not check_auc(labels, bad, good, n_bootstrap=50, rng=rng).passed
    assert check_auc(labels, good, bad, n_bootstrap=50, rng=rng).passed
    assert check_auc(labels, good, good, n_bootstrap=50, rng=rng).passed


def test_calibration_has_a_bound() -> None:
    labels = np.arange(N) % 2
    half = np.full(N, 0.5)
    assert check_calibration(labels, half, Limits(max_ece=0.05)).passed
    check = check_calibration(labels, np.full(N, 0.9), Limits(max_ece=0.05))
    assert not check.passed and check.numbers["ece"] == pytest.approx(0.4)


@pytest.mark.parametrize(("offset", "passed"), [(0.0, True), (5e-7, True), (2e-6, False), (np.nan, False)])
def test_parity_is_to_a_millionth(offset: float, passed: bool) -> None:
    scores = np.linspace(0, 1, 10)
    assert check_parity(scores + offset, scores).passed is passed
