"""Whether files are what DVC says they are: one flipped byte in csv, hdf5, model or cache is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

from gotorb.errors import TrackingError
from gotorb.settings import project_root
from gotorb.tracking.lineage import cache_path, md5


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
    wanted = dict(_outputs(yaml.safe_load(lock.read_text())))
    return [*_damaged_files(root, wanted), *_damaged_objects(set(wanted.values()))]


def _outputs(lock: dict) -> Iterator[tuple[str, str]]:
    """Path and md5 of each file of dvc.lock; folders by their members, as the cache lists them."""
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            name = str(out.get("md5", ""))
            if not name.endswith(".dir"):
                yield out["path"], name
            elif (listing := cache_path(name)).exists():
                for member in json.loads(listing.read_text()):
                    yield f"{out['path']}/{member['relpath']}", member["md5"]


def _damaged_files(root: Path, wanted: dict[str, str]) -> Iterator[str]:
    for path, expected in sorted(wanted.items()):
        if expected and (root / path).is_file() and md5(root / path) != expected:
            yield f"{path} is not what dvc.lock says; `dvc checkout --force {path}` brings it back, or run `make repro`"


def _damaged_objects(wanted: set[str]) -> Iterator[str]:
    for name in sorted(wanted - {""}):
        cached = cache_path(name)
        if cached.is_file() and md5(cached) != name.removesuffix(".dir"):
            yield f"{cached} in DVC's cache is damaged; remove it, then `dvc pull` or run `make repro`"
