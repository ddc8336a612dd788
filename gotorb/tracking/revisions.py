"""Another version of the project, checked out beside the user's own, with its data from DVC."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.settings import project_root
from gotorb.tracking.remote import DVC, LOCAL_CONFIG, set_remote, what_failed


def find_commit(revision: str, root: Path | None = None) -> str:
    """Full name of the commit that a tag, branch or short name means.

    Raises
    ------
    TrackingError
        If git knows none, or this is no git repository.
    """
    root = root or project_root()
    found = _run(["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"], root)
    if found.returncode:
        raise TrackingError(f"git knows no version {revision!r} in {root}; `git tag` lists the tags there are")
    return found.stdout.strip()


def read_lock(revision: str, root: Path | None = None) -> dict[str, str]:
    """md5 of every output in a version's dvc.lock, by its path.

    Raises
    ------
    TrackingError
        If the version has no dvc.lock.
    """
    root = root or project_root()
    shown = _run(["git", "show", f"{find_commit(revision, root)}:dvc.lock"], root)
    if shown.returncode:
        raise TrackingError(f"version {revision!r} has no dvc.lock; tag one that holds results of `make repro`")
    stages = yaml.safe_load(shown.stdout).get("stages", {})
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}


def list_tags(root: Path | None = None) -> list[str]:
    """Tags of the repository, sorted."""
    return sorted(_run(["git", "tag"], root or project_root()).stdout.split())


def read_file(revision: str, path: str, root: Path | None = None) -> str | None:
    """Text of a tracked file at a version; None where it has none."""
    root = root or project_root()
    shown = _run(["git", "show", f"{find_commit(revision, root)}:{path}"], root)
    return None if shown.returncode else shown.stdout


def promoted_network(revision: str, root: Path | None = None) -> str:
    """Name of the network that a version promoted.

    Raises
    ------
    TrackingError
        If it tells of none.
    """
    text = read_file(revision, layout.PROMOTION_JSON, root)
    if text is None:
        raise TrackingError(f"version {revision!r} has no {layout.PROMOTION_JSON}; name a network: --network NAME")
    return str(json.loads(text)["model"])


@contextmanager
def checked_out(revision: str, outputs: Sequence[str], root: Path | None = None) -> Iterator[Path]:
    """A version in a work tree of its own, with some of its outputs, while the block runs.

    The user's files are not touched. Outputs come from the DVC cache of this checkout, and from the DVC remote, if
    there is one, where the cache lacks them.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    outputs : sequence of str
        Paths of outputs of dvc.lock to bring.

    Raises
    ------
    TrackingError
        If git knows no such version, or an output is neither in the cache nor in a remote.
    """
    root = root or project_root()
    commit = find_commit(revision, root)
    (root / layout.STATE_DIR).mkdir(exist_ok=True)
    tree = Path(mkdtemp(prefix="version-", dir=root / layout.STATE_DIR))
    try:
        added = _run(["git", "worktree", "add", "--detach", "--force", str(tree), commit], root)
        if added.returncode:
            raise TrackingError(f"git cannot check out {revision!r} beside this checkout ({what_failed(added)})")
        set_remote(root)
        _share_cache(root, tree)
        _bring(tree, outputs, revision)
        yield tree
    finally:
        _run(["git", "worktree", "remove", "--force", str(tree)], root)
        shutil.rmtree(tree, ignore_errors=True)
        _run(["git", "worktree", "prune"], root)


def _share_cache(root: Path, tree: Path) -> None:
    """Let the work tree use this checkout's cache and remotes; both are in files that git does not know."""
    local = root / LOCAL_CONFIG
    if local.exists():
        (tree / LOCAL_CONFIG).write_bytes(local.read_bytes())
    known = _run([*DVC, "cache", "dir"], root).stdout.strip()
    cache = (root / known).resolve() if known else root / ".dvc" / "cache"
    _run([*DVC, "config", "--local", "cache.dir", str(cache)], tree)


def _bring(tree: Path, outputs: Sequence[str], revision: str) -> None:
    done = _run([*DVC, "checkout", "--quiet", *outputs], tree)
    if done.returncode and _run([*DVC, "remote", "list"], tree).stdout.strip():
        done = _run([*DVC, "pull", "--quiet", *outputs], tree)
    if done.returncode:
        raise TrackingError(
            f"data of version {revision!r} are not in the DVC cache ({what_failed(done)}); set DVC_REMOTE_URL in .env "
            "to where they were pushed, or make them again: git checkout, make repro"
        )


def _run(command: Sequence[Any], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), cwd=cwd, capture_output=True, text=True, check=False)
