"""Commands that make, change and inspect data sets."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gotorb
from gotorb.cli import options
from gotorb.core import layout, params
from gotorb.core.files import write_csv
from gotorb.core.logs import show_on_console
from gotorb.core.settings import read_settings
from gotorb.errors import ConfigError, GotorbError, ImageError

FETCH = params.FetchParams()
SYNTHETIC = (params.SyntheticParams, params.LabelParams, params.CleanParams)
LINK = "link_radius_arcsec"


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="difference images (default: the survey's first)")
    options.add_options(parser, gotorb.label_data.check, params.CheckParams, params.LabelParams, skip=("paths",))
    options.add_json(parser)
    options.add_params(parser)


def run_check(args: argparse.Namespace) -> int:
    """Check a few images before a labelling run: place, time, grid and table, and the minor planets found on them.

    For each image: how many minor planets brighter than the limit fall on pixels with data, how many of them are
    detected, and their median offset. --out-dir draws them on the difference image. Exits with 1 when an image would
    not be labelled, or its minor planets are missing.

    Examples:
      gotorb check images/f012_v3_diff.fits --adapter mysurvey.py --provider pympc --out-dir checked/
      gotorb check --n-images 5
    """
    given = options.chosen(args, gotorb.label_data.check, params.LabelParams)
    if "n_images" not in args:
        given.pop("n_images", None)  # that of params.yaml is for the run
    results = gotorb.label_data.check(args.images, **given)
    rows = [asdict(one) | {"found": one.found and one.found._asdict()} for one in results]
    options.show(args, rows, (line for one in results for line in one.lines()))
    return int(any(one.state != "ok" or one.warnings for one in results))


def _label_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.label_data.make, params.LabelParams)
    options.add_scheduler(parser)
    options.add_params(parser)


def run_label(args: argparse.Namespace) -> int:
    """Make a labelled data set from the survey's images: minor planets are real, unmatched detections bogus.

    Examples:
      gotorb label --n-images 20 --provider pympc --out-dir /data/rb
      gotorb label --params params.yaml --adapter mysurvey.py
      gotorb label --n-images 100000 --provider pympc --out-dir /shared/rb --name all \\
          --dask-scheduler-address tcp://head:8786
    """
    options.use_scheduler(args)
    return _make(gotorb.label_data.make, args, params.LabelParams)


def _import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="folder of a stamp archive or of alert packets, or a datapack.hkl")
    options.add_options(parser, gotorb.import_data.import_stamps, skip=("path", "archive"))
    parser.add_argument("--params", metavar="FILE", help="params.yaml whose label.archive describes the archive")


def run_import(args: argparse.Namespace) -> int:
    """Make a labelled data set of stamps that were cut elsewhere: an archive, alert packets, or a validation pack.

    Examples:
      gotorb import archive/ --params params.yaml --name ztf
      gotorb import datapack.hkl --name datapack
    """
    places = options.chosen(args, gotorb.import_data.import_stamps)
    places.pop("path")
    if Path(args.path).suffix == ".hkl":
        print(gotorb.import_data.import_datapack(args.path, **places))
    else:
        print(gotorb.import_data.import_stamps(args.path, params.find_params(args.params).label.archive, **places))
    return 0


def _synthetic_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.label_data.add_synthetic_transients, *SYNTHETIC)
    options.add_params(parser)


def run_synthetic(args: argparse.Namespace) -> int:
    """Add simulated transients (a minor planet on a galaxy) and galaxy residuals; the old data set stays as it is.

    Example: gotorb synthetic data_20201105-203000 --negative-fraction 0.3
    """
    return _make(gotorb.label_data.add_synthetic_transients, args, *SYNTHETIC)


def _marshall_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.label_data.add_marshall_cands, params.LabelParams)


def run_marshall(args: argparse.Namespace) -> int:
    """Add candidates that annotators labelled; the old data set stays as it is.

    Example: gotorb marshall labels.csv data_20201105-203000
    """
    return _make(gotorb.label_data.add_marshall_cands, args)


def _relabel_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.clean_data.relabel)


def run_relabel(args: argparse.Namespace) -> int:
    """Replace labels by those of annotators; the old data set stays as it is.

    Example: gotorb relabel labels.csv data_20201105-203000
    """
    return _make(gotorb.clean_data.relabel, args)


def _clean_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.clean_data.clean, params.CleanParams)
    options.add_params(parser)


def run_clean(args: argparse.Namespace) -> int:
    """Remove random bogus that are probably real, or too many of a kind; the old data set stays as it is.

    Only the checks that are asked for run. changes.csv of the new data set names each row and the reason.

    Examples:
      gotorb clean data_20201105-203000 --variables atlas_var.fits --new-sources
      gotorb clean data/synthetic --params params.yaml --name cleaned
    """
    return _make(gotorb.clean_data.clean, args, params.CleanParams)


def _dataset_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source_dir", type=Path, help="data set to divide")
    parser.add_argument("data_dir", type=Path, help="folder of the divided data set")
    options.add_options(parser, params.DatasetParams, params.DatasetParams)
    parser.add_argument(
        "--seed", type=int, default=params.SEED, help="order in which groups are placed (default: %(default)s)"
    )
    options.add_params(parser)


def run_dataset(args: argparse.Namespace) -> int:
    """Divide a data set into train, validation and test without leaks, as a new data set with its card.

    Example: gotorb dataset data_20201105-203000 data/dataset --test-fraction 0.25
    """
    from gotorb.dataset.versions import make_version
    from gotorb.labels.soft import find_softener

    division = params.DatasetParams.model_validate(options.chosen(args, params.DatasetParams, params.DatasetParams))
    soften = find_softener(args.source_dir, division.soft_scores, division.soft_method)
    card = make_version(args.source_dir, args.data_dir, division, seed=args.seed, soften=soften)
    print(f"{args.data_dir}: {card['n_rows']} rows")
    options.say_next(f"gotorb train {args.data_dir}")
    return 0


def _data_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (run_action, text) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run_action=run_action)
        if name == "tag":
            action.add_argument("name", help="of the version, such as dataset-v1")
            action.add_argument("--message", help="reason (default: the name)")
            continue
        for folder in ("old_dir", "new_dir") if name == "diff" else ("data_dir",):
            action.add_argument(folder, help="folder of a data set")
        if name != "card":
            options.add_json(action)
        if name == "leaks":
            options.add_options(
                action, params.DatasetParams, params.DatasetParams, skip={*params.DatasetParams.model_fields} - {LINK}
            )
        if name == "errors":
            action.add_argument("--network", default="bayesian_vgg6", help="network to train (default: %(default)s)")
            action.add_argument("--out", help="csv to write (default: label_errors.csv in the folder)")
        if name == "diff":
            action.add_argument("--rows", help="csv to write, with every row that differs")


def run_data(args: argparse.Namespace) -> int:
    """Inspect labelled data sets: card, faults, leaks, changes, doubtful labels; name a version of them.

    Examples:
      gotorb data card data/dataset
      gotorb data verify data/dataset
      gotorb data leaks data/dataset
      gotorb data diff data/synthetic data/clean --rows changes.csv
      gotorb data errors data/dataset
      gotorb data tag dataset-v1 --message "first season"

    verify and leaks exit with 1 when they find anything.
    """
    return args.run_action(args)


def _catalogue_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="show objects, epoch, age, expected drift and digest")
    status.add_argument("--epoch", type=float, metavar="MJD", help="time of the images (default: now)")
    options.add_json(status)
    update = actions.add_parser("update", help="make a new catalogue and put it in place")
    update.add_argument(
        "--source", help="astorb, mpcorb or nea (default: mpcorb for a file, else astorb, which pympc takes by default)"
    )
    update.add_argument("--out", type=Path, help="csv to write (default: GOTORB_MPC_CATALOGUE, else pympc's own cache)")
    update.add_argument("--from-file", type=Path, metavar="FILE",
                        help="downloaded MPC extended JSON, MPCORB.DAT or astorb.dat, .gz or not")  # fmt: skip
    fetch = actions.add_parser("fetch", help="get variable stars or galaxies from VizieR, around images or of the sky")
    fetch.add_argument("kind", choices=("variables", "galaxies"), help="catalogue to get")
    where = fetch.add_mutually_exclusive_group(required=True)
    where.add_argument("--around", nargs="+", type=Path, metavar="IMAGES", help="images, folders of them, data sets")
    where.add_argument("--all-sky", action="store_true", help="the whole sky: some thousand questions, hours")
    fetch.add_argument("--out", type=Path, metavar="PATH", help=f"csv of variables (default: {FETCH.variables}), or "
                       f"folder of GLADE/ (default: CATSHTM_DIR, else {FETCH.galaxies}/)")  # fmt: skip
    options.add_options(fetch, params.FetchParams, params.FetchParams, skip=("variables", "galaxies"))


def run_catalogue(args: argparse.Namespace) -> int:
    """Show age and coverage of the catalogues of minor planets, variable stars and galaxies, or get new ones.

    A catalogue holds orbits at one epoch. Positions computed from them drift: 0.1 arcsec after a month, 1.7 after 100
    days, 22 after a year. When the drift exceeds the match radius, real asteroids are labelled bogus.

    Examples:
      gotorb catalogue status
          mpc.csv: 1400000 objects, elements of 2025-01-02, drift 0.26 arcsec: fits the match radius
      gotorb catalogue status --epoch 60677.5 --json
          the same for images of that time (MJD), for programs
      gotorb catalogue update
          Lowell's asteroids with the Minor Planet Center's near-Earth objects and comets, from the network, 150 MB
      gotorb catalogue update --from-file mpcorb_extended.json.gz --out catalogues/mpc.csv
          without network: a file from https://minorplanetcenter.net/Extended_Files/, brought here by other means
      gotorb catalogue fetch variables --around images/
          ATLAS and Gaia variables around these images, for clean.variables in params.yaml; resumes when interrupted
      gotorb catalogue fetch galaxies --around images/ --out /data/catsHTM
          GLADE+ galaxies in catsHTM format, for CATSHTM_DIR in .env
    """
    if args.action == "fetch":
        return _fetch_catalogue(args)
    if args.action == "update":
        return _update_catalogue(args)
    fetched = _fetched()
    if not args.json:
        for text in fetched.values():
            print(text["text"])
    _print_catalogue(_catalogue_path(), args.epoch, as_json=args.json, more=fetched)
    return 0


def _fetch_catalogue(args: argparse.Namespace) -> int:
    from gotorb.catalogues.vizier import describe_fetched, fetch_galaxies, fetch_variables

    show_on_console()
    given = options.chosen(args, params.FetchParams)
    margin = given.pop("margin_deg", FETCH.margin_deg)
    fields = None if args.all_sky else _fields_around(args.around, margin)
    polite = {name: value for name, value in given.items() if name in ("min_interval_s", "attempts")}
    if args.kind == "variables":
        out = args.out or FETCH.variables
        fetch_variables(fields, out, tables=given.get("tables", FETCH.tables), **polite)
        use = f"clean.variables: {out} in params.yaml"
    else:
        out = args.out or Path(read_settings().catshtm_dir or FETCH.galaxies)
        fetch_galaxies(fields, out, max_mag=given.get("max_mag", FETCH.max_mag), **polite)
        use = f"CATSHTM_DIR={Path(out).resolve()} in .env"
    state = describe_fetched(out)
    print(state.text if state else out)
    print(f"labels use it with {use}", file=sys.stderr)
    return 0


def _fields_around(paths: list[Path], margin_deg: float) -> list[Any]:
    """Circles around the images of these paths; unreadable ones are skipped with a warning."""
    from gotorb.catalogues.vizier import Circle
    from gotorb.classifier.sources import find_kind
    from gotorb.labels.jobs import read_images

    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"no {path}; give images, folders of images or data sets to --around")
        if (path / layout.IMAGES_CSV).exists():
            files += [Path(task.path) for task in read_images(path, read_settings())]
        else:
            files += find_kind(path)[1]
    fields = []
    for file in files:
        try:
            ra, dec, radius = gotorb.label_data.find_footprint(file)
            fields.append(Circle(ra, dec, radius + margin_deg))
        except ImageError as error:
            print(f"passed over: {error}", file=sys.stderr)
    if not fields:
        raise GotorbError(f"none of {len(files)} images gives a place on the sky; give images to --around")
    return fields


def _fetched() -> dict[str, dict[str, Any]]:
    """Catalogues of stars and galaxies that are in use or were fetched."""

    from gotorb.catalogues.galaxies import NAME
    from gotorb.catalogues.vizier import describe_fetched

    places = {
        "variables": Path(params.find_params(None).clean.variables or FETCH.variables),
        "galaxies": Path(read_settings().catshtm_dir or FETCH.galaxies),
    }
    found: dict[str, dict[str, Any]] = {}
    for kind, path in places.items():
        state = describe_fetched(path)
        if state is not None:
            found[kind] = asdict(state) | {"text": state.text}
        elif path.is_file() or (path / NAME).is_dir():
            found[kind] = {"path": str(path), "text": f"{path}: not fetched by gotorb; coverage and date are not known"}
        else:
            found[kind] = {"path": None, "text": f"no {kind}: `gotorb catalogue fetch {kind}` gets them"}
    return found


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out_dir", type=Path, help="folder of the survey, new or to replace")
    options.add_options(parser, params.SurveyParams, params.SurveyParams)
    parser.add_argument(
        "--seed", type=int, default=params.SEED, help="equal seeds give equal files (default: %(default)s)"
    )
    options.add_params(parser)


def run_simulate(args: argparse.Namespace) -> int:
    """Simulate a survey: images, database tables, catalogues, and the truth apart from them.

    Examples:
      gotorb simulate data/survey --n-fields 4 --n-visits 2 --seed 7
      gotorb simulate data/survey --params params.yaml
    """
    from gotorb.simulate.survey import make_survey

    survey = params.SurveyParams.model_validate(options.chosen(args, params.SurveyParams, params.SurveyParams))
    summary = make_survey(args.out_dir, survey, seed=args.seed, catalogue=survey.catalogue)
    for line in summary.skipped:
        print(f"skipped {line}", file=sys.stderr)
    print(
        f"{args.out_dir}: {summary.n_visits} visits of {summary.n_fields} fields, {summary.n_candidates} detections "
        f"({summary.n_real} real), {len(summary.skipped)} visits skipped"
    )
    return 0


def _inject_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image_path", type=Path, help="difference-image file to copy and change")
    parser.add_argument("--out-path", type=Path, required=True, metavar="FILE", help="changed copy")
    parser.add_argument("--exposure-paths", type=Path, nargs="+", default=[], metavar="FILE", help="single exposures")
    parser.add_argument("--n-sources", type=int, default=50, metavar="N", help="sources (default: %(default)s)")
    parser.add_argument("--mag-range", type=float, nargs=2, default=(17.0, 20.0), metavar=("BRIGHT", "FAINT"),
                        help="magnitudes (default: 17 20)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=params.SEED, help="positions and magnitudes (default: %(default)s)")


def run_inject(args: argparse.Namespace) -> int:
    """Paste point sources into copies of a difference image and its exposures; a csv lists them.

    Example:
      gotorb inject r0400000_UT3-median.fits --exposure-paths r0400000_UT3.fits --out-path injected.fits \\
          --n-sources 50 --mag-range 17 20
    """
    import numpy as np

    from gotorb.simulate.injection import inject, sources_path

    sources = inject(
        args.image_path, args.out_path, n_sources=args.n_sources, mag_range=tuple(args.mag_range),
        rng=np.random.default_rng(args.seed), exposure_paths=args.exposure_paths,
    )  # fmt: skip
    print(f"{args.out_path}: {len(sources)} sources added, listed in {sources_path(args.out_path)}")
    return 0


def _make(front: options.Front, args: argparse.Namespace, *sections: options.SectionType) -> int:
    """Make a data set, print its folder, and tell the next step."""
    show_on_console()
    data_dir = options.call(args, front, *sections)
    print(data_dir)
    options.say_next(f"gotorb data card {data_dir}, gotorb clean {data_dir}, or gotorb train {data_dir}")
    return 0


def _update_catalogue(args: argparse.Namespace) -> int:
    from gotorb.catalogues.update import SOURCES, default_path, renew

    source = args.source or ("mpcorb" if args.from_file else "astorb")
    if source not in SOURCES:
        raise ConfigError(f"--source is {source!r} on the command line; choose one of {', '.join(SOURCES)}")
    setting = read_settings().gotorb_mpc_catalogue
    out = args.out or (Path(setting) if setting else default_path(source))
    if not args.from_file:
        print(f"fetching {source}; this takes minutes", file=sys.stderr)
    renew(out, source, args.from_file)
    if out.resolve() != _catalogue_path().resolve():
        print(f"labels are not made with it yet: set GOTORB_MPC_CATALOGUE={out.resolve()} in .env", file=sys.stderr)
    _print_catalogue(out, None, as_json=False)
    return 0


def _catalogue_path() -> Path:
    """The catalogue that labels are made with."""
    from gotorb.catalogues.minor_planets import Pympc

    settings = read_settings()
    return Pympc(settings.gotorb_mpc_catalogue, settings.observatory).path


def _print_catalogue(
    path: Path, at_mjd: float | None, *, as_json: bool, more: dict[str, dict[str, Any]] | None = None
) -> None:

    from gotorb.catalogues.update import describe

    status = describe(path, params.find_params(None).label.match_radius_arcsec, at_mjd)
    if as_json:
        print(json.dumps(asdict(status) | (more or {}), indent=2))
        return
    verdict = "fits" if status.fits else "is beyond"
    print(f"{path}: {status.n_objects} objects, {status.age}: {verdict} the match radius", end=" ")
    print(f"of {status.match_radius_arcsec:g} arcsec; sha256 {status.sha256}")
    if not status.fits:
        print("run `gotorb catalogue update`, or widen label.match_radius_arcsec in params.yaml", file=sys.stderr)


def _card(args: argparse.Namespace) -> int:
    from gotorb.dataset.card import make_card

    print(json.dumps(make_card(args.data_dir), indent=2, sort_keys=True))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from gotorb.dataset.check import verify_dataset

    findings = verify_dataset(args.data_dir)
    options.show(args, findings, findings or [f"{args.data_dir}: nothing wrong found"])
    return 1 if findings else 0


def _leaks(args: argparse.Namespace) -> int:
    import pandas as pd

    from gotorb.dataset.check import find_leaks, find_pixel_leaks
    from gotorb.dataset.store import open_dataset

    data = open_dataset(args.data_dir)
    leaks = pd.concat(
        [find_leaks(data.table, **options.chosen(args, find_leaks)), find_pixel_leaks(data)], ignore_index=True
    )
    if args.json:
        print(leaks.to_json(orient="records", indent=2))
    elif leaks.empty:
        print(f"{args.data_dir}: no image, object, galaxy, place or pixels in two splits")
    else:
        print(leaks.to_string(index=False))
    return 0 if leaks.empty else 1


def _errors(args: argparse.Namespace) -> int:
    from gotorb import classifier

    show_on_console()
    found = classifier.find_label_errors(args.data_dir, network=args.network, out_path=args.out)
    suspects = found.rows[found.rows["suspect"]]
    told = f"{len(suspects)} of {len(found.rows)} labels are confidently contradicted"
    known = {"noise": found.noise.to_dict(orient="records"), "suspects": suspects["id"].tolist()}
    options.show(args, known, [found.noise.to_string(index=False), told])
    return 0


def _diff(args: argparse.Namespace) -> int:
    from gotorb.dataset.versions import compare_datasets

    diff = compare_datasets(args.old_dir, args.new_dir)
    if args.rows:
        write_csv(args.rows, diff.rows, inert=True)
        print(f"{args.rows}: {len(diff.rows)} rows", file=sys.stderr)
    summary = diff.summary()
    known = {"same": diff.n_same, "changes": summary.to_dict(orient="records")}
    table = [summary.to_string(index=False)] if len(summary) else []
    options.show(args, known, [f"{diff.n_same} rows are the same", *table])
    return 0


def _tag(args: argparse.Namespace) -> int:
    from gotorb.tracking.lineage import tag_data

    tagged = tag_data(args.name, message=args.message or args.name)
    print(f"{args.name} is commit {tagged.commit[:10]}; {tagged.n_runs} runs are marked")
    print(
        f"data are pushed to {tagged.remote}; give others the tag by `git push origin {args.name}`"
        if tagged.remote
        else "data are on this machine only: set DVC_REMOTE_URL in .env, then give the same command again",
        file=sys.stderr,
    )
    return 0


ACTIONS = {
    "card": (_card, "show identity and counts of a data set"),
    "verify": (_verify, "find flipped bytes, disagreement, duplicates and impossible values"),
    "leaks": (_leaks, "find what train, validation and test share"),
    "errors": (_errors, "find wrong labels by trainings that have not seen them (minutes to hours)"),
    "diff": (_diff, "show the changes between two versions"),
    "tag": (_tag, "name the committed version: git tag, data pushed to DVC's remote, its runs marked"),
}
