"""A tracking store that was moved with its project: MLflow keeps absolute places of artifacts, and does not notice."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.tracking.store import ARTIFACTS_DIR, STORE_FILE, mlruns_dir

PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Columns that hold places of artifacts."""


def find_moved() -> list[str]:
    """Artifact folders, as the store knows them, that lie outside this project's mlruns/; empty when nothing moved."""
    return sorted({place for _, _, place in _places() if _root_of(place) not in (None, _here())})


def relocate() -> dict[str, int]:
    """Let the store look for its artifacts where they are now.

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
    with closing(_open()) as store, store:  # all or nothing
        for table, column, place in _read(store):
            root = _root_of(place)
            if root is None or root == _here():
                continue
            new = _here() + place[len(root) :]
            store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, place))
            changed[root] += 1
    return dict(changed)


def _here() -> str:
    return (mlruns_dir() / ARTIFACTS_DIR).resolve().as_uri()


def _root_of(place: str) -> str | None:
    """The part of a place up to mlruns/artifacts; None for other places, such as s3://."""
    names = "|".join(re.escape(quote(name)) for name in {mlruns_dir().name, layout.MLRUNS_DIR})
    found = re.match(rf"file://.*/(?:{names})/{ARTIFACTS_DIR}(?=/|$)", place)
    return found.group() if found else None


def _places() -> list[tuple[str, str, str]]:
    with closing(_open()) as store:
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


def _open() -> sqlite3.Connection:
    path: Path = mlruns_dir() / STORE_FILE
    if not path.exists():
        raise TrackingError(f"no tracking store {path}; only a store in mlruns/ can be moved with its project")
    return sqlite3.connect(path)
