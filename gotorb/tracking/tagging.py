"""A version of the data by name: git's tag, the data in DVC's remote, and the mark on every run of them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.settings import project_root
from gotorb.tracking.family import mark_runs
from gotorb.tracking.remote import DVC, find_remote, set_remote, what_failed

WATCHED = ("dvc.lock", "dvc.yaml", layout.PARAMS_YAML, "reports")
"""What a version consists of in git; everything else is code."""


class Tagged(NamedTuple):
    """What became of a version: its commit, the remote with its data ("" for none), and how many runs are marked."""

    commit: str
    remote: str
    n_runs: int


def tag_data(name: str, *, message: str) -> Tagged:
    """Tag the commit that lies here, push its data and mark its runs.

    Called again after a push that failed, it goes on where it stopped.

    Parameters
    ----------
    name : str
        Of the tag.
    message : str
        Of the annotated tag.

    Raises
    ------
    TrackingError
        If results lie here that are not committed, the name is taken by another commit, or the push fails.
    """
    root = project_root()
    commit = _committed(root)
    known = _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}").stdout.strip()
    if known and known != commit:
        raise TrackingError(f"tag {name!r} is of another commit ({known[:10]}); choose another name, for tags stay")
    if not known:
        made = _git(root, "tag", "--annotate", "--message", message, "--end-of-options", name)
        if made.returncode:
            raise TrackingError(f"git makes no tag {name!r} ({what_failed(made)})")
    return Tagged(commit, _push(root, name), mark_runs(name))


def _committed(root: Path) -> str:
    """The commit that lies here."""
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if head.returncode:
        raise TrackingError(f"{root} is no git repository with a commit; `git init`, then commit dvc.lock and reports/")
    if not (root / "dvc.lock").exists():
        raise TrackingError(f"no dvc.lock in {root}; run `make repro` and commit what it writes, then tag")
    changed = _git(root, "status", "--porcelain", "--", *WATCHED).stdout.splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed)
        raise TrackingError(f"not committed: {names}; commit them first, for a tag names a commit")
    return head.stdout.strip()


def _push(root: Path, name: str) -> str:
    set_remote(root)
    remote = find_remote(root)
    if remote:
        done = subprocess.run([*DVC, "push", "--quiet"], cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TrackingError(
                f"tag {name!r} is made, but its data could not be pushed to {remote} ({what_failed(done)}); mend that, "
                "then give the same command again"
            )
    return remote


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
