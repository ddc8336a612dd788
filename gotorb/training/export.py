"""Plain scores without TensorFlow: a network as an ONNX file, for onnxruntime on a machine that has little else."""

from pathlib import Path

import keras
import tensorflow as tf

from gotorb.errors import ConfigError
from gotorb.training.files import replace_file

OPSET = 18
"""Version of ONNX's operators; onnxruntime reads it since 1.15."""


def export_onnx(model: keras.Model, path: Path) -> Path:
    """Write a network as ONNX, dropout off, the normalisation of stamps included.

    Parameters
    ----------
    model : keras.Model
        With one sigmoid output.
    path : Path
        The file, ``*.onnx``. It takes ``stamps (n, size, size, n_layers)`` float32 and gives scores (n, 1).

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    ConfigError
        If tf2onnx is not installed.

    Examples
    --------
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> scores = session.run(None, {"stamps": stamps})[0][:, 0]  # doctest: +SKIP
    """
    try:
        from tf2onnx.convert import from_keras
    except ImportError:
        raise ConfigError(f"{path} needs tf2onnx, which is not installed; pip install tf2onnx onnxruntime") from None
    stamps = tf.TensorSpec(model.input_shape, tf.float32, name="stamps")
    network, _ = from_keras(model, input_signature=[stamps], opset=OPSET)

    def write(part: Path) -> None:
        part.write_bytes(network.SerializeToString())

    return replace_file(path, write)
