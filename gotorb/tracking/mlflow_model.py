"""Registered form of a model: Keras' own file, and a service that takes raw stamps.

``mlflow.tensorflow.load_model`` gives the Keras model. ``mlflow.pyfunc.load_model`` and ``gotorb serve`` give, for each
stamp in survey units, its score, calibrated probability and call and, of a model with dropout, mean, standard deviation
and confidence of its posterior. The package's own code travels with the model, so a machine that loads it with MLflow
needs no checkout; gotorb itself never runs that code.

The folder is written here from MLflow's documented storage format, with ``model.h5`` copied into it: neither
TensorFlow nor Keras is imported to record a model, and no object is pickled.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import yaml

import gotorb
from gotorb.core import layout
from gotorb.evaluation.calibration import expit, logit
from gotorb.evaluation.posterior import Scale, summarise_samples

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature

LOADER = __name__
"""Module that MLflow imports to serve a model."""
COLUMNS = ("score", "probability", "mean", "std", "confidence", "threshold", "call")
"""Answer for a stamp; None where there is no such number: no posterior, no calibration, no finite stamp."""
OPERATING_JSON = "operating.json"
MAX_SAMPLES = 1000
MAX_LINE = 300
UNKNOWN = 0.5
"""Threshold of a model that names none."""
DEFAULTS = {"n_samples": 20, "seed": 0}
"""Parameters of a call: posterior samples of each stamp, and their seed. n_samples 0 gives plain scores alone."""
NEEDED = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "h5py", "scipy")
SOURCE_TAGS = ("mlflow.source.name", "mlflow.source.type", "mlflow.user")
DATA, CODE, MLMODEL = "data", "code", "MLmodel"
NOT_IN_NAMES = r"[/:.%\"']"
EXAMPLE = {
    "artifact_path": "input_example.json",
    "serving_input_path": "serving_input_example.json",
    "type": "ndarray",
    "format": "tf-serving",
}


class Operating(NamedTuple):
    """Threshold of a model, and its map from scores to probabilities; no temperature means no calibration."""

    threshold: float
    temperature: float | None
    offset: float

    @classmethod
    def of(cls, tags: Mapping[str, Any]) -> Operating:
        """Read it from the tags of a model.

        Parameters
        ----------
        tags : mapping
            Numbers by name, as texts; others are left alone.

        Returns
        -------
        Operating
            Threshold 0.5 and no calibration where a tag is missing.
        """
        known = {name: float(tags[name]) for name in cls._fields if tags.get(name) is not None}
        return cls(known.get("threshold", UNKNOWN), known.get("temperature"), known.get("offset", 0.0))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities; the scores themselves without a calibration.

        Parameters
        ----------
        scores : ndarray
            (n,) scores, or means of posteriors.

        Returns
        -------
        ndarray
            (n,) of them.
        """
        return scores if self.temperature is None else expit(logit(scores) / self.temperature + self.offset)


class Artefact(NamedTuple):
    """A model file to record: its run, its path, its name, tags of its description, and its training's parameters."""

    run_id: str
    path: Path
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


def log_model(client: MlflowClient, artefact: Artefact) -> str:
    """Record a model file as an output of a run.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    artefact : Artefact
        The model file and its run.

    Returns
    -------
    str
        MLflow's name of the model.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(artefact.run_id)
    source = {name: run.data.tags[name] for name in SOURCE_TAGS if name in run.data.tags}
    name = re.sub(NOT_IN_NAMES, "-", artefact.name)
    made = client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=artefact.run_id, tags=source, params=dict(artefact.params),
        model_type="keras",
    )  # fmt: skip
    client.log_outputs(artefact.run_id, [LoggedModelOutput(made.model_id, 0)])
    with TemporaryDirectory() as folder:
        names: dict[str, Any] = {"run_id": artefact.run_id, "model_id": made.model_id, "model_uuid": made.model_id}
        model = Model(made.artifact_location, **names, metadata=dict(artefact.tags))
        _write_folder(Path(folder), artefact, model)
        client.log_model_artifacts(made.model_id, folder)
    client.finalize_logged_model(made.model_id, "READY")
    return str(made.model_id)


def _write_folder(folder: Path, artefact: Artefact, model: Model) -> None:
    """Write a model's folder as MLflow reads it, and complete MLflow's description of the model."""
    from mlflow import pyfunc

    shape = _stamp_shape(artefact.path)
    (folder / DATA).mkdir()
    shutil.copyfile(artefact.path, folder / DATA / layout.MODEL_H5)
    (folder / DATA / OPERATING_JSON).write_text(json.dumps(Operating.of(artefact.tags)._asdict()))
    ours = Path(gotorb.__file__).parent
    shutil.copytree(ours, folder / CODE / ours.name, ignore=shutil.ignore_patterns("__pycache__"))
    model.signature, model.saved_input_example_info = _make_signature(shape), EXAMPLE
    if _is_network(artefact.path):  # models on measured features have the service alone
        options = {"model_type": "keras", "save_format": "h5", "keras_version": version("tensorflow")}
        model.add_flavor("tensorflow", data=DATA, code=CODE, **options)
    environment = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
    pyfunc.add_to_model(model, loader_module=LOADER, data=DATA, code=CODE, **environment)
    model.save(folder / MLMODEL)
    described = yaml.safe_load((folder / MLMODEL).read_text())
    # else MLflow refuses float64, integers and big-endian numbers before the service can convert them
    (folder / MLMODEL).write_text(yaml.safe_dump(described | {"is_signature_from_type_hint": True}))
    _write_environment(folder)
    _write_example(folder, shape)


def _make_signature(shape: tuple[int, ...]) -> ModelSignature:
    """Raw stamps (n, *shape) as input, a row of numbers for each as output, and the parameters of `DEFAULTS`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, *shape), "stamps")]),
        outputs=Schema([ColSpec(DataType.string if name == "call" else DataType.double, name) for name in COLUMNS]),
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
    """Scores and calls of stamps in survey units and, of a model with dropout, a summary of its posterior.

    Parameters
    ----------
    model : keras.Model
        The network; normalises by itself.
    operating : Operating, optional
        Its threshold and calibration.
    """

    def __init__(self, model: Any, operating: Operating | None = None) -> None:
        from gotorb.training.inference import CompiledModel

        self.compiled, self.operating = CompiledModel(model), operating or Operating.of({})
        self.shape = tuple(model.input_shape[1:])
        self.metadata: Any = None

    def predict(self, stamps: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score stamps.

        Parameters
        ----------
        stamps : ndarray, list, or dict with one under ``stamps``
            (n, size, size, n_layers), in survey units, of any kind of numbers.
        params : dict, optional
            Other values than those of `DEFAULTS`.

        Returns
        -------
        DataFrame
            (n,) rows with `COLUMNS`.

        Raises
        ------
        mlflow.exceptions.MlflowException
            If the stamps are none of this model; a server answers with 400.
        """
        import pandas as pd

        batch, n_samples, seed = self._read(stamps), *_read_params(params or {})
        finite = np.isfinite(batch).all(axis=(1, 2, 3))
        rows = pd.DataFrame(np.nan, index=range(len(batch)), columns=list(COLUMNS[:-1]))
        if finite.any():
            rows.loc[finite] = self._score(batch[finite], n_samples, seed)
        call = pd.Series(np.where(rows["mean"].fillna(rows["score"]) >= rows["threshold"], "real", "bogus"))
        rows = rows.assign(call=call.where(finite))
        return rows.astype(object).where(rows.notna(), None)  # NaN is no json

    def _score(self, batch: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
        """Numbers of `COLUMNS` for finite stamps, (n, 6)."""

        score, unknown = self.compiled.score(batch).astype(float), np.full(len(batch), np.nan)
        mean = std = confidence = unknown
        if self.compiled.has_posterior and n_samples > 1:
            scale = Scale(self.operating.threshold, self.operating.temperature or 1.0)
            summary = summarise_samples(self.compiled.sample(batch, n_samples, seed=seed), scale)
            mean, std, confidence = summary.mean, summary.std, summary.confidence
        best = score if mean is unknown else mean
        probability = unknown if self.operating.temperature is None else self.operating.probability(best)
        threshold = np.full(len(batch), self.operating.threshold)
        return np.column_stack([score, probability, mean, std, confidence, threshold])

    def _read(self, stamps: Any) -> np.ndarray:
        """Stamps as float32 (n, size, size, n_layers)."""
        found = stamps.get("stamps") if isinstance(stamps, Mapping) else stamps
        try:
            batch = np.asarray(found)
        except ValueError:
            raise _refuse("stamps of unequal shapes; give an array (n, size, size, layers)") from None
        if batch.shape[1:] != self.shape:
            raise _refuse(f"stamps of shape {batch.shape}; this model takes (n, {', '.join(map(str, self.shape))})")
        if batch.dtype.kind not in "biuf":
            raise _refuse(f"stamps of type {batch.dtype}; give numbers")
        with np.errstate(over="ignore"):
            return batch.astype(np.float32)


def _read_params(given: Mapping[str, Any]) -> tuple[int, int]:
    """Number of samples and seed of a call."""
    values = DEFAULTS | dict(given)
    odd = [name for name, value in values.items() if name not in DEFAULTS or not _is_count(value)]
    if odd or values["n_samples"] > MAX_SAMPLES:
        raise _refuse(f"params {dict(given)}; give n_samples (0 to {MAX_SAMPLES}) and seed (0 or more), whole numbers")
    return int(values["n_samples"]), int(values["seed"])


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 0 <= int(value) < 2**63


def _refuse(reason: str) -> Exception:
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(reason[:MAX_LINE])


def make_app(service: Service) -> Any:
    """Make MLflow's scoring server of a service; an error is one line.

    Parameters
    ----------
    service : Service
        A model that is loaded.

    Returns
    -------
    fastapi.FastAPI
        For uvicorn.
    """
    from fastapi import Request
    from fastapi.responses import JSONResponse
    from mlflow.models import Model
    from mlflow.pyfunc import scoring_server

    service.metadata = Model()  # without a schema: the service converts by itself
    app = scoring_server.init(cast(Any, service))

    @app.middleware("http")
    async def shorten(request: Request, call_next: Any) -> Any:
        answer = await call_next(request)
        if answer.status_code < 400:
            return answer
        body = b"".join([part async for part in answer.body_iterator])
        return JSONResponse({"error": _one_line(body)}, answer.status_code)

    return app


def _one_line(body: bytes) -> str:
    """The reason in an answer of MLflow's server, without its input and traceback."""
    text = body.decode(errors="replace")
    try:
        known = json.loads(text)
        text = str(known.get("message") or known.get("detail") or text) if isinstance(known, dict) else text
    except json.JSONDecodeError:
        pass
    return (text.rpartition("\nError: ")[2].strip().splitlines() or ["no reason given"])[0][:MAX_LINE]


def _load_pyfunc(path: str) -> Service:
    """Load the service (called by MLflow) from ``data/`` of a model; code inside the file is refused."""
    from gotorb.training.model_files import read_model

    known = Path(path) / OPERATING_JSON
    operating = json.loads(known.read_text()) if known.exists() else {}
    return Service(read_model(Path(path) / layout.MODEL_H5), Operating.of(operating))
