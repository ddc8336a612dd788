"""Form of a model in the registry: Keras' own file, and a service that takes raw stamps.

``mlflow.tensorflow.load_model`` gives the Keras model. ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` give,
for each stamp in survey units, its plain score and, of a model with dropout, mean, standard deviation and confidence of
its posterior. The package's own code travels with the model, so a machine that serves it needs no checkout.

The folder is written here from MLflow's documented storage format, with ``model.h5`` copied into it: neither
TensorFlow nor Keras is imported to record a model, and no object is pickled.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

import gotorb
from gotorb.core import layout

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.models import Model, ModelSignature

LOADER = __name__
"""Module that MLflow imports to serve a model."""
COLUMNS = ("score", "mean", "std", "confidence")
DEFAULTS = {"n_samples": 20, "seed": 0}
"""Parameters of a call: posterior samples of each stamp, and their seed. n_samples 0 gives plain scores alone."""
NEEDED = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "h5py", "scipy")
DATA, CODE = "data", "code"
EXAMPLE = {
    "artifact_path": "input_example.json",
    "serving_input_path": "serving_input_example.json",
    "type": "ndarray",
    "format": "tf-serving",
}


class Artefact(NamedTuple):
    """A model file to record: its run, its path, its name below the run, and tags of its description."""

    run_id: str
    path: Path
    name: str
    tags: Mapping[str, str]


def log_model(client: MlflowClient, artefact: Artefact, metrics: Iterable[Metric] = ()) -> str:
    """Record a model file as an output of a run.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    artefact : Artefact
        The model file and its run.
    metrics : iterable of Metric
        Last metrics of the run, shown with the model.

    Returns
    -------
    str
        MLflow's name of the model.
    """
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    run_id, last = artefact.run_id, list(metrics)
    experiment = client.get_run(run_id).info.experiment_id
    made = client.create_logged_model(experiment, name=artefact.name, source_run_id=run_id, model_type="keras")
    step = max((metric.step for metric in last), default=0)
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step)])
    client.log_batch(run_id, [Metric(m.key, m.value, m.timestamp, m.step, model_id=made.model_id) for m in last])
    with TemporaryDirectory() as folder:
        names: dict[str, Any] = {"run_id": run_id, "model_id": made.model_id, "model_uuid": made.model_id}
        model = Model(made.artifact_location, **names, metadata=dict(artefact.tags))
        _write_folder(Path(folder), artefact.path, model)
        client.log_model_artifacts(made.model_id, folder)
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def _write_folder(folder: Path, model_path: Path, model: Model) -> None:
    """Write a model's folder as MLflow reads it, and complete MLflow's description of the model."""
    from mlflow import pyfunc

    shape = _stamp_shape(model_path)
    (folder / DATA).mkdir()
    shutil.copyfile(model_path, folder / DATA / layout.MODEL_H5)
    ours = Path(gotorb.__file__).parent
    shutil.copytree(ours, folder / CODE / ours.name, ignore=shutil.ignore_patterns("__pycache__"))
    model.signature, model.saved_input_example_info = _make_signature(shape), EXAMPLE
    if _is_network(model_path):  # models on measured features have the service alone
        options = {"model_type": "keras", "save_format": "h5", "keras_version": version("tensorflow")}
        model.add_flavor("tensorflow", data=DATA, code=CODE, **options)
    environment = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
    pyfunc.add_to_model(model, loader_module=LOADER, data=DATA, code=CODE, **environment)
    model.save(folder / "MLmodel")
    _write_environment(folder)
    _write_example(folder, shape)


def _make_signature(shape: tuple[int, ...]) -> ModelSignature:
    """Raw stamps (n, *shape) as input, a row of numbers for each as output, and the parameters of `DEFAULTS`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape), "stamps")]),
        outputs=Schema([ColSpec(DataType.double, name) for name in COLUMNS]),
        params=ParamSchema([ParamSpec(name, DataType.long, value) for name, value in DEFAULTS.items()]),
    )


def _is_network(path: Path) -> bool:
    """True for a file that Keras reads."""
    import h5py

    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


def _stamp_shape(path: Path) -> tuple[int, ...]:
    """Input shape (size, size, n_layers) that a model file declares, else that of the Keras model."""
    import h5py

    with h5py.File(path, "r") as file:
        config = json.loads(file.attrs.get("model_config", "{}"))
    layers = config.get("config", {}).get("layers", [])
    shapes = (layer["config"]["batch_shape"] for layer in layers if "batch_shape" in layer.get("config", {}))
    if found := next(shapes, None):
        return tuple(found[1:])
    from gotorb.training.model_files import read_model

    return tuple(read_model(path).input_shape[1:])


def _write_environment(folder: Path) -> None:
    """Exact versions of what a served model needs, in the three forms that MLflow's environment managers read."""
    needed, python = [f"{name}=={version(name)}" for name in NEEDED], platform.python_version()
    (folder / "requirements.txt").write_text("\n".join(needed))
    venv = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(venv, sort_keys=False))
    packages = [f"python={python}", "pip", {"pip": needed}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": packages}
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False))


def _write_example(folder: Path, shape: tuple[int, ...]) -> None:
    """Write stamps of a Gaussian star as the example of an input; rounded to be readable."""
    y, x = np.mgrid[: shape[0], : shape[1]] - shape[0] // 2
    star = np.round(100 * np.exp(-(x**2 + y**2) / 4.5), 1)
    stamps = np.repeat(np.stack([star, star / 2])[..., None], shape[2], axis=-1).tolist()
    (folder / EXAMPLE["artifact_path"]).write_text(json.dumps(stamps))
    (folder / EXAMPLE["serving_input_path"]).write_text(json.dumps({"inputs": stamps}))


class Service:
    """Scores of stamps in survey units and, of a model with dropout, a summary of its posterior.

    Parameters
    ----------
    model : keras.Model
        The network; normalises by itself.
    """

    def __init__(self, model: Any) -> None:
        from gotorb.training.inference import CompiledModel

        self.compiled = CompiledModel(model)

    def predict(self, stamps: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score stamps.

        Parameters
        ----------
        stamps : ndarray, or dict with one under ``stamps``
            (n, size, size, n_layers), in survey units.
        params : dict, optional
            Other values than those of `DEFAULTS`.

        Returns
        -------
        DataFrame
            (n,) rows with `COLUMNS`.
        """
        import pandas as pd

        from gotorb.evaluation.posterior import summarise_samples

        wanted = DEFAULTS | (params or {})
        batch = np.asarray(stamps["stamps"] if isinstance(stamps, dict) else stamps, np.float32)
        rows = pd.DataFrame({"score": self.compiled.score(batch).astype(float)})
        if self.compiled.has_posterior and wanted["n_samples"] > 1:
            samples = self.compiled.sample(batch, int(wanted["n_samples"]), seed=int(wanted["seed"]))
            summary = summarise_samples(samples)
            return rows.assign(mean=summary.mean, std=summary.std, confidence=summary.confidence)
        return rows.assign(mean=np.nan, std=np.nan, confidence=np.nan)


def find_model_file(folder: Path) -> Path:
    """Find the network in a model's folder: ``model.h5``, or ``model.keras`` of versions registered before that.

    Parameters
    ----------
    folder : Path
        ``data/`` of the model.

    Returns
    -------
    Path
        The first of the two that exists; the first where neither does.
    """
    names = (layout.MODEL_H5, "model.keras")
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def _load_pyfunc(path: str) -> Service:
    """Load the service (called by MLflow) from ``data/`` of a model; code inside the file is refused."""
    from gotorb.training.model_files import read_model

    return Service(read_model(find_model_file(Path(path))))
