"""Look at stamps and decide; explore what a model sees.

The pages open on this machine only: eyeball at /, the latent explorer at /explorer (with --model). Decisions go into
eyeball.sqlite in the data set's folder; export makes a new version of the data set from them.

Examples:
  gotorb eyeball data/dataset --model models/bayesian_vgg6 --order uncertain --labeller ann
  gotorb eyeball data/dataset --predictions evaluations/bayesian_vgg6/predictions.csv --blind
  gotorb eyeball agreement data/dataset
  gotorb eyeball export data/dataset --name looked_at
  gotorb eyeball labels data/dataset --out labels.csv
  gotorb eyeball explore data/dataset --model models/bayesian_vgg6 --out explorer.html
  gotorb eyeball candidates ids.csv --name tonight
"""

import argparse
import json
import sys

from gotorb.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: an action may stand before the folder; without one the pages are served."""
    parser.usage = "gotorb eyeball [ACTION] DIR [options]"
    actions = ", ".join(ACTIONS)
    parser.add_argument("words", nargs="+", metavar="DIR", help=f"data set; before it may stand: {actions}")
    look = parser.add_argument_group("serve")
    look.add_argument("--model", help="model folder or registry address (models:/gotorb@champion)")
    look.add_argument("--predictions", help="predictions.csv of an evaluation, instead of a model")
    look.add_argument("--labeller", default="", help="who decides (the page asks when left out)")
    look.add_argument("--order", default="as_is", help="as_is, uncertain, bald, disagreement, suspects or random")
    look.add_argument("--blind", action="store_true", help="begin with labels and scores hidden")
    look.add_argument("--seed", type=int, default=0, help="of random order, samples and maps (default: %(default)s)")
    look.add_argument("--port", type=int, default=8650, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--journal", help="journal of decisions (default: eyeball.sqlite in the folder)")
    made = parser.add_argument_group("export, labels, explore, candidates, agreement")
    made.add_argument("--out", help="file to write (labels, explore)")
    made.add_argument("--out-dir", help="where the new folder is made (default: beside the old one)")
    made.add_argument("--name", help="name of the new folder (default: by the time)")
    made.add_argument("--flagged", choices=("keep", "remove"), default="keep", help="rows that somebody flagged")
    made.add_argument("--unsure", choices=("keep", "remove"), default="keep", help="rows on which nobody was sure")
    made.add_argument("--stamp-size", type=int, default=55, help="side of candidates' stamps (default: %(default)s)")
    made.add_argument("--json", action="store_true", help="print json (agreement)")


def run(args: argparse.Namespace) -> int:
    """Serve, or do what the first word says."""
    *action, args.data_dir = args.words
    if len(action) > 1 or (action and action[0] not in ACTIONS):
        print(f"gotorb: unknown action {' '.join(action)!r}; choose {', '.join(ACTIONS)}", file=sys.stderr)
        return 2
    return ACTIONS[action[0]](args) if action else _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from gotorb import eyeball
    from gotorb.logs import show_on_console

    show_on_console()
    if args.model:
        print(f"asking {args.model} about every row; its answers are kept", file=sys.stderr)
    eyeball.serve(
        args.data_dir, model=args.model, predictions=args.predictions, labeller=args.labeller, order=args.order,
        blind=args.blind, seed=args.seed, journal=args.journal, port=args.port,
        on_ready=lambda url: print(url, flush=True),
    )  # fmt: skip
    return 0


def _export(args: argparse.Namespace) -> int:
    from gotorb import eyeball
    from gotorb.dataset.diff import compare_datasets

    new_dir = eyeball.export(
        args.data_dir, journal=args.journal, flagged=args.flagged, unsure=args.unsure, out_dir=args.out_dir,
        name=args.name,
    )  # fmt: skip
    diff = compare_datasets(args.data_dir, new_dir)
    print(f"{diff.n_same} rows are the same", file=sys.stderr)
    if len(diff.summary()):
        print(diff.summary().to_string(index=False), file=sys.stderr)
    print(new_dir)
    return 0


def _agreement(args: argparse.Namespace) -> int:
    from gotorb import eyeball

    found = eyeball.agreement(args.data_dir, journal=args.journal)
    if args.json:
        print(json.dumps(json.loads(found.to_json(orient="records")), indent=2))
    else:
        print(found.round(3).to_string(index=False))
    return 0


def _labels(args: argparse.Namespace) -> int:
    from gotorb import eyeball

    n_rows = eyeball.write_labels(args.data_dir, _out(args), journal=args.journal)
    print(f"{n_rows} candidates", file=sys.stderr)
    print(args.out)
    return 0


def _explore(args: argparse.Namespace) -> int:
    from gotorb import eyeball

    if not args.model:
        raise DataError("a map needs a model that looked at the stamps; give one with --model")
    print(eyeball.explore(args.data_dir, args.model, _out(args), seed=args.seed))
    return 0


def _candidates(args: argparse.Namespace) -> int:
    from gotorb import eyeball
    from gotorb.logs import show_on_console

    show_on_console()
    try:
        with open(args.data_dir, encoding="utf-8") as file:  # noqa: PTH123
            words = file.read().replace(",", " ").split()
    except OSError as error:
        raise DataError(f"ids cannot be read from {args.data_dir} ({error}); give a file of whole numbers") from None
    ids = [int(word) for word in words if word.isdecimal()]
    print(eyeball.get_candidate_data(ids, out_dir=args.out_dir or ".", name=args.name, stamp_size=args.stamp_size))
    return 0


def _out(args: argparse.Namespace) -> str:
    if not args.out:
        raise DataError("no name for the file; give one with --out")
    return str(args.out)


ACTIONS = {
    "export": _export,
    "agreement": _agreement,
    "labels": _labels,
    "explore": _explore,
    "candidates": _candidates,
}
