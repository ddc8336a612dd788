"""Where runs are kept: a tracking server named in .env, or a sqlite file and a folder in mlruns/."""

import os
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.settings import project_root, read_settings

# set before mlflow is imported: quiet, quick to give up on a dead server, and no pickles from model files
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
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


def tracking_uri() -> str:
    """URI of the tracking store: MLFLOW_TRACKING_URI, else the project's sqlite file."""
    return read_settings().mlflow_tracking_uri or _local_uri()


def shown_uri() -> str:
    """The same without a password, for messages."""
    return re.sub(r"(?<=//)([^/@:]+):[^/@]+@", r"\1:***@", tracking_uri())


def _local_uri() -> str:
    return f"sqlite:///{mlruns_dir() / STORE_FILE}"


def is_local() -> bool:
    """Whether the store is the project's own sqlite file."""
    # not "no MLFLOW_TRACKING_URI": mlflow itself puts its store's address into the environment
    return tracking_uri() == _local_uri()


def mlruns_dir() -> Path:
    """Folder of the store of this machine, and of journals."""
    return Path(os.environ.get("GOTORB_MLRUNS", project_root() / layout.MLRUNS_DIR))


def open_store() -> None:
    """Point mlflow at the store and make it when it is new.

    Raises
    ------
    TrackingError
        If the store cannot be reached.
    """
    import mlflow

    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with _set_up_lock():
        try:
            mlflow.MlflowClient().search_experiments(max_results=1)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TrackingError(
                f"tracking store {shown_uri()} does not answer ({reason}); check MLFLOW_TRACKING_URI in .env"
            ) from None


def check_store() -> None:
    """A look at the store's file, where it is one, without MLflow.

    Raises
    ------
    TrackingError
        If it is no database, or may not be written: unlike a server that is down, this does not mend itself.
    """
    path = mlruns_dir() / STORE_FILE
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
    """Whether the tracking server is there, asked within seconds; a store on this machine always is."""
    import requests

    uri = tracking_uri()
    if not uri.startswith("http"):
        return True
    try:
        return requests.get(f"{uri.rstrip('/')}/health", timeout=PREFLIGHT_S).status_code < 500
    except requests.RequestException:
        return False


def artifacts_answer() -> bool:
    """Whether the S3-compatible store of .env takes connections, asked within seconds; boto itself takes minutes."""
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
    return mlruns_dir() / JOURNALS_DIR


def open_experiment(name: str) -> str:
    """Id of an experiment, made when it is new; safe when several processes meet in a fresh store."""
    import mlflow

    open_store()
    client = mlflow.MlflowClient()
    with _set_up_lock():
        found = client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        place = (mlruns_dir() / ARTIFACTS_DIR / name).as_uri() if is_local() else None
        return client.create_experiment(name, artifact_location=place)


def _set_up_lock() -> FileLock:
    """First contact of two processes with a fresh store breaks one of them, so they queue."""
    folder = mlruns_dir()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".setup.lock", timeout=120)
