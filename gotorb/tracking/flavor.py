"""How a model is kept in the registry: Keras' own form, and as a service that takes raw stamps.

``mlflow.tensorflow.load_model`` gives the Keras model. ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` give,
for each stamp in survey units, its plain score and, of a model with dropout, mean, standard deviation and confidence of
its posterior. The package's own code travels with the model, so a machine that serves it needs no checkout.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import yaml

import gotorb

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

LOADER = "gotorb.service"
"""What MLflow imports to serve a model; it may know more rooms than this one."""
COLUMNS = ("score", "mean", "std", "confidence")
DEFAULTS = {"n_samples": 20, "seed": 0}
"""What a caller may set: posterior samples of each stamp, and their seed. n_samples 0 gives plain scores alone."""
NEEDED = ("tensorflow", "keras", "numpy", "pandas", "h5py")


def make_signature(shape: tuple[int, ...]) -> ModelSignature:
    """Raw stamps (n, *shape) in, a row of numbers for each out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape), "stamps")]),
        outputs=Schema([ColSpec(DataType.double, name) for name in COLUMNS]),
        params=ParamSchema([ParamSpec(name, DataType.long, value) for name, value in DEFAULTS.items()]),
    )


def requirements() -> list[str]:
    """Exact versions of what a served model needs."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in NEEDED]


def log_model(run_id: str, model_path: Path, *, name: str, tags: dict[str, str]) -> str:
    """Record a model file with a run; gives MLflow's name of the model.

    Parameters
    ----------
    run_id : str
        The run it came from.
    model_path : Path
        The ``model.h5``.
    name : str
        Under which the run shows it.
    tags : dict
        Kept in the model's own description.
    """
    import mlflow
    from mlflow.models import Model

    from gotorb.tracking import flavor
    from gotorb.training.model_files import read_model

    model = read_model(model_path)
    with mlflow.start_run(run_id=run_id, nested=True):  # else the model would go to another experiment
        info = Model.log(artifact_path=None, name=name, flavor=flavor, run_id=run_id, model=model, metadata=dict(tags))
    # leaving the block ends the run, which may be going on
    mlflow.MlflowClient().update_run(run_id, status="RUNNING")
    return str(info.model_id)


def save_model(path: str, model: Any, mlflow_model: Model | None = None, **options: Any) -> None:
    """Write a model's folder as MLflow wants it (called by MLflow)."""
    import mlflow

    shape = tuple(model.input_shape[1:])
    with _no_registered_objects(), _no_walk_over_packages():
        mlflow.tensorflow.save_model(
            model,
            path,
            mlflow_model=mlflow_model,
            signature=make_signature(shape),
            pip_requirements=requirements(),
            code_paths=[str(Path(gotorb.__file__).parent)],
            metadata=options.get("metadata"),
        )
    write_example(Path(path), shape)
    description = Path(path) / "MLmodel"
    known = yaml.safe_load(description.read_text())
    known["flavors"]["python_function"]["loader_module"] = LOADER
    known["saved_input_example_info"] = EXAMPLE
    description.write_text(yaml.safe_dump(known, sort_keys=False))
    if mlflow_model is not None:
        mlflow_model.flavors["python_function"]["loader_module"] = LOADER
        # not the example: MLflow would try it at once, which takes seconds of each training and is the gate's business


EXAMPLE = {
    "artifact_path": "input_example.json",
    "serving_input_path": "serving_input_example.json",
    "type": "ndarray",
    "format": "tf-serving",
}


@contextmanager
def _no_registered_objects() -> Iterator[None]:
    """Hide what is registered with Keras: MLflow would pickle all of it beside the model and then refuse to load it.

    Importing keras-tuner registers a layer already. Layers of the user's own are found at loading where they are
    registered, as `keras.saving.register_keras_serializable` does.
    """
    import keras

    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        yield
    finally:
        registered.update(kept)


@contextmanager
def _no_walk_over_packages() -> Iterator[None]:
    """Spare MLflow the look at every file of every installed package, by which it would check our exact versions."""
    from mlflow.utils import environment

    with patch.object(environment, "warn_dependency_requirement_mismatches", lambda *_, **__: None):
        yield


def write_example(folder: Path, shape: tuple[int, ...]) -> None:
    """Write stamps of a Gaussian star as the example of an input; rounded, for they are to be read."""
    import json

    y, x = np.mgrid[: shape[0], : shape[1]] - shape[0] // 2
    star = np.round(100 * np.exp(-(x**2 + y**2) / 4.5), 1)
    stamps = np.repeat(np.stack([star, star / 2])[..., None], shape[2], axis=-1).tolist()
    (folder / EXAMPLE["artifact_path"]).write_text(json.dumps(stamps))
    (folder / EXAMPLE["serving_input_path"]).write_text(json.dumps({"inputs": stamps}))
