"""The gate on planted results: which slices there are, and what counts as worse."""

import numpy as np
import pandas as pd
import pytest

from gotorb.evaluation.promotion_checks import (
    Limits,
    check_auc,
    check_calibration,
    check_parity,
    check_robustness,
    check_slices,
    declared_slices,
    measure_neighbours,
    noticeable_loss,
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
        "all rows": N,
        "faint (S/N 5 to 10)": 100,
        "nuclear (within 1.5 arcsec)": 80,
        "telescope 3": 200,
        "telescope 4": 200,
        "metalabel marshall": 10,
        "metalabel mp": int((rows["metalabel"] == "mp").sum()),
        "metalabel randjunk": int((rows["metalabel"] == "randjunk").sum()),
    }
    assert declared_slices(rows[["ut"]].replace(3, "")).keys() == {"all rows", "telescope 4"}
    more = rows.assign(neighbour_ratio=np.arange(N) / 10, missing_fraction=np.where(np.arange(N) < 25, 0.1, 0.0))
    found = {name: int(inside.sum()) for name, inside in declared_slices(more).items() if name not in counts}
    assert found == {"bright neighbour (30 times the source)": 99, "edge (pixels missing)": 25}


def test_neighbours_are_measured_in_units_of_the_source() -> None:
    stamps = np.zeros((2, 25, 25, 2))
    stamps[:, 12, 12, 1], stamps[0, 0, 0, 1], stamps[1, 12, 16, 1] = 10.0, 400.0, 400.0
    stamps[..., 0] = 1e6
    assert measure_neighbours(stamps, ["template", "science"]).tolist() == [40.0, 0.0]


@pytest.mark.parametrize(("n", "n_alone"), [(300, 0), (300, 12), (60, 3)])
def test_power_is_what_simulated_losses_show(n: int, n_alone: int) -> None:
    """A true loss of the size that is told is noticed in 80 % of simulated comparisons."""
    from scipy.stats import binomtest

    loss, each, rng = noticeable_loss(n, n_alone, 0.01), n_alone / n / 2, np.random.default_rng(1)
    assert loss is not None
    draws = rng.multinomial(n, [each + loss, each, 1 - 2 * each - loss], 1000)
    noticed = [
        binomtest(int(new), int(new + old), alternative="greater").pvalue <= 0.01 for new, old, _ in draws if new + old
    ]
    assert 0.76 <= sum(noticed) / 1000 <= 0.88


def test_nothing_can_be_noticed_on_a_handful_of_rows() -> None:
    assert noticeable_loss(5, 0, 0.01) is None


def test_robustness_fails_where_more_calls_change_than_the_holders() -> None:
    def found(changed: int) -> dict[str, dict[str, int]]:
        return {kind: {"n": 200, "changed": changed if kind == "real" else 3} for kind in ("real", "bogus")}

    worse, equal = check_robustness(found(40), found(3), Limits())
    assert not worse.passed and equal.passed and "40 of 200 clear real calls" in worse.text
    assert all(check.passed for check in check_robustness(found(5), found(3), Limits()))
    assert all(check.passed for check in check_robustness(found(3), found(40), Limits()))


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
    assert bad.numbers["noticeable_loss"] < 0.2 and "with 80 %" in bad.text
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
    worse = check_auc(labels, bad, good)
    assert not worse.passed and 0.01 < worse.numbers["noticeable_loss"] < 0.1
    assert check_auc(labels, good, bad).passed
    assert check_auc(labels, good, good).passed


def test_calibrated_scores_of_few_rows_pass_nine_times_in_ten_and_overconfident_ones_fail() -> None:
    """A fixed bound of 0.05 refuses most perfectly calibrated broad scores of 200 rows."""
    rng, limits, passed, by_fixed, caught = np.random.default_rng(2), Limits(), 0, 0, 0
    for _ in range(40):
        probability = rng.uniform(0, 1, 200)
        labels = (rng.random(200) < probability).astype(int)
        check = check_calibration(labels, probability, limits)
        passed, by_fixed = passed + check.passed, by_fixed + (check.numbers["ece"] <= 0.05)
        sure = 1 / (1 + (1 / probability - 1) ** 3)
        caught += not check_calibration(labels, sure, limits).passed
    assert passed >= 37 and by_fixed <= 25 and caught >= 37


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
