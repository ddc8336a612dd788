"""Run a DVC command with the settings of .env: its remote (DVC_REMOTE_URL) and the keys of S3.

Examples:
  gotorb dvc pull
  gotorb dvc push --all-tags
  gotorb dvc exp run --queue -S train.batch_size=128
"""

import argparse
import subprocess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="what follows `dvc`")


def run(args: argparse.Namespace) -> int:
    """Give DVC's own exit code."""
    from gotorb.tracking.remote import DVC, set_remote

    set_remote()
    return subprocess.run([*DVC, *args.words], check=False).returncode
