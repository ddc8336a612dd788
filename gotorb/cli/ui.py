"""Open the MLflow pages that compare runs and list registered models.

Serves this project's tracking store on this machine only. With MLFLOW_TRACKING_URI set to a server, the pages
are the server's own: open that address instead.

Example: gotorb ui --port 5000
"""

import argparse
import os
import sys

from gotorb.errors import TrackingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from gotorb.tracking.runs import send_waiting
    from gotorb.tracking.store import open_store, tracking_uri

    uri = tracking_uri()
    if uri.startswith("http"):
        raise TrackingError(f"the tracking store is the server {uri}; open that address in a browser")
    open_store()
    send_waiting()
    print(f"http://127.0.0.1:{args.port}/#/experiments?workflowType=machine_learning", flush=True)
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    command += ["--port", str(args.port), "--workers", "1"]
    os.execve(sys.executable, command, environment)
    return 0
