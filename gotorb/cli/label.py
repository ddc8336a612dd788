"""Make a labelled data set from the survey's images, as `label_data.make()` does.

Examples:
  gotorb label --n-images 20 --provider pympc --out-dir /data/rb
  gotorb label --n-images 100000 --provider pympc --out-dir /shared/rb --name all --scheduler tcp://head:8786
"""

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--n-images", type=int, default=100, help="difference images to use (default: %(default)s)")
    parser.add_argument("--out-dir", default=".", help="where the data set's folder is made (default: here)")
    parser.add_argument("--name", help="name of the folder; a killed run's name goes on with it")
    parser.add_argument("--provider", choices=["skybot", "pympc"], default="skybot", help="who knows minor planets")
    parser.add_argument("--search-radius", type=float, default=1.8, help="of a field [deg] (default: %(default)s)")
    parser.add_argument("--match-radius", type=float, default=1.0, help="[arcsec] (default: %(default)s)")
    parser.add_argument("--mag-limit", type=float, default=20.2, help="faintest minor planet (default: %(default)s)")
    parser.add_argument("--extra-bogus", type=int, default=4, help="beyond the matches (default: %(default)s)")
    parser.add_argument("--stamp-size", type=int, default=55, help="[pixel], odd (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="worker processes (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=4, help="images a worker takes at a time (default: %(default)s)")
    parser.add_argument("--scheduler", help="tcp://host:port of a dask cluster that does the work")
    parser.add_argument("--restart", action="store_true", help="forget what a killed run of this name has finished")
    parser.add_argument("--seed", type=int, default=0, help="decides the random bogus (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Label and print the data set's folder."""
    from gotorb import label_data
    from gotorb.logs import show_on_console

    show_on_console()
    if args.scheduler:
        os.environ["DASK_SCHEDULER_ADDRESS"] = args.scheduler
    print(
        label_data.make(
            args.n_images,
            args.out_dir,
            name=args.name,
            provider=args.provider,
            search_radius_deg=args.search_radius,
            match_radius_arcsec=args.match_radius,
            mag_limit=args.mag_limit,
            extra_bogus_per_image=args.extra_bogus,
            stamp_size=args.stamp_size,
            n_processes=args.processes,
            chunk=args.chunk,
            resume=not args.restart,
            seed=args.seed,
        )
    )
    return 0
