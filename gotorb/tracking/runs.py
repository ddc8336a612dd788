"""One tracked run for each stage: parameters, revision, data, wall time, metrics, figures, and failures."""

from __future__ import annotations

import hashlib
import math
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gotorb
from gotorb.params import Params, flatten
from gotorb.settings import project_root
from gotorb.tracking.store import open_experiment, open_store

MODEL_ARTIFACT = "model"
DIGEST_LENGTH = 36
HEADLINE = ("auc", "average_precision", "brier", "ece", "threshold")
ERRORS, HEADLINE_ERRORS = "at_threshold", ("fnr", "fpr", "mme")
"""Numbers of an evaluation report by which runs are compared; the rest is in the report's json."""
STAGE_TAG, MD5_TAG, DATA_TAG = "gotorb.stage", "gotorb.model_md5", "gotorb.data_digest"


class Run:
    """A run in progress; every method only records."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        import mlflow

        mlflow.log_params({name: value for name, value in values.items() if value is not None})

    def log_metrics(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record the finite numbers of a (nested) mapping; other values are left out."""
        import mlflow

        numbers = {
            name.replace(".", "/"): float(value)
            for name, value in flatten(dict(values)).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        mlflow.log_metrics(numbers, step=step)

    def log_headlines(self, reports: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the few numbers of each evaluation report that make runs comparable, as ``<report>/<number>``."""
        for name, report in reports.items():
            few = {key: report.get(key) for key in HEADLINE}
            errors = {key: report.get(ERRORS, {}).get(key) for key in HEADLINE_ERRORS}
            self.log_metrics({name: few | errors})

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record one epoch's metrics."""
        self.log_metrics({f"epoch/{name}": value for name, value in values.items()}, step=epoch)

    def log_figures(self, figures: Mapping[str, Any]) -> None:
        """Record Figures as ``plots/<name>.png``."""
        import mlflow

        for name, figure in figures.items():
            mlflow.log_figure(figure, f"plots/{name}.png")

    def log_json(self, content: Mapping[str, Any], name: str) -> None:
        """Record a mapping as a json artifact."""
        import mlflow

        mlflow.log_dict(dict(content), name)

    def log_data(self, data_dir: Path, card: Mapping[str, Any], *, context: str) -> None:
        """Record which data set, by content, the run made or used."""
        import mlflow
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        digest = str(card["digest"])
        source = CodeDatasetSource(tags={"data_dir": str(data_dir), DATA_TAG: digest})
        data = MetaDataset(source, name=data_dir.name, digest=digest[:DIGEST_LENGTH])  # type: ignore[abstract]
        mlflow.log_input(data, context=context)
        mlflow.set_tag(DATA_TAG, digest)
        mlflow.log_dict(dict(card), "data_card.json")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags."""
        import mlflow

        mlflow.set_tags(dict(tags))

    def log_model(self, model: Any, model_path: Path, *, tags: Mapping[str, str]) -> None:
        """Record a Keras model with its signature: raw stamps in, score out."""
        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec
        from numpy import dtype

        shape = tuple(model.input_shape)[1:]
        signature = ModelSignature(
            inputs=Schema([TensorSpec(dtype("float32"), (-1, *shape), "stamps")]),
            outputs=Schema([TensorSpec(dtype("float32"), (-1, 1), "score")]),
        )
        mlflow.set_tag(MD5_TAG, md5(model_path))
        # explicit requirements: working them out would take ten seconds and a subprocess
        mlflow.tensorflow.log_model(
            model,
            name=MODEL_ARTIFACT,
            signature=signature,
            pip_requirements=model_requirements(),
            metadata=dict(tags),
        )


def model_requirements() -> list[str]:
    """Exact versions of what a logged model needs."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("tensorflow", "keras", "numpy")]


def md5(path: Path) -> str:
    """Hex md5 of a file: the name under which DVC knows it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@contextmanager
def track_stage(stage: str, params: Params, *, name: str | None = None, experiment: str = "") -> Iterator[Run]:
    """Track one stage; an exception ends the run as FAILED.

    Parameters
    ----------
    stage : str
        Name of the stage.
    params : Params
        All of params.yaml.
    name : str, optional
        Name of the run; the stage's when left out.
    experiment : str
        Ending of the experiment's name (``<promote.name><ending>``).
    """
    import mlflow

    experiment_id = open_experiment(f"{params.promote.name}{experiment}")
    tags = {
        STAGE_TAG: stage,
        "gotorb.code_version": gotorb.__version__,
        "gotorb.git_revision": git_revision(),
        "gotorb.source": params.label.source,
    }
    started = time.monotonic()
    with mlflow.start_run(experiment_id=experiment_id, run_name=name or stage, tags=tags) as active:
        run = Run(active.info.run_id)
        run.log_params(params.flat())
        yield run
        run.log_metrics({"wall_seconds": time.monotonic() - started})


def git_revision() -> str:
    """Commit of the project and ``+changes`` where its files differ from it; "" outside git."""
    try:
        here = project_root()
        call = ["git", "-C", str(here)]
        commit = subprocess.run([*call, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*call, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return commit + ("+changes" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def find_run(md5_of_model: str, experiment: str) -> str | None:
    """Id of the newest finished run that logged a model of these bytes."""
    import mlflow

    open_store()
    client = mlflow.MlflowClient()
    where = client.get_experiment_by_name(experiment)
    if where is None:
        return None
    wanted = f"tags.`{MD5_TAG}` = '{md5_of_model}' and attributes.status = 'FINISHED'"
    runs = client.search_runs([where.experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    return runs[0].info.run_id if runs else None
