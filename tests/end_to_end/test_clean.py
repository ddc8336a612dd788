"""Cleaning takes out what it says, records why, and makes the random bogus purer against the truth."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gotorb import clean_data, label_data
from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.dataset.store import open_dataset
from gotorb.dataset.versions import compare_datasets
from gotorb.errors import CatalogueError, ConfigError, DataError
from gotorb.evaluation.truth import join_truth, read_truth


@pytest.fixture(scope="module")
def half_known(served, tmp_path_factory):
    """A data set labelled by a catalogue that knows every fourth minor planet, with many bogus."""
    folder = tmp_path_factory.mktemp("half")
    lines = Path(served.gotorb_mpc_catalogue).read_text().splitlines(keepends=True)
    known = folder / "old.csv"
    known.write_text("".join(lines[::4]))
    with served.with_values(gotorb_mpc_catalogue=str(known)).in_environment():
        return label_data.make(100, folder, name="data", provider="pympc", seed=1, extra_bogus_per_image=100)


def kinds_removed(old_dir, new_dir, survey_dir):
    """True kinds of the removed rows."""
    rows = join_truth(open_dataset(old_dir).table, read_truth(survey_dir)).set_index("id")
    return rows.loc[compare_datasets(old_dir, new_dir).rows["id"]]


def test_asteroids_of_a_newer_catalogue_are_found_and_nothing_else(half_known, served, tiny_survey, tmp_path):
    before = data_digest(half_known)
    new = clean_data.remove_asteroids(half_known, "pympc", out_dir=tmp_path, name="new")
    gone = kinds_removed(half_known, new, tiny_survey)
    assert len(gone) >= 10
    assert (gone["kind"] == "asteroid").mean() > 0.9
    assert data_digest(half_known) == before


def test_flipped_asteroids_become_real_and_keep_their_stamps(half_known, served, tmp_path):
    new = clean_data.remove_asteroids(half_known, "pympc", action="flip", out_dir=tmp_path, name="new")
    rows = compare_datasets(half_known, new).rows
    assert set(rows["change"]) == {"flipped"}
    assert set(rows["metalabel_after"]) == {"asteroid"}
    assert set(rows["label_after"]) == {1}


def test_unknown_asteroids_are_found_without_any_catalogue(half_known, served, tiny_survey, tmp_path):
    new = clean_data.remove_new_sources(half_known, out_dir=tmp_path, name="new")
    gone = kinds_removed(half_known, new, tiny_survey)
    truth = read_truth(tiny_survey)
    hiding = join_truth(open_dataset(half_known).table, truth).query("metalabel == 'randjunk'")
    blends = truth["candidate_id"][truth["n_sources"] > 1].astype(str)  # no points, so not what is sought
    points = hiding[~hiding["candidate_id"].isin(blends)]
    plain = set(points.query("kind == 'asteroid' and snr > 8")["id"])  # fainter ones no single exposure shows
    n_bogus = int((hiding["is_real"] == 0).sum())
    assert len(plain) >= 10
    assert len(plain & set(gone.index)) > 0.8 * len(plain)
    assert (gone["is_real"] == 0).sum() <= 0.15 * n_bogus  # 0.7 % in the whole survey; so few rows say little more
    assert set(gone["metalabel"]) == {"randjunk"}


def test_known_variables_are_removed_with_their_reason(labelled, served, tmp_path):
    stars = open_dataset(labelled).table.query("metalabel == 'randjunk'").iloc[:2]
    catalogue = tmp_path / "variables.csv"
    stars[["ra", "dec"]].to_csv(catalogue, index=False)
    new = clean_data.remove_variable_stars(labelled, catalogue, out_dir=tmp_path, name="new")
    record = pd.read_csv(new / layout.CHANGES_CSV)
    assert set(record["id"]) == set(stars["id"])
    assert set(record["reason"]) == {"known variable star within 3 arcsec"}
    flipped = clean_data.clean(labelled, variables=catalogue, variable_action="flip", out_dir=tmp_path, name="flipped")
    rows = compare_datasets(labelled, flipped).rows
    assert set(rows["id"]) == set(stars["id"]) and set(rows["change"]) == {"flipped"}
    assert set(rows["metalabel_after"]) == {"variable"} and set(rows["label_after"]) == {1}
    with pytest.raises(ConfigError, match="unknown action 'hide'"):
        clean_data.remove_variable_stars(labelled, catalogue, action="hide", out_dir=tmp_path, name="other")
    with pytest.raises(CatalogueError, match=r"no catalogue of variables .*nothing\.fits"):
        clean_data.remove_variable_stars(labelled, tmp_path / "nothing.fits", out_dir=tmp_path, name="other")


def test_cosmic_rays_are_bogus_seen_in_one_exposure(half_known, served, tiny_survey, tmp_path):
    new = clean_data.remove_cosmic_rays(half_known, out_dir=tmp_path, name="new")
    gone = kinds_removed(half_known, new, tiny_survey)
    left = open_dataset(new).table
    assert set(gone["n_seen"]) <= {1} and set(gone["metalabel"]) <= {"randjunk"}
    assert not ((left["metalabel"] == "randjunk") & (left["n_seen"] == 1)).any()
    assert not ((gone["is_real"] == 1) & (gone["snr"] > 7)).any()  # noise hides fainter ones in two of three exposures


def test_flagged_images_keep_a_few_rows(labelled, served, tmp_path):
    table = open_dataset(labelled).table
    worst = table["image_id"].iloc[0]
    flagged = tmp_path / "flagged.csv"
    flagged.write_text(f"image_id\n{worst}\n")
    new = clean_data.cap_flagged_images(labelled, flagged, n_keep=3, out_dir=tmp_path, name="new")
    left = open_dataset(new).table
    assert (left["image_id"] == worst).sum() == 3
    assert (left["image_id"] != worst).sum() == (table["image_id"] != worst).sum()
    with pytest.raises(DataError, match="cannot be read as csv"):
        clean_data.cap_flagged_images(labelled, tmp_path / "nothing.csv", out_dir=tmp_path, name="other")


def test_bogus_at_galaxies_are_removed(half_known, served, tmp_path):
    new = clean_data.remove_galaxies(half_known, radius_arcsec=20.0, out_dir=tmp_path, name="new")
    rows = compare_datasets(half_known, new).rows
    assert len(rows) and set(rows["metalabel"]) == {"randjunk"}
    fewer = clean_data.remove_galaxies(half_known, radius_arcsec=20.0, max_mag=15.0, out_dir=tmp_path, name="fewer")
    assert set(compare_datasets(half_known, fewer).rows["id"]) < set(rows["id"])


def test_several_cleanings_in_one_pass_name_the_first_reason(half_known, served, tmp_path):
    options = {"provider": "pympc", "new_sources": True, "galaxy_radius_arcsec": 8.0, "cosmic_rays": True}
    new = clean_data.clean(half_known, out_dir=tmp_path, name="new", **options)
    record = pd.read_csv(new / layout.CHANGES_CSV)
    assert record["id"].is_unique
    reasons = record["reason"].str.split(" ").str[0]
    assert {"minor", "new"} <= set(reasons)
    alone = clean_data.remove_asteroids(half_known, "pympc", out_dir=tmp_path, name="alone")
    assert set(pd.read_csv(alone / layout.CHANGES_CSV)["id"]) == set(record["id"][reasons == "minor"])
    assert len(open_dataset(new)) == len(open_dataset(half_known)) - len(record)


def test_cleaning_nothing_gives_an_equal_version(labelled, served, tmp_path):
    new = clean_data.clean(labelled, out_dir=tmp_path, name="new")
    assert data_digest(new) == data_digest(labelled)
    np.testing.assert_array_equal(open_dataset(new).ids, open_dataset(labelled).ids)
