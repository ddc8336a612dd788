"""`gotorb simulate`: make the embedded survey, or paste sources into images of your own."""

import argparse
import sys
from pathlib import Path

NAME = "simulate"
HELP = "make a small survey of simulated images, or paste sources into your own"
EXAMPLES = """examples:
  gotorb simulate data/survey --fields 4 --visits 2 --seed 7
      a survey of 4 fields in data/survey: images, tables, catalogues, and the truth apart from them
  gotorb simulate --into r0400000_UT3-median.fits --exposure r0400000_UT3.fits --out injected.fits --n 50 --mag 17 20
      50 point sources in copies of a difference image and one of its exposures; injected-injected.csv lists them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "out_dir", nargs="?", type=Path, metavar="OUT_DIR", help="folder of the survey, new or to replace"
    )
    survey = parser.add_argument_group("a new survey (defaults from params.yaml)")
    survey.add_argument("--fields", type=int, help="pointings")
    survey.add_argument("--visits", type=int, help="visits of each")
    survey.add_argument("--size", type=int, help="pixels along each side, 320 at least")
    survey.add_argument("--seed", type=int, help="any whole number; equal seeds give equal files")
    survey.add_argument("--processes", type=int, help="worker processes")
    survey.add_argument("--catalogue", type=Path, help="XEphem csv of real minor planets instead of a generated belt")
    paste = parser.add_argument_group("sources in your own images")
    paste.add_argument("--into", type=Path, metavar="IMAGE", help="difference-image file to copy and change")
    paste.add_argument("--exposure", type=Path, nargs="+", default=[], help="its single exposures")
    paste.add_argument("--out", type=Path, help="the changed copy")
    paste.add_argument("--n", type=int, default=50, help="sources (50)")
    paste.add_argument("--mag", type=float, nargs=2, default=(17.0, 20.0), metavar=("BRIGHT", "FAINT"))


def run(args: argparse.Namespace) -> int:
    """Do it; the result goes to stdout."""
    from gotorb.errors import ConfigError

    if args.into and args.out_dir:
        raise ConfigError(
            f"both OUT_DIR {args.out_dir} and --into {args.into}; a survey and an injection are two commands"
        )
    if args.into:
        return _inject(args)
    if not args.out_dir:
        raise ConfigError("neither OUT_DIR nor --into is given; see the examples of `gotorb simulate --help`")
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from gotorb.errors import ConfigError
    from gotorb.params import SurveyParams, read_params
    from gotorb.simulate.survey import make_survey

    params = read_params()
    asked = {"n_fields": args.fields, "n_visits": args.visits, "size": args.size, "n_processes": args.processes}
    changed = {name: value for name, value in asked.items() if value is not None}
    try:
        survey = SurveyParams.model_validate(params.survey.model_dump() | changed)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{first['loc'][0]} is {first['input']!r} on the command line: {first['msg']}") from None
    seed = params.seed if args.seed is None else args.seed
    summary = make_survey(args.out_dir, survey, seed=seed, catalogue=args.catalogue)
    for line in summary.skipped:
        print(f"skipped {line}", file=sys.stderr)
    print(
        f"{args.out_dir}: {summary.n_visits} visits of {summary.n_fields} fields, {summary.n_candidates} detections "
        f"({summary.n_real} real), {len(summary.skipped)} visits skipped"
    )
    return 0


def _inject(args: argparse.Namespace) -> int:
    import numpy as np

    from gotorb.errors import ConfigError
    from gotorb.simulate.injection import inject, sources_path

    if not args.out:
        raise ConfigError(f"--into {args.into} needs --out FILE for the changed copy")
    sources = inject(
        args.into,
        args.out,
        n_sources=args.n,
        mag_range=tuple(args.mag),
        rng=np.random.default_rng(args.seed or 0),
        exposure_paths=args.exposure,
    )
    print(f"{args.out}: {len(sources)} sources added, listed in {sources_path(args.out)}")
    return 0
