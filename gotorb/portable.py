"""A network in an ONNX file, scored by onnxruntime: no TensorFlow, for a machine that has little else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gotorb import layout
from gotorb.errors import ConfigError, ModelError
from gotorb.stamps.batches import Stamps, cut_batches

BATCH_SIZE = 256
N_THREADS = 2
MAX_INPUT = 2**20
"""Values of a stamp that a file may declare, as for other model files."""


@dataclass(frozen=True)
class PortableModel:
    """An exported network, ready to score.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The network.
    about : dict of str
        What the file says of the model that it was made from, by `layout.ONNX_KEYS`.
    """

    session: Any
    about: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the model that it was made from."""
        return self.about["name"]

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers of the stamps, in their order."""
        return tuple(self.about["layers"].split(","))

    @property
    def threshold(self) -> float:
        """Score at or above which a detection is called real."""
        return float(self.about["threshold"])

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(None, size, size, n_layers), as Keras tells it."""
        size = int(self.about["stamp_size"])
        return None, size, size, len(self.layers)

    def score(self, stamps: Stamps, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Deterministic scores.

        Parameters
        ----------
        stamps : ndarray or iterable of ndarray
            (n, size, size, n_layers), or batches of these.
        batch_size : int
            Stamps scored at a time.

        Returns
        -------
        ndarray
            (n,) float32, between 0 and 1.

        Raises
        ------
        DataError
            If a stamp is not finite.
        ModelError
            If the stamps' shape is not the model's.
        """
        batches = cut_batches(stamps, batch_size, shape=self.input_shape[1:], name=self.name)
        parts = [self.session.run(None, {layout.ONNX_INPUT: batch})[0][:, 0] for batch in batches]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def read_portable(path: Path | str, *, threads: int = N_THREADS) -> PortableModel:
    """Read a file that ``gotorb export`` wrote.

    Parameters
    ----------
    path : path
        The ONNX file.
    threads : int
        CPU threads of a score.

    Raises
    ------
    ConfigError
        If onnxruntime is not installed.
    ModelError
        If the file is missing, broken, not one of ours, or declares stamps too large.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no {path}; make it with `gotorb export MODEL --out {path.name}`")
    onnxruntime = _runtime(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what is wrong comes as an exception
    try:
        # by its bytes, so that a file cannot have others read that it names
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        about = dict(session.get_modelmeta().custom_metadata_map)
        _check(session, about)
    except Exception as error:  # onnxruntime has a type for each of its states
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} cannot be used as an exported model ({reason}); export the model again") from None
    return PortableModel(session, about)


def _runtime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError(f"{path} needs onnxruntime, which is not installed; pip install 'gotorb[onnx]'") from None
    return onnxruntime


def _check(session: Any, about: dict[str, str]) -> None:
    """Refuse a file that is not what it says, before any stamp is read."""
    absent = [key for key in layout.ONNX_KEYS if key not in about]
    if absent:
        raise ValueError(f"it does not name its {absent[0]}")
    size, n_layers = int(about["stamp_size"]), len(about["layers"].split(","))
    float(about["threshold"])
    ends = [
        [(end.name, end.type, end.shape[1:]) for end in some()] for some in (session.get_inputs, session.get_outputs)
    ]
    if ends[0] != [(layout.ONNX_INPUT, "tensor(float)", [size, size, n_layers])]:
        raise ValueError(f"it takes {ends[0]}, not stamps of {size} x {size} pixels in {n_layers} layers")
    if [end[1:] for end in ends[1]] != [("tensor(float)", [1])]:
        raise ValueError(f"it gives {ends[1]}, not one score for a stamp")
    if size * size * n_layers > MAX_INPUT:
        raise ValueError(f"it declares stamps of {size * size * n_layers} values, more than {MAX_INPUT}")
