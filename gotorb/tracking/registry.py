"""The model registry: versions known by the bytes of their model, and the alias of the champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gotorb.errors import ModelError, TrackingError
from gotorb.tracking.runs import MD5_TAG
from gotorb.tracking.store import open_store

CHAMPION = "champion"
SCHEME = "models:/"
MAX_DESCRIPTION = 5000
"""Characters that MLflow's database keeps of a description."""
HISTORY_TAG = "gotorb.history"
"""Of a registered model, behind it the alias: versions that held the alias before, the oldest first."""
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What mlflow answers when there is no such name, or no such alias of it; anything else is no answer."""


@dataclass(frozen=True)
class Registered:
    """A registered version: its name, number, tags, and place of its files."""

    name: str
    version: str
    tags: dict[str, str]
    uri: str

    @property
    def md5(self) -> str:
        """md5 of the model file it was made from."""
        return self.tags.get(MD5_TAG, "")


def find_champion(name: str) -> Registered | None:
    """The version that carries the alias ``champion``; None when there is none."""
    return find_alias(name, CHAMPION)


def find_alias(name: str, alias: str) -> Registered | None:
    """The version that carries an alias; None when there is none."""
    import mlflow
    from mlflow.exceptions import MlflowException

    open_store()
    try:
        return _registered(mlflow.MlflowClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        reason = str(error).strip().splitlines()[0]
        raise TrackingError(f"alias {alias!r} of model {name!r} cannot be looked up ({reason}); try again") from None


def _registered(version: Any) -> Registered:
    return Registered(
        version.name, str(version.version), dict(version.tags), f"{SCHEME}{version.name}/{version.version}"
    )


def find_by_md5(md5_of_model: str) -> Registered | None:
    """The newest registered version, under any name, that was made of a model file of these bytes; None without one."""
    import mlflow

    open_store()
    found = mlflow.MlflowClient().search_model_versions(f"tags.`{MD5_TAG}` = '{md5_of_model}'")
    return max(map(_registered, found), key=lambda one: int(one.version), default=None)


def register(name: str, run_id: str, md5_of_model: str, tags: Mapping[str, Any]) -> Registered:
    """Register a run's model; a model of the same bytes is not registered twice.

    Raises
    ------
    TrackingError
        If the run holds no model.
    """
    import mlflow

    open_store()
    client = mlflow.MlflowClient()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(MD5_TAG) == md5_of_model:
            return _registered(version)
    all_tags = {MD5_TAG: md5_of_model} | {key: str(value) for key, value in tags.items()}
    outputs = mlflow.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise TrackingError(f"run {run_id} holds no model; run the train stage again (dvc repro -f train)")
    logged = outputs.model_outputs[-1].model_id
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, f"models:/{logged}", run_id=run_id, tags=all_tags, model_id=logged)
    return _registered(client.get_model_version(name, version.version))


def set_alias(registered: Registered, alias: str) -> None:
    """Give a version an alias, taking it from its holder."""
    import mlflow

    open_store()
    mlflow.MlflowClient().set_registered_model_alias(registered.name, alias, registered.version)


def move_alias(registered: Registered, alias: str, *, back: bool = False) -> None:
    """Give a version an alias and remember who held it; `back` forgets that version and those after it instead.

    A kill in between leaves a holder that is remembered too, which `previous_holder` passes over.
    """
    open_store()
    history = _history(registered.name, alias)
    if back:
        set_alias(registered, alias)
        last = len(history) - 1 - history[::-1].index(registered.version) if registered.version in history else 0
        _remember(registered.name, alias, history[:last])
        return
    holder = find_alias(registered.name, alias)
    if holder is not None and holder.version != registered.version:
        _remember(registered.name, alias, [*history, holder.version])
    set_alias(registered, alias)


def _remember(name: str, alias: str, versions: list[str]) -> None:
    import mlflow

    mlflow.MlflowClient().set_registered_model_tag(name, f"{HISTORY_TAG}.{alias}", ",".join(versions))


def previous_holder(name: str, alias: str) -> Registered | None:
    """The version that held an alias before its present holder; None when there was none that still exists."""
    holder = find_alias(name, alias)
    for number in reversed(_history(name, alias)):
        if holder is None or number != holder.version:
            try:
                return load_version(f"{SCHEME}{name}/{number}")
            except ModelError:
                continue  # it was deleted
    return None


def _history(name: str, alias: str) -> list[str]:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        tags = mlflow.MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return []
        raise
    return [number for number in tags.get(f"{HISTORY_TAG}.{alias}", "").split(",") if number]


def describe_version(registered: Registered, text: str) -> None:
    """Write a version's description: its card, cut at a line where a server keeps no more."""
    import mlflow

    open_store()
    kept = text if len(text) <= MAX_DESCRIPTION else text[: text.rindex("\n", 0, MAX_DESCRIPTION - 4)] + "\n..."
    mlflow.MlflowClient().update_model_version(registered.name, registered.version, kept)


def load_service(uri: str) -> Any:
    """What `mlflow models serve` answers with: see `tracking.flavor`.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    open_store()
    try:
        return mlflow.pyfunc.load_model(uri)
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"registered model {uri!r} cannot be served ({reason}); register it again") from None


def load_registered(uri: str) -> tuple[Any, Registered]:
    """Load a registered model: ``models:/name@alias`` or ``models:/name/version``.

    Returns
    -------
    model : keras.Model
        The network.
    registered : Registered
        Its name, version and tags.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    from gotorb.training import normalisation  # noqa: F401  Keras finds its layer when the file names it

    registered = load_version(uri)
    try:
        return mlflow.tensorflow.load_model(registered.uri), registered
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"no registered model {uri!r} that can be loaded ({reason}); register it again") from None


def load_version(uri: str) -> Registered:
    """What the registry knows of ``models:/name@alias`` or ``models:/name/version``, without its files.

    Raises
    ------
    ModelError
        If there is no such version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    open_store()
    client = mlflow.MlflowClient()
    name, _, alias = uri.removeprefix(SCHEME).partition("@")
    name, _, number = name.partition("/")
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        return _registered(found)
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"no registered model {uri!r} in this tracking store ({reason}); `gotorb models` lists what there is"
        ) from None


def is_registry_uri(model: str | Path) -> bool:
    """Whether a model is named by the registry rather than by a path."""
    return str(model).startswith(SCHEME)


def list_models() -> list[dict[str, str]]:
    """Registered models: name, version, aliases, md5."""
    import mlflow

    open_store()
    client = mlflow.MlflowClient()
    rows = []
    for model in client.search_registered_models():
        aliases: dict[str, list[str]] = {}
        for alias, version in client.get_registered_model(model.name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        for version in client.search_model_versions(f"name = '{model.name}'"):
            carried = ", ".join(sorted(aliases.get(str(version.version), [])))
            rows.append(
                {"name": model.name, "version": str(version.version), "aliases": carried,
                 "md5": version.tags.get(MD5_TAG, "")}
            )  # fmt: skip
    return sorted(rows, key=lambda row: (row["name"], int(row["version"])))
