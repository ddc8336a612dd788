"""Truth is decided by place, sign and flux of what was put in, and by artefact masks; never by scores."""

import numpy as np
import pandas as pd
import pytest

from gotorb.simulate import truth
from gotorb.simulate.detector import Artefact

SIZE = 60


def injected(x: float, y: float, flux: float, kind: str = "asteroid") -> truth.Injected:
    text = [np.array([value]) for value in (kind, "A1", "")]
    return truth.Injected(np.array([x]), np.array([y]), np.array([flux]), np.array([18.0]), *text, np.array([np.nan]))


def fixed(star_flux: float = 0.0, *, moves: bool = False, galaxy_radius: float = 0.0) -> truth.Fixed:
    star, galaxy = (30.0,) if star_flux else (), (30.0,) if galaxy_radius else ()
    return truth.Fixed(
        np.array(star),
        np.array(star),
        np.array([star_flux] if star_flux else []),
        np.array([moves] if star_flux else [], dtype=bool),
        np.array(galaxy),
        np.array(galaxy),
        np.array([galaxy_radius] if galaxy_radius else []),
    )


def classify(
    flux: float, sources: truth.Injected, static: truth.Fixed, mark: int = 0, *, warped: bool = False
) -> pd.Series:
    table = pd.DataFrame({"x": [30.4], "y": [29.8], "flux": [flux], "fwhm": [3.0]})
    labels = np.full((SIZE, SIZE), mark, dtype=np.uint8)
    return truth.classify(table, sources, static, labels, warped=warped).iloc[0]


NOTHING = injected(5.0, 5.0, 1000.0)


def test_a_source_at_the_place_with_the_right_flux_is_real_even_on_an_artefact() -> None:
    row = classify(900.0, injected(30.0, 30.0, 1000.0), fixed(), Artefact.TRAIL)
    assert (row["kind"], row["is_real"], row["name"], row["true_mag"]) == ("asteroid", 1, "A1", 18.0)


@pytest.mark.parametrize(
    ("flux", "x"),
    [(-900.0, 30.0), (9000.0, 30.0), (100.0, 30.0), (900.0, 33.0)],
    ids=["sign", "bright", "faint", "far"],
)
def test_wrong_sign_flux_or_place_is_not_the_source(flux: float, x: float) -> None:
    assert classify(flux, injected(x, 30.0, 1000.0), fixed())["is_real"] == 0


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
def test_bogus_detections_are_named_by_their_cause(static: truth.Fixed, mark: int, warped: bool, kind: str) -> None:
    row = classify(500.0, NOTHING, static, mark, warped=warped)
    assert (row["kind"], row["is_real"], row["name"]) == (kind, 0, "")


def test_one_source_explains_one_detection() -> None:
    table = pd.DataFrame({"x": [30.0, 30.9], "y": [30.0, 30.0], "flux": [900.0, 900.0], "fwhm": [3.0, 3.0]})
    labels = np.zeros((SIZE, SIZE), dtype=np.uint8)
    rows = truth.classify(table, injected(30.0, 30.0, 1000.0), fixed(), labels, warped=False)
    assert rows["is_real"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("x", "fluxes", "flux", "fwhm", "is_real"),
    [
        ((28.0, 33.0), (1500.0, 1000.0), 2400.0, 7.0, 1),
        ((28.0, 33.0), (1500.0, 1000.0), 2400.0, 2.5, 0),
        ((28.0, 33.0), (1500.0, 1000.0), 9000.0, 7.0, 0),
        ((28.0, 33.0), (1500.0, 1000.0), -2400.0, 7.0, 0),
        ((28.0, 33.0), (1500.0, -1000.0), 2400.0, 7.0, 0),
        ((27.0, 28.0), (1500.0, 1000.0), 2400.0, 7.0, 0),
        ((20.5, 39.5), (1000.0, 1000.0), 1900.0, 20.0, 0),
        ((28.0, 33.0), (1500.0, 0.0), 2400.0, 7.0, 0),
    ],
    ids=["blend", "too narrow", "too bright", "sign", "one fades", "centre elsewhere", "too far", "one only"],
)
def test_sources_blended_in_one_detection_are_real_by_the_brightest(
    x: tuple[float, float], fluxes: tuple[float, float], flux: float, fwhm: float, is_real: int
) -> None:
    sources = truth.join_injected([injected(place, 30.0, light) for place, light in zip(x, fluxes, strict=True)])
    sources = sources._replace(name=np.array(["A1", "A2"]))
    table = pd.DataFrame({"x": [30.0], "y": [30.0], "flux": [flux], "fwhm": [fwhm]})
    row = truth.classify(table, sources, fixed(), np.zeros((SIZE, SIZE), np.uint8), warped=False).iloc[0]
    assert (row["is_real"], row["name"]) == (is_real, "A1" if is_real else "")
    if is_real:  # the magnitude is that of all the light
        assert row["true_mag"] == pytest.approx(18.0 - 2.5 * np.log10(2500 / 1500))


def test_source_that_explains_a_detection_of_its_own_is_in_no_blend() -> None:
    sources = truth.join_injected([injected(28.0, 30.0, 1500.0), injected(33.0, 30.0, 1000.0)])
    table = pd.DataFrame({"x": [28.0, 30.0], "y": [30.0, 30.0], "flux": [1500.0, 2400.0], "fwhm": [3.0, 7.0]})
    rows = truth.classify(table, sources, fixed(), np.zeros((SIZE, SIZE), np.uint8), warped=False)
    assert rows["is_real"].tolist() == [1, 0]
