"""Versions of the project in git: tags, commits, older checkouts with their data from DVC, and their figures.

Nothing here asks the tracking store; `tracking.lineage` joins what git knows with what the store knows.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml

from gotorb.core import layout
from gotorb.core.params import EvaluateParams
from gotorb.core.settings import project_root
from gotorb.errors import DataError, TrackingError
from gotorb.evaluation.paper_figures import Written, draw_figure
from gotorb.tracking.contents import (
    DVC,
    DVC_LOCK,
    LOCAL_CONFIG,
    cache_dir,
    cache_path,
    change_config,
    find_absent,
    find_remote,
    md5,
    read_outs,
    set_remote,
    what_failed,
)
from gotorb.tracking.registry import find_by_md5

WATCHED = (DVC_LOCK, "dvc.yaml", layout.PARAMS_YAML, "reports")
"""Files of git that make a version; everything else is code."""


def load_data(source: Mapping[str, Any], target: Path) -> Path:
    """Bring the files of a data set, known by md5, from DVC's cache, or from its remote through a commit.

    Parameters
    ----------
    source : mapping
        path (folder in the project) and files (name -> md5).
    target : Path
        Folder to put them in; made when it is new.

    Returns
    -------
    Path
        The folder.

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


def _from_commit(source: Mapping[str, Any], target: Path) -> Path:
    wanted = source["files"]
    commits = commits_with(*wanted.values())
    if not commits:
        raise TrackingError(
            f"no commit's dvc.lock knows data of md5 {', '.join(wanted.values())}; they were never committed, or "
            "the commit is missing here (git fetch --all --tags)"
        )
    with checked_out(commits[0], [f"{source['path']}/{name}" for name in wanted]) as tree:
        for name, expected in wanted.items():
            brought = shutil.copyfile(tree / source["path"] / name, target / name)
            if md5(brought) != expected:
                raise TrackingError(f"{name} of commit {commits[0]} is not of md5 {expected}; run `gotorb verify`")
    return target


def commits_with(*md5s: str) -> list[str]:
    """Commits that brought outputs of some contents into a dvc.lock, and hold them all.

    Parameters
    ----------
    *md5s : str
        Of the outputs.

    Returns
    -------
    list of str
        Full names, the newest first.
    """
    call = ["git", "log", "--all", "--format=%H", "-G" + "|".join(md5s), "--", DVC_LOCK, f"*/{DVC_LOCK}"]
    return [commit for commit in _run(call, project_root()).stdout.split() if _holds(commit, md5s)]


def tags_with(*md5s: str) -> list[str]:
    """Git tags whose dvc.lock holds outputs of all these contents.

    Parameters
    ----------
    *md5s : str
        Of the outputs.

    Returns
    -------
    list of str
        Sorted.
    """
    return [tag for tag in list_tags() if _holds(tag, md5s)]


def _holds(commit: str, md5s: Sequence[str]) -> bool:
    words = [word for one in md5s for word in ("-e", one)]
    call = ["git", "grep", "--quiet", "--all-match", *words, commit, "--", DVC_LOCK, f"*/{DVC_LOCK}"]
    return _run(call, project_root()).returncode == 0


def list_tags(root: Path | None = None) -> list[str]:
    """Tags of the repository, sorted.

    Parameters
    ----------
    root : Path, optional
        The project's when left out.

    Returns
    -------
    list of str
    """
    return sorted(_run(["git", "tag"], root or project_root()).stdout.split())


def find_commit(revision: str, root: Path | None = None) -> str:
    """Full name of the commit of a tag, branch or short name.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    root : Path, optional
        Folder of the project.

    Returns
    -------
    str
        40 characters.

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


def read_file(revision: str, path: str, root: Path | None = None) -> str | None:
    """Read a tracked file at a version.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    path : str
        Of the file in the repository.
    root : Path, optional
        Folder of the project.

    Returns
    -------
    str or None
        Its text; None where the version has none.
    """
    root = root or project_root()
    shown = _run(["git", "show", f"{find_commit(revision, root)}:{path}"], root)
    return None if shown.returncode else shown.stdout


def read_lock(revision: str, root: Path | None = None) -> dict[str, str]:
    """Read the contents of a version's outputs from its dvc.lock.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    root : Path, optional
        Folder of the project.

    Returns
    -------
    dict
        Path of an output -> md5.

    Raises
    ------
    TrackingError
        If the version has no dvc.lock.
    """
    text = read_file(revision, DVC_LOCK, root)
    if text is None:
        raise TrackingError(f"version {revision!r} has no dvc.lock; tag one that holds results of `make repro`")
    return {out["path"]: out["md5"] for out in read_outs(text) if "md5" in out}


def promoted_network(revision: str, root: Path | None = None) -> str:
    """Name of the network that a version promoted.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    root : Path, optional
        Folder of the project.

    Returns
    -------
    str
        Of the network.

    Raises
    ------
    TrackingError
        If the version names none.
    """
    text = read_file(revision, layout.PROMOTION_JSON, root)
    if text is None:
        raise TrackingError(f"version {revision!r} has no {layout.PROMOTION_JSON}; name a network: --network NAME")
    return str(json.loads(text)["model"])


@contextmanager
def checked_out(revision: str, outputs: Sequence[str], root: Path | None = None) -> Iterator[Path]:
    """Check out a version in a work tree of its own, with some of its outputs, while the block runs.

    The user's files are not touched. Outputs come from the DVC cache of this checkout, and from the DVC remote, if
    there is one, where they are missing in the cache.

    Parameters
    ----------
    revision : str
        Tag, branch or commit.
    outputs : sequence of str
        Paths of outputs of dvc.lock to bring.
    root : Path, optional
        Folder of the project.

    Yields
    ------
    Path
        The work tree.

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
            raise TrackingError(f"git cannot check out {revision!r} next to this checkout ({what_failed(added)})")
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
    place = (tree / LOCAL_CONFIG).parent
    change_config(tree / LOCAL_CONFIG, {("cache", "dir"): os.path.relpath(cache_dir(root), place.resolve())})


def _bring(tree: Path, outputs: Sequence[str], revision: str) -> None:
    done = _run([*DVC, "checkout", "--quiet", *outputs], tree)
    if done.returncode and _run([*DVC, "remote", "list"], tree).stdout.strip():
        done = _run([*DVC, "pull", "--quiet", *outputs], tree)
    if done.returncode:
        raise TrackingError(
            f"data of version {revision!r} are not in the DVC cache ({what_failed(done)}); set DVC_REMOTE_URL in .env "
            "to where they were pushed, or make them again: git checkout, make repro"
        )


def _run(command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(command), cwd=cwd, capture_output=True, text=True, check=False)


def tag_commit(name: str, message: str) -> tuple[str, str]:
    """Tag the commit that is checked out and push its data; repeat it after a push that failed.

    Parameters
    ----------
    name : str
        Of the tag.
    message : str
        Of the annotated tag.

    Returns
    -------
    commit, remote : str
        The commit, and DVC's remote with its data ("" for none).

    Raises
    ------
    TrackingError
        If results are not committed or not here, the name is taken by another commit, or the push fails.
    """
    root = project_root()
    commit = _committed(root)
    if absent := find_absent(root):
        shown = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise TrackingError(f"missing here: {shown}; `gotorb dvc pull` or `make repro` brings them, then tag")
    known = _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}").stdout.strip()
    if known and known != commit:
        raise TrackingError(
            f"tag {name!r} is of another commit ({known[:10]}); choose another name, because tags do not move"
        )
    if not known:
        made = _git(root, "tag", "--annotate", "--message", message, "--end-of-options", name)
        if made.returncode:
            raise TrackingError(f"git makes no tag {name!r} ({what_failed(made)}); choose another name")
    return commit, _push(root, name)


def _committed(root: Path) -> str:
    """Commit that is checked out, with its results committed."""
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if head.returncode:
        raise TrackingError(f"{root} is no git repository with a commit; `git init`, then commit dvc.lock and reports/")
    if not (root / DVC_LOCK).exists():
        raise TrackingError(f"no dvc.lock in {root}; run `make repro` and commit what it writes, then tag")
    changed = _git(root, "status", "--porcelain", "--", *WATCHED).stdout.splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed)
        raise TrackingError(f"not committed: {names}; commit them first, because a tag names a commit")
    return head.stdout.strip()


def _push(root: Path, name: str) -> str:
    set_remote(root)
    remote = find_remote(root)
    done = _run([*DVC, "push", "--quiet"], root) if remote else None
    if done is not None and done.returncode:
        raise TrackingError(
            f"tag {name!r} is made, but its data could not be pushed to {remote} ({what_failed(done)}); fix that, "
            "then give the same command again"
        )
    return remote


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(["git", *words], root)


DATA_DIR, MODELS_DIR = Path("data/dataset"), Path("models")
INJECTIONS_JSON = Path("reports/injections.json")


def draw_here(
    name: str, *, network: str | None = None, out_dir: Path | str = "figures", kind: str = "png", style: str = "page"
) -> Written:
    """Draw a figure of the data set and model that lie in this checkout.

    Parameters
    ----------
    name : str
        One of `PAPER_FIGURES`.
    network : str, optional
        The promoted one when left out.
    out_dir : path
    kind, style : str
        As for `gotorb.evaluation.paper_figures.draw_figure`.

    Returns
    -------
    Written

    Raises
    ------
    DataError
        If there are none.
    """
    root = project_root()
    if network is None:
        promoted = root / layout.PROMOTION_JSON
        if not promoted.exists():
            raise DataError(
                f"no {layout.PROMOTION_JSON} in {root}; run `make repro`, or name a network: --network NAME"
            )
        network = str(json.loads(promoted.read_text())["model"])
    return _draw(name, root, network, {"version": "here"}, out_dir=out_dir, kind=kind, style=style)


def draw_version(
    name: str, revision: str, *, network: str | None = None, out_dir: Path | str = "figures", kind: str = "png",
    style: str = "page",
) -> Written:  # fmt: skip
    """Draw a figure of a tagged version, with the model that this version promoted.

    The version's own parameters decide samples and seed, so equal versions give equal numbers.

    Parameters
    ----------
    name : str
        One of `gotorb.evaluation.paper_figures.PAPER_FIGURES`.
    revision : str
        Tag, branch or commit.
    network : str, optional
        Another of the version's networks.
    out_dir : path
        Where the files go.
    kind, style : str
        As for `draw_here`.

    Returns
    -------
    Written

    Raises
    ------
    TrackingError
        If there is no such version, or its data are not available.
    """
    network = network or promoted_network(revision)
    lock = read_lock(revision)
    model = f"{MODELS_DIR}/{network}/{layout.MODEL_H5}"
    if model not in lock:
        raise TrackingError(f"version {revision!r} has no network {network!r} (has {', '.join(_networks(lock))})")
    registered = find_by_md5(lock[model])
    origin = {
        "version": revision,
        "commit": find_commit(revision),
        "model_md5": lock[model],
        "registered": None if registered is None else f"{registered.name}/{registered.version}",
    }
    folders = (f"{DATA_DIR}/", f"{MODELS_DIR}/{network}/")
    outputs = [path for path in lock if path.startswith(folders)]
    with checked_out(revision, outputs) as tree:
        return _draw(name, tree, network, origin, out_dir=out_dir, kind=kind, style=style)


def _networks(lock: dict[str, str]) -> list[str]:
    return sorted({Path(path).parent.name for path in lock if path.startswith(f"{MODELS_DIR}/")})


def _read_cells(root: Path, network: str) -> list[dict[str, Any]] | None:
    """Recovery of injected transients of a version's network; None where it was not measured."""
    try:
        found = json.loads((root / INJECTIONS_JSON).read_text(encoding="utf-8"))["models"][network]
        return list(found["at_fpr"]["cells"])
    except (OSError, ValueError, KeyError):
        return None


def _draw(name: str, root: Path, network: str, origin: dict[str, str | None], **how: Any) -> Written:
    # the version's own file, which today's rules for params.yaml need not fit
    params = yaml.safe_load((root / layout.PARAMS_YAML).read_text(encoding="utf-8"))
    n_samples = int(params.get("evaluate", {}).get("n_samples", EvaluateParams().n_samples))
    return draw_figure(
        name, root / MODELS_DIR / network, root / DATA_DIR,
        n_samples=n_samples, seed=int(params.get("seed", 0)), cells=_read_cells(root, network),
        origin={"network": network} | origin, **how,
    )  # fmt: skip
