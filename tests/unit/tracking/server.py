"""A real ``mlflow server`` on loopback, which can be killed and started again on the same store."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import requests

START_S = 90


def free_port() -> int:
    """An unused port of loopback."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Process:
    """A server process that is up when `start` returns.

    Parameters
    ----------
    command : list of str
        What is run.
    address : str
        Answers with less than 500 when it is up.
    log : Path
        Its output.
    """

    def __init__(self, command: list[str], address: str, log: Path, **environment: str) -> None:
        self.command, self.address, self.log = command, address, log
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # MLflow calls uvicorn by name
        self.environment = os.environ | {"PATH": path} | environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def is_up(self) -> bool:
        """True if it was started and not killed."""
        return self.process is not None

    def start(self) -> None:
        """Start it unless it is up, and wait until it answers."""
        if self.is_up:
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(self.address, timeout=2).status_code < 500:
                    return
            except requests.RequestException:
                time.sleep(0.2)
        raise AssertionError(f"{self.command} is not up: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it may have died, and that is what the log tells
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None
            wait_for_silence(self.address)


def wait_for_silence(address: str) -> None:
    """Wait until nothing listens at an address: a fork of the waiting python dies just after its stand-in."""
    place = urlsplit(address)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection((place.hostname, place.port), timeout=2).close()
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"{address} still listens")


def mlflow_server(
    folder: Path, *, store: str = "", artifacts: str = "", python: str | Path = sys.executable, **environment: str
) -> tuple[str, Process]:
    """Address and process of a server; its store is a sqlite file in the folder unless given.

    With `artifacts` (s3://...) clients write there themselves; without, the server takes them in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    where = ["--default-artifact-root", artifacts, "--no-serve-artifacts"] if artifacts else []
    where = where or ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    command = [
        str(python), "-m", "mlflow", "server", "--backend-store-uri", store or f"sqlite:///{folder}/server.db",
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *where,
    ]  # fmt: skip
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
    return address, Process(command, f"{address}/health", folder / "server.log", **environment)
