"""Give an alias back to the version that held it before.

Example: gotorb rollback gotorb --alias production --reason "misses fading supernovae"
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="registered model")
    parser.add_argument("--alias", default="production", help="(default: %(default)s)")
    parser.add_argument("--reason", required=True, help="why; kept with the record")


def run(args: argparse.Namespace) -> int:
    """Print who holds the alias now."""
    from gotorb.tracking.promotion import rollback

    decision = rollback(args.name, args.alias, reason=args.reason)
    print(f"{decision.model} is {decision.alias} now (before: {decision.before})")
    return 0
