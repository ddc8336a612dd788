"""Files identified by content, as by DVC: parts of a data set, their place in the cache, and damage."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gotorb.core import layout
from gotorb.core.settings import project_root
from gotorb.errors import TrackingError
from gotorb.tracking.remote import DVC

LABELS_TAG, STAMPS_TAG = "gotorb.labels_md5", "gotorb.stamps_md5"
FILE_TAGS = {LABELS_TAG: layout.LABELS_CSV, STAMPS_TAG: layout.STAMPS_H5}
"""Tag of a run -> file of the data set whose md5 it holds."""
DIGEST_LENGTH = 36
SOURCE_TYPE = "dvc"
DVC_LOCK = "dvc.lock"
OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")


def describe_data(data_dir: Path, card: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Describe a data set for a run.

    Parameters
    ----------
    data_dir : Path
        Folder of the data set.
    card : mapping
        Its card (`dataset.card.make_card`), shown as the profile.

    Returns
    -------
    entry, tags : dict
        MLflow's entry under *Datasets*, and tags with DVC's names (md5) of its files.
    """
    files = {name: md5(data_dir / name) for name in FILE_TAGS.values()}
    resolved, root = data_dir.resolve(), project_root()
    place = resolved.relative_to(root) if resolved.is_relative_to(root) else resolved  # as dvc.lock spells it
    return make_entry(place.as_posix(), files, card), {tag: files[name] for tag, name in FILE_TAGS.items()}


def make_entry(path: str, files: Mapping[str, str], card: Mapping[str, Any]) -> dict[str, str]:
    """Describe a data set as MLflow keeps it under *Datasets*.

    Parameters
    ----------
    path : str
        Folder in the project.
    files : mapping
        File name -> md5.
    card : mapping
        Of the data set.

    Returns
    -------
    dict
        Arguments of `mlflow.entities.Dataset`.
    """
    return {
        "name": Path(path).name,
        "digest": str(card["digest"])[:DIGEST_LENGTH],
        "source_type": SOURCE_TYPE,
        "source": json.dumps({"path": path, "files": dict(files)}, sort_keys=True),
        "profile": json.dumps(dict(card), sort_keys=True),
    }


def md5(path: Path) -> str:
    """Hex md5 of a file, its name in DVC.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        32 characters.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cache_path(md5_of_file: str, root: Path | None = None) -> Path:
    """Path of a file's content in DVC's cache, whether it is there or not.

    Parameters
    ----------
    md5_of_file : str
        Of the file; ``.dir`` at the end for the list of a folder's files.
    root : Path, optional
        Folder of the project.

    Returns
    -------
    Path
        In the cache of this checkout.
    """
    return cache_dir(root or project_root()) / "files" / "md5" / md5_of_file[:2] / md5_of_file[2:]


@lru_cache(maxsize=8)
def cache_dir(root: Path) -> Path:
    """Folder of DVC's cache, as DVC itself is configured.

    Parameters
    ----------
    root : Path
        Folder of the project.

    Returns
    -------
    Path
        Of the cache.
    """
    known = subprocess.run([*DVC, "cache", "dir"], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    return (root / known).resolve() if known else root / ".dvc" / "cache"


def read_outs(lock: str) -> Iterator[dict[str, Any]]:
    """Outputs of all stages of a dvc.lock.

    Parameters
    ----------
    lock : str
        Its text.

    Yields
    ------
    dict
        path, md5, size of an output.
    """
    for stage in (yaml.safe_load(lock) or {}).get("stages", {}).values():
        yield from stage.get("outs", [])


def find_damage(root: Path | None = None) -> list[str]:
    """Compare every file of this checkout and of its cache with the md5 that DVC has for it.

    Parameters
    ----------
    root : Path, optional
        Folder of the project.

    Returns
    -------
    list of str
        A line for each damaged file; empty when all is well.

    Raises
    ------
    TrackingError
        If there is no dvc.lock here.
    """
    root = root or project_root()
    lock = root / DVC_LOCK
    if not lock.exists():
        raise TrackingError(f"no dvc.lock in {root}; run `make repro` first, or go to the project's folder")
    wanted = dict(_outputs(lock.read_text(), root))
    return [*_damaged_files(root, wanted), *_damaged_objects(root)]


def find_absent(root: Path) -> list[str]:
    """Outputs of dvc.lock whose content is neither in DVC's cache nor in this checkout.

    Parameters
    ----------
    root : Path
        Folder of the project.

    Returns
    -------
    list of str
        Their paths.
    """
    found = []
    for out in read_outs((root / DVC_LOCK).read_text()):
        name = str(out.get("md5", ""))
        members = _members(cache_path(name, root)) if name.endswith(".dir") else [{"md5": name}]
        whole = members and all(_kept(root / out["path"] / one.get("relpath", ""), one["md5"], root) for one in members)
        if name and not whole:
            found.append(str(out["path"]))
    return found


def _kept(path: Path, name: str, root: Path) -> bool:
    return cache_path(name, root).exists() or (path.is_file() and md5(path) == name)


def _outputs(lock: str, root: Path) -> Iterator[tuple[str, str]]:
    """Path and md5 of each file of dvc.lock; folders by their members, as the cache lists them."""
    for out in read_outs(lock):
        name = str(out.get("md5", ""))
        if not name.endswith(".dir"):
            yield out["path"], name
        else:
            for member in _members(cache_path(name, root)):
                yield f"{out['path']}/{member['relpath']}", member["md5"]


def _members(listing: Path) -> list[dict[str, str]]:
    """Files of a folder; none where the listing is absent, or damaged, which has a line of its own."""
    whole = listing.is_file() and md5(listing) == (listing.parent.name + listing.name).removesuffix(".dir")
    return json.loads(listing.read_bytes()) if whole else []


def _damaged_files(root: Path, wanted: dict[str, str]) -> Iterator[str]:
    for path, expected in sorted(wanted.items()):
        if expected and (root / path).is_file() and md5(root / path) != expected:
            yield f"{path} is not what dvc.lock says; `dvc checkout --force {path}` or git brings it back"


def _damaged_objects(root: Path) -> Iterator[str]:
    """Objects of all versions in the cache, whose names are their md5."""
    for path in sorted(cache_path("", root).glob("*/*")):
        name = path.parent.name + path.name
        if OBJECT.fullmatch(name) and path.is_file() and md5(path) != name.removesuffix(".dir"):
            yield f"{path} in DVC's cache is damaged; remove it, then `dvc pull` or run `make repro`"
