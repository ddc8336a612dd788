"""Send runs that were recorded while the tracking server was down.

A run needs no server: it keeps a journal in mlruns/journals/. Nothing is sent twice, and a journal goes when all of it
is sent. A stage sends what earlier ones left, too; a run that was interrupted ends as KILLED.

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
