"""Time, memory and disk of the whole pipeline, and of its environment, in a fresh clone."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.rows import HERE, Row

LIMIT_SECONDS, LIMIT_GIB, LIMIT_DISK_GIB = 360.0, 4.0, 8.0
SETUP_SECONDS, SETUP_GIB = 120.0, 4.0
SAMPLE_SECONDS = 0.5
GIB = 1 << 30
# settings of this machine must not reach the clone
FOREIGN = ("DVC_", "GOTORB_", "GOTOPHOTO_", "MLFLOW_", "CATSHTM_")


def measure() -> list[Row]:
    """Clone what is committed, run the pipeline and watch its processes."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(HERE.parent), str(root)], check=True)
        setup, environment = time_setup(root)
        seconds, peak = run_watched([sys.executable, "-m", "pipelines.repro"], root)
        disk = folder_bytes(root)
    return [
        Row("setup_seconds", setup, SETUP_SECONDS, "s"),
        Row("setup_disk", environment / GIB, SETUP_GIB, "GiB"),
        Row("repro_seconds", seconds, LIMIT_SECONDS, "s"),
        Row("repro_peak_memory", peak / GIB, LIMIT_GIB, "GiB"),
        Row("repro_disk", disk / GIB, LIMIT_DISK_GIB, "GiB"),
    ]


def time_setup(root: Path) -> tuple[float, int]:
    """Install the pipeline's environment in a clone: wall seconds, and its size [bytes]; it is removed again."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    command = ["make", f"PYTHON={Path(sys.executable).resolve()}", ".venv/.ready"]
    started = time.perf_counter()
    subprocess.run(command, cwd=root, env=environment, check=True, stdout=sys.stderr)
    seconds, size = time.perf_counter() - started, folder_bytes(root / ".venv")
    shutil.rmtree(root / ".venv")
    return seconds, size


def folder_bytes(folder: Path) -> int:
    """Size of the files below a folder [bytes]; files with several names count once."""
    known = {(found.st_dev, found.st_ino): found.st_size for path in folder.rglob("*") if (found := path.lstat())}
    return sum(known.values())


def run_watched(command: list[str], root: Path) -> tuple[float, int]:
    """Run a command in a clone: wall seconds, and peak memory [bytes] of its process tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", "PYTHONPATH": str(root)}
    peak = 0
    done = threading.Event()

    def watch(process: psutil.Process) -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, tree_bytes(process))

    started = time.perf_counter()
    with subprocess.Popen(command, cwd=root, env=environment, stdout=sys.stderr) as child:
        watcher = threading.Thread(target=watch, args=(psutil.Process(child.pid),), daemon=True)
        watcher.start()
        code = child.wait()
        seconds = time.perf_counter() - started
        done.set()
        watcher.join()
    if code:
        sys.exit(f"the pipeline ended with exit code {code}")
    return seconds, peak


def tree_bytes(process: psutil.Process) -> int:
    """Memory of a process and its descendants; pages they share count once."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except psutil.Error:  # ended meanwhile
        pass
    return total
