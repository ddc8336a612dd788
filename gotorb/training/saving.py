"""Test of saving: a network is saved, read back safely and compared, before it is trained and before it is kept.

Keras silently drops options of some layers when it writes a file, and writes files with other layers that cannot be
read. Without this test such losses appear only after the training.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np

from gotorb.errors import ModelError
from gotorb.training.backend import all_layers, keras, same_randomness
from gotorb.training.model_files import last_line, load_file, write_model

TOLERANCE = 1e-6
"""Largest difference between scores of a network and of its file."""
N_TRIED = 4
UNBOUNDED = ("linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "tanh")
"""Activations whose values are not scores, even if some of them are in [0, 1]."""
WAY_OUT = (
    "use Keras' own layers with one axis each, or a layer of your own registered with "
    "keras.saving.register_keras_serializable"
)


def check_saving(model: keras.Model, what: str = "") -> None:
    """Save a network, read it back and compare the scores of random stamps.

    Random generators are restored, so the test does not change the training after it.

    Parameters
    ----------
    model : keras.Model
        Built network.
    what : str
        Part under test, for messages; default: the network.

    Raises
    ------
    ModelError
        If it cannot be saved or read, or its scores change; the message names the layer.
    """
    _require_graph(model)
    with same_randomness(), tempfile.TemporaryDirectory() as folder:
        try:
            again = load_file(write_model(Path(folder) / "model.h5", model))
        except Exception as error:  # Keras raises almost any type
            guilty = _unreadable_layer(model, str(error))
            raise ModelError(
                f"{what or _title(model)} does not survive saving: it cannot be read back because of "
                f"{guilty or 'its layers'} ({last_line(error)}); {WAY_OUT}"
            ) from None
        check_same(model, again, what)


def check_same(model: keras.Model, again: keras.Model, what: str = "") -> None:
    """Compare the scores of a network and of its file on random stamps.

    Parameters
    ----------
    model, again : keras.Model
        Network, and the same read back from its file.
    what : str
        As in `check_saving`.

    Raises
    ------
    ModelError
        If they differ by more than `TOLERANCE`; the message names the first layer that differs.
    """
    stamps = random_stamps(model)
    ours, theirs = (np.asarray(one(stamps, training=False)) for one in (model, again))
    if ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=0, atol=TOLERANCE, equal_nan=True):
        return
    guilty = _different_layer(model, again, stamps)
    raise ModelError(
        f"{what or _title(model)} does not survive saving: read back, it gives other scores, by up to "
        f"{float(np.nanmax(np.abs(ours - theirs))) if ours.shape == theirs.shape else np.inf:.2g}, because of "
        f"{guilty or 'its layers'}; {WAY_OUT}"
    )


def check_output(model: keras.Model) -> None:
    """Refuse a network whose output is not a score in [0, 1].

    Parameters
    ----------
    model : keras.Model
        Built network.

    Raises
    ------
    ModelError
        If its last layer has no activation, or scores of random stamps are outside [0, 1].
    """
    _require_graph(model)
    last = model.outputs[0]._keras_history.operation
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    scores = np.asarray(model(random_stamps(model), training=False))
    outside = scores[np.isfinite(scores) & ((scores < 0) | (scores > 1))]
    if activation in UNBOUNDED or outside.size:
        told = f"gives {outside[0]:.3g} for a stamp" if outside.size else f"has the activation {activation!r}"
        raise ModelError(
            f"{_title(model)} gives no score in [0, 1]: its last layer {getattr(last, 'name', '')!r} {told}; "
            "end it with Dense(1, activation='sigmoid')"
        )


def random_stamps(model: keras.Model) -> np.ndarray:
    """Make stamps of noise for a network.

    Parameters
    ----------
    model : keras.Model
        Built network.

    Returns
    -------
    ndarray
        (n, size, size, n_layers) float32, the same in each call.
    """
    return np.random.default_rng(0).normal(0, 9, (N_TRIED, *model.input_shape[1:])).astype(np.float32)


def _require_graph(model: keras.Model) -> None:
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{_title(model)} is a subclass ({type(model).__name__}), which Keras cannot write into one file; build it "
            "with keras.Sequential or keras.Model(inputs, outputs)"
        )


def _title(model: keras.Model) -> str:
    return f"network {model.name!r}"


def _label(layer: keras.Operation) -> str:
    return f"layer {layer.name!r} ({type(layer).__name__})"


def _unreadable_layer(model: keras.Model, reason: str) -> str:
    """First layer that does not survive saving on its own, or else one named in the error."""
    for one in getattr(model, "operations", model.layers):
        if not isinstance(one, keras.layers.Layer):
            return f"{_label(one)}, an operation that is no layer"
        try:
            saved = keras.saving.serialize_keras_object(one)
            keras.saving.deserialize_keras_object(saved, safe_mode=True)
        except Exception:
            return _label(one)
    named = [one for one in all_layers(model) if re.search(rf"\b{re.escape(one.name)}\b", reason)]
    return _label(named[0]) if named else ""


def _different_layer(model: keras.Model, again: keras.Model, stamps: np.ndarray) -> str:
    """First layer whose result differs, in the order of the network."""
    theirs = {layer.name: layer for layer in again.layers}
    for layer in model.layers:
        if layer.name not in theirs or isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            ours, other = (
                np.asarray(keras.Model(whole.inputs[0], one.output)(stamps, training=False))
                for whole, one in ((model, layer), (again, theirs[layer.name]))
            )
        except (ValueError, AttributeError):
            continue  # a layer called several times, or of a network that is no graph
        if ours.shape != other.shape or not np.allclose(ours, other, rtol=1e-6, atol=TOLERANCE, equal_nan=True):
            if isinstance(layer, keras.Model):
                inner = np.asarray(keras.Model(model.inputs[0], layer.input)(stamps, training=False))
                return _different_layer(layer, theirs[layer.name], inner) or _label(layer)
            return _label(layer)
    return ""
