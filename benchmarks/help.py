"""Time of `gotorb --help`, compared with an interpreter that does nothing."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.rows import Row

N_REPEATS = 15


def measure() -> list[Row]:
    """Median wall times, both commands in turn so that both see the same machine."""
    commands = [str(Path(sys.executable).with_name("gotorb")), "--help"], [sys.executable, "-c", "pass"]
    times: list[list[float]] = [[], []]
    for _ in range(N_REPEATS):
        for seen, command in zip(times, commands, strict=True):
            started = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            seen.append(time.perf_counter() - started)
    return [Row("help_seconds", statistics.median(times[0]), statistics.median(times[1]), "s")]
