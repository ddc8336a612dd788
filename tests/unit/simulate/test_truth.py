"""Truth is decided by what was put in and how much of a detection it makes; never by scores."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from gotorb.core.params import SurveyParams
from gotorb.core.settings import LA_PALMA
from gotorb.simulate import detection, exposure, orbits, plan, psf, visit
from gotorb.simulate.exposure import Artefact, Artefacts
from gotorb.simulate.scene import Fixed, Injected, make_scene
from tests.unit.simulate.test_subtraction import ROUND

SIZE = 60
STEP_Y, STEP_X = np.mgrid[-7:8, -7:8]
SYMMETRIC = np.exp(-0.2 * (STEP_X**2 + STEP_Y**2))
DIPOLE = STEP_X * SYMMETRIC


def injected(x: float, y: float, flux: float, kind: str = "asteroid") -> Injected:
    text = [np.array([value]) for value in (kind, "A1", "")]
    return Injected(np.array([x]), np.array([y]), np.array([flux]), np.array([18.0]), *text, np.array([np.nan]))


def fixed(star_flux: float = 0.0, *, galaxy_flux: float = 0.0) -> Fixed:
    """A star, a galaxy, or neither, in the middle."""
    star, galaxy = ((np.array([30.0]),) * 2 if flux else (np.array([]),) * 2 for flux in (star_flux, galaxy_flux))
    fluxes = (np.array([flux] if flux else []) for flux in (star_flux, galaxy_flux))
    return Fixed(*star, next(fluxes), *galaxy, next(fluxes), np.full(len(galaxy[0]), 2.0))


def causes(n: int, total: float, *, share: object = 0.0, **parts: float) -> detection.Causes:
    """Equal parts of `n` detections; artefacts by name."""
    given = {Artefact[name.upper()]: parts[name] for name in parts if name.upper() in Artefact.__members__}
    artefacts = np.zeros((n, len(Artefact)))
    for kind, light in given.items():
        artefacts[:, kind] = light
    change, static, bright = (
        total * np.broadcast_to(np.asarray(share, dtype=float), n),
        *(np.full(n, parts.get(name, 0.0)) for name in ("static", "brightness")),
    )
    return detection.Causes(np.full(n, total), change, static, bright, artefacts, np.tile(SYMMETRIC, (n, 1, 1)))


def classify(
    share: float, sources: Injected, still: Fixed, *, flux: float = 900, region: int = 0, residual: object = None,
    **parts: float,
) -> pd.Series:  # fmt: skip
    table = pd.DataFrame({"x": [30.4], "y": [29.8], "flux": [flux]})
    made = causes(1, float(np.sign(flux)) * 100, share=share, **parts)
    if residual is not None:
        made = made._replace(residual=np.array([residual]))
    regions = np.full((SIZE, SIZE), region, dtype=np.uint8)
    return detection.classify(table, made, sources, still, regions, fwhm=3.0).iloc[0]


def classify_all(x: list[float], share: list[float], sources: Injected) -> pd.DataFrame:
    table = pd.DataFrame({"x": x, "y": 30.0, "flux": 900.0})
    regions = np.zeros((SIZE, SIZE), dtype=np.uint8)
    return detection.classify(table, causes(len(x), 100, share=share), sources, fixed(), regions, fwhm=3.0)


NOTHING = injected(5.0, 5.0, 1000.0)


def test_what_the_change_makes_is_real_even_on_an_artefact() -> None:
    row = classify(0.9, injected(30.0, 30.0, 1000.0), fixed(), trail=10.0)
    assert (row["kind"], row["is_real"], row["name"], row["true_mag"]) == ("asteroid", 1, "A1", 18.0)


@pytest.mark.parametrize(
    ("share", "flux", "x", "kind"),
    [
        (0.4, 900.0, 30.0, "star_residual"),
        (-2.0, 900.0, 30.0, "star_residual"),
        (0.9, -900.0, 30.0, "fragment"),
        (0.9, 900.0, 37.0, "fragment"),
    ],
    ids=["residual", "less than nothing", "sign", "far"],
)
def test_what_would_be_there_anyway_is_bogus(share: float, flux: float, x: float, kind: str) -> None:
    row = classify(share, injected(x, 30.0, 1000.0), fixed(1e5), flux=flux, static=float(np.sign(flux)) * 300)
    assert (row["kind"], row["is_real"], row["name"]) == (kind, 0, "")
    assert row["n_sources"] == 0


@pytest.mark.parametrize(
    ("static", "parts", "kind"),
    [
        (fixed(), {}, "noise"),
        (fixed(1e5), {"static": 10.0}, "noise"),
        (fixed(1e5), {"static": 70.0}, "star_residual"),
        (fixed(1e5), {"static": 70.0, "residual": DIPOLE}, "dipole"),
        (fixed(1e5), {"brightness": 5000.0}, "star_residual"),
        (fixed(galaxy_flux=1e5), {"static": 70.0, "residual": DIPOLE}, "galaxy_residual"),
        (fixed(1e6, galaxy_flux=1e4), {"static": 70.0}, "star_residual"),
        (fixed(1e3, galaxy_flux=1e5), {"static": 70.0}, "galaxy_residual"),
        (fixed(1e5), {"cosmic_ray": 10.0, "static": 80.0}, "star_residual"),
        (fixed(1e5), {"cosmic_ray": 80.0, "static": 10.0}, "cosmic_ray"),
        (fixed(1e5), {"spike": -80.0, "static": 150.0}, "star_residual"),
        (fixed(1e5), {"bleed": -80.0, "static": 150.0}, "bleed"),
        (fixed(), {"ghost": 60.0, "trail": 30.0}, "ghost"),
        (fixed(), {"region": Artefact.EDGE}, "edge"),
        (fixed(), {"region": Artefact.MASK}, "mask"),
        (fixed(1e5), {"region": Artefact.EDGE, "static": 70.0}, "star_residual"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_bogus_detections_are_named_by_what_gives_them_most_light(
    static: Fixed, parts: dict[str, object], kind: str, sign: int
) -> None:
    turned = {name: sign * part if isinstance(part, float) and name != "brightness" else part
              for name, part in parts.items()}  # fmt: skip
    row = classify(0.0, NOTHING, static, flux=sign * 900, **turned)  # type: ignore[arg-type]
    assert (row["kind"], row["is_real"], row["name"]) == (kind, 0, "")


PLANTED = {
    Artefact.TRAIL: (60, 200),
    Artefact.GLINT: (110, 90),
    Artefact.HOT_PIXEL: (150, 240),
    Artefact.COSMIC_RAY: (210, 150),
    Artefact.SPIKE: (250, 60),
    Artefact.GHOST: (290, 240),
    Artefact.CROSSTALK: (330, 130),
    Artefact.BAD_COLUMN: (90, 300),
}
NO_ASTEROIDS = orbits.Elements(np.array([], dtype=str), *np.zeros((9, 0)))
FIELD = plan.plan_survey(SurveyParams(n_fields=1, n_visits=1, size=384), 5)[0]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, float], pd.DataFrame]]:
    """Detections and truth of a visit of averaged exposures, with blobs of known kinds in these or in the template."""

    def plant(where: str, flux: float) -> pd.DataFrame:
        real = getattr(exposure, where)

        def expose(light: np.ndarray, artefacts: Artefacts, *args: object, **given: object) -> np.ndarray:
            margin = (len(light) - FIELD.size) // 2
            for kind, (x, y) in PLANTED.items():
                blob = np.zeros_like(light)
                psf.add_stars(blob, np.array([x + margin]), np.array([y + margin]), np.array([flux]), ROUND)
                artefacts.add(*np.nonzero(blob), blob[np.nonzero(blob)], kind)
            return real(light, artefacts, *args, **given)

        with monkeypatch.context() as patch:
            patch.setattr(exposure, where, expose)
            patch.setattr(visit, "_draw_habits", lambda _: visit.Habits("mean", False, False, True))
            patch.setattr(visit, "DITHER_PIXEL", 0.5)
            setup = visit.make_setup(make_scene(FIELD, NO_ASTEROIDS, 5, LA_PALMA))
            result = visit.run_visit(setup, FIELD.visits[0])
        return pd.concat([result.detections.table, result.truth], axis=1)

    yield plant


@pytest.mark.parametrize(("where", "sign"), [("expose", "t"), ("expose_template", "f")])
def test_planted_artefacts_are_found_and_named(
    planted: Callable[[str, float], pd.DataFrame], where: str, sign: str
) -> None:
    found = planted(where, 5000.0)
    for kind, (x, y) in PLANTED.items():
        distance = np.hypot(found["x"] - x, found["y"] - y)
        nearest = found.loc[distance.idxmin()]
        assert distance.min() < (3 if where == "expose" else 9), kind
        assert (nearest["kind"], nearest["isdiffpos"]) == (kind.name.lower(), sign)


def test_faint_light_of_an_artefact_takes_no_detection_from_its_cause(
    planted: Callable[[str, float], pd.DataFrame],
) -> None:
    before, after = planted("expose", 0.0), planted("expose", 3.0)
    names = {kind.name.lower() for kind in PLANTED}
    assert len(before) > 10
    assert (after["kind"].isin(names)).sum() == (before["kind"].isin(names)).sum()


def test_a_source_makes_one_detection_the_nearest() -> None:
    rows = classify_all([33.0, 30.9], [0.9, 0.9], injected(30.0, 30.0, 1000.0))
    assert rows["is_real"].tolist() == [0, 1]
    assert rows["kind"].tolist() == ["fragment", "asteroid"]


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
