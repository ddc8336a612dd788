"""Commands that check and explain a project."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gotorb.cli.options import add_json, allowed, show
from gotorb.core.params import Params, Section, find_params, read_params
from gotorb.core.settings import read_settings
from gotorb.errors import CatalogueError, GotorbError, TrackingError
from gotorb.tracking.contents import DVC, check_remote, find_damage, set_remote


def _doctor_options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run_doctor(args: argparse.Namespace) -> int:
    """Check .env, database, catalogues, tracking store and DVC's remote, with the cure of what fails.

    Examples:
      gotorb doctor
      gotorb doctor --json
    """
    found = []
    for name, check in CHECKS.items():
        passed, text = _checked(check)
        found.append({"check": name, "ok": passed, "text": text})
        if not args.json:
            print(f"{'ok   ' if passed else 'FAIL '} {name}: {text}", flush=True)
    if args.json:
        print(json.dumps(found, indent=2))
    return 0 if all(one["ok"] for one in found) else 1


def _checked(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except GotorbError as error:
        return False, str(error)


def _params_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("beginning", nargs="?", default="", help="show only names that begin so, such as label.match")
    parser.add_argument("--params", metavar="FILE", help="file to read (default: params.yaml here, else the defaults)")
    add_json(parser)


def run_params(args: argparse.Namespace) -> int:
    """Explain every parameter of params.yaml: value, default where it differs, meaning, unit and allowed values.

    Examples:
      gotorb params
      gotorb params label.match
    """
    params = find_params(args.params)
    known = [one for one in explain_params(params) if one["name"].startswith(args.beginning)]
    print(json.dumps(known, indent=2, default=str) if args.json else "\n".join(map(_told, known)))
    return 0


def explain_params(params: Params) -> Iterator[dict[str, Any]]:
    """Name, value, default, meaning and allowed values of each parameter.

    Parameters
    ----------
    params : Params
        The values.

    Yields
    ------
    dict
        name, value, default, meaning, allowed.
    """
    yield from _explain(params, Params(seed=params.seed), "")


def _verify_options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run_verify(args: argparse.Namespace) -> int:
    """Find damage: every file that dvc.lock names, here and in DVC's cache, is checked against its md5.

    Exits with 1 when anything is damaged. (DVC itself trusts its cache.)

    Example: gotorb verify
    """

    damage = find_damage()
    show(args, damage, damage or ["every file is what dvc.lock says"])
    if damage:
        print(f"gotorb: {len(damage)} damaged files", file=sys.stderr)
    return int(bool(damage))


def _dvc_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="what follows `dvc`")


def run_dvc(args: argparse.Namespace) -> int:
    """Run a DVC command with the settings of .env: its remote (DVC_REMOTE_URL) and the keys of S3.

    Examples:
      gotorb dvc pull
      gotorb dvc push --all-tags
      gotorb dvc exp run --queue -S train.batch_size=128
    """

    set_remote()
    # stages call `python`: this one, whether or not its environment is activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run([*DVC, *args.words], env=os.environ | {"PATH": path}, check=False).returncode


def _explain(section: Section, defaults: Section, prefix: str) -> Iterator[dict[str, Any]]:
    for name, field in type(section).model_fields.items():
        value, default = getattr(section, name), getattr(defaults, name)
        if isinstance(value, Section):
            yield from _explain(value, default, f"{prefix}{name}.")
        else:
            known = {"name": f"{prefix}{name}", "value": value, "default": default}
            yield known | {"meaning": field.description, "allowed": allowed(field)}


def _told(one: dict[str, Any]) -> str:
    told = "" if one["value"] == one["default"] else f" (default {_shown(one['default'])})"
    return f"{one['name']} = {_shown(one['value'])}{told}\n    {one['meaning']}; {one['allowed']}"


def _shown(value: object) -> str:
    """A value as params.yaml spells it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(one)}' for key, one in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _params() -> str:
    return f"params.yaml is valid ({len(read_params().flat())} parameters)"


def _database() -> str:
    from gotorb.survey.gotophoto import query_images

    settings = read_settings()
    if not settings.gotophoto_db_host:
        return "GOTOPHOTO_DB_HOST is not set: the embedded survey is used"
    return f"{settings.gotophoto_db_name} answers, {len(query_images(settings, 1))} usable image(s) seen"


def _galaxies() -> str:
    from gotorb.catalogues.galaxies import find_galaxies

    folder = read_settings().catshtm_dir
    if not folder:
        return "CATSHTM_DIR is not set: only the embedded survey has galaxies"
    return f"GLADE in {folder} answers ({len(find_galaxies(folder, 150.0, 2.0, radius_arcsec=3600))} galaxies seen)"


def _minor_planets() -> str:
    from gotorb.catalogues.minor_planets import Pympc
    from gotorb.catalogues.update import describe

    settings = read_settings()
    path = Pympc(settings.gotorb_mpc_catalogue, settings.observatory).path
    if settings.gotorb_mpc_catalogue and not path.is_file():
        raise CatalogueError(f"no file {path}; correct GOTORB_MPC_CATALOGUE in .env")
    if not path.is_file():
        return "no catalogue yet: only the embedded survey has one; `gotorb catalogue update` fetches one"
    status = describe(path, find_params(None).label.match_radius_arcsec)
    cure = "" if status.fits else ": for images of today run `gotorb catalogue update`"
    return f"{path}: {status.n_objects} objects, {status.age}{cure}; observatory {settings.observatory}"


def _tracking() -> str:
    from gotorb.tracking.store import open_store, shown_uri

    open_store()
    return f"{shown_uri()} answers"


def _artifacts() -> str:
    from gotorb.tracking.store import artifacts_answer, find_moved, is_local

    if not artifacts_answer():
        raise TrackingError("the store of MLFLOW_S3_ENDPOINT_URL takes no connection; start it, or correct .env")
    if not is_local():
        return "kept where the tracking server says"
    if moved := find_moved():
        raise TrackingError(f"artifacts are looked for in {moved[0]}: moved here? `gotorb tracking relocate` fixes it")
    return "kept in mlruns/"


def _journals() -> str:
    from gotorb.tracking.runs import waiting_journals

    n_waiting = len(waiting_journals())
    return f"{n_waiting} runs wait for the tracking store: `gotorb sync`" if n_waiting else "no run waits"


CHECKS: dict[str, Callable[[], str]] = {
    "parameters": _params,
    "database": _database,
    "galaxies": _galaxies,
    "minor planets": _minor_planets,
    "tracking": _tracking,
    "artifacts": _artifacts,
    "journals": _journals,
    "data remote": check_remote,
}
