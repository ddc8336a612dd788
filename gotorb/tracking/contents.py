"""DVC: its remote of .env, in ``.dvc/config.local``, which git ignores, and files identified by content.

Files are parts of a data set, their place in the cache, and damage.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from gotorb.core import layout
from gotorb.core.files import whole_file
from gotorb.core.settings import project_root, read_settings
from gotorb.errors import TrackingError

NAME = "team"
LOCAL_CONFIG = Path(".dvc", "config.local")
HEADER = re.compile(r"\s*\[(.+)\]\s*(?:#.*)?$")
SUBSECTION = re.compile(r"(\w+)\s+\"(.+)\"")
ASK_S = 60
DVC = (sys.executable, "-m", "dvc")


def set_remote(root: Path | None = None) -> None:
    """Let DVC know the remote of DVC_REMOTE_URL: a folder, s3://bucket/path or ssh://host/path.

    Without that variable nothing changes: a remote of `.dvc/config` stays. Keys of S3 are not written anywhere; DVC
    reads them from the environment, where `read_settings` puts those of .env.

    Parameters
    ----------
    root : Path, optional
        Folder of the project.

    Raises
    ------
    TrackingError
        If the file cannot be read or DVC would not read it; it stays as it was.
    """
    root = root or project_root()
    local = root / LOCAL_CONFIG
    if local.parent.is_dir():
        change_config(local, _wanted(root))


def find_remote(root: Path | None = None) -> str:
    """Address of DVC's remote; "" where none is configured.

    Parameters
    ----------
    root : Path, optional
        Folder of the project.

    Returns
    -------
    str
        Its URL.

    Raises
    ------
    TrackingError
        If DVC cannot read its configuration.
    """
    root = root or project_root()
    default = _run(root, "config", "core.remote").strip()
    return _run(root, "config", f"remote.{default}.url").strip() if default else ""


def check_remote(root: Path | None = None) -> str:
    """Describe the remote, after an attempt to reach it.

    Parameters
    ----------
    root : Path, optional
        Folder of the project.

    Returns
    -------
    str
        One line.

    Raises
    ------
    TrackingError
        If it cannot be reached.
    """
    root = root or project_root()
    set_remote(root)
    address = find_remote(root)
    if not address:
        return "DVC_REMOTE_URL is not set: data stay on this machine"
    missing = _n_missing(root, address)
    return f"{address} answers; " + (
        f"{missing} files are not pushed: `gotorb dvc push`" if missing else "all is pushed"
    )


def _n_missing(root: Path, address: str) -> int:
    """Files of this checkout that are missing in the remote; those in neither, such as a study's, do not count."""
    command = [*DVC, "status", "--cloud", "--json"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=ASK_S)
        reason = what_failed(done) if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no answer in {ASK_S} s"
    if reason:
        raise TrackingError(f"DVC's remote {address} cannot be reached ({reason}); correct DVC_REMOTE_URL in .env")
    return sum(state == "new" for state in json.loads(done.stdout or "{}").values())


def what_failed(done: subprocess.CompletedProcess[str]) -> str:
    """Reason that a command of DVC or git gives for its failure; DVC's last line only offers help.

    Parameters
    ----------
    done : CompletedProcess
        The command, ended.

    Returns
    -------
    str
        One line.
    """
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
    return next((line for line in lines if line.startswith(("ERROR", "fatal", "error"))), lines[-1])


def change_config(path: Path, wanted: Mapping[tuple[str, str], str]) -> bool:
    """Set values of a DVC configuration and keep all else of it, comments too; written whole, or not at all.

    DVC's own command empties a file with other letters than ASCII before it fails.

    Parameters
    ----------
    path : Path
        ``.dvc/config`` or ``.dvc/config.local``; made when absent.
    wanted : mapping
        (section, key) -> value, where a section is ``core`` or ``remote.NAME``.

    Returns
    -------
    bool
        True if the file was changed.

    Raises
    ------
    TrackingError
        If it is no UTF-8 text, or a value cannot be written.
    """
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise TrackingError(f"{path} cannot be read ({error}); save it as UTF-8 text, then try again") from None
    lines = before.splitlines()
    for (section, key), value in wanted.items():
        lines = _with_value(lines, section, key, _quoted(value, path))
    after = "\n".join(lines) + ("\n" if lines else "")
    if after == before or after == f"{before}\n":
        return False
    with whole_file(path) as aside:
        aside.write_text(after, encoding="utf-8")
        if path.exists():
            aside.chmod(path.stat().st_mode & 0o777)
    return True


def _with_value(lines: list[str], section: str, key: str, value: str) -> list[str]:
    """Lines of a configuration with one value set: where it stands, at the end of its section, or in a new section."""
    here, last = "", None
    for number, line in enumerate(lines):
        head = HEADER.match(line)
        if head:
            here = _section(head[1])
        if here != section:
            continue
        name = line.split("=", 1)[0].strip() if "=" in line and not line.lstrip().startswith(("#", ";")) else None
        if name == key:
            if line.split("=", 1)[1].strip() == value:
                return lines
            return [*lines[:number], f"    {key} = {value}", *lines[number + 1 :]]
        if line.strip():
            last = number
    if last is not None:
        return [*lines[: last + 1], f"    {key} = {value}", *lines[last + 1 :]]
    kind, _, name = section.partition(".")
    title = f"['{kind} \"{name}\"']" if name else f"[{kind}]"
    return [*lines, title, f"    {key} = {value}"]


def _section(title: str) -> str:
    """Section as ``core`` or ``remote.NAME`` from a header's text: ``'remote "NAME"'``."""
    found = SUBSECTION.fullmatch(title.strip().strip("'"))
    return f"{found[1]}.{found[2]}" if found else title.strip().strip("'\"")


def _quoted(value: str, path: Path) -> str:
    if any(not one.isprintable() for one in value) or ('"' in value and "'" in value):
        raise TrackingError(f"{value!r} cannot be written into {path}; choose an address without quotes or line ends")
    if value == value.strip() and not set(value) & set("#,;\"'"):
        return value
    return f"'{value}'" if '"' in value else f'"{value}"'


def _wanted(root: Path) -> dict[tuple[str, str], str]:
    """Values that `.dvc/config.local` is to hold."""
    base = root if (root / layout.ENV_FILE).exists() else project_root()
    read_settings(base / layout.ENV_FILE)
    url = os.environ.get("DVC_REMOTE_URL", "").strip()
    if not url:
        return {}
    if "://" not in url:
        url = str((base / Path(url).expanduser()).resolve())
    wanted = {("core", "remote"): NAME, (f"remote.{NAME}", "url"): url}
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if url.startswith("s3://") and endpoint:
        wanted[f"remote.{NAME}", "endpointurl"] = endpoint
    return wanted


def _run(root: Path, *words: str) -> str:
    done = subprocess.run([*DVC, *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode and "doesn't exist" not in done.stderr:
        raise TrackingError(
            f"DVC cannot read its configuration in {root} ({what_failed(done)}); correct {LOCAL_CONFIG}"
        )
    return done.stdout


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
