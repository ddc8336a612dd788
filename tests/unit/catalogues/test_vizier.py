"""Catalogues from VizieR: asked politely and once, resumed, written as labelling reads them, never over others."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gotorb import cli, label_data
from gotorb.catalogues import vizier
from gotorb.catalogues.galaxies import find_galaxies
from gotorb.catalogues.variables import read_variables
from gotorb.catalogues.vizier import Circle, describe_fetched, fetch_galaxies, fetch_variables, merge_fields, sky_fields
from gotorb.errors import CatalogueError
from tests.unit.catalogues.fake_vizier import FakeVizier, masked, serve

FIELD = Circle(150.0, 2.0, 0.5)
QUICK = {"min_interval_s": 0.0}
ATLAS, GAIA, GLADE = (vizier.TABLES[name].name for name in ("atlas", "gaia", "glade"))
SOURCE_ID = 2**62 + 1


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVizier]:
    with serve(tmp_path) as (server, certificate):
        monkeypatch.setenv("GOTORB_VIZIER_SERVER", server.host)
        monkeypatch.setenv("GOTORB_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        server.tables[ATLAS] = {
            "ra": [150.0, 150.1, 160.0], "dec": [2.0, 2.1, 2.0], "ATOID": ["J1", "J2", "J3"],
            "Class": ["CBF", "", "IRR"],
        }  # fmt: skip
        server.tables[GAIA] = {
            "ra": [150.0001, 149.9], "dec": [2.0001, 1.9], "Source": [SOURCE_ID, SOURCE_ID + 2], "Class": ["RR", "AGN"],
        }  # fmt: skip
        server.tables[GLADE] = {
            "ra": [150.0, 150.2, 149.8, 150.3], "dec": [2.0, 2.2, 1.8, 2.0], "Bmag": [16.0, 18.0, 21.0, np.nan],
            "dL": masked([40.0, 0.0, 90.0, 1.0], [False, True, False, False]),
        }  # fmt: skip
        server.tables[GLADE]["Bmag"] = masked(server.tables[GLADE]["Bmag"], [False, False, False, True])
        yield server


def test_variables_are_written_as_labelling_reads_them(fake: FakeVizier, tmp_path: Path) -> None:
    found = fetch_variables([FIELD], tmp_path / "v.csv", **QUICK)
    stars = read_variables(tmp_path / "v.csv")
    np.testing.assert_allclose(stars, [[149.9, 1.9], [150.0, 2.0], [150.1, 2.1]], atol=1e-6)
    assert found["table"].tolist() == ["gaia", "atlas", "atlas"]  # the one that both have counts once
    assert str(SOURCE_ID + 2) in (tmp_path / "v.csv").read_text()
    assert {asked["-source"] for asked in fake.asked} == {ATLAS, GAIA}
    assert fake.asked[0]["Class"] == "!=dubious" and fake.asked[0]["-out.max"] == "unlimited"
    state = describe_fetched(tmp_path / "v.csv")
    assert state is not None and (state.n_rows, state.n_fields, state.sky) == (3, 1, "fields")
    assert state.tables == (ATLAS, GAIA) and state.square_degrees == pytest.approx(np.pi * 0.6**2, rel=0.01)


def test_galaxies_are_written_as_labelling_reads_them(fake: FakeVizier, tmp_path: Path) -> None:
    assert fetch_galaxies([FIELD], tmp_path / "cats", max_mag=19, **QUICK) == 2
    found = find_galaxies(tmp_path / "cats", 150.0, 2.0, radius_arcsec=3600)
    np.testing.assert_allclose(found[["ra", "dec", "mag"]], [[150.0, 2.0, 16.0], [150.2, 2.2, 18.0]], atol=1e-9)
    assert describe_fetched(tmp_path / "cats").n_rows == 2
    assert fetch_galaxies([Circle(150.0, 2.0, 0.5)], tmp_path / "cats", max_mag=22, **QUICK) == 3


def test_an_interrupted_fetch_resumes(fake: FakeVizier, tmp_path: Path) -> None:
    fields = [FIELD, Circle(160.0, 2.0, 0.5)]
    fake.faults = [None, 503, 503]
    with pytest.raises(CatalogueError, match=r"no answer .* in 2 attempts"):
        fetch_variables(fields, tmp_path / "v.csv", tables=["atlas"], attempts=2, **QUICK)
    assert len(fake.asked) == 3 and not (tmp_path / "v.csv").exists()
    found = fetch_variables(fields, tmp_path / "v.csv", tables=["atlas"], **QUICK)
    assert len(fake.asked) == 4 and found["name"].tolist() == ["J1", "J3", "J2"]
    fetch_variables(fields, tmp_path / "again.csv", tables=["atlas"], **QUICK)
    assert len(fake.asked) == 4
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "v.csv").read_bytes()


@pytest.mark.parametrize("fault", [503, 429, b"<html>busy</html>", b"<?xml version='1.0'?><VOTABLE><RESO", b""])
def test_a_server_in_trouble_is_asked_again(fake: FakeVizier, tmp_path: Path, fault: object) -> None:
    fake.faults = [fault, fault]
    assert len(fetch_variables([FIELD], tmp_path / "v.csv", tables=["atlas"], **QUICK)) == 2
    assert len(fake.asked) == 3


def test_more_fields_are_added_to_a_file(fake: FakeVizier, tmp_path: Path) -> None:
    fetch_variables([FIELD], tmp_path / "v.csv", tables=["atlas"], **QUICK)
    found = fetch_variables([Circle(160.0, 2.0, 0.2)], tmp_path / "v.csv", tables=["atlas"], **QUICK)
    assert found["name"].tolist() == ["J1", "J3", "J2"] and len(fake.asked) == 2
    assert describe_fetched(tmp_path / "v.csv").n_fields == 2


def test_nothing_there_is_an_answer(fake: FakeVizier, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(fetch_variables([Circle(10.0, -80.0, 0.2)], tmp_path / "v.csv", **QUICK)) == 0
    assert "has nothing" in caplog.text and len(read_variables(tmp_path / "v.csv")) == 0
    with pytest.raises(CatalogueError, match="no galaxy"):
        fetch_galaxies([Circle(10.0, -80.0, 0.2)], tmp_path / "cats", **QUICK)


def test_files_of_others_are_left_alone(fake: FakeVizier, tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("ra,dec\n1,2\n")
    (tmp_path / "cats" / "GLADE").mkdir(parents=True)
    with pytest.raises(CatalogueError, match=r"v\.csv was not made by"):
        fetch_variables([FIELD], tmp_path / "v.csv", **QUICK)
    with pytest.raises(CatalogueError, match="was not made by"):
        fetch_galaxies([FIELD], tmp_path / "cats", **QUICK)
    assert (tmp_path / "v.csv").read_text() == "ra,dec\n1,2\n" and not fake.asked


def test_questions_keep_their_distance(fake: FakeVizier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(vizier.time, "sleep", slept.append)
    fake.faults = [None, 503, 503]
    fetch_variables([FIELD, Circle(160.0, 2.0, 0.5)], tmp_path / "v.csv", tables=["atlas"], min_interval_s=10.0)
    assert [round(wait, -1) for wait in slept] == [10, 20, 40]


def test_fields_of_one_pointing_are_one_question() -> None:
    fields = [Circle(150.01, 2.0, 0.5), Circle(150.03, 2.02, 0.52), Circle(150.0, 2.0, 0.1), Circle(359.99, -89.9, 0.2)]
    merged = merge_fields(fields)
    assert len(merged) == 2
    for one in fields:
        assert any(vizier._separation(one, other) + one.radius <= other.radius for other in merged)


@pytest.mark.parametrize("step", [6.0, 17.0, 90.0])
def test_fields_of_the_sky_leave_no_gap(step: float) -> None:
    rng, fields = np.random.default_rng(1), sky_fields(step)
    points = np.column_stack([rng.uniform(0, 360, 400), np.degrees(np.arcsin(rng.uniform(-1, 1, 400)))])
    points = np.vstack([points, [[0, 90], [123, -90], [0, 0], [359.999, 89.99]]])
    for ra, dec in points:
        assert any(vizier._separation(Circle(ra, dec, 0), one) <= one.radius for one in fields)
    assert len(fields) < 3 * 41253 / step**2 + 8


def write_image(path: Path, ra: float, dec: float) -> Path:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [ra, dec], [50.5, 50.5]
    wcs.wcs.cdelt = [-0.002, 0.002]
    rows = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=[1.0])], name="PHOTOMETRY_DIFF")
    image = fits.ImageHDU(np.zeros((100, 100), np.float32), wcs.to_header(), "DIFFERENCE")
    fits.HDUList([fits.PrimaryHDU(), image, rows]).writeto(path)
    return path


def test_the_command_fetches_around_images_and_tells_coverage(
    fake: FakeVizier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "night").mkdir()
    write_image(tmp_path / "night" / "a.fits", 150.0, 2.0)
    write_image(tmp_path / "night" / "b.FIT", 150.001, 2.0)
    ra, dec, radius = label_data.find_footprint(tmp_path / "night" / "a.fits")
    assert (ra, dec, radius) == pytest.approx((150.0, 2.0, 0.1 * 2**0.5), abs=1e-4)
    words = ["catalogue", "fetch", "variables", "--around", "night", "--min-interval-s", "0"]
    assert cli.main(words) == 0 and len(fake.asked) == 2
    assert "3 rows" in capsys.readouterr().out
    assert cli.main(["catalogue", "fetch", "galaxies", "--around", "night/a.fits", "--min-interval-s", "0"]) == 0
    assert len(find_galaxies("catalogues", 150.0, 2.0, radius_arcsec=3600)) == 2
    capsys.readouterr()
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(tmp_path / "none.csv"))
    assert cli.main(["catalogue", "status"]) == 1  # no minor planets
    said = capsys.readouterr().out
    assert "catalogues/variables.csv: 3 rows" in said and f"2 rows of {GLADE}, 1 fields" in said
    assert json.loads((tmp_path / "catalogues" / "variables.csv.coverage.json").read_text())["fetched"][:2] == "20"


def test_the_command_fetches_the_whole_sky(fake: FakeVizier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vizier, "sky_fields", lambda: sky_fields(90.0))
    words = [
        "catalogue",
        "fetch",
        "variables",
        "--all-sky",
        "--tables",
        "atlas",
        "--min-interval-s",
        "0",
        "--out",
        "all.csv",
    ]
    assert cli.main(words) == 0
    assert len(read_variables("all.csv")) == 3 and describe_fetched("all.csv").sky == "all"


@pytest.mark.parametrize("words", [["variables"], ["stars", "--all-sky"], ["variables", "--around", "x", "--all-sky"]])
def test_wrong_calls_are_told(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["catalogue", "fetch", *words])
