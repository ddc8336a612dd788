"""Other surveys' images: every known minor planet is labelled real, or the image is refused with the numbers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from gotorb.core import layout
from gotorb.errors import InconsistentImage
from gotorb.labels.image import label_image
from tests.unit.labels.other_survey import NX, NY, SCALE_DEG, Change, Sky, Survey, build


def label(survey: Survey) -> Any:
    table, stamps = label_image(survey.task, survey.options)
    assert len(table) == len(stamps)
    return table


def assert_right(survey: Survey) -> None:
    table = label(survey)
    assert set(table["candidate_id"][table["metalabel"] == "mp"]) == survey.planets
    assert not survey.planets & set(table["candidate_id"][table["label"] == layout.BOGUS])
    facts = table.attrs[layout.FACTS_KEY]
    assert (facts["n_expected"], facts["n_matched"], facts["warnings"]) == (8, 8, [])


def refuse(survey: Survey, words: str) -> None:
    with pytest.raises(InconsistentImage, match=words) as caught:
        label(survey)
    assert caught.value.state == "inconsistent" and "\n" not in str(caught.value)


def columns(**factors: Any) -> Change:
    """Change of the table's columns by functions of them."""

    def change(hdus: fits.HDUList) -> None:
        for name, function in factors.items():
            hdus["CAT"].data[name] = function(hdus["CAT"].data)

    return change


@pytest.mark.parametrize("sky", [True, False])
def test_an_image_in_order_is_labelled_without_a_warning(tmp_path: Path, sky: bool) -> None:
    assert_right(build(tmp_path, sky=sky))


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN", "CRVAL1": 15.0, "CRVAL2": 150.0, "CD1_1": 0.0, "CD1_2": SCALE_DEG,
         "CD2_1": -SCALE_DEG, "CD2_2": 0.0},
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
        {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 220.0, "CRVAL2": 45.0},
    ],
    ids=["swapped", "FK4", "galactic"],
)  # fmt: skip
@pytest.mark.parametrize("sky", [True, False])
def test_axes_and_frames_are_obeyed(tmp_path: Path, cards: dict[str, Any], sky: bool) -> None:
    assert_right(build(tmp_path, sky=sky, cards=cards))


@pytest.mark.parametrize(("factor", "scale"), [(1.0, 0.05), (4.0, 2.0), (20.0, 10.0)])
def test_a_wide_image_is_searched_whole(tmp_path: Path, factor: float, scale: float) -> None:
    survey = build(tmp_path, cards={"CD1_1": -SCALE_DEG * factor, "CD2_2": SCALE_DEG * factor})
    assert_right(survey.with_sky(search_radius_deg=scale / 100))


def test_the_radius_asked_for_is_a_lower_limit(tmp_path: Path) -> None:
    survey = build(tmp_path)
    assert_right(survey)
    assert isinstance(survey.options.provider, Sky)
    assert survey.options.provider.asked[0].radius_deg == 2.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (columns(RA=lambda t: np.radians(t["RA"]), DEC=lambda t: np.radians(t["DEC"])), "radians"),
        (columns(RA=lambda t: t["RA"] / 15), "hours"),
        (columns(RA=lambda t: t["DEC"].copy(), DEC=lambda t: t["RA"].copy() - 90), r"33 of 33 detections"),
        (columns(DEC=lambda t: t["DEC"] + 0.02), r"disagree with the WCS .* 72 arcsec"),
        (columns(RA=lambda t: t["RA"] - 0.64), "disagree"),
        (columns(X=lambda t: t["X"] + 5000), f"33 of 33 detections .* outside .* {NX} x {NY} pixels"),
        (columns(X=lambda t: t["X"] * 2, Y=lambda t: t["Y"] * 2), "outside"),
        (columns(Y=lambda t: t["Y"] + 60), "detections"),
        (columns(X=lambda t: t["Y"].copy(), Y=lambda t: t["X"].copy()), "detections"),
    ],
    ids=["radians", "hours", "exchanged", "offset", "J2000 of another year", "mosaic", "binned", "overscan", "x and y"],
)
def test_a_table_that_cannot_be_right_is_refused(tmp_path: Path, change: Change, words: str) -> None:
    refuse(build(tmp_path, change), words)


def test_a_few_wrong_rows_are_left_out_with_a_warning(tmp_path: Path) -> None:
    def change(hdus: fits.HDUList) -> None:
        hdus["CAT"].data["X"][20] = -500.0
        hdus["CAT"].data["DEC"][21] += 1.0

    table = label(build(tmp_path, change))
    assert not {"21", "22"} & set(table["candidate_id"])
    assert len(table.attrs[layout.FACTS_KEY]["warnings"]) == 2


def test_a_first_pixel_off_by_one_is_warned_of(tmp_path: Path) -> None:
    survey = build(tmp_path, columns(X=lambda t: t["X"] + 1, Y=lambda t: t["Y"] + 1))
    (warning,) = label(survey).attrs[layout.FACTS_KEY]["warnings"]
    assert "FIRST_PIXEL" in warning and "1.4 pixels" in warning


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"jd": 57804.125}, "looks like MJD: add 2400000.5"),
        ({"jd": float("nan")}, "epoch jd nan"),
        ({"jd": 0.0}, "epoch jd 0"),
        ({"jd": 2017.14}, "looks like a year"),
        ({"jd": 1487559600.0}, "looks like seconds since 1970"),
        ({"ra_c": float("nan")}, "centre ra_c nan"),
        ({"dec_c": float("inf")}, "centre .* dec_c inf"),
        ({"dec_c": 150.0, "ra_c": 15.0}, "dec_c 150"),
        ({"ra_c": 10.0}, r"is 1\d\d deg from the image's middle"),
        ({"ra_c": 2.618, "dec_c": 0.2618}, "deg from the image's middle 149"),
        ({"dec_c": 15.9}, "deg from the image's middle"),
    ],
)
def test_an_impossible_place_or_time_is_refused(tmp_path: Path, values: dict[str, float], words: str) -> None:
    refuse(build(tmp_path).with_task(**values), words)


def shifted_plane(name: str, shift: int) -> Change:
    """A plane on another grid: its pixels moved, and its WCS with them."""

    def change(hdus: fits.HDUList) -> None:
        hdus[name].data = np.pad(hdus[name].data, ((0, 0), (shift, 0)))
        hdus[name].header["CRPIX1"] += shift

    return change


@pytest.mark.parametrize(("name", "layer"), [("REF", "template"), ("SCI", "science")])
@pytest.mark.parametrize("shift", [20, 150])
def test_a_plane_on_another_grid_is_cut_by_its_own_wcs(tmp_path: Path, name: str, layer: str, shift: int) -> None:
    survey = build(tmp_path, shifted_plane(name, shift))
    _, stamps = label_image(survey.task, survey.options)
    middle = stamps[:, 9:12, 9:12, layout.LAYERS.index(layer)].mean(axis=(1, 2))
    assert (middle > 100).all()
    assert_right(survey)


def turned(hdus: fits.HDUList) -> None:
    hdus["REF"].header.update({"CD1_1": SCALE_DEG, "CD2_2": -SCALE_DEG})


def other_scale(hdus: fits.HDUList) -> None:
    hdus["REF"].header.update({"CD1_1": -SCALE_DEG / 2, "CD2_2": SCALE_DEG / 2})


def elsewhere(hdus: fits.HDUList) -> None:
    hdus["REF"].header["CRVAL2"] = -60.0


def without_wcs(hdus: fits.HDUList) -> None:
    hdus["REF"] = fits.ImageHDU(np.zeros((NY + 10, NX), np.float32), name="REF")


@pytest.mark.parametrize("change", [turned, other_scale, elsewhere, without_wcs])
def test_a_plane_that_shows_another_sky_is_refused(tmp_path: Path, change: Change) -> None:
    refuse(build(tmp_path, change), "'REF'")


def test_a_plane_of_the_same_shape_without_a_wcs_is_on_the_same_grid(tmp_path: Path) -> None:
    def change(hdus: fits.HDUList) -> None:
        hdus["REF"] = fits.ImageHDU(hdus["REF"].data, name="REF")

    assert_right(build(tmp_path, change))


def blank(name: str, value: float) -> Change:
    def change(hdus: fits.HDUList) -> None:
        hdus[name].data[:] = value

    return change


@pytest.mark.parametrize("name", ["SCI", "SUB"])
@pytest.mark.parametrize("value", [0.0, np.nan, 7.0])
def test_empty_stamps_are_refused(tmp_path: Path, name: str, value: float) -> None:
    survey = build(tmp_path, blank(name, value))
    refuse(survey, r"empty at \d+ of \d+")


def test_an_empty_template_is_warned_of(tmp_path: Path) -> None:
    table = label(build(tmp_path, blank("REF", 0.0)))
    assert ["template" in line for line in table.attrs[layout.FACTS_KEY]["warnings"]] == [True]


def test_exposures_of_another_field_are_refused(tmp_path: Path) -> None:
    survey = build(tmp_path)
    for path in survey.task.exposure_paths:
        fits.setval(path, "CRVAL1", value=200.0)
    refuse(survey, "none of 2 exposures")


@pytest.mark.parametrize(("east", "north"), [(8.0, 0.0), (0.0, -3.0), (-40.0, 25.0)])
def test_minor_planets_that_are_all_shifted_are_refused_with_the_shift(
    tmp_path: Path, east: float, north: float
) -> None:
    """A wrong epoch or observatory, or an old catalogue: all known asteroids would become bogus."""
    survey = build(tmp_path)
    assert isinstance(survey.options.provider, Sky)
    rows = tuple(
        (name, ra - east / 3600 / np.cos(np.radians(dec)), dec - north / 3600, mag)
        for name, ra, dec, mag in survey.options.provider.rows
    )
    shifted = survey.with_sky(provider=Sky(rows))
    refuse(shifted, "8 of 8 expected .*" + re.escape(f"{east:+.1f} arcsec in right ascension and {north:+.1f}"))
    wide = replace(survey.options.rules, match_radius_arcsec=50.0)
    assert label(shifted.with_sky(rules=wide)).attrs[layout.FACTS_KEY]["n_matched"] == 8
    assert len(label(shifted.with_sky(check_expected=False)))


def test_minor_planets_that_are_not_there_are_warned_of(tmp_path: Path) -> None:
    survey = build(tmp_path)
    assert isinstance(survey.options.provider, Sky)
    rng = np.random.default_rng(8)
    rows = tuple(
        (name, ra + rng.uniform(-0.05, 0.05), dec + rng.uniform(-0.05, 0.05), mag)
        for name, ra, dec, mag in survey.options.provider.rows
    )
    facts = label(survey.with_sky(provider=Sky(rows))).attrs[layout.FACTS_KEY]
    assert (facts["n_expected"], facts["n_matched"]) == (8, 0)
    assert "matched 0 of 8 expected minor planets" in facts["warnings"][0]


def test_minor_planets_without_data_or_too_faint_are_not_expected(tmp_path: Path) -> None:
    def change(hdus: fits.HDUList) -> None:
        hdus["SUB"].data[: NY // 2] = np.nan

    survey = build(tmp_path, change)
    facts = label(survey).attrs[layout.FACTS_KEY]
    assert 0 < facts["n_expected"] < 8
    faint = replace(survey.options.rules, mag_limit=17.2)
    assert label(build_again(tmp_path).with_sky(rules=faint)).attrs[layout.FACTS_KEY]["n_expected"] == 3


def build_again(folder: Path) -> Survey:
    (folder / "again").mkdir()
    return build(folder / "again")
