"""Minor planets offline and online: "none there" and "no answer" are never confused."""

import pickle
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gotorb.catalogues.minor_planets import COLUMNS, Field, Pympc, make_provider
from gotorb.core import layout
from gotorb.core.constants import MJD_ZERO
from gotorb.core.settings import LA_PALMA, Settings
from gotorb.errors import CatalogueError

MATCH_ARCSEC = 1.0
FIELD = Field(ra=81.28, dec=4.49, radius_deg=0.2, epoch_mjd=60677.0)
EXCERPT = Path(__file__).with_name("xephem_four.csv")


@pytest.fixture(scope="module")
def image(tiny_survey: Path) -> Any:
    """A difference image's row of the tiny survey."""
    images = pd.read_csv(tiny_survey / layout.IMAGES_CSV)
    return images[images["image_type"] == "DIFFERENCE"].iloc[0]


def offline(tiny_survey: Path) -> Pympc:
    return Pympc(str(tiny_survey / layout.CATALOGUES_DIR / layout.XEPHEM_CSV), LA_PALMA)


def around(image: Any, radius_deg: float = 0.3) -> Field:
    return Field(float(image["ra_c"]), float(image["dec_c"]), radius_deg, float(image["jd"]) - MJD_ZERO)


def test_pympc_finds_the_asteroids_that_truth_says_are_there(tiny_survey: Path, image: Any) -> None:
    found = offline(tiny_survey).find(around(image))
    truth = pd.read_csv(tiny_survey / layout.TRUTH_CSV, dtype={"candidate_id": str})
    candidates = pd.read_csv(tiny_survey / layout.CANDIDATES_CSV, dtype={"id": str})
    real = candidates[candidates["image_id"] == image["id"]].merge(
        truth[truth["kind"] == "asteroid"], left_on="id", right_on="candidate_id", suffixes=("", "_truth")
    )
    assert tuple(found.columns) == COLUMNS
    assert len(real) > 3
    cos_dec = np.cos(np.radians(image["dec_c"]))
    nearest = [
        np.hypot((found["ra"] - row.ra) * cos_dec, found["dec"] - row.dec).min() * 3600 for row in real.itertuples()
    ]
    assert np.median(nearest) < MATCH_ARCSEC


def test_pympc_gives_an_empty_table_where_nothing_is(tiny_survey: Path, image: Any) -> None:
    field = around(image)
    found = offline(tiny_survey).find(Field((field.ra + 180) % 360, -field.dec, 0.1, field.epoch_mjd))
    assert tuple(found.columns) == COLUMNS
    assert found.empty


def test_missing_catalogue_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no minor-planet catalogue .*no\.csv; .*GOTORB_MPC_CATALOGUE in \.env"):
        Pympc(str(tmp_path / "no.csv"), LA_PALMA).find(FIELD)


def test_catalogue_of_another_format_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("no,such\nformat,here\n")
    with pytest.raises(CatalogueError, match=r"other\.csv cannot be used"):
        Pympc(str(path), LA_PALMA).find(FIELD)


def test_version_names_the_catalogue_and_its_content(tmp_path: Path, tiny_survey: Path) -> None:
    name, _, digest = offline(tiny_survey).version.partition("@")
    assert name == f"pympc:{layout.XEPHEM_CSV}"
    assert len(digest) == 12
    assert make_provider("skybot", Settings()).version == "skybot"


def test_version_of_a_missing_catalogue_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"no minor-planet catalogue .*no\.csv"):
        _ = Pympc(str(tmp_path / "no.csv"), LA_PALMA).version


def test_catalogue_left_out_is_pympcs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    provider = make_provider("pympc", Settings())
    with pytest.raises(CatalogueError, match=r"pympc/xephem/xephem_astorb\.csv; run `gotorb catalogue update`"):
        provider.find(FIELD)
    shutil.copy(EXCERPT, provider.path)
    assert provider.version.startswith("pympc:xephem_astorb.csv@")
    found = provider.find(Field(10.0, 0.0, 180.0, FIELD.epoch_mjd))
    assert len(found) == len(EXCERPT.read_text().splitlines())


@pytest.mark.parametrize("name", ["pympc", "skybot"])
def test_providers_are_small_plain_and_travel(name: str) -> None:
    settings = Settings(gotorb_mpc_catalogue="/a/mpc.csv", gotorb_observatory_code="W84", gotorb_skybot_url="http://s/")
    provider = make_provider(name, settings)
    assert pickle.loads(pickle.dumps(provider)) == provider
    assert len(pickle.dumps(provider)) < 300
    assert hash(provider) == hash(make_provider(name, settings))
    assert (
        asdict(provider).keys() == {"pympc": {"catalogue", "observatory"}, "skybot": {"observatory_code", "url"}}[name]
    )


def test_old_elements_are_warned_of_once(tiny_survey: Path, image: Any, caplog: pytest.LogCaptureFixture) -> None:
    provider, field = offline(tiny_survey), around(image)
    for days in (0, 30, 200, 250):
        provider.find(replace(field, epoch_mjd=field.epoch_mjd + days))
    (message,) = [record.getMessage() for record in caplog.records]
    assert re.search(r"19\d days after its elements, positions are off by some 7\.\d arcsec; run `gotorb cat", message)


def test_unknown_provider_is_told_with_the_known_ones() -> None:
    with pytest.raises(CatalogueError, match="unknown minor-planet provider 'horizons'; choose one of pympc, skybot"):
        make_provider("horizons", Settings())


@pytest.mark.parametrize("mjd", [62500.0, 66000.0])
def test_images_newer_than_the_tables_of_the_earths_rotation_need_no_network(tiny_survey: Path, mjd: float) -> None:
    """astropy refuses such times by default, or asks the network for newer tables."""
    assert len(offline(tiny_survey).find(Field(FIELD.ra, FIELD.dec, 180.0, mjd))) > 10
