"""The gotophoto database: images and the places of their files."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from gotorb.core.settings import Settings
from gotorb.errors import ConfigError, DatabaseError, OutsideStorage

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 120_000
RECONNECT_S = 30
"""How long a server that was there may be away."""
PAUSE_S = 0.2
MAX_ABS_DEC_DEG = 35
QUALITY_LIMIT = 128
MIN_NCOADDS = 3

DIFFERENCE_IMAGES = """
    select id, filepath, ra_c, dec_c, jd, quality, ncoadds, instrument, relatedimage
    from image
    where image_type = 'DIFFERENCE' and abs(dec_c) < %(max_dec)s and quality < %(quality)s and ncoadds >= %(ncoadds)s
    order by id limit %(n_images)s"""
SINGLE_EXPOSURES = """
    select relatedimage, filepath from image
    where image_type = 'SCIENCE' and relatedimage = any(%(related)s) order by relatedimage, id"""
CANDIDATES = """
    select c.id as candidate_id, c.image_id, c.x, c.y, c.ra, c.dec, c.mag, c.fwhm, c.realbogus
    from candidate c where c.id = any(%(ids)s) order by c.id"""
IMAGES_BY_ID = """
    select id, filepath, ra_c, dec_c, jd, quality, ncoadds, instrument, relatedimage
    from image where id = any(%(ids)s) order by id"""


class ServerRestarting(DatabaseError):
    """The server is starting and accepts no connection yet."""


@contextmanager
def connect(settings: Settings) -> Iterator[Any]:
    """Open a read-only connection.

    Parameters
    ----------
    settings : Settings

    Yields
    ------
    connection
        Of psycopg2; closed at the end.

    Raises
    ------
    ConfigError
        If `.env` does not name the database.
    DatabaseError
        If the server cannot be reached or refuses the user.
    """
    import psycopg2

    if not settings.gotophoto_db_name:
        raise ConfigError(
            "GOTOPHOTO_DB_NAME is not set in .env or the environment; copy .env.example to .env and set it, or "
            "name the adapter of your own survey (--adapter)"
        )
    try:
        connection = psycopg2.connect(
            dbname=settings.gotophoto_db_name,
            user=settings.gotophoto_db_user or None,
            host=settings.gotophoto_db_host or None,
            port=settings.gotophoto_db_port or None,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c default_transaction_read_only=on",
        )
    except psycopg2.Error as error:
        restarting = re.search("starting up|shutting down|recovery mode", str(error))
        raise (ServerRestarting if restarting else DatabaseError)(_describe(settings, error)) from None
    try:
        yield connection
    finally:
        connection.close()


def _describe(settings: Settings, error: Exception) -> str:
    where = f"{settings.gotophoto_db_host or 'the local socket'}:{settings.gotophoto_db_port or 5432}"
    reason = re.sub(r"\s+", " ", str(error)).strip()
    if "password" in reason or "authentication" in reason:
        cure = "add a line for it to ~/.pgpass (mode 0600) and check GOTOPHOTO_DB_USER in .env"
    elif "does not exist" in reason:
        cure = "check GOTOPHOTO_DB_NAME and GOTOPHOTO_DB_USER in .env"
    else:
        cure = "check that the server runs and GOTOPHOTO_DB_HOST and GOTOPHOTO_DB_PORT in .env"
    return f"no connection to database {settings.gotophoto_db_name!r} at {where} ({reason}); {cure}"


def query(settings: Settings, sql: str, values: dict[str, Any]) -> pd.DataFrame:
    """Run a read-only query; lost connections are retried for a while.

    Parameters
    ----------
    settings : Settings
    sql : str
    values : dict
        Of the query's placeholders.

    Returns
    -------
    DataFrame

    Raises
    ------
    DatabaseError
        If the query fails, or the server does not come back.
    """
    import psycopg2

    deadline: float | None = None
    while True:
        try:
            with connect(settings) as connection, connection.cursor() as cursor:
                cursor.execute(sql, values)
                return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description])
        except psycopg2.errors.UndefinedTable as error:
            raise DatabaseError(
                f"database {settings.gotophoto_db_name!r} has no such table ({str(error).splitlines()[0]}); "
                "check GOTOPHOTO_DB_NAME in .env"
            ) from None
        except psycopg2.errors.QueryCanceled:
            raise DatabaseError(
                f"database {settings.gotophoto_db_name!r} gave no answer within {STATEMENT_TIMEOUT_MS / 1000:g} s; "
                "ask for fewer images, or see what keeps the server busy"
            ) from None
        except (psycopg2.Error, ServerRestarting) as error:
            deadline = deadline or time.monotonic() + RECONNECT_S
            if time.monotonic() > deadline:
                raise DatabaseError(_describe(settings, error)) from None
            time.sleep(PAUSE_S)
        except DatabaseError:
            # refused immediately: a mistake in .env; refused after a lost connection: the server restarts
            if deadline is None or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_S)


def query_images(settings: Settings, n_images: int) -> pd.DataFrame:
    """Difference images fit for labelling, in order of id.

    Parameters
    ----------
    settings : Settings
    n_images : int
        Largest number of images.

    Returns
    -------
    DataFrame
        Columns of `DIFFERENCE_IMAGES`.
    """
    limits = {"max_dec": MAX_ABS_DEC_DEG, "quality": QUALITY_LIMIT, "ncoadds": MIN_NCOADDS, "n_images": n_images}
    return query(settings, DIFFERENCE_IMAGES, limits)


def query_exposures(settings: Settings, related: list[int]) -> pd.DataFrame:
    """Single exposures of some difference images.

    Parameters
    ----------
    settings : Settings
    related : list of int
        Ids that difference images and exposures share.

    Returns
    -------
    DataFrame
        relatedimage, filepath.
    """
    return query(settings, SINGLE_EXPOSURES, {"related": related})


def query_candidates(settings: Settings, ids: list[int]) -> pd.DataFrame:
    """Candidates by id.

    Parameters
    ----------
    settings : Settings
    ids : list of int

    Returns
    -------
    DataFrame
        Columns of `CANDIDATES`, in order of id.
    """
    return query(settings, CANDIDATES, {"ids": ids})


def query_images_by_id(settings: Settings, ids: list[int]) -> pd.DataFrame:
    """Images by id.

    Parameters
    ----------
    settings : Settings
    ids : list of int

    Returns
    -------
    DataFrame
        Columns of `IMAGES_BY_ID`, in order of id.
    """
    return query(settings, IMAGES_BY_ID, {"ids": ids})


def storage_path(filepath: str, settings: Settings, *, anywhere: bool = True) -> Path:
    """Path in storage of a file that the database knows by its work path.

    Parameters
    ----------
    filepath : str
        Path as the survey names it. A name in the work directory becomes one in the storage directory; both are
        checked after symbolic links are followed.
    settings : Settings
        Tell where work and storage directory are. Without a work directory every path is taken as it is.
    anywhere : bool
        True for paths of the user's own functions, which may lie outside of both directories.

    Returns
    -------
    Path

    Raises
    ------
    OutsideStorage
        If the path leads out of the storage directory, by its name, by ``..`` or by a symbolic link.

    Examples
    --------
    >>> here = Settings(gotophoto_workdir="/gotophoto", gotophoto_storagedir="/store")
    >>> storage_path("/gotophoto/reduced/2020-01-02/r1.fits", here).as_posix()
    '/store/final/2020-01-02/r1.fits'
    """
    path, root = PurePosixPath(filepath), Path(settings.gotophoto_storagedir)
    if not settings.gotophoto_workdir:
        return Path(filepath)
    is_work = path.is_relative_to(settings.gotophoto_workdir)
    if not is_work and anywhere:
        return Path(filepath)
    inside = path.relative_to(settings.gotophoto_workdir).parts if is_work else ()
    place = Path(root, *("final" if part == "reduced" else part for part in inside)) if is_work else Path(filepath)
    if ".." in path.parts or not _is_inside(place, root):
        raise OutsideStorage(
            f"path {filepath!r} of the survey leads out of GOTOPHOTO_STORAGEDIR ({root}); correct that row or link"
        )
    return place


def _is_inside(place: Path, root: Path) -> bool:
    """True for a place that is below a folder once links are followed."""
    try:
        return place.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, or a name that no file can have
        return False
