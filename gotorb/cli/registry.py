"""Commands for registered models and recorded runs."""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from gotorb.cli.options import add_json, add_options, call, say_next, show, show_table
from gotorb.core.logs import show_on_console
from gotorb.core.params import DecideParams, ImportParams, find_params
from gotorb.errors import ConfigError, TrackingError
from gotorb.models import import_model

SHORT = 10
"""Characters of a digest in tables."""


def _models_options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = parser.add_subparsers(dest="action", metavar="import")
    importer = actions.add_parser("import", help="make a registered model of a network that was trained elsewhere")
    importer.description = (
        "Make a registered model of a network that was trained elsewhere; see `gotorb models --help`."
    )
    importer.add_argument("path", metavar="FILE", help=".h5 of Keras 2 or 3, .keras, .onnx, or a SavedModel's folder")
    add_options(importer, import_model, ImportParams, required=("name", "layers"))


def run_models(args: argparse.Namespace) -> int:
    """List registered models: network, AUC on the test rows, date, data set, aliases, md5 of the model file.

    `gotorb models import` makes a registered model of a network that was trained elsewhere. Networks of Keras 2 are
    rebuilt layer by layer; no code of the file is run.

    Examples:
      gotorb models --json
      gotorb models import braai_d6_m9.h5 --name braai --layers science template difference --size 63 --normalise l2
      gotorb models import two.h5 --name two --layers science,difference --real-column 1 --reference stamps.npz
    """
    from gotorb.tracking.registry import list_models

    if args.action == "import":
        show_on_console()
        print(call(args, import_model))
        say_next(f"gotorb score models:/{args.name}/1 SOURCE")
        return 0
    rows = list_models()
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        shown = [
            {
                "model": f"models:/{row['name']}/{row['version']}", "aliases": row["aliases"] or "-",
                "network": row["network"], "test AUC": row["test_auc"], "date": row["date"],
                "data": row["data_digest"][:SHORT], "md5": row["md5"][:SHORT],
            }
            for row in rows
        ]  # fmt: skip
        show_table(shown)
        if not rows:
            print("no model is registered; run `make repro`, or `gotorb models import`", file=sys.stderr)
    return 0


def _promote_options(parser: argparse.ArgumentParser) -> None:
    from gotorb.evaluation.promotion_checks import Limits
    from gotorb.tracking.promotion import promote

    parser.add_argument("uri", metavar="model", help="models:/NAME/VERSION or models:/NAME@ALIAS")
    parser.add_argument("--alias", "--to", required=True, help="such as production")
    parser.add_argument("--reason", required=True, help="kept with the record")
    add_options(parser, promote, DecideParams)
    add_options(parser, Limits, DecideParams)
    add_json(parser)


def run_promote(args: argparse.Namespace) -> int:
    """Give a registered model an alias, if it is not worse than the holder.

    It must not be worse than the alias's holder on any declared slice of the test rows (faint, nuclear, each telescope,
    each metalabel; McNemar's exact test), nor as a whole (AUC), be calibrated, and answer as its file does. A refusal
    names the slice and the numbers, and exits with 1. Each attempt is recorded as a run of the experiment
    ...-promotions: who, when, why, what.

    Examples:
      gotorb promote models:/gotorb@champion --alias production --reason "more variables in training"
      gotorb promote models:/gotorb/7 --alias production --reason "new camera" --data-dir data/dataset
    """
    from gotorb.evaluation.promotion_checks import Limits
    from gotorb.tracking.promotion import promote

    decision = call(args, promote, limits=call(args, Limits))
    lines = [f"{'ok     ' if check.passed else 'REFUSED'} {check.text}" for check in decision.checks]
    show(args, decision.as_dict(), lines)
    if decision.failed:
        worst = "; ".join(check.text for check in decision.failed)
        print(f"gotorb: {decision.model} is not promoted to {decision.alias}: {worst}", file=sys.stderr)
        return 1
    print(f"{decision.model} is {decision.alias} now (before: {decision.before or 'none'})", file=sys.stderr)
    return 0


def _rollback_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="registered model")
    parser.add_argument("--alias", default="production", help="alias to return (default: %(default)s)")
    parser.add_argument("--reason", required=True, help="kept with the record")


def run_rollback(args: argparse.Namespace) -> int:
    """Return an alias to the version that held it before.

    Example: gotorb rollback gotorb --alias production --reason "misses fading supernovae"
    """
    from gotorb.tracking.promotion import rollback

    decision = rollback(args.name, args.alias, reason=args.reason)
    print(f"{decision.model} is {decision.alias} now (before: {decision.before})")
    return 0


def _lineage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", help="run id, models:/NAME/VERSION, models:/NAME@ALIAS, or git tag or commit")
    add_json(parser)


def run_lineage(args: argparse.Namespace) -> int:
    """Show what belongs to a run, a registered model or a tagged version: data, models, runs, tags, commits.

    All is joined by content (md5), so it works in any clone and for runs that were made before their commit.

    Examples:
      gotorb lineage dataset-v1
      gotorb lineage models:/gotorb@champion
      gotorb lineage 3f0c9e6f1d5b4a0b8f6f0e3a1c2d4e5f --json
    """
    from gotorb.tracking.lineage import find_family

    family = find_family(args.what).as_dict()
    if args.json:
        print(json.dumps(family, indent=2))
        return 0
    for rows in _described(family):
        show_table(rows)
    return 0


def _runs_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importer = actions.add_parser("import", help="create the missing runs")
    importer.add_argument("revisions", nargs="*", help="tags, branches or commits")
    importer.add_argument("--all-tags", action="store_true", help="every tag that holds results")


def run_runs(args: argparse.Namespace) -> int:
    """Create the missing runs of results that this tracking store has not seen: of tags, of a pull, of DVC's cache.

    Numbers come from the reports that git keeps, models from DVC's cache; a model that has a run gets no second one.

    Examples:
      gotorb runs import --all-tags     # a fresh clone after dvc pull: the comparison in the pages is complete again
      gotorb runs import HEAD
    """
    from gotorb.tracking.lineage import import_tags, import_versions

    if not args.all_tags and not args.revisions:
        raise ConfigError("nothing to import; name tags or commits, or give --all-tags")
    name = find_params().promote.name
    made = (import_tags(name=name) if args.all_tags else []) + import_versions(args.revisions, name=name)
    print("\n".join(made) if made else "every model has its runs")
    if made:
        say_next("gotorb ui")
    return 0


def run_sync(_: argparse.Namespace) -> int:
    """Send runs that were recorded in mlruns/journals/ while the tracking server was down; nothing is sent twice.

    Example: gotorb sync
    """
    from gotorb.tracking.runs import sync_runs

    print(f"{sync_runs()} runs sent")
    return 0


def _tracking_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("relocate", help="let the store find its artifacts where they are now")


def run_tracking(_: argparse.Namespace) -> int:
    """Repair the tracking store in mlruns/.

    After the project's folder was moved or copied, MLflow looks for figures and models where they were, and shows none.
    `gotorb doctor` notices; `relocate` repairs it.

    Example: gotorb tracking relocate
    """
    from gotorb.tracking.store import relocate

    changed = relocate()
    for root, n in changed.items():
        print(f"{n} places below {root} repaired")
    if not changed:
        print("nothing has moved")
    return 0


def _ui_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)")


def run_ui(args: argparse.Namespace) -> int:
    """Open the MLflow pages that compare runs and list registered models.

    Prints the address of the table of trainings with their headline metrics, and of the page that compares them.
    Serves this project's tracking store on this machine only. With MLFLOW_TRACKING_URI set to a server, the pages
    are the server's own: open that address instead.

    Example: gotorb ui --port 5000
    """
    from gotorb.tracking.lineage import page_addresses
    from gotorb.tracking.runs import send_waiting
    from gotorb.tracking.store import mlflow_environment, open_store, tracking_uri

    uri = tracking_uri()
    if uri.startswith("http"):
        raise TrackingError(f"the tracking store is the server {uri}; open that address in a browser")
    open_store()
    send_waiting()
    for page in page_addresses(find_params().promote.name):
        print(f"http://127.0.0.1:{args.port}/{page}", flush=True)
    environment = mlflow_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(args.port), "--workers", "1"]
    os.execve(sys.executable, command, environment)
    return 0


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="model", help="models:/NAME@ALIAS or models:/NAME/VERSION")
    parser.add_argument("--port", type=int, default=5001, help="port on 127.0.0.1 (default: %(default)s)")


def run_serve(args: argparse.Namespace) -> int:
    """Answer stamps with a registered model's scores and calls: MLflow's scoring server, on this machine only.

    A request is POST /invocations with {"inputs": stamps (n, size, size, layers)}; the answer has score, probability,
    mean, std, confidence, threshold and call of each stamp. The network's file must be the registered one.

    Examples:
      gotorb serve models:/gotorb@production
      gotorb serve models:/gotorb/3 --port 8000
    """
    import uvicorn

    from gotorb.tracking.mlflow_model import make_app
    from gotorb.tracking.registry import load_service

    app = make_app(load_service(args.uri))
    print(f"http://127.0.0.1:{args.port}/invocations", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning")
    return 0


def _mlflow_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="what follows `mlflow`")


def run_mlflow(args: argparse.Namespace) -> int:
    """Run an MLflow command with the tracking store and the keys of .env.

    Examples:
      gotorb mlflow experiments search
      gotorb mlflow runs list --experiment-id 1
      gotorb mlflow artifacts download --artifact-uri models:/gotorb@champion --dst-path champion
    """
    from gotorb.tracking.store import mlflow_environment

    command = [sys.executable, "-m", "mlflow", *args.words]
    return subprocess.run(command, env=mlflow_environment(), check=False).returncode


def _described(family: dict[str, Any]) -> list[list[dict[str, str]]]:
    """A family as tables: data sets, models, runs."""
    data = [
        {"data": f"csv {one['labels_md5'][:SHORT]} hdf5 {one['stamps_md5'][:SHORT]}"} | _where(one)
        for one in family["data"]
    ]
    models = [
        {
            "model": one["md5"][:SHORT], "registered": ", ".join(one["registered"]) or "-",
            "aliases": ", ".join(one["aliases"]) or "-", **_where(one),
        }
        for one in family["models"]
    ]  # fmt: skip
    runs = [{"run": one["run_id"], "stage": f"{one['name']} {one['status'].lower()}"} for one in family["runs"]]
    return [rows for rows in (data, models, runs) if rows]


def _where(one: dict[str, Any]) -> dict[str, str]:
    return {"tags": ", ".join(one["git_tags"]) or "-", "commit": one["commit"][:10] or "not committed"}
