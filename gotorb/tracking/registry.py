"""The model registry: versions identified by the md5 of their model, aliases, and their previous holders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gotorb.core import layout
from gotorb.core.logs import first_line
from gotorb.errors import ModelError, TrackingError
from gotorb.tracking.contents import md5
from gotorb.tracking.delivery import MD5_TAG
from gotorb.tracking.mlflow_model import DATA, Operating, Service
from gotorb.tracking.store import open_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
SCHEME = "models:/"
MAX_DESCRIPTION = 5000
"""Characters that MLflow's database keeps of a description."""
HISTORY_TAG = "gotorb.history"
"""Of a registered model, followed by the alias: versions that held the alias before, the oldest first."""
VERSIONS_TAG = "mlflow.modelVersions"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for a name, or an alias of it, that does not exist; any other code is no answer."""


@dataclass(frozen=True)
class Registered:
    """A registered version: its name, number, tags, and place of its files."""

    name: str
    version: str
    tags: dict[str, str]
    uri: str

    @property
    def label(self) -> str:
        """``name/version``, for messages and records."""
        return f"{self.name}/{self.version}"

    @property
    def md5(self) -> str:
        """md5 of the model file it was made from."""
        return self.tags.get(MD5_TAG, "")

    @property
    def operating(self) -> Operating:
        """Threshold and calibration of the scores."""
        return Operating.of(self.tags)

    @property
    def layers(self) -> list[str]:
        """Layers of the stamps that it takes, in order."""
        return [name for name in self.tags.get("layers", "").split(",") if name]


def _registered(version: Any) -> Registered:
    name, number = str(version.name), str(version.version)
    return Registered(name, number, dict(version.tags), f"{SCHEME}{name}/{number}")


def find_alias(name: str, alias: str) -> Registered | None:
    """The version that carries an alias; None when there is none.

    Parameters
    ----------
    name, alias : str
        Of the registered model.

    Returns
    -------
    Registered or None
        The holder.

    Raises
    ------
    TrackingError
        If the store gives no answer.
    """
    from mlflow.exceptions import MlflowException

    client = open_store()
    try:
        return _registered(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        reason = first_line(error)
        raise TrackingError(f"alias {alias!r} of model {name!r} cannot be looked up ({reason}); try again") from None


def find_by_md5(md5_of_model: str) -> Registered | None:
    """The newest registered version, under any name, that was made of a model file of these bytes; None without one.

    Parameters
    ----------
    md5_of_model : str
        Of the model file.

    Returns
    -------
    Registered or None
        The version.
    """
    found = open_store().search_model_versions(f"tags.`{MD5_TAG}` = '{md5_of_model}'")
    return max(map(_registered, found), key=lambda one: int(one.version), default=None)


def register(name: str, run_id: str, md5_of_model: str, tags: Mapping[str, Any]) -> Registered:
    """Register a run's model; a model of the same bytes is not registered twice.

    Parameters
    ----------
    name : str
        Of the registered model.
    run_id : str
        Run that logged the model.
    md5_of_model : str
        Of the model file.
    tags : mapping
        Of the version.

    Returns
    -------
    Registered
        The version, new or known.

    Raises
    ------
    TrackingError
        If the run holds no model.
    """
    client = open_store()
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get(MD5_TAG) == md5_of_model:
            return _registered(version)
    all_tags = {MD5_TAG: md5_of_model} | {key: str(value) for key, value in tags.items()}
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        raise TrackingError(f"run {run_id} holds no model; run the train stage again (dvc repro -f train)")
    logged = outputs.model_outputs[-1].model_id
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Classifiers of real and bogus detections; see the versions.")
    version = client.create_model_version(name, f"{SCHEME}{logged}", run_id=run_id, tags=all_tags, model_id=logged)
    _link(client, logged, name, str(version.version))
    return _registered(client.get_model_version(name, version.version))


def _link(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Let a model's page name its registered versions, as a tracking server does by itself."""
    known = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    if not any(one["name"] == name and str(one["version"]) == version for one in known):
        versions = [*known, {"name": name, "version": version}]
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(versions)})


def set_alias(registered: Registered, alias: str) -> None:
    """Give a version an alias, taking it from its holder.

    Parameters
    ----------
    registered : Registered
        The version.
    alias : str
        Such as production.
    """
    open_store().set_registered_model_alias(registered.name, alias, registered.version)


def move_alias(registered: Registered, alias: str, *, back: bool = False) -> None:
    """Give a version an alias and remember who held it.

    An interruption in between leaves a holder that is remembered too, which `previous_holder` passes over.

    Parameters
    ----------
    registered : Registered
        The version.
    alias : str
        Such as production.
    back : bool
        Forget that version and those after it instead.
    """
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
    open_store().set_registered_model_tag(name, f"{HISTORY_TAG}.{alias}", ",".join(versions))


def previous_holder(name: str, alias: str) -> Registered | None:
    """The version that held an alias before its present holder; None when there was none that still exists.

    Parameters
    ----------
    name, alias : str
        Of the registered model.

    Returns
    -------
    Registered or None
        The version.
    """
    return next(earlier_holders(name, alias), None)


def earlier_holders(name: str, alias: str) -> Iterator[Registered]:
    """Versions that held an alias before its present holder, the latest first, each once.

    Those that a rollback took the alias from, and deleted ones, are not among them.

    Parameters
    ----------
    name, alias : str
        Of the registered model.

    Yields
    ------
    Registered
    """
    holder = find_alias(name, alias)
    for number in dict.fromkeys(reversed(_history(name, alias))):
        if holder is None or number != holder.version:
            try:
                yield load_version(f"{SCHEME}{name}/{number}")
            except ModelError:
                continue  # it was deleted


def _history(name: str, alias: str) -> list[str]:
    found = open_store().search_registered_models(f"name = '{name}'")
    tags = found[0].tags if found else {}
    return [number for number in tags.get(f"{HISTORY_TAG}.{alias}", "").split(",") if number]


def describe_version(registered: Registered, text: str) -> None:
    """Write a version's description: its card, cut at a line where a server keeps no more.

    Parameters
    ----------
    registered : Registered
        The version.
    text : str
        Markdown.
    """
    kept = text if len(text) <= MAX_DESCRIPTION else text[: text.rindex("\n", 0, MAX_DESCRIPTION - 4)] + "\n..."
    open_store().update_model_version(registered.name, registered.version, kept)


def load_service(uri: str) -> Service:
    """Load a registered model as the service that ``gotorb serve`` runs; no file of the registry is executed.

    Parameters
    ----------
    uri : str
        As for `load_version`.

    Returns
    -------
    Service
        See `tracking.mlflow_model.Service`.

    Raises
    ------
    ModelError
        If there is no such model, or its file is not the registered one.
    """
    model, registered = load_registered(uri)
    return Service(model, registered.operating)


def load_registered(uri: str) -> tuple[Any, Registered]:
    """Load the network of a registered model by our own reader; nothing that the registry's files name is run.

    Parameters
    ----------
    uri : str
        As for `load_version`.

    Returns
    -------
    model : keras.Model
        The network.
    registered : Registered
        Its name, version and tags.

    Raises
    ------
    ModelError
        If there is no such model, or its file is not the registered one.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    registered = load_version(uri)
    with TemporaryDirectory() as folder:
        try:
            # that file alone: MLmodel and code/ next to it may name anything
            place = mlflow.artifacts.download_artifacts(f"{registered.uri}/{DATA}/{layout.MODEL_H5}", dst_path=folder)
            return _read_registered(Path(place), registered), registered
        except (MlflowException, ModelError, OSError) as error:
            reason = first_line(error)
            raise ModelError(f"no registered model {uri!r} that can be loaded ({reason}); register it again") from None


def _read_registered(path: Path, registered: Registered) -> Any:
    """The network of a file that is, byte by byte, the one that was registered."""
    from gotorb.training.model_files import read_model

    if not registered.md5:
        raise ModelError(f"{registered.label} names no md5 of its file")
    if (found := md5(path)) != registered.md5:
        raise ModelError(f"{registered.label} holds a file of md5 {found}, {registered.md5} was registered")
    return read_model(path)


def load_version(uri: str) -> Registered:
    """Look up a registered version without its files.

    Parameters
    ----------
    uri : str
        ``models:/name@alias`` or ``models:/name/version``.

    Returns
    -------
    Registered
        The version.

    Raises
    ------
    ModelError
        If there is no such version.
    """
    from mlflow.exceptions import MlflowException

    client = open_store()
    name, _, alias = uri.removeprefix(SCHEME).partition("@")
    name, _, number = name.partition("/")
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        return _registered(found)
    except (MlflowException, OSError) as error:
        reason = first_line(error)
        raise ModelError(
            f"no registered model {uri!r} in this tracking store ({reason}); `gotorb models` lists what there is"
        ) from None


def is_registry_uri(model: str | Path) -> bool:
    """Tell a registered model from a path.

    Parameters
    ----------
    model : str or Path
        Address of a model.

    Returns
    -------
    bool
        True for ``models:/...``.
    """
    return str(model).startswith(SCHEME)


def pin_version(model: str) -> str:
    """Address of the version that an alias names now; other addresses and paths as they are.

    Parameters
    ----------
    model : str
        Such as ``models:/gotorb@champion``.

    Returns
    -------
    str
        Such as ``models:/gotorb/3``, which stays the same model when the alias moves.

    Raises
    ------
    ModelError
        If no version has that alias.
    """
    return load_version(model).uri if is_registry_uri(model) and "@" in model else model


def list_models() -> list[dict[str, str]]:
    """Registered models: name, version, aliases, md5, network, test_auc, date (UTC), data_digest; "" for unknown."""
    client, rows = open_store(), []
    for model in client.search_registered_models():
        aliases: dict[str, list[str]] = {}
        for alias, version in client.get_registered_model(model.name).aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        for version in client.search_model_versions(f"name = '{model.name}'"):
            one = _registered(version)
            carried = ", ".join(sorted(aliases.get(one.version, [])))
            rows.append(
                {"name": one.name, "version": one.version, "aliases": carried, "md5": one.md5} | _facts(client, version)
            )
    return sorted(rows, key=lambda row: (row["name"], int(row["version"])))


def _facts(client: MlflowClient, version: Any) -> dict[str, str]:
    """Facts of a version out of its tags and its training's run."""
    from mlflow.exceptions import MlflowException

    try:
        metrics = client.get_run(version.run_id).data.metrics if version.run_id else {}
    except MlflowException:  # the run was deleted
        metrics = {}
    auc, made = metrics.get("test/auc"), datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    return {
        "network": version.tags.get("network", ""),
        "test_auc": "" if auc is None else f"{auc:.4f}",
        "date": f"{made:%Y-%m-%d %H:%M}",
        "data_digest": version.tags.get("data_digest", ""),
    }
