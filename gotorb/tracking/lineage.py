"""Which data a run used, by the names that DVC has for them, so that run, data and commit find each other."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.settings import project_root

LABELS_TAG, STAMPS_TAG = "gotorb.labels_md5", "gotorb.stamps_md5"
DIGEST_LENGTH = 36
SOURCE_TYPE = "dvc"


def describe_data(data_dir: Path, card: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What MLflow is told of a data set: its entry under *Datasets*, and tags with DVC's names of its files.

    Parameters
    ----------
    data_dir : Path
        Folder of the data set.
    card : mapping
        Its card (`dataset.card.make_card`), shown as the profile.
    """
    files = {name: md5(data_dir / name) for name in (layout.LABELS_CSV, layout.STAMPS_H5)}
    tags = {LABELS_TAG: files[layout.LABELS_CSV], STAMPS_TAG: files[layout.STAMPS_H5]}
    return make_entry(_in_project(data_dir), files, card), tags


def make_entry(path: str, files: Mapping[str, str], card: Mapping[str, Any]) -> dict[str, str]:
    """What MLflow keeps under *Datasets* of files (name -> md5) in a folder of the project."""
    return {
        "name": Path(path).name,
        "digest": str(card["digest"])[:DIGEST_LENGTH],
        "source_type": SOURCE_TYPE,
        "source": json.dumps({"path": path, "files": dict(files)}, sort_keys=True),
        "profile": json.dumps(dict(card), sort_keys=True),
    }


def md5(path: Path) -> str:
    """Hex md5 of a file: the name under which DVC knows it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _in_project(path: Path) -> str:
    """Path as dvc.lock spells it: relative to the project."""
    resolved, root = path.resolve(), project_root()
    return (resolved.relative_to(root) if resolved.is_relative_to(root) else resolved).as_posix()


def load_data(source: Mapping[str, Any], target: Path) -> Path:
    """Bring the files of a data set, known by md5, from DVC's cache, or from its remote by way of a commit.

    Raises
    ------
    TrackingError
        If neither has them.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, wanted in source["files"].items():
        cached = cache_path(wanted)
        if not cached.exists():
            return _from_commit(source, target)
        shutil.copyfile(cached, target / name)
    return target


def cache_path(md5_of_file: str, root: Path | None = None) -> Path:
    """Where DVC's cache keeps a file of that content."""
    return _cache_dir(root or project_root()) / "files" / "md5" / md5_of_file[:2] / md5_of_file[2:]


@lru_cache(maxsize=8)
def _cache_dir(root: Path) -> Path:
    known = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (root / known).resolve() if known else root / ".dvc" / "cache"


def _from_commit(source: Mapping[str, Any], target: Path) -> Path:
    from gotorb.tracking.revisions import checked_out

    wanted = source["files"]
    commits = commits_with(*wanted.values())
    if not commits:
        raise TrackingError(
            f"no commit's dvc.lock knows data of md5 {', '.join(wanted.values())}; they were never committed, or git "
            "lacks the commit (git fetch --all --tags)"
        )
    with checked_out(commits[0], [f"{source['path']}/{name}" for name in wanted]) as tree:
        for name, expected in wanted.items():
            brought = shutil.copyfile(tree / source["path"] / name, target / name)
            if md5(brought) != expected:
                raise TrackingError(
                    f"{name} of commit {commits[0]} is not of md5 {expected}; `gotorb verify` tells more"
                )
    return target


def commits_with(*md5s: str) -> list[str]:
    """Commits that brought an output of such content into a dvc.lock, and hold them all; the newest first."""
    call = ["git", "log", "--all", "--format=%H", "-G" + "|".join(md5s), "--", "dvc.lock", "*/dvc.lock"]
    done = subprocess.run(call, cwd=project_root(), capture_output=True, text=True, check=False)
    return [commit for commit in done.stdout.split() if _holds(commit, md5s)]


def _holds(commit: str, md5s: Sequence[str]) -> bool:
    words = [word for one in md5s for word in ("-e", one)]
    call = ["git", "grep", "--quiet", "--all-match", *words, commit, "--", "dvc.lock", "*/dvc.lock"]
    return subprocess.run(call, cwd=project_root(), capture_output=True, check=False).returncode == 0


def tags_with(*md5s: str) -> list[str]:
    """Git tags whose dvc.lock holds outputs of all these contents, sorted."""
    done = subprocess.run(["git", "tag"], cwd=project_root(), capture_output=True, text=True, check=False)
    return [tag for tag in sorted(done.stdout.split()) if _holds(tag, md5s)]
