"""Jobs for a reading process that does harm."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from gotorb.errors import ModelError


def read(path: Path, *, factor: float) -> dict[str, np.ndarray]:
    """An honest reader."""
    print("chatter of a library")
    return {"values": np.loadtxt(path) * factor, "names": np.array(["a", "é"])}


def grow(path: Path, *, n_bytes: int) -> dict[str, np.ndarray]:
    """A reader that allocates what the file says."""
    return {"values": np.ones(n_bytes, np.uint8)}


def loop(path: Path) -> dict[str, np.ndarray]:
    """A reader without end."""
    while True:
        time.process_time()


def crash(path: Path) -> dict[str, np.ndarray]:
    """A reader that dies in a library."""
    os.abort()


def refuse(path: Path) -> dict[str, np.ndarray]:
    """A reader that refuses."""
    raise ModelError(f"{path.name} is no model; give another")


def fail(path: Path) -> dict[str, np.ndarray]:
    """A reader with an error of a library."""
    return {"values": np.array([object()]), "depth": np.array(sys.maxsize)} if path.suffix else {}["absent"]
