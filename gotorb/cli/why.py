"""Tell why a model scored a detection as it did, for instance a known transient that it hid.

Says the posterior, what strikes the eye, the most alike labelled training rows, the error rates of the slices that it
lies in, and the scores of all registered versions. --out writes a page with the pictures.

Examples:
  gotorb why 10000051 --data data/dataset --model models/bayesian_vgg6
  gotorb why SIM00000011 --data data/dataset --model models:/gotorb@champion --out why.html
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", help="row id, the survey's candidate id, or the name of an object")
    parser.add_argument("--data", required=True, help="data set that holds it; its other rows are compared")
    parser.add_argument(
        "--model", default="models:/gotorb@champion", help="the model in question (default: %(default)s)"
    )
    parser.add_argument("--also", nargs="*", default=[], metavar="MODEL", help="further models to ask")
    parser.add_argument("--not-registered", action="store_true", help="do not ask the registered versions")
    parser.add_argument("--samples", type=int, default=50, help="posterior samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--out", help="page to write")


def run(args: argparse.Namespace) -> int:
    """Print the reasons, and write the page when asked to."""
    from gotorb.apps.why import explain, registered_models, tell
    from gotorb.visualise import write_reasons

    others = [*args.also, *([] if args.not_registered else registered_models())]
    reasons = explain(args.id, args.data, args.model, others=others, n_samples=args.samples, seed=args.seed)
    print("\n\n".join(tell(reason) for reason in reasons))
    if args.out:
        print(write_reasons(reasons, args.out))
    return 0
