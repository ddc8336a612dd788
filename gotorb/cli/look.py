"""Commands that score images and look at stamps."""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import gotorb
from gotorb.cli import options
from gotorb.core.logs import show_on_console
from gotorb.core.params import EyeballParams, LabelParams, ScoreParams, WhyParams
from gotorb.errors import ConfigError, DataError

SOURCES = "images, folders of images, data sets, stamp archives, alert packets"
ARCHIVE = "params.yaml whose label.archive describes an archive"


def _score_options(parser: argparse.ArgumentParser) -> None:
    from gotorb.classifier.jobs import Options, score_sources, watch_folder

    parser.add_argument("model", help=options.MODEL)
    parser.add_argument("sources", nargs="*", help=SOURCES)
    parser.add_argument("--out-path", required=True, metavar="FILE",
                        help="csv to write; with --watch a folder, one csv for each file")  # fmt: skip
    options.add_options(parser, Options, ScoreParams, skip=("archive",))
    parser.add_argument("--no-posterior", dest="n_samples", action="store_const", const=0, default=argparse.SUPPRESS,
                        help="plain scores only: several times as fast; the same as --n-samples 0")  # fmt: skip
    options.add_options(parser, score_sources, ScoreParams, skip=("model", "sources", "out_path"))
    options.add_options(parser, watch_folder, ScoreParams, skip=("model", "out_dir"))
    parser.add_argument("--watch", metavar="FOLDER", help="score files that arrive in a folder, each once")
    options.add_scheduler(parser)
    parser.add_argument("--params", metavar="FILE", help=ARCHIVE)


def run_score(args: argparse.Namespace) -> int:
    """Score images, stamp archives or alert packets with a model.

    The csv has, for each stamp: id, ra, dec, score, posterior mean, standard deviation and confidence (empty for
    a model without dropout), model name and version, the sha256 of the data, the threshold, the call: 1 real, 0
    bogus, and the image. The posterior mean decides the call where there is one.

    An interrupted call resumes when it is given again: finished sources are kept in OUT.parts/.

    An exported model (`gotorb export`) is scored by onnxruntime, without TensorFlow. It has plain scores only: the
    columns of the posterior stay empty, and --n-samples and --seed mean nothing.

    Examples:
      gotorb score models:/gotorb@champion night/r0000001_UT1-median.fits --out-path scores.csv
      gotorb score models/bayesian_vgg6 archive/ztf_stamps.h5 --no-posterior --out-path scores.csv
      gotorb score models/bayesian_vgg6 monday/ tuesday/ --n-processes 2 --out-path scores.csv
      gotorb score models:/gotorb@champion --watch incoming/ --out-path scored/
      gotorb score models/bayesian_vgg6 /shared/night --scheduler tcp://head:8786 --out-path /shared/scores.csv
    """
    from gotorb.classifier.jobs import Options, score_sources, watch_folder

    if bool(args.sources) == bool(args.watch):
        raise ConfigError("give what to score: either sources or --watch FOLDER")
    if getattr(args, "n_samples", None) == 1:
        raise ConfigError("--n-samples is 1; give 2 or more, or --no-posterior")
    show_on_console()
    given = options.call(args, Options, archive=options.archive_of(args))
    if args.watch:
        watch_folder(args.model, args.watch, args.out_path, given, **_only(args, "poll_s"))
        return 0
    options.use_scheduler(args)
    n_rows = score_sources(args.model, args.sources, args.out_path, given, **_only(args, "n_processes"))
    print(f"{args.out_path}: {n_rows} rows")
    return 0


def _visualise_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", help=SOURCES)
    parser.add_argument("--model", required=True, help=options.MODEL)
    parser.add_argument("--out-dir", required=True, metavar="DIR", help="folder for the pages")
    options.add_options(parser, gotorb.visualise.Look, ScoreParams, skip=("archive",))
    parser.add_argument("--params", metavar="FILE", help=ARCHIVE)


def run_visualise(args: argparse.Namespace) -> int:
    """Write pages that show a model's scores of images: one self-contained html for each, an index, csv and json.

    Each detection is shown with score, posterior, old scores, all layers, single exposures, what is known of it and
    flags (edge, bright star, dipole, cosmic ray, minor planet, galaxy). Pages sort and filter by themselves and
    fetch nothing.

    Minor planets are named when GOTORB_MPC_CATALOGUE is set, galaxies when CATSHTM_DIR is (.env).

    Examples:
      gotorb visualise night/r0000001_UT1-median.fits --model models:/gotorb@champion --out-dir pages
      gotorb visualise night/ --model models/bayesian_vgg6 --neighbours data/dataset --saliency --out-dir pages
      gotorb visualise archive/ztf_stamps.h5 --model models:/gotorb-ztf@champion --out-dir pages
    """
    show_on_console()
    look = options.call(args, gotorb.visualise.Look, archive=options.archive_of(args))
    pages = gotorb.visualise.make_pages(args.sources, args.model, args.out_dir, look)
    print(pages[-1])
    return 0


def _night_options(parser: argparse.ArgumentParser) -> None:
    from gotorb.visualise.night import NightOptions

    parser.add_argument("source", nargs="?", help="folder of the night's images, or any other source of detections")
    parser.add_argument("--model", help=options.MODEL)
    parser.add_argument("--out-dir", metavar="DIR", help="folder for the page and its files")
    options.add_options(parser, NightOptions, ScoreParams, skip=("archive",))
    parser.add_argument(
        "--audit", metavar="CSV", help="labelled audit.csv of a night: show the miss rate, score nothing"
    )
    parser.add_argument(
        "--summary", metavar="DIR", help="folder of nights: write a page of their trends, score nothing"
    )
    parser.add_argument("--params", metavar="FILE", help=ARCHIVE)


def run_night(args: argparse.Namespace) -> int:
    """Score a night's images and write its summary: night.html, scores.csv, audit.csv and summary.json.

    The page tells what is shown, hidden and unsure, the scores of each telescope, how the night differs from the
    training set (--data), and how many known minor planets are shown (GOTORB_MPC_CATALOGUE). audit.csv is a random
    sample of hidden detections: label it, and --audit tells how many real ones were missed. candidates/ and audit_set/
    are data sets for `gotorb eyeball`. --summary draws shown, unsure, drift, recall and miss rate of several nights.

    Examples:
      gotorb night images/2020-11-05 --model models:/gotorb@champion --data data/dataset --out-dir nights/2020-11-05
      gotorb night --audit nights/2020-11-05/audit.csv
      gotorb night --summary nights
    """
    if args.audit:
        return _tell_missed(args.audit)
    if args.summary:
        from gotorb.visualise.night import read_trends, write_trends

        print(read_trends(args.summary).round(4).to_string(index=False))
        print(write_trends(args.summary))
        return 0
    if not (args.source and args.model and args.out_dir):
        raise ConfigError("a night needs its folder, --model and --out-dir; or give --audit CSV")
    from gotorb.visualise.night import AUDIT_CSV, NightOptions, summarise_night

    show_on_console()
    given = options.call(args, NightOptions, archive=options.archive_of(args))
    print(summarise_night(args.source, args.model, args.out_dir, given))
    audit = Path(args.out_dir) / AUDIT_CSV
    by_hand = f"or label {audit}, then gotorb night --audit {audit}"
    options.say_next(f"gotorb eyeball {args.out_dir}; gotorb eyeball {args.out_dir} --audit ({by_hand})")
    return 0


def _why_options(parser: argparse.ArgumentParser) -> None:
    from gotorb.visualise.why import explain

    parser.add_argument("wanted", metavar="id", help="row id, the survey's candidate id, or the name of an object")
    options.add_options(parser, explain, WhyParams, required=("data_dir",))
    parser.add_argument("--others", nargs="*", default=[], metavar="MODEL", help="further models to ask")
    parser.add_argument("--not-registered", action="store_true", help="do not ask the registered versions")
    parser.add_argument("--out-path", metavar="FILE", help="page to write")
    options.add_json(parser)


def run_why(args: argparse.Namespace) -> int:
    """Explain a model's score of a detection, for instance of a known transient that it hid.

    Shows the posterior, flags, the most similar labelled training rows, the error rates of the slices that it
    lies in, and the scores of all registered versions. --out-path writes a page with the pictures.

    Examples:
      gotorb why 10000051 --data-dir data/dataset --model models/bayesian_vgg6
      gotorb why SIM00000011 --data-dir data/dataset --out-path why.html
    """
    from gotorb.visualise import write_reasons
    from gotorb.visualise.why import explain, registered_models, tell

    others = [*args.others, *([] if args.not_registered else registered_models())]
    reasons = options.call(args, explain, others=others)
    options.show(args, [reason.as_dict() for reason in reasons], ["\n\n".join(tell(reason) for reason in reasons)])
    if args.out_path:
        print(write_reasons(reasons, args.out_path), file=sys.stderr if args.json else sys.stdout)
    return 0


def _eyeball_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "gotorb eyeball [ACTION] DIR [options]"
    actions = ", ".join(ACTIONS)
    told = f"{SOURCES}, a night or a stream's folder; an action may stand before a data set: {actions}"
    parser.add_argument("words", nargs="+", metavar="DIR", help=told)
    skip = ("data_dir", "stamp_size", "params")
    options.add_options(parser, gotorb.eyeball.serve, EyeballParams, skip=skip, group="serve")
    options.add_options(parser, gotorb.eyeball.export, EyeballParams, skip=("data_dir", "journal"), group="export")
    made = ("out_dir", "name")
    options.add_options(parser, gotorb.eyeball.get_candidate_data, LabelParams, skip=made, group="candidates")
    parser.add_argument("--out-path", metavar="PATH", help="file (labels) or folder (to-zooniverse) to write")
    parser.add_argument("--classifications", metavar="CSV", help="classification export (from-zooniverse)")
    parser.add_argument("--params", metavar="FILE", default=argparse.SUPPRESS, help=f"{ARCHIVE} and links")
    parser.add_argument(
        "--audit", action="store_true", help="DIR is a night: label its audit set blind, then show the miss rate"
    )
    options.add_json(parser)


def run_eyeball(args: argparse.Namespace) -> int:
    """Label stamps on a page, and use the decisions.

    The pages open on this machine only: eyeball at /, the latent explorer at /explorer (with --model). Decisions go
    into eyeball.sqlite in the data set's folder; export makes a new version of the data set from them.

    Examples:
      gotorb eyeball data/dataset --model models/bayesian_vgg6 --order uncertain --labeller ann
      gotorb eyeball data/dataset --rows asked.csv --labeller ann
      gotorb eyeball data/dataset --gold known.csv --repeat 0.05 --labeller ann
      gotorb eyeball night/r0000001_UT1-median.fits --model models/bayesian_vgg6
      gotorb eyeball data/dataset --predictions evaluations/bayesian_vgg6/predictions.csv --blind
      gotorb eyeball nights/2020-11-05 --audit
      gotorb eyeball agreement data/dataset
      gotorb eyeball export data/dataset --name looked_at
      gotorb eyeball agreement data/dataset --gold known.csv
      gotorb eyeball labels data/dataset --out-path labels.csv
      gotorb eyeball to-zooniverse data/dataset --out-path subjects
      gotorb eyeball from-zooniverse data/dataset --classifications export.csv
      gotorb eyeball candidates ids.csv --name tonight
    """
    *action, args.data_dir = args.words
    if len(action) > 1 or (action and action[0] not in ACTIONS):
        print(f"gotorb: unknown action {' '.join(action)!r}; choose {', '.join(ACTIONS)}", file=sys.stderr)
        return 2
    return ACTIONS[action[0]](args) if action else _serve(args)


def _explore_options(parser: argparse.ArgumentParser) -> None:
    options.add_options(parser, gotorb.eyeball.explore, EyeballParams, required=("model", "out_path"))


def run_explore(args: argparse.Namespace) -> int:
    """Write the map of a model's latent space as one self-contained page.

    Example: gotorb explore data/dataset --model models/bayesian_vgg6 --out-path explorer.html
    """
    print(options.call(args, gotorb.eyeball.explore))
    return 0


def _only(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """One option, if it was given."""
    return {name: getattr(args, name)} if hasattr(args, name) else {}


def _serve(args: argparse.Namespace) -> int:
    show_on_console()
    if args.audit:
        return _audit(args)
    given = options.chosen(args, gotorb.eyeball.serve)
    if "model" in given:
        print(f"asking {args.model} about every row; its answers are kept", file=sys.stderr)
    gotorb.eyeball.serve(**given, on_ready=lambda url: print(url, flush=True))
    return 0


def _audit(args: argparse.Namespace) -> int:
    """Serve a night's audit set blind, in random order, and print the miss rate when the server is stopped."""
    from gotorb.eyeball.exchange import audit_set, record_audit, tell_missed
    from gotorb.visualise.night import PAGE, read_night

    given = options.chosen(args, gotorb.eyeball.serve)
    given |= {"data_dir": audit_set(args.data_dir), "blind": True, "order": "random"}
    with contextlib.suppress(KeyboardInterrupt):  # the way to stop the server
        gotorb.eyeball.serve(**given, on_ready=lambda url: print(url, flush=True))
    found = record_audit(args.data_dir, journal=given.get("journal"))
    print(tell_missed(found, read_night(args.data_dir)[0]["n_hidden"]))
    print(Path(args.data_dir) / PAGE)
    return 0


def _export(args: argparse.Namespace) -> int:
    from gotorb.dataset.versions import compare_datasets

    new_dir = options.call(args, gotorb.eyeball.export)
    diff = compare_datasets(args.data_dir, new_dir)
    print(f"{diff.n_same} rows are the same", file=sys.stderr)
    if len(diff.summary()):
        print(diff.summary().to_string(index=False), file=sys.stderr)
    print(new_dir)
    return 0


def _agreement(args: argparse.Namespace) -> int:
    found = options.call(args, gotorb.eyeball.agreement)
    options.show(args, json.loads(found.to_json(orient="records")), [found.round(3).to_string(index=False)])
    return 0


def _labels(args: argparse.Namespace) -> int:
    if not args.out_path:
        raise DataError("no name for the file; give one with --out-path")
    n_rows = options.call(args, gotorb.eyeball.write_labels)
    print(f"{n_rows} candidates", file=sys.stderr)
    print(args.out_path)
    return 0


def _to_zooniverse(args: argparse.Namespace) -> int:
    if not args.out_path:
        raise DataError("no name for the folder of pictures; give one with --out-path")
    print(options.call(args, gotorb.eyeball.write_subjects))
    return 0


def _from_zooniverse(args: argparse.Namespace) -> int:
    if not args.classifications:
        raise DataError("no classifications; give the csv of the export with --classifications")
    found = options.call(args, gotorb.eyeball.import_classifications)
    print(", ".join(f"{n} {kind}" for kind, n in found.items()))
    return 0


def _candidates(args: argparse.Namespace) -> int:
    show_on_console()
    try:
        words = Path(args.data_dir).read_text(encoding="utf-8").replace(",", " ").split()
    except OSError as error:
        raise DataError(f"ids cannot be read from {args.data_dir} ({error}); give a file of whole numbers") from None
    ids = [int(word) for word in words if word.isdecimal()]
    print(gotorb.eyeball.get_candidate_data(ids, **options.chosen(args, gotorb.eyeball.get_candidate_data)))
    return 0


def _tell_missed(path: str) -> int:
    import pandas as pd

    from gotorb.eyeball.exchange import tell_missed
    from gotorb.visualise.night import SUMMARY_JSON, estimate_missed

    try:
        audit = pd.read_csv(path, dtype=str)
        n_hidden = json.loads((Path(path).parent / SUMMARY_JSON).read_text(encoding="utf-8"))["n_hidden"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be used ({error}); give the audit.csv next to {SUMMARY_JSON}") from None
    print(tell_missed(estimate_missed(audit, n_hidden), n_hidden))
    return 0


ACTIONS = {"export": _export, "agreement": _agreement, "labels": _labels, "candidates": _candidates,
           "to-zooniverse": _to_zooniverse, "from-zooniverse": _from_zooniverse}  # fmt: skip
