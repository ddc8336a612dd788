"""Minor planets of a run, expected and found: what is worth a word, and what must not be trained on."""

from typing import Any

import numpy as np
import pytest

from gotorb.catalogues.expected import Expected, describe, find_problems, find_shift, summarise


def image(n_expected: int, n_matched: int, east: float = 0.1, north: float = 0.0) -> dict[str, Any]:
    half = (n_expected + 1) // 2
    return Expected(n_expected, n_matched, half, min(half, n_matched), east, north)._asdict()


@pytest.mark.parametrize("found", [[(37, 0)], [(10, 0), (12, 0), (15, 1)], [(5, 0)]])
def test_a_run_that_finds_none_of_the_expected_is_no_training_set(found: list[tuple[int, int]]) -> None:
    problem, _ = find_problems([image(*one) for one in found], radius_arcsec=1.0)
    n_expected, n_matched = np.sum(found, axis=0)
    assert problem.startswith(f"matched {n_matched} of {n_expected} expected minor planets")
    for cause in ("epoch", "observatory", "WCS", "catalogue"):
        assert cause in problem


@pytest.mark.parametrize("found", [[(20, 15)], [(40, 10)], [(3, 0), (10, 8)], [(1, 1), (0, 0)]])
def test_a_run_that_finds_them_has_no_problem(found: list[tuple[int, int]]) -> None:
    assert find_problems([image(*one) for one in found], radius_arcsec=1.0) == ("", [])


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([(4, 0)], "matched none of 4 expected"),
        ([(1, 0), (2, 0)], "matched none of 3 expected"),
        ([(0, 0)], "no minor planet is expected"),
    ],
)
def test_a_run_without_any_match_is_told(found: list[tuple[int, int]], told: str) -> None:
    """Too few to be sure that something is wrong, but a data set without reals trains nothing."""
    problem, warnings = find_problems([image(*one) for one in found], radius_arcsec=1.0)
    assert problem == "" and len(warnings) == 1 and told in warnings[0]


@pytest.mark.parametrize("images", [[], [{}, {}]])
def test_runs_without_counts_have_no_problem(images: list[dict[str, Any]]) -> None:
    assert find_problems(images, radius_arcsec=1.0) == ("", [])


@pytest.mark.parametrize(
    ("radius", "east", "north", "odd"),
    [
        (10.0, 7.0, 0.0, True),
        (5.0, 0.0, -3.5, True),
        (1.0, 0.6, 0.4, True),
        (1.0, 0.3, 0.2, False),
        (5.0, 1.0, 1.0, False),
    ],
)
def test_a_common_offset_within_the_match_radius_is_odd(radius: float, east: float, north: float, odd: bool) -> None:
    problem, warnings = find_problems([image(10, 9, east, north)] * 3, radius_arcsec=radius)
    assert problem == "" and bool(warnings) == odd
    if odd:
        assert f"{east:+.2f} arcsec in right ascension and {north:+.2f} in declination" in warnings[0]


def test_sums_leave_out_images_without_counts() -> None:
    total = summarise([image(10, 9, 0.2), {}, image(4, 0, np.nan, np.nan), image(6, 6, 0.4)])
    assert (total["n_expected"], total["n_matched"]) == (20, 15)
    assert total["offset_ra_arcsec"] == pytest.approx(0.3)


def test_one_image_is_told_only_when_it_should_have_shown_several() -> None:
    assert describe(Expected(8, 0, 4, 0, np.nan, np.nan), "a.fits")
    assert not describe(Expected(3, 0, 2, 0, np.nan, np.nan), "a.fits")
    assert not describe(Expected(8, 1, 4, 1, 0.0, 0.0), "a.fits")


def scatter(n: int, seed: int) -> np.ndarray:
    """Positions in a field of a degree, over the seam at RA 0."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(-0.5, 0.5, n) % 360, rng.uniform(60, 61, n)])


@pytest.mark.parametrize("n_detections", [50, 1000, 5000])
@pytest.mark.parametrize("seed", range(5))
def test_chance_makes_no_common_offset(n_detections: int, seed: int) -> None:
    assert find_shift(scatter(40, seed), scatter(n_detections, 100 + seed), n_matched=0) is None


@pytest.mark.parametrize("n_detections", [50, 1000])
@pytest.mark.parametrize(("east", "north"), [(3.0, 0.0), (-20.0, 40.0)])
def test_a_common_offset_is_found_among_many_detections(n_detections: int, east: float, north: float) -> None:
    planets = scatter(12, 1)
    ra, dec = planets.T
    shifted = np.column_stack([(ra + east / 3600 / np.cos(np.radians(dec))) % 360, dec + north / 3600])
    found = find_shift(planets, np.concatenate([scatter(n_detections, 2), shifted]), n_matched=0)
    assert found is not None
    assert found[0] >= 12 and found[1] == pytest.approx((east, north), abs=0.6)
    assert find_shift(planets, shifted, n_matched=6) is None  # as many are at their places
