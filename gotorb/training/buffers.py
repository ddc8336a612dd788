"""Memory for batches, used again once nobody holds the batch: fresh memory costs more time than filling it."""

import sys
from threading import Lock

import numpy as np

ALIGNMENT = 64
"""Of the first byte; TensorFlow takes such arrays as they are and copies all others."""
N_OWN = 2
"""References to free memory: the list's and that of the function that counts."""


class Buffers:
    """Arrays of one shape whose memory comes from batches that were let go.

    An array is free when no other reference to its memory is left, be it a view or a tensor that took it as it is.

    Parameters
    ----------
    shape : tuple of int
        Of the largest batch; float32.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._n_bytes = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        self._all: list[np.ndarray] = []
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._all)

    def take(self, n: int) -> np.ndarray:
        """Array of the first n rows of a free buffer; a new one when all are in use. What it holds is anything."""
        with self._lock:
            for index in range(len(self._all)):
                if sys.getrefcount(self._all[index]) == N_OWN:
                    return self._view(self._all[index], n)
            self._all.append(np.empty(self._n_bytes + ALIGNMENT, np.uint8))
            return self._view(self._all[-1], n)

    def _view(self, memory: np.ndarray, n: int) -> np.ndarray:
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + self._n_bytes].view(np.float32).reshape(self.shape)[:n]
