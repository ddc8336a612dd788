"""The command `gotorb`: one small file for each subcommand, read only when it is called for.

A subcommand's module has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import gotorb
from gotorb.errors import GotorbError

COMMANDS = {
    "ask": "choose the rows of a data set that people should label next",
    "catalogue": "tell the age of the minor-planet catalogue, or renew it",
    "compare": "compare two models on the same rows, with paired intervals and tests",
    "data": "look into data sets: card, verify, leaks, diff, errors; tag a version",
    "doctor": "check .env, database, catalogues and tracking store, and say what to mend",
    "dvc": "run a DVC command with the remote and keys of .env",
    "export": "write a model as ONNX, for plain scores without TensorFlow",
    "eyeball": "look at stamps and label them, explore what a model sees",
    "figure": "draw a figure of a model, of this checkout or of a tagged version",
    "label": "make a labelled data set from the survey's images",
    "learning-curves": "measure what choosing labels gains over random choice",
    "lineage": "tell what belongs to a run, a model or a tagged version",
    "models": "list registered models",
    "night": "score a night's images and write its summary page",
    "params": "explain every parameter of params.yaml",
    "promote": "give a registered model an alias, if it is not worse than the holder",
    "rollback": "give an alias back to its holder before",
    "runs": "give results of tags or pulls their runs in the tracking store",
    "score": "score images, stamp archives or alert packets with a model",
    "simulate": "simulate a survey, or inject sources into your own image",
    "sync": "send runs that were recorded while the tracking server was down",
    "threshold": "advise a threshold for a purity, a completeness or a number per night, with its costs",
    "tracking": "mend the tracking store after the project was moved",
    "tune": "search the hyperparameters of bayesian_vgg6",
    "ui": "open the MLflow pages that compare runs",
    "verify": "find flipped bytes in data, models and DVC's cache",
    "visualise": "write pages that show what a model makes of images",
    "why": "tell why a model scored a detection as it did",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; exit 0 done, 1 an error the user can act on, 2 wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parse(argv)
    try:
        return args.run(args)
    except GotorbError as error:
        if args.debug:
            raise
        print(f"gotorb: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("gotorb: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gotorb", description=gotorb.__doc__)
    parser.add_argument("--version", action="version", version=f"gotorb {gotorb.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        sub = commands.add_parser(name, help=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name == called:
            module = importlib.import_module(f"gotorb.cli.{name.replace('-', '_')}")
            sub.description = module.__doc__
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser.parse_args(argv)
