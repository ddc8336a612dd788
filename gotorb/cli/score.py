"""Score images, stamp archives or alert packets with a model.

The csv has, for each stamp: id, ra, dec, score, posterior mean, standard deviation and confidence (empty for
a model without dropout), model name and version, the sha256 of the data, the threshold, and the call: 1 real, 0 bogus.
The call goes by the posterior mean where there is one.

A call that was killed goes on when it is given again: finished sources are kept in OUT.parts/.

An exported model (`gotorb export`) is scored by onnxruntime, without TensorFlow. It has plain scores only: the columns
of the posterior stay empty, and --samples and --seed mean nothing.

Examples:
  gotorb score models:/gotorb@champion night/r0000001_UT1-median.fits --out scores.csv
  gotorb score models/bayesian_vgg6 archive/ztf_stamps.h5 --no-posterior --out scores.csv
  gotorb score models/bayesian_vgg6 monday/ tuesday/ --processes 2 --out scores.csv
  gotorb score models:/gotorb@champion --watch incoming/ --out scored/
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", help="models:/NAME@ALIAS, models:/NAME/VERSION, a model's folder, model.h5, or an exported model.onnx"
    )
    parser.add_argument("source", nargs="*", help="images, folders of images, data sets, stamp archives, alert packets")
    parser.add_argument("--out", required=True, help="csv to write; with --watch a folder, one csv for each file")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples (default: %(default)s)")
    parser.add_argument(
        "--no-posterior", dest="samples", action="store_const", const=0, help="plain scores only: several times as fast"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--threshold", type=float, help="a row is called real from here on (default: the model's own)")
    parser.add_argument("--processes", type=int, default=1, help="sources scored at a time (default: %(default)s)")
    parser.add_argument(
        "--watch", metavar="FOLDER", help="score files that arrive in a folder, each once, until stopped"
    )
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between looks (default: %(default)s)")
    parser.add_argument("--params", help="params.yaml whose label.archive tells how to read an archive")


def run(args: argparse.Namespace) -> int:
    """Score and say how many."""
    from gotorb.apps.sources import Options, score_sources, watch_folder
    from gotorb.errors import ConfigError
    from gotorb.logs import show_on_console
    from gotorb.params import find_params

    if bool(args.source) == bool(args.watch):
        raise ConfigError("give what to score: either sources or --watch FOLDER")
    if args.samples < 0 or args.samples == 1:
        raise ConfigError(f"--samples is {args.samples}; give 2 or more, or --no-posterior")
    show_on_console()
    options = Options(find_params(args.params).label.archive, args.samples, args.seed, args.threshold)
    if args.watch:
        watch_folder(args.model, args.watch, args.out, options, poll_s=args.poll)
        return 0
    n_rows = score_sources(args.model, args.source, args.out, options, n_processes=args.processes)
    print(f"{args.out}: {n_rows} rows", file=sys.stdout)
    return 0
