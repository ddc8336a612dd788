"""The whole small survey: equal bytes, tables that agree with files, catalogues that agree with the sky."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pympc
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from gotorb.core import layout
from gotorb.core.params import SurveyParams
from gotorb.core.settings import LA_PALMA
from gotorb.errors import ConfigError, SurveyError
from gotorb.simulate import catalogues, plan, survey
from gotorb.simulate.images import WORK_DIR
from gotorb.simulate.scene import make_scene
from gotorb.simulate.visit import make_setup, run_visit
from tests.conftest import TINY_SEED

PIXEL_NOISE = np.sqrt(plan.CAMERA.sky_electrons + plan.CAMERA.read_noise**2)
"""Of an empty pixel of one exposure [electron]."""


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored(survey_dir: Path, work_path: str) -> Path:
    return survey_dir / "storage" / work_path.removeprefix(f"{WORK_DIR}/").replace("reduced", "final")


@pytest.fixture(scope="module")
def tables(tiny_survey: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    names = (layout.IMAGES_CSV, layout.CANDIDATES_CSV, layout.TRUTH_CSV)
    images, candidates, truth = (pd.read_csv(tiny_survey / name) for name in names)
    return images, candidates, truth


@pytest.mark.long("it simulates the small survey once more, in two processes")
def test_a_parallel_run_over_an_earlier_survey_writes_the_bytes_of_the_serial_run(
    tiny_survey: Path, tiny_survey_params: SurveyParams, tmp_path: Path
) -> None:
    parallel = tiny_survey_params.model_copy(update={"n_processes": 2})
    again = tmp_path / "again"
    (again / layout.STORAGE_DIR).mkdir(parents=True)
    (again / layout.STORAGE_DIR / "older.fits").write_text("of an earlier survey")
    survey.make_survey(again, parallel, seed=TINY_SEED)
    assert digests(again) == digests(tiny_survey)


def test_another_seed_makes_another_sky() -> None:
    params = SurveyParams(n_fields=2, size=320)
    first, second = (plan.plan_survey(params, seed) for seed in (1, 2))
    assert [field.ra for field in first] != [field.ra for field in second]


def test_more_fields_leave_the_first_fields_as_they_are() -> None:
    few, many = (plan.plan_survey(SurveyParams(n_fields=n), 1) for n in (3, 6))
    assert [(f.ra, f.dec, [v.mjd_utc for v in f.visits]) for f in few] == [
        (f.ra, f.dec, [v.mjd_utc for v in f.visits]) for f in many[:3]
    ]


def test_fields_pass_the_surveys_own_cuts_and_do_not_overlap() -> None:
    fields = plan.plan_survey(SurveyParams(n_fields=60), 1)
    assert max(abs(field.dec) for field in fields) < 35
    place = np.array([(f.ra * np.cos(np.deg2rad(f.dec)), f.dec) for f in fields])
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1)) + 9 * np.eye(len(place))
    assert apart.min() > plan.CAMERA.side_deg(1024) * np.sqrt(2)


def test_more_visits_leave_the_first_visits_when_they_were() -> None:
    few, many = (plan.plan_survey(SurveyParams(n_fields=2, n_visits=n), 1) for n in (2, 5))
    for a, b in zip(few, many, strict=True):
        assert [visit.mjd_utc for visit in a.visits] == [visit.mjd_utc for visit in b.visits[:2]]
        assert np.diff([visit.mjd_utc for visit in b.visits]).min() > 2


def test_too_many_fields_are_refused_with_the_number_that_fits() -> None:
    with pytest.raises(ConfigError, match=r"n_fields is 5000 .* only \d+ fields"):
        plan.plan_survey(SurveyParams(n_fields=5000), 1)


def test_every_row_of_image_has_its_file_and_exposures_share_the_related_image(
    tiny_survey: Path, tables: tuple[pd.DataFrame, ...]
) -> None:
    images = tables[0]
    assert images["id"].is_unique and images["filepath"].is_unique
    assert all(stored(tiny_survey, path).is_file() for path in images["filepath"])
    for row in images[images["image_type"] == "DIFFERENCE"].itertuples():
        group = images[(images["relatedimage"] == row.relatedimage) & (images["image_type"] == "SCIENCE")]
        header = fits.getheader(stored(tiny_survey, row.filepath))
        assert len(group) == row.ncoadds == header["NCOADD"] == 3
        names = [Path(path).name for path in group["filepath"]]
        assert names == [header[f"COADD{k + 1}"] for k in range(3)]
        assert header["JD"] == pytest.approx(group["jd"].mean(), abs=1e-6) == pytest.approx(row.jd, abs=1e-6)


def test_difference_photometry_equals_the_table_candidate_and_the_world_coordinates(
    tiny_survey: Path, tables: tuple[pd.DataFrame, ...]
) -> None:
    images, candidates, _ = tables
    for row in images[images["image_type"] == "DIFFERENCE"].itertuples():
        own = candidates[candidates["image_id"] == row.id]
        with fits.open(stored(tiny_survey, row.filepath)) as hdus:
            assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "TEMPLATE", "DIFFERENCE", "PHOTOMETRY_DIFF"]
            rows = hdus["PHOTOMETRY_DIFF"].data
            assert rows["id"].tolist() == own["id"].tolist()
            assert set(rows["isdiffpos"]) <= {"t", "f"}
            sky = np.array(WCS(hdus["DIFFERENCE"].header).all_pix2world(rows["x"], rows["y"], 0))
            shapes = {hdus[name].data.shape for name in ("IMAGE", "TEMPLATE", "DIFFERENCE")}
        assert shapes == {(320, 320)}
        assert np.abs(sky - own[["ra", "dec"]].to_numpy().T).max() * 3600 < 1e-3


def test_exposures_are_dithered_and_show_the_same_sky(tiny_survey: Path, tables: tuple[pd.DataFrame, ...]) -> None:
    images = tables[0]
    shifts, offsets = [], []
    for _, group in images[images["image_type"] == "SCIENCE"].groupby("relatedimage"):
        places = []
        for path in group["filepath"]:
            with fits.open(stored(tiny_survey, path)) as hdus:
                header, rows = hdus["IMAGE"].header, hdus["PHOTOMETRY"].data
                places.append((header["CRPIX1"], header["CRPIX2"], np.array([rows["ra"], rows["dec"], rows["mag"]])))
                assert abs(np.median(hdus["IMAGE"].data)) < 0.2 * PIXEL_NOISE
        first, second = places[0][2], places[1][2]
        bright = first[:, first[2] < 17]
        distance = np.hypot((bright[0][:, None] - second[0]) * 0.95, bright[1][:, None] - second[1]).min(axis=1) * 3600
        offsets.append(np.median(distance))
        shifts.append(np.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]))
    assert max(shifts) > 1
    assert max(offsets) < 0.4


def test_images_are_sky_subtracted_with_the_noise_the_camera_predicts(
    tiny_survey: Path, tables: tuple[pd.DataFrame, ...]
) -> None:
    images = tables[0]
    for path in images.loc[images["image_type"] == "DIFFERENCE", "filepath"]:
        with fits.open(stored(tiny_survey, path)) as hdus:
            for name in ("IMAGE", "TEMPLATE", "DIFFERENCE"):
                plane = hdus[name].data
                assert np.isfinite(plane).mean() > (0.9 if name == "TEMPLATE" else 0.7)
                assert abs(np.nanmedian(plane)) < 4
            noise = 1.4826 * np.nanmedian(np.abs(plane - np.nanmedian(plane)))
        # median of three exposures, of which two are resampled, and a convolved median of six
        white = PIXEL_NOISE * np.hypot(0.67, 1.25 / np.sqrt(6))
        assert 0.5 * white < noise < 1.1 * white


def test_asteroids_are_where_pympc_says(tiny_survey: Path, tables: tuple[pd.DataFrame, ...]) -> None:
    images, candidates, truth = tables
    rows = truth.merge(candidates, left_on="candidate_id", right_on="id").query("kind == 'asteroid'")
    catalogue = tiny_survey / layout.CATALOGUES_DIR / layout.XEPHEM_CSV
    offsets = []
    for image in images[images["image_type"] == "DIFFERENCE"].itertuples():
        found = pympc.minor_planet_check(
            image.ra_c,
            image.dec_c,
            image.jd - 2400000.5,
            1800,
            xephem_filepath=str(catalogue),
            include_major_bodies=False,
            observatory=LA_PALMA,
            chunk_size=0,
        )
        place = {str(row["name"]): (row["ra"], row["dec"]) for row in found}
        for row in rows[rows["image_id_x"] == image.id].itertuples():
            if row.name in place:
                ra, dec = place[row.name]
                offsets.append(3600 * np.hypot((row.ra - ra) * np.cos(np.deg2rad(dec)), row.dec - dec))
    assert len(offsets) > 15
    assert np.mean(np.array(offsets) < 1.0) > 0.85
    assert np.median(offsets) < 0.6


def test_truth_covers_each_detection_and_real_means_asteroid_supernova_or_variable(
    tables: tuple[pd.DataFrame, ...],
) -> None:
    _, candidates, truth = tables
    assert truth["candidate_id"].tolist() == candidates["id"].tolist()
    real = truth["kind"].isin(["asteroid", "supernova", "variable"])
    assert (truth["is_real"] == real).all()
    assert truth.loc[real, "name"].notna().all() and truth.loc[~real, "name"].isna().all()
    assert 0.2 < real.mean() < 0.8
    assert truth["kind"].nunique() > 4


def test_bright_asteroids_have_their_true_magnitudes() -> None:
    # the stars of the small survey stand too close together for its aperture correction
    field = plan.plan_survey(SurveyParams(n_fields=3, n_visits=1, size=800), 2)[2]
    belt = catalogues.generate_asteroids([field], SurveyParams(n_asteroids=120), 2, LA_PALMA)
    result = run_visit(make_setup(make_scene(field, belt, 2, LA_PALMA)), field.visits[0])
    rows = pd.concat([result.detections.table["mag"], result.truth], axis=1)
    bright = rows.query("kind == 'asteroid' and true_mag < 18.5")
    assert len(bright) > 10
    assert np.abs((bright["mag"] - bright["true_mag"]).median()) < 0.06


def test_a_user_catalogue_is_used_and_copied_near_the_fields(
    tiny_survey: Path, tiny_survey_params: SurveyParams, tmp_path: Path
) -> None:
    catalogue = tiny_survey / layout.CATALOGUES_DIR / layout.XEPHEM_CSV
    far = "Far,e,5.0,200.0,10.0,2.7,0.22,0.1,10.0,2020.9,2000,12.0,0.15\n"
    (tmp_path / "own.csv").write_text(catalogue.read_text() + far)
    one = tiny_survey_params.model_copy(update={"n_fields": 1, "n_visits": 1})
    summary = survey.make_survey(tmp_path / "s", one, seed=TINY_SEED, catalogue=tmp_path / "own.csv")
    copied = (tmp_path / "s" / layout.CATALOGUES_DIR / layout.XEPHEM_CSV).read_text()
    names = set(pd.read_csv(tmp_path / "s" / layout.TRUTH_CSV).query("kind == 'asteroid'")["name"])
    assert summary.kinds["asteroid"] == len(names) > 3
    assert all(name.startswith("SIM000") for name in names)
    assert "Far," not in copied and "SIM000" in copied


def test_a_visit_that_fails_is_skipped_with_its_reason(
    tiny_survey_params: SurveyParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_or_fail(setup, visit):  # type: ignore[no-untyped-def]
        if visit.field == 0 and visit.number == 1:
            raise SurveyError("only 3 clean stars")
        return run_visit(setup, visit)

    run_visit = survey.run_visit
    monkeypatch.setattr(survey, "run_visit", run_or_fail)
    one = tiny_survey_params.model_copy(update={"n_fields": 1})
    summary = survey.make_survey(tmp_path / "s", one, seed=TINY_SEED)
    assert summary.n_visits == 1
    assert summary.skipped == ("field 0 visit 1: only 3 clean stars",)


def test_a_folder_with_other_files_is_left_alone(tiny_survey_params: SurveyParams, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        survey.make_survey(tmp_path, tiny_survey_params, seed=1)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
