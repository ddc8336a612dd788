"""The command `gotorb`: a file for each group of commands, read only when one of them is called for.

A command NAME is the function ``run_NAME(args) -> int`` of its group's file, whose docstring is the command's help, and
``_NAME_options(parser)``, where it takes arguments.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import gotorb
from gotorb.core.files import FULL_DISK
from gotorb.errors import GotorbError

GROUPS = {
    "data": ("Data", {
        "check": "check a few images before a labelling run: place, time, grid, minor planets",
        "label": "make a labelled data set from the survey's images",
        "import": "make a labelled data set of stamps that were cut elsewhere",
        "synthetic": "add simulated transients and galaxy residuals to a data set",
        "marshall": "add candidates that annotators labelled to a data set",
        "relabel": "replace labels of a data set by those of annotators",
        "clean": "remove random bogus that are probably real from a data set",
        "dataset": "divide a data set into train, validation and test without leaks",
        "data": "inspect data sets: card, verify, leaks, diff, errors; tag a version",
        "catalogue": "show age and coverage of catalogues, update or fetch them",
        "simulate": "simulate a survey: images, tables, catalogues",
        "inject": "paste point sources into your own image",
    }),
    "models": ("Models", {
        "train": "train a network on a data set",
        "adopt": "start from another survey and the first labels",
        "tune": "search the hyperparameters of bayesian_vgg6",
        "evaluate": "evaluate a model on the held-out rows of its data set",
        "benchmark": "evaluate a model on all rows of any data set",
        "compare": "compare two models on the same rows, with paired intervals and tests",
        "threshold": "choose a threshold for a purity, a completeness or a number per night",
        "report": "write the report of a finished pipeline as one page",
        "figure": "draw a figure of a model, of this checkout or of a tagged version",
        "export": "write a model as ONNX, for plain scores without TensorFlow",
        "ask": "choose the rows of a data set to label next",
        "learning-curves": "measure the gain of choosing labels over random choice",
    }),
    "look": ("Look", {
        "score": "score images, stamp archives or alert packets with a model",
        "visualise": "write pages of scored images",
        "night": "summarise a night's images on a page",
        "why": "explain the score of a detection",
        "eyeball": "label stamps on a page, and use the decisions",
        "explore": "write the map of a model's latent space as one page",
    }),
    "streams": ("Alerts", {
        "alerts": "describe alert packets, or make a labelled data set of them",
        "stream": "score alert streams from Kafka; status, export, retry and replay of their folders",
    }),
    "registry": ("Registry and tracking", {
        "models": "list registered models",
        "promote": "give a registered model an alias, if it is not worse than the holder",
        "rollback": "return an alias to its previous holder",
        "lineage": "show what belongs to a run, a model or a tagged version",
        "runs": "create the missing runs of tags or pulls in the tracking store",
        "serve": "answer stamps with a registered model's scores and calls, over HTTP on this machine",
        "sync": "send runs that were recorded while the tracking server was down",
        "ui": "open the MLflow pages that compare runs",
        "mlflow": "run an MLflow command with the tracking store and keys of .env",
        "tracking": "repair the tracking store after the project was moved",
    }),
    "setup": ("Set-up", {
        "doctor": "check .env, database, catalogues and tracking store, and print fixes",
        "params": "explain every parameter of params.yaml",
        "verify": "find damaged files in data, models and DVC's cache",
        "dvc": "run a DVC command with the remote and keys of .env",
    }),
}  # fmt: skip
"""File of a group -> its title, and its commands with one line each."""

ADAPTED = frozenset(("label", "synthetic", "marshall", "check", "score", "visualise", "night", "eyeball"))
"""Commands that read images, and so take the adapter of your own survey."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Words after ``gotorb``; those of the process when left out.

    Returns
    -------
    int
        0 done, 1 an error that the user can fix, 2 wrong usage.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    args = _parse(argv)
    try:
        if args.command in ADAPTED:
            gotorb.label_data.use_adapter(args.adapter)
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
    except OSError as error:
        if args.debug or error.errno not in FULL_DISK:
            raise
        print(f"gotorb: {error.strerror}: {error.filename or 'the disk'}; free some space, then again", file=sys.stderr)
        return 1


def _parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="gotorb", description=gotorb.TITLE, epilog=_overview(), formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"gotorb {gotorb.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", help="see below")
    called = next((word for word in argv if not word.startswith("-")), None)
    for group, (_, names) in GROUPS.items():
        for name in names:
            sub = commands.add_parser(name, formatter_class=raw, conflict_handler="resolve")
            if name == called:
                _fill(sub, group, name)
    return parser.parse_args(argv)


def _fill(parser: argparse.ArgumentParser, group: str, name: str) -> None:
    """Read a command's file, and take help, arguments and function from there."""
    module = importlib.import_module(f"gotorb.cli.{group}")
    stem = name.replace("-", "_")
    run = getattr(module, f"run_{stem}")
    parser.description = run.__doc__.replace("\n    ", "\n")
    getattr(module, f"_{stem}_options", lambda _: None)(parser)
    if name in ADAPTED:
        text = "Python file that adapts label_data to your own survey; GOTORB_ADAPTER when left out"
        parser.add_argument("--adapter", metavar="FILE", help=text)
    parser.set_defaults(run=run)


def _overview() -> str:
    parts = []
    for title, names in GROUPS.values():
        lines = [f"  {name:<16} {text}" for name, text in names.items()]
        parts.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join([*parts, "`gotorb COMMAND --help` shows a command's options and examples."])
