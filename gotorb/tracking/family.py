"""From a run, a model or a tag to all that belongs to it: data, runs, registered versions, tags and commits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.tracking.lineage import LABELS_TAG, STAMPS_TAG, commits_with, tags_with
from gotorb.tracking.registry import is_registry_uri, list_models, load_version
from gotorb.tracking.revisions import find_commit, read_lock
from gotorb.tracking.runs import DATA_TAG, MD5_TAG, STAGE_TAG, VERSION_TAG, send_waiting
from gotorb.tracking.store import open_store

PAGE = 1000


@dataclass(frozen=True)
class Family:
    """What belongs together.

    Attributes
    ----------
    asked : str
        Where it was entered.
    data : tuple of dict
        Data sets: md5 of csv and of hdf5, digest where a run tells it, git tags and newest commit that hold them.
    models : tuple of dict
        Model files: md5, registered versions with aliases, git tags and newest commit that hold them.
    runs : tuple of dict
        Runs of these models, and of these data before any model: id, name, stage, status.
    """

    asked: str
    data: tuple[dict[str, Any], ...]
    models: tuple[dict[str, Any], ...]
    runs: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return asdict(self)


def find_family(name: str) -> Family:
    """Walk from a run id, a registered model (``models:/name/version``, ``models:/name@alias``) or a git version.

    Raises
    ------
    TrackingError
        If it is none of these.
    """
    send_waiting()
    open_store()
    known = _all_runs()
    if is_registry_uri(name):
        models = {load_version(name).md5} - {""}
        data = _seen_by(models, known)
    elif (tags := _tags_of_run(name)) is not None:
        data = {pair} if (pair := _data_of(tags)) else set()
        models = {tags[MD5_TAG]} if MD5_TAG in tags else _trained_on(data, known)
    else:
        models, data = _in_version(name)
    runs = [run for run in known if _belongs(run.data.tags, models, data)]
    return _describe(name, models, data, runs)


Pair = tuple[str, str]
"""md5 of a data set's csv and hdf5."""


def _belongs(tags: dict[str, str], models: set[str], data: set[Pair]) -> bool:
    """Whether a run is of one of the models, or of one of the data sets and of no model at all."""
    return tags[MD5_TAG] in models if MD5_TAG in tags else _data_of(tags) in data


def _data_of(tags: dict[str, str]) -> Pair | None:
    return (tags[LABELS_TAG], tags[STAMPS_TAG]) if LABELS_TAG in tags and STAMPS_TAG in tags else None


def _seen_by(models: set[str], runs: list[Any]) -> set[Pair]:
    """Data sets that the models' own runs name."""
    return {pair for run in runs if run.data.tags.get(MD5_TAG) in models and (pair := _data_of(run.data.tags))}


def _trained_on(data: set[Pair], runs: list[Any]) -> set[str]:
    """Models whose training runs name one of the data sets."""
    trained = [run.data.tags for run in runs if run.data.tags.get(STAGE_TAG) == "train" and MD5_TAG in run.data.tags]
    return {tags[MD5_TAG] for tags in trained if _data_of(tags) in data}


def _in_version(revision: str) -> tuple[set[str], set[Pair]]:
    try:
        find_commit(revision)
    except TrackingError:
        raise TrackingError(
            f"{revision!r} is no run id, no registered model (models:/NAME/VERSION) and no git version; "
            "`gotorb models` and `git tag` list some"
        ) from None
    lock = read_lock(revision)
    models = {md5 for path, md5 in lock.items() if path.startswith("models/") and path.endswith(layout.MODEL_H5)}
    names = [f"data/dataset/{name}" for name in (layout.LABELS_CSV, layout.STAMPS_H5)]
    return models, {(lock[names[0]], lock[names[1]])} if set(names) <= set(lock) else set()


def _all_runs() -> list[Any]:
    """All runs, the oldest first."""
    import mlflow

    client, page = mlflow.MlflowClient(), None
    runs: list[Any] = []
    ids = [found.experiment_id for found in client.search_experiments()]
    while page != "":
        found = client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=PAGE, page_token=page)
        runs += found
        page = found.token or ""
    return runs


def _tags_of_run(run_id: str) -> dict[str, str] | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return dict(mlflow.get_run(run_id).data.tags)
    except MlflowException:
        return None


def _describe(name: str, models: set[str], data: set[Pair], runs: list[Any]) -> Family:
    digests = {_data_of(run.data.tags): run.data.tags.get(DATA_TAG, "") for run in runs}
    registered = list_models()
    return Family(
        name,
        tuple(_describe_data(pair, digests.get(pair, "")) for pair in sorted(data)),
        tuple(_describe_model(md5, registered) for md5 in sorted(models)),
        tuple(_describe_run(run) for run in runs),
    )


def _describe_data(pair: Pair, digest: str) -> dict[str, Any]:
    known = {"labels_md5": pair[0], "stamps_md5": pair[1], "digest": digest}
    return known | {"git_tags": tags_with(*pair), "commit": next(iter(commits_with(*pair)), "")}


def _describe_model(md5: str, registered: list[dict[str, str]]) -> dict[str, Any]:
    ours = [row for row in registered if row["md5"] == md5]
    versions = [f"{row['name']}/{row['version']}" for row in ours]
    aliases = [alias for row in ours for alias in row["aliases"].split(", ") if alias]
    known = {"md5": md5, "registered": versions, "aliases": aliases}
    return known | {"git_tags": tags_with(md5), "commit": next(iter(commits_with(md5)), "")}


def _describe_run(run: Any) -> dict[str, Any]:
    return {
        "run_id": run.info.run_id,
        "name": run.info.run_name,
        "stage": run.data.tags.get(STAGE_TAG, ""),
        "status": run.info.status,
    }


def mark_runs(tag: str) -> int:
    """Mark the runs of a version's models and data with its tag, beside those they have; gives how many."""
    import mlflow

    runs = find_family(tag).runs  # opens the store
    client = mlflow.MlflowClient()
    for run in runs:
        marks = client.get_run(run["run_id"]).data.tags.get(VERSION_TAG, "")
        client.set_tag(run["run_id"], VERSION_TAG, ", ".join(sorted({tag, *filter(None, marks.split(", "))})))
    return len(runs)
