"""Draw a figure of a model's test rows anew: of this checkout, or of a tagged version of data and model.

Writes NAME.png, the numbers it shows (NAME.csv), and what both were made of (NAME.json). With --rev the version is
checked out in a place of its own: your files stay as they are. The same version gives the same numbers.

Figures: fnr-fpr, posteriors, latent, recovery, reliability, examples.

Examples:
  gotorb figure fnr-fpr --rev dataset-v1
  gotorb figure latent --rev dataset-v1 --network vgg6 --out paper/
  gotorb figure reliability
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", help="which figure")
    parser.add_argument("--rev", help="tag, branch or commit; what lies here when left out")
    parser.add_argument("--network", help="folder in models/ (default: the one that was promoted)")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write into (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Print the names of the files written."""
    from gotorb.tracking.version_figures import draw_here, draw_version

    written = draw_version(args.name, args.rev, network=args.network, out_dir=args.out) if args.rev else draw_here(
        args.name, network=args.network, out_dir=args.out
    )  # fmt: skip
    print("\n".join(str(path) for path in written))
    return 0
