"""List registered models: name, version, aliases and the md5 of the model file.

Example: gotorb models --json
"""

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print json")


def run(args: argparse.Namespace) -> int:
    """Print one line for each version."""
    from gotorb.tracking.registry import list_models

    rows = list_models()
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(f"models:/{row['name']}/{row['version']}  {row['aliases'] or '-':<12} {row['md5']}")
    return 0
