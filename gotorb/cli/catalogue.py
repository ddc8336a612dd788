"""Tell the age of the minor-planet catalogue, or renew it.

A catalogue holds orbits at one epoch. Positions computed from them drift: 0.1 arcsec after a month, 1.7 after 100
days, 22 after a year. When the drift exceeds the match radius, real asteroids are labelled bogus.

Examples:
  gotorb catalogue status
      mpc.csv: 1400000 objects, elements of 2025-01-02, 40 days old, two-body drift 0.26 arcsec: fits the match radius
  gotorb catalogue status --epoch 60677.5 --json
      the same for images of that time (MJD), for programs
  gotorb catalogue update
      Lowell's asteroids with the Minor Planet Center's near-Earth objects and comets, from the network, 150 MB
  gotorb catalogue update --from-file mpcorb_extended.json.gz --out catalogues/mpc.csv
      without network: a file from https://minorplanetcenter.net/Extended_Files/, brought here by other means
"""

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="objects, epoch, age, expected drift and digest")
    status.add_argument("--epoch", type=float, metavar="MJD", help="time of the images (default: now)")
    status.add_argument("--json", action="store_true", help="print json")
    update = actions.add_parser("update", help="make a new catalogue and put it in place")
    update.add_argument(
        "--source", help="astorb, mpcorb or nea (default: mpcorb for a file, else astorb, which pympc takes by default)"
    )
    update.add_argument("--out", type=Path, help="csv to write (default: GOTORB_MPC_CATALOGUE, else pympc's own cache)")
    update.add_argument("--from-file", type=Path, metavar="FILE", help="downloaded MPC extended JSON, .gz or not")


def run(args: argparse.Namespace) -> int:
    """Do it; the catalogue's state goes to stdout."""
    return _status(args) if args.action == "status" else _update(args)


def _status(args: argparse.Namespace) -> int:
    _print(_present_path(), args.epoch, as_json=args.json)
    return 0


def _update(args: argparse.Namespace) -> int:
    from gotorb.catalogues.update import SOURCES, default_path, renew
    from gotorb.errors import ConfigError
    from gotorb.settings import read_settings

    source = args.source or ("mpcorb" if args.from_file else "astorb")
    if source not in SOURCES:
        raise ConfigError(f"--source is {source!r} on the command line; choose one of {', '.join(SOURCES)}")
    setting = read_settings().gotorb_mpc_catalogue
    out = args.out or (Path(setting) if setting else default_path(source))
    if not args.from_file:
        print(f"fetching {source}; this takes minutes", file=sys.stderr)
    renew(out, source, args.from_file)
    if out.resolve() != _present_path().resolve():
        print(f"labels are not made with it yet: set GOTORB_MPC_CATALOGUE={out.resolve()} in .env", file=sys.stderr)
    _print(out, None, as_json=False)
    return 0


def _present_path() -> Path:
    """The catalogue that labels are made with."""
    from gotorb.catalogues.minor_planets import Pympc
    from gotorb.settings import read_settings

    settings = read_settings()
    return Pympc(settings.gotorb_mpc_catalogue, settings.observatory).path


def _print(path: Path, at_mjd: float | None, *, as_json: bool) -> None:
    from dataclasses import asdict

    from gotorb.catalogues.update import describe
    from gotorb.params import find_params

    status = describe(path, find_params(None).label.match_radius_arcsec, at_mjd)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    verdict = "fits" if status.fits else "is beyond"
    print(f"{path}: {status.n_objects} objects, {status.age}: {verdict} the match radius", end=" ")
    print(f"of {status.match_radius_arcsec:g} arcsec; sha256 {status.sha256}")
    if not status.fits:
        print("run `gotorb catalogue update`, or widen label.match_radius_arcsec in params.yaml", file=sys.stderr)
