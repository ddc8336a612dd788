"""Compare two models on the same test rows: AUC and recovered fractions with paired bootstrap intervals, wrong calls
with McNemar's exact test.

Each is an evaluation's folder, a model's folder, or a registry address.

Examples:
  gotorb compare evaluations/bayesian_vgg6 evaluations/vgg6
  gotorb compare models:/gotorb@champion models:/gotorb/3 --data data/dataset --json
"""

import argparse
import json
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("one", help="evaluation, model or registry address")
    parser.add_argument("other", help="the same")
    parser.add_argument("--data", type=Path, default=Path("data/dataset"), help="data set that models score")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print json")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    from gotorb import classifier

    found = classifier.compare(args.one, args.other, data_dir=args.data, n_bootstrap=args.bootstrap)
    print(json.dumps(found, indent=2) if args.json else "\n".join(describe(found)))
    return 0


def describe(found: dict[str, Any]) -> list[str]:
    """Lines for people."""
    auc = found["auc"]
    lines = [
        f"{found['n_rows']} test rows, {found['n_real']} real; A is {found['one']}, B is {found['other']}",
        "",
        f"{'':24}{'A':>9}{'B':>9}{'A - B':>9}  95 % interval",
        _line("AUC", auc["auc_a"], auc["auc_b"], auc["difference"], auc["difference_low"], auc["difference_high"]),
    ]
    for row in found["found"]:
        title = f"found at {100 * row['fpr']:g} % FPR"
        numbers = (row[name] for name in ("tpr_a", "tpr_b", "difference", "difference_low", "difference_high"))
        lines.append(_line(title, *numbers))
    lines += ["", f"{'wrong calls':24}{'rows':>7}{'A':>6}{'B':>6}{'A alone':>9}{'B alone':>9}{'p':>9}"]
    for row in found["calls"]:
        counts = f"{row['n']:>7}{row['wrong']:>6}{row['wrong_other']:>6}{row['only_one']:>9}{row['only_other']:>9}"
        lines.append(f"{row['group']:24}{counts}{row['p_value']:>9.4f}")
    return lines


def _line(title: str, a: float, b: float, difference: float, low: float, high: float) -> str:
    return f"{title:24}{a:9.4f}{b:9.4f}{difference:+9.4f}  {low:+.4f} to {high:+.4f}"
