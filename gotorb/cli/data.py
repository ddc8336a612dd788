"""Look into labelled data sets: card, faults, leaks, changes, doubtful labels; name a version of them.

Examples:
  gotorb data card data/dataset
  gotorb data verify data/dataset
  gotorb data leaks data/dataset
  gotorb data diff data/synthetic data/clean --rows changes.csv
  gotorb data errors data/dataset
  gotorb data tag dataset-v1 --message "first season"

verify and leaks exit with 1 when they find anything.
"""

import argparse
import json
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (run_action, text) in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run_action=run_action)
        if name == "tag":
            action.add_argument("name", help="of the version, such as dataset-v1")
            action.add_argument("--message", help="why it is worth a name (default: the name)")
            continue
        for folder in ("old_dir", "new_dir") if name == "diff" else ("data_dir",):
            action.add_argument(folder, help="folder of a data set")
        if name != "card":
            action.add_argument("--json", action="store_true", help="print json")
        if name == "leaks":
            action.add_argument(
                "--link-radius", type=float, default=3.0, help="rows closer than this are one place [arcsec]"
            )
        if name == "errors":
            action.add_argument("--network", default="bayesian_vgg6", help="what is trained (default: %(default)s)")
            action.add_argument("--out", help="csv to write (default: label_errors.csv in the folder)")
        if name == "diff":
            action.add_argument("--rows", help="csv to write, with every row that differs")


def run(args: argparse.Namespace) -> int:
    """Run the action asked for."""
    return args.run_action(args)


def _card(args: argparse.Namespace) -> int:
    from gotorb.dataset.card import make_card

    print(json.dumps(make_card(args.data_dir), indent=2, sort_keys=True))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from gotorb.dataset.check import verify_dataset

    findings = verify_dataset(args.data_dir)
    if args.json:
        print(json.dumps(findings, indent=2))
    for line in [] if args.json else findings or [f"{args.data_dir}: nothing wrong found"]:
        print(line)
    return 1 if findings else 0


def _leaks(args: argparse.Namespace) -> int:
    import pandas as pd

    from gotorb.dataset.leaks import find_leaks, find_pixel_leaks
    from gotorb.dataset.store import open_dataset

    data = open_dataset(args.data_dir)
    leaks = pd.concat(
        [find_leaks(data.table, link_radius_arcsec=args.link_radius), find_pixel_leaks(data)], ignore_index=True
    )
    if args.json:
        print(leaks.to_json(orient="records", indent=2))
    elif leaks.empty:
        print(f"{args.data_dir}: no image, object, galaxy, place or pixels in two splits")
    else:
        print(leaks.to_string(index=False))
    return 0 if leaks.empty else 1


def _errors(args: argparse.Namespace) -> int:
    from gotorb import classifier
    from gotorb.logs import show_on_console

    show_on_console()
    found = classifier.find_label_errors(args.data_dir, network=args.network, out_path=args.out)
    suspects = found.rows[found.rows["suspect"]]
    if args.json:
        print(
            json.dumps({"noise": found.noise.to_dict(orient="records"), "suspects": suspects["id"].tolist()}, indent=2)
        )
    else:
        print(found.noise.to_string(index=False))
        print(f"{len(suspects)} of {len(found.rows)} labels are confidently contradicted")
    return 0


def _diff(args: argparse.Namespace) -> int:
    from gotorb.core.files import write_csv
    from gotorb.dataset.diff import compare_datasets

    diff = compare_datasets(args.old_dir, args.new_dir)
    if args.rows:
        write_csv(args.rows, diff.rows)
        print(f"{args.rows}: {len(diff.rows)} rows", file=sys.stderr)
    summary = diff.summary()
    if args.json:
        print(json.dumps({"same": diff.n_same, "changes": summary.to_dict(orient="records")}, indent=2))
    else:
        print(f"{diff.n_same} rows are the same")
        if len(summary):
            print(summary.to_string(index=False))
    return 0


def _tag(args: argparse.Namespace) -> int:
    from gotorb.tracking.lineage import tag_data

    tagged = tag_data(args.name, message=args.message or args.name)
    print(f"{args.name} is commit {tagged.commit[:10]}; {tagged.n_runs} runs are marked")
    print(
        f"data are pushed to {tagged.remote}; give others the tag by `git push origin {args.name}`"
        if tagged.remote
        else "data are on this machine only: set DVC_REMOTE_URL in .env, then give the same command again",
        file=sys.stderr,
    )
    return 0


ACTIONS = {
    "card": (_card, "print identity and counts of a data set"),
    "verify": (_verify, "look for flipped bytes, disagreement, duplicates and impossible values"),
    "leaks": (_leaks, "look for what train, validation and test share"),
    "errors": (_errors, "hunt for wrong labels by trainings that have not seen them (minutes to hours)"),
    "diff": (_diff, "tell what changed between two versions"),
    "tag": (_tag, "name the committed version: git tag, data pushed to DVC's remote, its runs marked"),
}
