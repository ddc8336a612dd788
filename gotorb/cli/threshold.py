"""Advise a threshold: chosen on a model's validation rows for what you need, its costs reported on the test rows.

Reads predictions.csv of an evaluation (`make repro`, or `classifier.evaluate`).

Examples:
  gotorb threshold evaluations/bayesian_vgg6 --purity 0.95 --real-fraction 0.05 --detections 5000
  gotorb threshold evaluations/bayesian_vgg6 --completeness 0.99 --by-mag
  gotorb threshold evaluations/bayesian_vgg6 --per-night 40 --real-fraction 0.01 --detections 3000 --json
"""

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("evaluation", type=Path, help="folder of an evaluation or a model, or its predictions.csv")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--purity", type=float, help="least fraction of real ones among what is called real")
    goal.add_argument("--completeness", type=float, help="least fraction of the real ones that is found")
    goal.add_argument("--per-night", type=float, help="most detections of a night that people can look at")
    parser.add_argument("--real-fraction", type=float, default=0.05, help="of a night's detections (default: 0.05)")
    parser.add_argument("--detections", type=int, default=1000, help="of a night (default: %(default)s)")
    parser.add_argument("--by-mag", action="store_true", help="error rates in bins of magnitude too")
    parser.add_argument("--json", action="store_true", help="print json")


def run(args: argparse.Namespace) -> int:
    """Print the threshold and what it costs."""
    from dataclasses import asdict

    from gotorb.evaluation.metrics import rounded
    from gotorb.evaluation.report import read_predictions
    from gotorb.evaluation.thresholds import Night, advise

    goal = next(name for name in ("purity", "completeness", "per_night") if getattr(args, name) is not None)
    night = Night(args.real_fraction, args.detections)
    advice = advise(read_predictions(args.evaluation), goal, getattr(args, goal), night)
    known = rounded(asdict(advice))
    if not args.by_mag:
        del known["by_mag"]
    print(json.dumps(known, indent=2) if args.json else "\n".join(_describe(known)))
    return 0


def _describe(known: dict) -> list[str]:
    night, test = known["night"], known["test"]
    expected = test["night"]
    lines = [
        f"threshold {known['threshold']:.6f}: {known['goal'].replace('_', ' ')} {known['wanted']:g} on the "
        f"{known['validation']['n_real']} real and {known['validation']['n_bogus']} bogus validation rows",
        f"on the test rows: FPR {_rate(test, 'fpr')}, FNR {_rate(test, 'fnr')}",
        f"a night of {night['n_detections']} detections, {100 * night['real_fraction']:g} % real: "
        f"{expected['called_real']:.1f} called real, of which {expected['bogus_accepted']:.1f} bogus; "
        f"{expected['real_missed']:.1f} real missed",
    ]
    if expected["purity"] is not None:
        lines[-1] += f"; purity {100 * expected['purity']:.1f} %"
    for name, errors in known.get("by_mag", {}).items():
        lines.append(f"mag {name}: FPR {_rate(errors, 'fpr')}, FNR {_rate(errors, 'fnr')}")
    return lines


def _rate(errors: dict, name: str) -> str:
    if errors[name] is None:
        return "undefined (no rows)"
    of = errors["n_bogus" if name == "fpr" else "n_real"]
    low, high = 100 * errors[f"{name}_low"], 100 * errors[f"{name}_high"]
    return f"{100 * errors[name]:.1f} % ({low:.1f} to {high:.1f}, of {of})"
