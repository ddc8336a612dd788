"""The map of injected sources found, by hand-made finds whose fractions are known."""

import numpy as np
import pandas as pd
import pytest

from gotorb.errors import DataError
from gotorb.evaluation.injections import (
    SLICES,
    compare_recovery,
    fit_completeness,
    map_recovery,
    measure_recovery,
    plot_completeness,
    plot_recovery_difference,
    plot_recovery_map,
    slice_rows,
)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Eight sources: two cells on hosts, one without, and a source too faint to be seen."""
    return pd.DataFrame(
        {
            "mag": [17.2, 17.9, 17.5, 17.1, 19.3, 19.4, 19.8, 20.9],
            "host_offset_arcsec": [0.5, 0.7, 0.1, 0.9, 3.0, 3.5, np.nan, 0.2],
            "snr": [60.0, 50.0, 55.0, 70.0, 9.0, 8.0, 7.0, 3.0],
        }
    )


FOUND = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)


def test_cells_count_their_own_sources(rows: pd.DataFrame) -> None:
    cells = map_recovery(rows, FOUND).set_index(["mag", "offset"])
    assert cells.loc[(17.0, "0-1"), ["n", "n_found"]].tolist() == [4, 3]
    assert cells.loc[(19.0, "2-4"), "fraction"] == 0.5
    assert cells.loc[(19.0, "no host"), "n_found"] == 0
    assert cells["n"].sum() == len(rows)
    assert (cells["low"] <= cells["fraction"]).all()
    assert (cells["high"] >= cells["fraction"]).all()


def test_slices_are_of_what_a_survey_would_list(rows: pd.DataFrame) -> None:
    counts = {name: int(mask.sum()) for name, mask in slice_rows(rows).items()}
    assert counts == dict(zip(SLICES, [8, 7, 3, 4, 4, 2, 1], strict=True))


def test_empty_slice_has_no_fraction(rows: pd.DataFrame) -> None:
    slices = measure_recovery(rows[:4], FOUND[:4])["slices"]
    assert slices["faint"] == {"n": 0, "n_found": 0, "fraction": None, "low": None, "high": None}
    assert slices["nuclear"]["fraction"] == 0.75


def test_equal_finds_differ_by_nothing_and_many_one_sided_ones_differ(rows: pd.DataFrame) -> None:
    same = compare_recovery(rows, FOUND, FOUND)["all"]
    assert (same["difference"], same["p_value"]) == (0, 1)
    assert same["low"] < 0 < same["high"]
    many = pd.concat([rows] * 10, ignore_index=True)
    better = compare_recovery(many, np.ones(80, bool), np.tile(FOUND, 10))["all"]
    assert (better["only_a"], better["only_b"], better["difference"]) == (40, 0, 0.5)
    assert better["low"] > 0.3
    assert better["p_value"] < 1e-9


def test_difference_has_the_sign_of_the_first(rows: pd.DataFrame) -> None:
    worse = compare_recovery(rows, np.zeros(8, bool), FOUND)["bright"]
    assert worse["difference"] == -0.75
    assert worse["only_b"] == 3


def test_nothing_injected_is_told() -> None:
    with pytest.raises(DataError, match="no injected source"):
        map_recovery(pd.DataFrame({"mag": [], "host_offset_arcsec": []}), np.empty(0, bool))


def test_figures_show_every_filled_cell(rows: pd.DataFrame) -> None:
    figure = plot_recovery_map(rows, FOUND, title="a model")
    assert sum("n " in text.get_text() for text in figure.axes[0].texts) == len(map_recovery(rows, FOUND))
    both = plot_recovery_difference(rows, FOUND, ~FOUND, title="two models")
    assert any("+50 %" in text.get_text() or "+3 -1" in text.get_text() for text in both.axes[0].texts)


def test_half_completeness_is_found_again_in_each_bin() -> None:
    rng, mag = np.random.default_rng(2), np.arange(15.0, 22.0)
    cells = []
    for offset, m50 in (("0-1", 17.5), ("no host", 19.0)):
        n_found = rng.binomial(300, 1 / (1 + np.exp((mag + 0.5 - m50) / 0.4)))
        for m, k in zip(mag, n_found, strict=True):
            counts = {"mag": m, "offset": offset, "n": 300, "n_found": int(k)}
            cells.append(counts | {"fraction": k / 300, "low": 0.0, "high": 1.0})
    fits = fit_completeness(cells).set_index("offset")
    for offset, m50 in (("0-1", 17.5), ("no host", 19.0)):
        assert fits.loc[offset, "low"] < m50 < fits.loc[offset, "high"] and fits.loc[offset, "n"] == 2100
        assert fits.loc[offset, "high"] - fits.loc[offset, "low"] < 0.2
    figure = plot_completeness(cells, fits.reset_index(), title="a model")
    assert sum(text.get_text() == "300" for text in figure.axes[0].texts) == len(cells)
    assert "finds half of 4200 injected" in figure.axes[0].get_title()
    flat = fit_completeness([one | {"n_found": 300} for one in cells])
    assert flat["m50"].isna().all()
