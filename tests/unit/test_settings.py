"""Settings: .env is read, the environment wins, and the project is found from wherever one stands."""

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from gotorb.core import layout
from gotorb.core.settings import LA_PALMA, Settings, project_root, read_settings
from gotorb.errors import ConfigError

VARIABLES = [field.name.upper() for field in fields(Settings)]


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """No variable of the machine is seen, and none that `.env` exports stays."""
    before = dict(os.environ)
    for name in (*VARIABLES, "DVC_ROOT", "EXTRA"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = (tmp_path / "project").resolve()
    root.mkdir()
    (root / layout.PARAMS_YAML).write_text("seed: 1\n")
    monkeypatch.chdir(root)
    return root


def test_nothing_set_means_empty(project: Path) -> None:
    assert read_settings() == Settings()


def test_env_file_is_read_and_exported(project: Path) -> None:
    (project / ".env").write_text("# comment\nGOTOPHOTO_DB_HOST=db.example.org\nexport CATSHTM_DIR='/a b'\nEXTRA=1\n")
    settings = read_settings()
    assert (settings.gotophoto_db_host, settings.catshtm_dir) == ("db.example.org", "/a b")
    assert os.environ["EXTRA"] == "1"


def test_environment_wins_over_env_file(project: Path) -> None:
    (project / ".env").write_text("GOTOPHOTO_DB_HOST=file\nGOTOPHOTO_DB_PORT=1\n")
    os.environ["GOTOPHOTO_DB_HOST"] = "environment"
    settings = read_settings()
    assert (settings.gotophoto_db_host, settings.gotophoto_db_port) == ("environment", "1")


def test_empty_value_in_the_environment_wins_too(project: Path) -> None:
    (project / ".env").write_text("GOTOPHOTO_DB_HOST=file\n")
    os.environ["GOTOPHOTO_DB_HOST"] = ""
    assert read_settings().gotophoto_db_host == ""


def test_empty_value_in_the_file_is_nothing(project: Path) -> None:
    (project / ".env").write_text("GOTOPHOTO_DB_HOST=\nEXTRA=\n")
    assert read_settings().gotophoto_db_host == ""
    assert "EXTRA" not in os.environ


def test_settings_can_be_lent_to_the_environment(project: Path) -> None:
    os.environ["GOTOPHOTO_DB_HOST"] = "before"
    with Settings(gotophoto_db_host="lent").in_environment():
        assert read_settings().gotophoto_db_host == "lent"
    assert read_settings().gotophoto_db_host == "before"


def test_project_is_found_from_a_folder_inside(project: Path) -> None:
    inside = project / "data" / "label"
    inside.mkdir(parents=True)
    assert project_root(inside) == project


def test_outside_any_project_here_is_the_root(tmp_path: Path) -> None:
    assert project_root(tmp_path) == tmp_path.resolve()


def test_source_folder_belongs_to_its_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project / layout.SOURCES_DIR / "ztf"
    source.mkdir(parents=True)
    (source / layout.PARAMS_YAML).write_text("seed: 1\n")
    assert project_root(source) == project
    monkeypatch.chdir(source)
    (project / ".env").write_text("CATSHTM_DIR=/galaxies\n")
    assert read_settings().catshtm_dir == "/galaxies"


def test_dvc_names_the_project_inside_a_stage(project: Path, tmp_path: Path) -> None:
    os.environ["DVC_ROOT"] = str(project)
    assert project_root(tmp_path) == project
    source = project / layout.SOURCES_DIR / "ztf"
    source.mkdir(parents=True)
    (source / layout.PARAMS_YAML).write_text("seed: 1\n")
    os.environ["DVC_ROOT"] = str(source)
    assert project_root(tmp_path) == project


def test_observatory_is_la_palma_unless_set() -> None:
    assert Settings().observatory == LA_PALMA
    assert Settings(gotorb_observatory="243.14, 0.83, 0.54").observatory == (243.14, 0.83, 0.54)


@pytest.mark.parametrize("value", ["La Palma", "1,2", "1,2,3,4", "1,2,x", ","])
def test_bad_observatory_is_told_with_the_cure(value: str) -> None:
    with pytest.raises(ConfigError, match=r"GOTORB_OBSERVATORY is .* give three numbers") as caught:
        _ = Settings(gotorb_observatory=value).observatory
    assert value in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "lon=-17.8824, lat=28.7603, height=2336",
        "height=2336,lat=28.7603,lon=342.1176",
        "LON=-17.8824,LAT=28.7603,HEIGHT=2336.0",
    ],
)
def test_an_observatory_may_be_longitude_latitude_and_height(place: str) -> None:
    from astropy.coordinates import EarthLocation

    location = EarthLocation.from_geodetic(-17.8824, 28.7603, 2336)
    x, y, z = (value.to_value("m") / 6378137 for value in location.geocentric)
    lon, cos_phi, sin_phi = Settings(gotorb_observatory=place).observatory
    assert lon == pytest.approx(342.1176) and (cos_phi, sin_phi) == pytest.approx(((x**2 + y**2) ** 0.5, z), abs=1e-9)


@pytest.mark.parametrize("place", ["289.25058,0.864981,-0.500958", "0,0,0", "243.14022,0.836325,0.546877"])
def test_parallax_constants_of_observatories_are_taken(place: str) -> None:
    assert Settings(gotorb_observatory=place).observatory == tuple(map(float, place.split(",")))


@pytest.mark.parametrize(
    "place",
    [
        "-17.88,28.76,2336",
        "-70.24,-30.24,2.647",
        "342.1176,0.877701,2.4",
        "342.1176,0.5,0.5",
        "800,0.877701,0.478556",
        "nan,0.877701,0.478556",
        "342.1176,-0.877701,0.478556",
        "lon=-17.88,lat=128.76,height=2336",
        "lon=-17.88,lat=28.76",
        "lon=-17.88,lat=28.76,height=2336,code=950",
        "lon=-17.88,lat=28.76,height=high",
    ],
)
def test_an_impossible_observatory_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="GOTORB_OBSERVATORY"):
        _ = Settings(gotorb_observatory=place).observatory
