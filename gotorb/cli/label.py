"""Make a labelled data set from the survey's images, as `label_data.make()` does.

Example: gotorb label --n-images 20 --provider pympc --out-dir /data/rb
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--n-images", type=int, default=100, help="difference images to use (default: %(default)s)")
    parser.add_argument("--out-dir", default=".", help="where the data set's folder is made (default: here)")
    parser.add_argument("--name", help="name of the folder; a killed run's name goes on with it")
    parser.add_argument("--provider", choices=["skybot", "pympc"], default="skybot", help="who knows minor planets")
    parser.add_argument("--processes", type=int, default=1, help="worker processes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides the random bogus (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Label and print the data set's folder."""
    from gotorb import label_data
    from gotorb.logs import show_on_console

    show_on_console()
    print(
        label_data.make(
            args.n_images,
            args.out_dir,
            name=args.name,
            provider=args.provider,
            n_processes=args.processes,
            seed=args.seed,
        )
    )
    return 0
