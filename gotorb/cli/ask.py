"""Choose the rows of a data set that people should label next, and write them as csv.

People fill in the column label, 1 real or 0 bogus, and delete the lines of what they cannot tell.
`clean_data.relabel(csv, DIR)` then gives the rows these labels, and `label_data.add_marshall_cands(csv, OTHER)` adds
the candidates to another data set. --already names the files of earlier rounds, whose rows are not asked for again.

Examples:
  gotorb ask models/bayesian_vgg6 data/dataset --n 100 --method bald --out ask.csv
  gotorb ask models:/gotorb@champion data/dataset --n 100 --already ask.csv --out ask2.csv
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="models:/NAME@ALIAS, a model's folder or model.h5; with dropout unless random")
    parser.add_argument("data_dir", help="folder of a data set, labelled or not")
    parser.add_argument("--n", type=int, default=100, help="rows wanted (default: %(default)s)")
    parser.add_argument("--method", choices=("bald", "margin", "random"), default="bald", help="default: %(default)s")
    parser.add_argument("--out", required=True, help="csv to write")
    parser.add_argument("--already", nargs="+", default=[], metavar="CSV", help="files of earlier rounds")
    parser.add_argument("--samples", type=int, default=30, help="posterior samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of samples and ties (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Choose, write and say how many."""
    from gotorb.active_learning import choose, read_asked, write_ask

    chosen = choose(
        args.model, args.data_dir, args.n, method=args.method, already=read_asked(args.already),
        n_samples=args.samples, seed=args.seed,
    )  # fmt: skip
    print(f"{write_ask(chosen, args.out)}: {len(chosen)} rows to label")
    return 0
