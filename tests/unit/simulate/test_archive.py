"""The embedded PostgreSQL: filled once, read back whole, never half written."""

from pathlib import Path

import pandas as pd
import psycopg2
import pytest

from gotorb.core import layout
from gotorb.core.settings import Settings
from gotorb.errors import DatabaseError, SurveyError
from gotorb.simulate import archive


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ("deep" * 12) / ("checkout" * 8)
    folder.mkdir(parents=True)
    (folder / layout.PARAMS_YAML).touch()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(folder)
    return folder


def connect(settings: Settings):  # type: ignore[no-untyped-def]
    return psycopg2.connect(
        host=settings.gotophoto_db_host,
        port=settings.gotophoto_db_port,
        dbname=settings.gotophoto_db_name,
        user=settings.gotophoto_db_user,
    )


def count(connection, table: str) -> int:  # type: ignore[no-untyped-def]
    with connection, connection.cursor() as cursor:
        cursor.execute(f"select count(*) from {table}")
        return cursor.fetchone()[0]


def test_tables_survive_a_round_trip_and_a_second_opening_loads_nothing(
    tiny_survey: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = pd.read_csv(tiny_survey / layout.CANDIDATES_CSV)
    with archive.open_archive(tiny_survey, Settings()) as settings:
        assert len(settings.gotophoto_db_host) < 90
        connection = connect(settings)
        with connection, connection.cursor() as cursor:
            cursor.execute("select id, x, mag, cnn_realbogus from candidate order by id")
            rows = pd.DataFrame(cursor.fetchall(), columns=["id", "x", "mag", "cnn_realbogus"])
            cursor.execute(
                "select filepath from image where image_type = 'DIFFERENCE' and abs(dec_c) < 35 and ncoadds >= 3"
            )
            paths = [row[0] for row in cursor.fetchall()]
        connection.close()
        assert rows.equals(dumps[list(rows.columns)])
        for path in paths:
            tail = path.removeprefix(settings.gotophoto_workdir).replace("reduced", "final")
            assert Path(settings.gotophoto_storagedir + tail).is_file()
    monkeypatch.setattr(archive, "write_tables", lambda *_: pytest.fail("loaded again"))
    with archive.open_archive(tiny_survey, Settings(gotorb_mpc_catalogue="/own.csv")) as settings:
        assert settings.gotorb_mpc_catalogue == "/own.csv"
        assert (project / layout.STATE_DIR / layout.DATABASE_DIR).is_dir()


def test_two_openings_at_once_share_one_server(tiny_survey: Path, project: Path) -> None:
    with (
        archive.open_archive(tiny_survey, Settings()) as first,
        archive.open_archive(tiny_survey, Settings()) as second,
    ):
        assert first == second


def test_a_broken_dump_leaves_the_old_tables(tiny_survey: Path, project: Path, tmp_path: Path) -> None:
    broken = tmp_path / "candidate.csv"
    text = (tiny_survey / layout.CANDIDATES_CSV).read_text().splitlines()
    broken.write_text("\n".join([*text[:3], "not,a,row"]))
    with archive.open_archive(tiny_survey, Settings()) as settings:
        connection = connect(settings)
        before = count(connection, "candidate")
        with pytest.raises(DatabaseError, match=r"refused image\.csv and candidate\.csv"):
            archive.write_tables(connection, tiny_survey / layout.IMAGES_CSV, broken)
        assert count(connection, "candidate") == before > 0
        connection.close()


def test_a_users_own_database_is_left_to_the_user(tmp_path: Path) -> None:
    own = Settings(gotophoto_db_host="db.example.org")
    with archive.open_archive(tmp_path, own) as settings:
        assert settings == own


def test_a_folder_without_survey_is_named(project: Path) -> None:
    with (
        pytest.raises(SurveyError, match=r"no image\.csv in .*gotorb simulate"),
        archive.open_archive(project / "nothing", Settings()),
    ):
        pass
