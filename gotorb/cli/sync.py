"""Send runs that were recorded while the tracking server was down.

A run goes on without its server and keeps a journal in mlruns/journals/. Nothing is sent twice, and what was sent goes
from there.

Example: gotorb sync
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(args: argparse.Namespace) -> int:
    """Print how many runs were sent."""
    from gotorb.tracking.runs import sync_runs

    n_sent = sync_runs()
    print(f"{n_sent} runs sent")
    return 0
