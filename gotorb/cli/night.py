"""Score a night's images and write its summary: night.html, scores.csv, audit.csv and summary.json in OUT.

The page tells what is shown, hidden and unsure, the scores of each telescope, how the night differs from the training
set (--data), and how many known minor planets are shown (GOTORB_MPC_CATALOGUE). audit.csv is a random sample of hidden
detections: label it, and --audit tells how many real ones were missed.

Examples:
  gotorb night images/2020-11-05 --model models:/gotorb@champion --data data/dataset --out nights/2020-11-05
  gotorb night --audit nights/2020-11-05/audit.csv
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", nargs="?", help="folder of the night's images")
    parser.add_argument("--model", help="models:/NAME@ALIAS, a model's folder, model.h5, or an exported model.onnx")
    parser.add_argument("--out", help="folder for the page and its files")
    parser.add_argument("--data", help="training set with which the night is compared")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples, 0 for none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and audit (default: %(default)s)")
    parser.add_argument("--threshold", type=float, help="a detection is shown from here on (default: the model's own)")
    parser.add_argument("--n-audit", type=int, default=100, help="hidden detections to label (default: %(default)s)")
    parser.add_argument(
        "--audit", metavar="CSV", help="labelled audit.csv of a night: tell the miss rate, score nothing"
    )
    parser.add_argument("--params", help="params.yaml whose label.archive tells how to read an archive")


def run(args: argparse.Namespace) -> int:
    """Write the page and name it, or tell the miss rate."""
    from gotorb.errors import ConfigError

    if args.audit:
        return _tell_missed(args.audit)
    if not (args.source and args.model and args.out):
        raise ConfigError("a night needs its folder, --model and --out; or give --audit CSV")
    from gotorb.apps.night import NightOptions, summarise_night
    from gotorb.logs import show_on_console
    from gotorb.params import find_params

    show_on_console()
    archive = find_params(args.params).label.archive
    options = NightOptions(args.samples, args.seed, args.threshold, args.data, args.n_audit, archive)
    print(summarise_night(args.source, args.model, args.out, options))
    return 0


def _tell_missed(path: str) -> int:
    import json
    from pathlib import Path

    import pandas as pd

    from gotorb.apps.night import SUMMARY_JSON, estimate_missed
    from gotorb.errors import DataError

    try:
        audit = pd.read_csv(path, dtype=str)
        n_hidden = json.loads((Path(path).parent / SUMMARY_JSON).read_text(encoding="utf-8"))["n_hidden"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be used ({error}); give audit.csv beside {SUMMARY_JSON} of its night") from None
    found = estimate_missed(audit, n_hidden)
    low, high = found["n_missed_interval"]
    rate, lower, upper = (100 * value for value in (found["rate"], *found["interval"]))
    print(f"{found['n_labelled']} labelled, {rate:.2f} % of the hidden are real ({lower:.2f} to {upper:.2f} %)")
    print(f"of {n_hidden} hidden detections about {found['n_missed']} are real ({low} to {high})")
    return 0
