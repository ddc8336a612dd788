"""Place of the runs: a tracking server named in .env, or a sqlite file and a folder in mlruns/."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from filelock import FileLock

from gotorb.core import layout
from gotorb.core.logs import first_line
from gotorb.core.settings import project_root, read_settings
from gotorb.errors import GotorbError, TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# set before mlflow is imported: quiet, quick to give up on a dead server, and no pickles from model files
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)

STORE_FILE = "mlflow.db"
ARTIFACTS_DIR, JOURNALS_DIR = "artifacts", "journals"
PREFLIGHT_S = 3
"""Seconds in which a tracking server answers, or counts as down."""
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold places of artifacts.

They are written here because no call of MLflow changes the place of a run's, an experiment's or a version's artifacts.
"""


NOTES = {
    "-promotions": "Each promotion, refusal and rollback of a registered model: who, when, why, with the evidence.",
    "-evaluation": "Studies, and comparisons with other classifiers.",
    "": """Runs of the pipeline: a run for each stage, and for each model the run of its training.

| metrics | measured on |
|---|---|
| `epoch/...` | training and validation rows, after each epoch |
| `val/...` | validation rows, at the best epoch |
| `test/...` | held-out rows |
| `truth/...` | every detection of the held-out images, against the simulator's truth |
| `injected/...` | transients injected into the held-out images |

`gotorb ui` prints the address of a comparison; the run `promote` says which model is champion and why.""",
}
"""Ending of an experiment's name -> its description."""


def tracking_uri() -> str:
    """URI of the tracking store: MLFLOW_TRACKING_URI, else the project's sqlite file."""
    return read_settings().mlflow_tracking_uri or _local_uri()


def shown_uri() -> str:
    """The same without a password, for messages."""
    return re.sub(r"(?<=//)([^/@:]+):[^/@]+@", r"\1:***@", tracking_uri())


def _local_uri() -> str:
    return f"sqlite:///{_mlruns_dir() / STORE_FILE}"


def is_local() -> bool:
    """True if the store is the project's own sqlite file."""
    # not "no MLFLOW_TRACKING_URI": mlflow itself puts its store's address into the environment
    return tracking_uri() == _local_uri()


def _mlruns_dir() -> Path:
    """Folder of the store of this machine, and of journals."""
    return Path(os.environ.get("GOTORB_MLRUNS", project_root() / layout.MLRUNS_DIR))


def connect() -> MlflowClient:
    """Connect to the store, which is made when it is new, without a change to MLflow's global state.

    Returns
    -------
    MlflowClient
        Of the store's runs and its registry.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    check_project()
    import mlflow

    uri = tracking_uri()
    with _set_up_lock():
        try:
            client = mlflow.MlflowClient(uri, uri)
            client.search_experiments(max_results=1)
        except Exception as error:  # of mlflow, requests, sqlalchemy or a database's driver
            raise TrackingError(
                f"tracking store {shown_uri()} does not answer ({first_line(error)}); check MLFLOW_TRACKING_URI in .env"
            ) from None
    return client


def mlflow_environment() -> dict[str, str]:
    """Environment in which MLflow's own commands work on this project's store."""
    check_project()
    uri = tracking_uri()
    served = {"MLFLOW_BACKEND_STORE_URI": uri} if is_local() else {}  # else `mlflow server` makes a file here
    return os.environ | {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri} | served


def check_project() -> None:
    """Check that there is a store, or a project to make one in.

    Raises
    ------
    TrackingError
        If neither a project is here nor a server is named.
    """
    root = project_root()
    known = "GOTORB_MLRUNS" in os.environ or _mlruns_dir().exists() or (root / layout.PARAMS_YAML).exists()
    if is_local() and not known:
        raise TrackingError(f"{root} is no project (no {layout.PARAMS_YAML}); go to one, or set MLFLOW_TRACKING_URI")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translate errors of MLflow, its database and the disk into one line while the block runs.

    Parameters
    ----------
    doing : str
        Beginning of the message.
    """
    try:
        yield
    except GotorbError:
        raise
    except Exception as error:  # of mlflow, requests, sqlalchemy or a database's driver
        reason = f"{doing}: tracking store {shown_uri()} fails ({first_line(error)})"
        raise TrackingError(f"{reason}; look at its disk and at its server, then again") from error


def open_store() -> MlflowClient:
    """Connect to the store and make it the one that MLflow's own functions use.

    Returns
    -------
    MlflowClient
        As by `connect`.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    import mlflow

    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return connect()


def check_store() -> None:
    """Check the store's file, where it is one, without MLflow.

    Raises
    ------
    TrackingError
        If it is no database, or may not be written: unlike a server that is down, this does not pass by itself.
    """
    check_project()
    path = _mlruns_dir() / STORE_FILE
    if not is_local() or not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as store:
            store.execute("pragma schema_version")
        reason = "" if os.access(path, os.W_OK) else "it may not be written"
    except sqlite3.DatabaseError as error:
        reason = str(error)
    if reason:
        raise TrackingError(f"tracking store {path} cannot be used: {reason}; put it right, or move it away")


def answers() -> bool:
    """True if the tracking server answers within seconds; a store on this machine always does."""
    import requests

    uri = tracking_uri()
    if not uri.startswith("http"):
        return True
    try:
        return requests.get(f"{uri.rstrip('/')}/health", timeout=PREFLIGHT_S).status_code < 500
    except requests.RequestException:
        return False


def artifacts_answer() -> bool:
    """True if the S3-compatible store of .env takes connections; answers within seconds, where boto takes minutes."""
    parts = urlsplit(os.environ.get("MLFLOW_S3_ENDPOINT_URL", ""))
    if not parts.hostname:
        return True
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=PREFLIGHT_S).close()
    except (OSError, ValueError):
        return False
    return True


def journals_dir() -> Path:
    """Folder of the journals of runs that the tracking store does not have yet."""
    return _mlruns_dir() / JOURNALS_DIR


def open_experiment(name: str) -> str:
    """Find an experiment, or make it when it is new; safe when several processes meet in a fresh store.

    Parameters
    ----------
    name : str
        Of the experiment.

    Returns
    -------
    str
        Its id.
    """
    client = connect()
    with _set_up_lock():
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = (_mlruns_dir() / ARTIFACTS_DIR / name).as_uri() if is_local() else None
        tags = {"mlflow.note.content": next(text for end, text in NOTES.items() if name.endswith(end))}
        return str(client.create_experiment(name, artifact_location=place, tags=tags))


def _set_up_lock() -> FileLock:
    """First contact of two processes with a fresh store breaks one of them, so they queue."""
    folder = _mlruns_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".setup.lock", timeout=120)


def find_moved() -> list[str]:
    """Artifact folders of the store that lie outside this project's mlruns/; empty when the project was not moved."""
    return sorted({place for _, _, place in _places() if _root_of(place) not in (None, _here())})


def relocate() -> dict[str, int]:
    """Correct the store's artifact locations after a move.

    Returns
    -------
    dict
        Old folder -> places changed.

    Raises
    ------
    TrackingError
        If the store is a server, or none.
    """
    changed: Counter[str] = Counter()
    with closing(_open_file()) as store, store:  # all or nothing
        for table, column, place in _read(store):
            root = _root_of(place)
            if root is None or root == _here():
                continue
            new = _here() + place[len(root) :]
            store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, place))
            changed[root] += 1
    return dict(changed)


def _here() -> str:
    return (_mlruns_dir() / ARTIFACTS_DIR).resolve().as_uri()


def _root_of(place: str) -> str | None:
    """The part of a place up to mlruns/artifacts; None for other places, such as s3://."""
    names = "|".join(re.escape(quote(name)) for name in {_mlruns_dir().name, layout.MLRUNS_DIR})
    found = re.match(rf"file://.*/(?:{names})/{ARTIFACTS_DIR}(?=/|$)", place)
    return found.group() if found else None


def _places() -> list[tuple[str, str, str]]:
    with closing(_open_file()) as store:
        return _read(store)


def _read(store: sqlite3.Connection) -> list[tuple[str, str, str]]:
    rows = []
    for table, column in PLACES:
        try:
            found = store.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
        except sqlite3.OperationalError:
            continue  # a store of another MLflow, which has no such table yet
        rows += [(table, column, place) for (place,) in found if place]
    return rows


def _open_file() -> sqlite3.Connection:
    path: Path = _mlruns_dir() / STORE_FILE
    if not path.exists():
        raise TrackingError(f"no tracking store {path}; go to the project's folder, or run `make repro` first")
    return sqlite3.connect(path)
