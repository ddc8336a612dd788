"""Look after the tracking store in mlruns/.

After the project's folder was moved or copied, MLflow looks for figures and models where they were, and shows none.
`gotorb doctor` notices; `relocate` mends it.

Example: gotorb tracking relocate
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("relocate", help="let the store find its artifacts where they are now")


def run(args: argparse.Namespace) -> int:
    """Print what was changed."""
    from gotorb.tracking.store import relocate

    changed = relocate()
    for root, n in changed.items():
        print(f"{n} places below {root} mended")
    if not changed:
        print("nothing has moved")
    return 0
