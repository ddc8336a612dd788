"""Whether files are what DVC says they are: one flipped byte in csv, hdf5, model or cache is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gotorb.errors import TrackingError
from gotorb.settings import project_root
from gotorb.tracking.lineage import cache_path, md5

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")


def find_damage(root: Path | None = None) -> list[str]:
    """Lines that name each damaged file of this checkout and of its cache; empty when all is well.

    Raises
    ------
    TrackingError
        If there is no dvc.lock here.
    """
    root = root or project_root()
    lock = root / "dvc.lock"
    if not lock.exists():
        raise TrackingError(f"no dvc.lock in {root}; run `make repro` first, or go to the project's folder")
    wanted = dict(_outputs(yaml.safe_load(lock.read_text()) or {}, root))
    return [*_damaged_files(root, wanted), *_damaged_objects(root)]


def _outputs(lock: dict, root: Path) -> Iterator[tuple[str, str]]:
    """Path and md5 of each file of dvc.lock; folders by their members, as the cache lists them."""
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            name = str(out.get("md5", ""))
            if not name.endswith(".dir"):
                yield out["path"], name
            else:
                for member in _members(cache_path(name, root)):
                    yield f"{out['path']}/{member['relpath']}", member["md5"]


def _members(listing: Path) -> list[dict[str, str]]:
    """Files of a folder; none where the listing is absent, or damaged, which is told by itself."""
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
