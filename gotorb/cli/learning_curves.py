"""Learning curves of ways to choose labels against random choice: AUC and error on the test rows by number of labels.

A part of the train rows is labelled at first; the labels of others are revealed as they are chosen. After each round
a network is trained anew, always for the same number of optimizer steps. Writes the report (json), a figure beside it
(png), and each finished round (.runs.json): call it again after a kill, or with more seeds, and it goes on.

Examples:
  gotorb learning-curves data/dataset --out reports/active_learning.json
  gotorb learning-curves data/dataset --out short.json --seeds 1 2 --start 50 --step 50 --rounds 3 --steps 100
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data_dir", help="folder of a divided data set")
    parser.add_argument("--out", required=True, help="report to write, *.json")
    methods = ("bald", "margin", "random")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="default: all; random is needed")
    parser.add_argument("--start", type=int, default=100, help="rows labelled at first (default: %(default)s)")
    parser.add_argument("--step", type=int, default=100, help="rows chosen in a round (default: %(default)s)")
    parser.add_argument("--pool", type=int, help="train rows that take part (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of choosing (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="default: 1 2 3 4 5")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of a training (default: %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.01, help="of the network (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=20, help="posterior samples (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Measure, write, and say what each method gains."""
    from gotorb.active_learning import learning_curves
    from gotorb.logs import show_on_console

    show_on_console()
    report = learning_curves(
        args.data_dir, out_path=args.out, methods=args.methods, n_start=args.start, n_step=args.step,
        n_rounds=args.rounds, seeds=args.seeds, n_steps=args.steps, dropout=args.dropout, n_samples=args.samples,
        threads=args.threads, n_pool=args.pool,
    )  # fmt: skip
    for method, found in report["summary"]["methods"].items():
        if "gain" in found["auc"]:
            gain, ratio = found["auc"]["gain"], found["auc"]["labels_ratio"]
            print(
                f"{method}: AUC {_number(gain['mean'], '+.4f')} ({_number(gain['low'], '+.4f')} to "
                f"{_number(gain['high'], '+.4f')}) against random; random needs {_number(ratio['value'], '.2f')} times "
                f"the labels ({_number(ratio['low'], '.2f')} to {_number(ratio['high'], '.2f')})"
            )
    print(args.out)
    return 0


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)
