"""Give a registered model an alias, if nothing stands against it.

It must not be worse than the alias's holder on any declared slice of the test rows (faint, nuclear, each telescope,
each metalabel; McNemar's exact test), nor as a whole (AUC), be calibrated, and answer as its file does. A refusal
names the slice and the numbers. Each try is recorded as a run of the experiment ...-promotions: who, when, why, what.

Examples:
  gotorb promote models:/gotorb@champion --to production --reason "more variables in training"
  gotorb promote models:/gotorb/7 --to production --reason "new camera" --data data/dataset
"""

import argparse
import json
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="models:/NAME/VERSION or models:/NAME@ALIAS")
    parser.add_argument("--to", required=True, metavar="ALIAS", help="such as production")
    parser.add_argument("--reason", required=True, help="why; kept with the record")
    parser.add_argument(
        "--data", type=Path, default=Path("data/dataset"), help="divided data set whose test rows decide"
    )
    parser.add_argument("--alpha", type=float, default=0.01, help="chance at which worse counts as worse (%(default)s)")
    parser.add_argument("--max-ece", type=float, default=0.05, help="largest calibration error (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print json")


def run(args: argparse.Namespace) -> int:
    """Print what was looked at; exit code 1 when refused."""
    from gotorb.evaluation.promotion_checks import Limits
    from gotorb.tracking.promotion import promote

    limits = Limits(alpha=args.alpha, max_ece=args.max_ece)
    decision = promote(args.model, args.to, reason=args.reason, data_dir=args.data, limits=limits)
    if args.json:
        print(json.dumps(decision.as_dict(), indent=2))
    else:
        print("\n".join(f"{'ok     ' if check.passed else 'REFUSED'} {check.text}" for check in decision.checks))
    if decision.failed:
        worst = "; ".join(check.text for check in decision.failed)
        print(f"gotorb: {decision.model} is not promoted to {decision.alias}: {worst}", file=sys.stderr)
        return 1
    print(f"{decision.model} is {decision.alias} now (before: {decision.before or 'nobody'})", file=sys.stderr)
    return 0
