"""The DVC remote that .env names, written where DVC looks for it: ``.dvc/config.local``, which git does not know."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

from gotorb.core import layout
from gotorb.core.settings import project_root, read_settings
from gotorb.errors import TrackingError

NAME = "team"
LOCAL_CONFIG = Path(".dvc", "config.local")
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
    """
    root = root or project_root()
    known, local = _known(root), root / LOCAL_CONFIG
    if local.parent.is_dir():
        for (section, key), value in _wanted(root).items():
            if known.get((section, key)) != value:
                _run(root, "config", "--local", f"{section}.{key}", value)


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
    """
    root = root or project_root()
    default = _run(root, "config", "core.remote").strip()
    return _run(root, "config", f"remote.{default}.url").strip() if default else ""


def check_remote(root: Path | None = None) -> str:
    """Describe the remote, after a try to reach it.

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
    return f"{address} answers; " + (f"{missing} files are not pushed: `dvc push`" if missing else "all is pushed")


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


def _known(root: Path) -> dict[tuple[str, str], str]:
    """Content of `.dvc/config.local`; read here, for asking DVC takes a second of each `make repro`."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(root / LOCAL_CONFIG)
    except configparser.Error:
        return {}
    sections = {name.strip("'\"").replace(' "', "."): parser[name] for name in parser.sections()}
    return {(name, key): value.strip("\"'") for name, section in sections.items() for key, value in section.items()}


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
    return subprocess.run([*DVC, *words], cwd=root, capture_output=True, text=True, check=False).stdout
