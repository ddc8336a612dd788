"""Check .env, database, catalogues, tracking store and DVC's remote, and say what to mend.

Example: gotorb doctor
"""

import argparse
from collections.abc import Callable

from gotorb.errors import GotorbError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> int:
    """Print a line for each check; 1 if one fails."""
    failed = 0
    for name, check in CHECKS.items():
        try:
            print(f"ok    {name}: {check()}")
        except GotorbError as error:
            failed += 1
            print(f"FAIL  {name}: {error}")
    return 1 if failed else 0


def _params() -> str:
    from gotorb.params import read_params

    return f"params.yaml is valid ({len(read_params().flat())} parameters)"


def _database() -> str:
    from gotorb.settings import read_settings
    from gotorb.survey.gotophoto import query_images

    settings = read_settings()
    if not settings.gotophoto_db_host:
        return "GOTOPHOTO_DB_HOST is not set: the embedded survey is used"
    return f"{settings.gotophoto_db_name} answers, {len(query_images(settings, 1))} usable image(s) seen"


def _galaxies() -> str:
    from gotorb.catalogues.galaxies import find_galaxies
    from gotorb.settings import read_settings

    folder = read_settings().catshtm_dir
    if not folder:
        return "CATSHTM_DIR is not set: only the embedded survey has galaxies"
    return f"GLADE in {folder} answers ({len(find_galaxies(folder, 150.0, 2.0, radius_arcsec=3600))} galaxies seen)"


def _minor_planets() -> str:
    from gotorb.catalogues.minor_planets import Pympc
    from gotorb.catalogues.update import describe
    from gotorb.errors import CatalogueError
    from gotorb.params import find_params
    from gotorb.settings import read_settings

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
    from gotorb.errors import TrackingError
    from gotorb.tracking.relocation import find_moved
    from gotorb.tracking.store import artifacts_answer, is_local

    if not artifacts_answer():
        raise TrackingError("the store of MLFLOW_S3_ENDPOINT_URL takes no connection; start it, or correct .env")
    if not is_local():
        return "kept where the tracking server says"
    if moved := find_moved():
        raise TrackingError(f"artifacts are looked for in {moved[0]}: moved here? `gotorb tracking relocate` mends it")
    return "kept in mlruns/"


def _journals() -> str:
    from gotorb.tracking.runs import waiting_journals

    n_waiting = len(waiting_journals())
    return f"{n_waiting} runs wait for the tracking store: `gotorb sync`" if n_waiting else "no run waits"


def _remote() -> str:
    from gotorb.tracking.remote import check_remote

    return check_remote()


CHECKS: dict[str, Callable[[], str]] = {
    "parameters": _params,
    "database": _database,
    "galaxies": _galaxies,
    "minor planets": _minor_planets,
    "tracking": _tracking,
    "artifacts": _artifacts,
    "journals": _journals,
    "data remote": _remote,
}
