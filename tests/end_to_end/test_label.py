"""From a served survey to a labelled data set, and what may go wrong on the way."""

import re

import numpy as np
import pandas as pd
import pytest

from gotorb import clean_data, label_data
from gotorb.catalogues.crossmatch import find_nearest
from gotorb.core import layout
from gotorb.core.settings import read_settings
from gotorb.dataset.card import data_digest
from gotorb.dataset.check import verify_dataset
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError, DatabaseError, DataError
from gotorb.evaluation.truth import check_labels
from gotorb.survey.fits import open_frame
from gotorb.survey.gotophoto import query_images, storage_path
from tests.unit.stamps.test_images import check_panels


def make(out_dir, name="run", **options):
    return label_data.make(100, out_dir, name=name, **({"provider": "pympc", "seed": 1} | options))


def test_data_set_holds_what_the_readme_says(labelled):
    assert {path.name for path in labelled.iterdir()} >= {"whole.log", "data_labels.csv", "data_stamps.h5"}
    data = open_dataset(labelled)
    assert tuple(data.table.columns) == layout.LABEL_COLUMNS
    assert (data.size, data.layers) == (55, layout.LAYERS)
    assert set(data.table["metalabel"]) == {"mp", "randjunk"}
    assert "4 images labelled" in (labelled / "whole.log").read_text()


def test_folder_is_named_by_the_time_when_no_name_is_given(served, tmp_path):
    made = label_data.make(1, tmp_path, provider="pympc")
    assert re.fullmatch(r"data_\d{8}-\d{6}", made.name)
    assert (made / f"{made.name}.log").exists()


def test_labels_are_pure_against_the_truth(labelled, tiny_survey):
    """The full survey's purity stands in reports/purity.json; so few rows can only contradict it."""
    purity = check_labels(labelled, tiny_survey)
    assert purity["mp"]["purity"] >= 0.99
    assert purity["mp"]["n"] >= 20
    assert purity["randjunk"]["high"] >= 0.95


def test_stacked_layers_are_the_images_own_pixels(labelled, served):
    data = open_dataset(labelled)
    for i in (0, len(data) - 1):
        row = data.table.iloc[i]
        with open_frame(storage_path(row["fits_filepath"], read_settings())) as frame:
            pixel = int(np.rint(row["y"])), int(np.rint(row["x"]))
            expected = [frame.plane(name)[pixel] for name in ("IMAGE", "TEMPLATE", "DIFFERENCE")]
        np.testing.assert_array_equal(data.read_stamps([i])[0, 27, 27, :3], np.nan_to_num(expected))


def test_exposure_layers_are_consistent(labelled):
    for _, stamps in open_dataset(labelled).batches():
        ptp, low, high = np.moveaxis(stamps[..., 3:], -1, 0)
        np.testing.assert_allclose(ptp, high - low, atol=1e-3)
        assert (high >= low).all()


def test_number_of_processes_changes_no_byte(labelled, served, tmp_path):
    assert data_digest(make(tmp_path, n_processes=2)) == data_digest(labelled)


def test_replaced_getters_and_hdu_names_are_obeyed_by_several_processes(served, tmp_path, monkeypatch):
    images = query_images(read_settings(), 100).iloc[:2]
    monkeypatch.setattr(label_data, "get_images", lambda n_images: images)
    monkeypatch.setattr(label_data, "DIFFERENCE_IMAGE_EXT", "IMAGE")
    data = open_dataset(make(tmp_path, n_processes=2))
    assert data.table["image_id"].nunique() == 2
    stamps = data.read_stamps(range(len(data)))
    np.testing.assert_array_equal(stamps[..., 0], stamps[..., 2])


def test_bad_image_is_skipped_and_told(served, tmp_path, monkeypatch, caplog):
    images = query_images(read_settings(), 100)
    broken = tmp_path / "broken.fits"
    whole = storage_path(images["filepath"].iloc[0], read_settings()).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(
        label_data, "get_images", lambda n: images.assign(filepath=[str(broken), *images["filepath"].iloc[1:]])
    )
    data = open_dataset(make(tmp_path))
    assert data.table["image_id"].nunique() == len(images) - 1
    assert f"{broken} has" in (tmp_path / "run" / "run.log").read_text()


def test_synthetic_transients_keep_the_old_rows_and_add_both_kinds(labelled, served, tmp_path):
    new = label_data.add_synthetic_transients(labelled, out_dir=tmp_path, name="new", max_galaxy_mag=21, max_mag=20.5)
    old, data = open_dataset(labelled), open_dataset(new)
    pd.testing.assert_frame_equal(data.table.iloc[: len(old)], old.table, check_dtype=False)
    np.testing.assert_array_equal(data.read_stamps(range(len(old))), old.read_stamps(range(len(old))))
    added = data.table.iloc[len(old) :]
    assert set(added["metalabel"]) == {"syntransient", "glxresid"}
    assert (added["label"] == (added["metalabel"] == "syntransient")).all()
    assert added["host_offset_arcsec"].between(0, 7).all()
    assert added["host_id"].str.startswith("glade:").all()
    assert not added.duplicated(["image_id", "host_id"]).any()


def test_synthetic_stamp_is_the_sum_of_planet_and_galaxy_without_the_planets_surroundings(labelled, served, tmp_path):
    new = label_data.add_synthetic_transients(labelled, out_dir=tmp_path, name="new", max_galaxy_mag=21, max_mag=20.5)
    data = open_dataset(new)
    made = data.table.index[data.table["metalabel"] == "syntransient"][0]
    row = data.table.iloc[made]
    planet = data.table.index[(data.table["metalabel"] == "mp") & (data.table["candidate_id"] == row["candidate_id"])][
        0
    ]
    with open_frame(storage_path(row["fits_filepath"], read_settings())) as frame:
        x, y = frame.wcs("DIFFERENCE").all_world2pix([[row["ra"], row["dec"]]], 0)[0]
        column, line = int(np.ceil(x - 0.5)), int(np.ceil(y - 0.5))
        plane = np.pad(frame.plane("DIFFERENCE"), 27, constant_values=np.nan)
        host = plane[line : line + 55, column : column + 55]
    added, light = data.read_stamps([made, planet])[..., 2]
    y, x = np.mgrid[-27:28, -27:28]
    radius, seen = np.hypot(x, y), np.isfinite(host)
    fwhm = data.table["fwhm"][data.table["metalabel"] == "mp"].median()
    near, far = seen & (radius < 1.5 * fwhm), seen & (radius > 5 * fwhm)
    assert near.sum() > 20 and far.sum() > 500
    np.testing.assert_allclose(added[near], (light + host)[near], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(added[far], host[far], rtol=1e-5, atol=1e-3)


def test_an_unknown_kind_of_faintness_is_refused(labelled, served, tmp_path):
    with pytest.raises(ConfigError, match="'detection'"):
        label_data.add_synthetic_transients(labelled, out_dir=tmp_path, snr_of="detection")


def test_synthetic_rows_are_as_faint_as_asked(labelled, served, tmp_path):
    options = {"out_dir": tmp_path, "max_galaxy_mag": 21, "max_mag": 20.5}
    whole, planets, all_of_them = (
        open_dataset(label_data.add_synthetic_transients(labelled, name=str(snr_of), snr_of=snr_of, **options))
        for snr_of in (None, "planets", "detections")
    )
    made = np.flatnonzero(whole.table["metalabel"] == "syntransient")
    bright = whole.table.iloc[made]
    for data in (planets, all_of_them):
        rows = data.table.iloc[made]
        light = (rows["snr"] / bright["snr"]).to_numpy()
        assert (light <= 1 + 1e-9).all() and light.min() < 0.8
        np.testing.assert_allclose(rows["mag"] - bright["mag"], -2.5 * np.log10(light), atol=1e-6)
        lost, core = (bright["snr"] > 0).to_numpy() & (light < 0.8), np.s_[:, 24:31, 24:31, 2]
        brought = whole.read_stamps(made)[core] - data.read_stamps(made)[core]
        assert (np.nansum(brought, axis=(1, 2))[lost] > 0).all()
    found = whole.table[whole.table["metalabel"].isin(["mp", "randjunk"])]
    assert all_of_them.table.iloc[made]["snr"].median() < 1.5 * found["snr"].median()
    assert all_of_them.table.iloc[made]["snr"].median() <= bright["snr"].median()


def test_fading_transient_is_negative_and_leaves_the_science_image_alone(labelled, served, tmp_path):
    options = {"out_dir": tmp_path, "max_galaxy_mag": 21, "max_mag": 20.5}
    rising, fading = (
        open_dataset(label_data.add_synthetic_transients(labelled, name=name, negative_fraction=fraction, **options))
        for name, fraction in (("rising", 0.0), ("fading", 1.0))
    )
    made = np.flatnonzero(fading.table["metalabel"] == "synfading")
    assert len(made) and (fading.table["label"].iloc[made] == 1).all()
    before = fading.read_stamps(made)
    n_old = len(open_dataset(labelled))
    assert "synfading" not in set(rising.table["metalabel"].iloc[n_old:])
    assert np.median(before[:, 27, 27, 2]) < 0
    assert np.median(before[:, 27, 27, 1] - before[:, 27, 27, 0]) > 0


def test_known_variables_brighten_and_fade_on_the_star(labelled, served, tiny_survey, tmp_path):
    catalogue = tiny_survey / layout.CATALOGUES_DIR / layout.VARIABLES_CSV
    stars, centres = pd.read_csv(catalogue), []
    for seed in range(4):  # few variables lie on images this small
        new = label_data.add_synthetic_transients(
            labelled, out_dir=tmp_path, variables=catalogue, n_variables_per_image=5, max_mag=20.5, seed=seed,
            name=f"new{seed}",
        )  # fmt: skip
        data = open_dataset(new)
        made = np.flatnonzero(data.table["metalabel"] == "synvariable")
        rows = data.table.iloc[made]
        assert len(made) and (rows["label"] == 1).all()
        assert rows["host_id"].str.startswith("var:").all() and not rows.duplicated(["image_id", "host_id"]).any()
        assert (find_nearest(rows["ra"], rows["dec"], stars["ra"], stars["dec"])[1] < 0.31).all()
        centres += data.read_stamps(made)[:, 27, 27, 2].tolist()
    assert max(centres) > 0 > min(centres)


def test_flashes_are_bogus_with_all_their_light_in_one_exposure(labelled, served, tmp_path):
    new = label_data.add_synthetic_transients(
        labelled, out_dir=tmp_path, name="new", max_galaxy_mag=21, max_mag=18.5, n_flashes_per_image=4
    )
    data = open_dataset(new)
    made = np.flatnonzero(data.table["metalabel"] == "synflash")
    rows = data.table.iloc[made]
    assert len(made) >= 4 and (rows["label"] == 0).all() and (rows["host_id"] == "").all()
    others = data.table[data.table["metalabel"].isin(["mp", "randjunk"])]
    assert (find_nearest(rows["ra"], rows["dec"], others["ra"], others["dec"])[1] > 10).all()
    centre = dict(zip(layout.LAYERS, data.read_stamps(made)[:, 27, 27].T, strict=True))
    noise = data.read_stamps(made)[:, 40:, 40:, layout.LAYERS.index("difference")].std(axis=(1, 2))
    assert (centre["difference"] > 5 * noise).all()
    assert np.median(centre["ptp"] / centre["difference"]) == pytest.approx(3, rel=0.25)
    assert (np.abs(centre["min"]) < 0.5 * centre["difference"]).mean() > 0.8
    assert not verify_dataset(new)


def test_no_catalogue_of_galaxies_says_which_setting(labelled, served, tmp_path, monkeypatch):
    monkeypatch.setenv("CATSHTM_DIR", "")
    with pytest.raises(Exception, match="CATSHTM_DIR is not set"):
        label_data.add_synthetic_transients(labelled, out_dir=tmp_path)


def test_no_database_named_says_where_to_name_it(served, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTOPHOTO_DB_NAME", "")
    with pytest.raises(ConfigError, match=r"GOTOPHOTO_DB_NAME is not set in \.env"):
        make(tmp_path)


def test_dead_database_server_is_told_with_its_address(served, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTOPHOTO_DB_HOST", "127.0.0.1")
    monkeypatch.setenv("GOTOPHOTO_DB_PORT", "1")
    with pytest.raises(DatabaseError, match=r"no connection to .*'gotophoto' at 127.0.0.1:1 .*GOTOPHOTO_DB_PORT"):
        make(tmp_path)
    assert not layout.labels_path(tmp_path / "run").exists()


def test_unknown_database_is_told(served, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTOPHOTO_DB_NAME", "nothere")
    with pytest.raises(DatabaseError, match=r"'nothere'.*does not exist.*check GOTOPHOTO_DB_NAME"):
        make(tmp_path)


def test_missing_minor_planet_catalogue_ends_the_run_without_labels(served, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTORB_MPC_CATALOGUE", str(tmp_path / "no.csv"))
    with pytest.raises(Exception, match="no minor-planet catalogue"):
        make(tmp_path)
    assert not layout.labels_path(tmp_path / "run").exists()


def test_labels_of_people_are_joined_by_candidate_id(labelled, served, tiny_survey, tmp_path):
    every, old = pd.read_csv(tiny_survey / layout.CANDIDATES_CSV), open_dataset(labelled).table
    candidates = every[~every["id"].astype(str).isin(old["candidate_id"])].iloc[[5, 11, 7]]
    csv, known = tmp_path / "marshall.csv", old[["candidate_id", "label"]].astype(int).iloc[0]
    ids = [*candidates["id"], candidates["id"].iloc[0], 99, known["candidate_id"]]
    pd.DataFrame({"photometry_id": ids, "label": [1, 0, 1, 1, 0, known["label"]]}).to_csv(csv, index=False)
    new = label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path, name="new")
    data, n_old = open_dataset(new), len(open_dataset(labelled))
    added = data.table.iloc[n_old:].set_index("candidate_id")
    assert added["metalabel"].tolist() == ["marshall"] * 3
    for id_, label in zip(candidates["id"].astype(str), [1, 0, 1], strict=True):
        row = candidates.set_index(candidates["id"].astype(str)).loc[id_]
        assert added.loc[id_, "label"] == label
        assert added.loc[id_, "x"] == pytest.approx(row["x"])
    told = (new / "new.log").read_text()
    assert f"1 ids of {csv} are not in the database: 99" in told
    assert f"1 ids stand in {csv} more than once, with one label: {ids[0]}" in told
    assert f"1 ids are in the data set already: {known['candidate_id']}" in told


def test_label_of_people_that_contradicts_the_data_set_is_refused_and_relabel_flips_the_row(labelled, served, tmp_path):
    row = open_dataset(labelled).table.query("metalabel == 'randjunk'").iloc[0]
    csv = tmp_path / "marshall.csv"
    csv.write_text(f"photometry_id,label\n{row['candidate_id']},1\n")
    with pytest.raises(DataError, match=rf"id {row['candidate_id']} has the other label in the data set"):
        label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path)
    new = open_dataset(clean_data.relabel(csv, labelled, out_dir=tmp_path, name="relabelled"))
    flipped = new.table.set_index("id").loc[row["id"]]
    assert (flipped["label"], flipped["metalabel"], flipped["rule"]) == (1, "marshall", "labelled by people")
    assert len(new) == len(open_dataset(labelled))


def test_conflicting_labels_of_people_are_refused(labelled, served, tmp_path):
    csv = tmp_path / "marshall.csv"
    csv.write_text("photometry_id,label\n7,1\n7,0\n")
    with pytest.raises(DataError, match="id 7 has both labels"):
        label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path)
    csv.write_text("photometry_id,label\n7,maybe\n")
    with pytest.raises(DataError, match="label 'maybe' of id 7"):
        label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path)
    csv.write_text('photometry_id,label\n"7; drop table image",1\n')
    with pytest.raises(DataError, match=r"id '7; drop table image' in .* is no candidate id"):
        label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path)
    csv.write_text("id,label\n7,1\n")
    with pytest.raises(DataError, match="no column 'photometry_id'"):
        label_data.add_marshall_cands(csv, labelled, out_dir=tmp_path)


def test_a_run_that_finds_no_expected_minor_planet_stops_unless_told_otherwise(served, tmp_path, monkeypatch):
    right = label_data.get_images
    monkeypatch.setattr(label_data, "get_images", lambda n: right(n).assign(jd=lambda t: t["jd"].astype(float) + 3))
    with pytest.raises(DataError, match=r"matched 0 of \d+ expected minor planets.*do not train on"):
        label_data.make(100, tmp_path, name="stopped", provider="pympc")
    assert "matched 0 of" in (tmp_path / "stopped" / "stopped.log").read_text()
    made = label_data.make(100, tmp_path, name="told", provider="pympc", check_expected=False)
    images = pd.read_csv(made / layout.IMAGES_CSV)
    assert images["n_expected"].sum() >= 5 and images["n_matched"].sum() == 0


def test_images_tell_the_minor_planets_expected_and_matched(labelled):
    images, rows = pd.read_csv(labelled / layout.IMAGES_CSV), open_dataset(labelled).table
    assert images["n_matched"].sum() >= 0.5 * images["n_expected"].sum() >= 10
    n_planets = rows[rows["metalabel"] == "mp"].groupby("image_id").size()
    matched = images.assign(image_id=images["image_id"].astype(str)).set_index("image_id")["n_matched"]
    assert (matched.reindex(n_planets.index) <= n_planets).all()
    assert images[["offset_ra_arcsec", "offset_dec_arcsec"]].abs().max(axis=None) < 1


def test_stamps_of_the_survey_can_be_seen(labelled):
    data = open_dataset(labelled)
    check_panels(data.read_stamps(range(len(data)), ("science", "template", "difference")))
