"""Check every file that dvc.lock names, here and in DVC's cache, against its md5: DVC trusts its cache, we do not.

Example: gotorb verify
"""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(args: argparse.Namespace) -> int:
    """Print what is damaged; exit code 1 when anything is."""
    from gotorb.tracking.contents import find_damage

    damage = find_damage()
    print("\n".join(damage) if damage else "every file is what dvc.lock says")
    if damage:
        print(f"gotorb: {len(damage)} damaged files", file=sys.stderr)
    return int(bool(damage))
