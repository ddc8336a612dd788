"""Score images, stamp archives or alert packets with a model.

The csv has, for each stamp: id, ra, dec, score, posterior mean, standard deviation and confidence (empty for
a model without dropout), model name and version, and the sha256 of the data.

An exported model (`gotorb export`) is scored by onnxruntime, without TensorFlow. It has plain scores only: the columns
of the posterior stay empty, and --samples and --seed mean nothing.

Examples:
  gotorb score models:/gotorb@champion night/r0000001_UT1-median.fits --out scores.csv
  gotorb score models/bayesian_vgg6 archive/ztf_stamps.h5 --out scores.csv
  gotorb score model.onnx archive/ztf_stamps.h5 --out scores.csv
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "model", help="models:/NAME@ALIAS, models:/NAME/VERSION, a model's folder, model.h5, or an exported model.onnx"
    )
    parser.add_argument("source", help="image, folder of images, data set, stamp archive, or alert packets")
    parser.add_argument("--out", required=True, help="csv to write")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--params", help="params.yaml whose label.archive tells how to read an archive")


def run(args: argparse.Namespace) -> int:
    """Score and say how many."""
    from gotorb.apps.scoring import load_scorer, score_source
    from gotorb.logs import show_on_console
    from gotorb.params import find_params

    show_on_console()
    archive = find_params(args.params).label.archive
    n_rows = score_source(
        load_scorer(args.model), args.source, args.out, archive=archive, n_samples=args.samples, seed=args.seed
    )
    print(f"{args.out}: {n_rows} rows", file=sys.stdout)
    return 0
