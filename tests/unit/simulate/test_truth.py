"""Truth is decided by what was put in and how much of a detection it makes, and by artefact masks; never by scores."""

import numpy as np
import pandas as pd
import pytest

from gotorb.simulate import detection, orbits
from gotorb.simulate.exposure import Artefact
from gotorb.simulate.scene import Fixed, Injected

SIZE = 60


def injected(x: float, y: float, flux: float, kind: str = "asteroid") -> Injected:
    text = [np.array([value]) for value in (kind, "A1", "")]
    return Injected(np.array([x]), np.array([y]), np.array([flux]), np.array([18.0]), *text, np.array([np.nan]))


def fixed(star_flux: float = 0.0, *, moves: bool = False, galaxy_radius: float = 0.0) -> Fixed:
    star, galaxy = (30.0,) if star_flux else (), (30.0,) if galaxy_radius else ()
    return Fixed(
        np.array(star),
        np.array(star),
        np.array([star_flux] if star_flux else []),
        np.array([moves] if star_flux else [], dtype=bool),
        np.array(galaxy),
        np.array(galaxy),
        np.array([galaxy_radius] if galaxy_radius else []),
    )


def classify(
    share: float,
    sources: Injected,
    static: Fixed,
    mark: int = 0,
    *,
    flux: float = 900,
    warped: bool = False,
) -> pd.Series:
    table = pd.DataFrame({"x": [30.4], "y": [29.8], "flux": [flux]})
    labels = np.full((SIZE, SIZE), mark, dtype=np.uint8)
    return detection.classify(table, np.array([share]), sources, static, labels, fwhm=3.0, warped=warped).iloc[0]


def classify_all(x: list[float], share: list[float], sources: Injected) -> pd.DataFrame:
    table = pd.DataFrame({"x": x, "y": 30.0, "flux": 900.0})
    labels = np.zeros((SIZE, SIZE), dtype=np.uint8)
    return detection.classify(table, np.array(share), sources, fixed(), labels, fwhm=3.0, warped=False)


NOTHING = injected(5.0, 5.0, 1000.0)


def test_what_the_change_makes_is_real_even_on_an_artefact() -> None:
    row = classify(0.9, injected(30.0, 30.0, 1000.0), fixed(), Artefact.TRAIL)
    assert (row["kind"], row["is_real"], row["name"], row["true_mag"]) == ("asteroid", 1, "A1", 18.0)


@pytest.mark.parametrize(
    ("share", "flux", "x"),
    [(0.4, 900.0, 30.0), (-2.0, 900.0, 30.0), (0.9, -900.0, 30.0), (0.9, 900.0, 37.0), (np.nan, 900.0, 30.0)],
    ids=["residual", "less than nothing", "sign", "far", "no data"],
)
def test_what_would_be_there_anyway_is_bogus(share: float, flux: float, x: float) -> None:
    row = classify(share, injected(x, 30.0, 1000.0), fixed(1e5), flux=flux)
    assert (row["kind"], row["is_real"], row["name"]) == ("star_residual", 0, "")
    assert row["n_sources"] == 0


@pytest.mark.parametrize(
    ("static", "mark", "warped", "kind"),
    [
        (fixed(), 0, False, "noise"),
        (fixed(1e5), 0, False, "star_residual"),
        (fixed(1e5), 0, True, "dipole"),
        (fixed(1e5, moves=True), 0, False, "dipole"),
        (fixed(galaxy_radius=2.0), 0, False, "galaxy_residual"),
        (fixed(1e5), Artefact.COSMIC_RAY, False, "cosmic_ray"),
        (fixed(), Artefact.GHOST, False, "ghost"),
        (fixed(), Artefact.EDGE, False, "edge"),
    ],
)
def test_bogus_detections_are_named_by_their_cause(static: Fixed, mark: int, warped: bool, kind: str) -> None:
    row = classify(0.0, NOTHING, static, mark, warped=warped)
    assert (row["kind"], row["is_real"], row["name"]) == (kind, 0, "")


def test_a_source_makes_one_detection_the_nearest() -> None:
    rows = classify_all([33.0, 30.9], [0.9, 0.9], injected(30.0, 30.0, 1000.0))
    assert rows["is_real"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("other", "brighter", "n"),
    [(800.0, 1.8, 2), (50.0, 1.05, 1), (-800.0, 1.0, 1)],
    ids=["blend", "faint", "one fades"],
)
def test_a_blend_is_named_after_its_brightest_source_and_has_the_magnitude_of_all_light(
    other: float, brighter: float, n: int
) -> None:
    sources = orbits.concatenate([injected(29.0, 30.0, 1000.0), injected(31.0, 30.0, other)])
    row = classify_all([30.0], [1.0], sources._replace(name=np.array(["A1", "A2"]))).iloc[0]
    assert (row["is_real"], row["name"], row["n_sources"]) == (1, "A1", n)
    assert row["true_mag"] == pytest.approx(18.0 - 2.5 * np.log10(brighter))


def test_nothing_put_in_and_nothing_found_are_no_errors() -> None:
    none = injected(0.0, 0.0, 0.0)
    none = Injected(*(column[:0] for column in none))
    assert classify_all([30.0], [0.9], none)["is_real"].tolist() == [0]
    assert len(classify_all([], [], injected(30.0, 30.0, 1000.0))) == 0
