"""From a run, a model or a tag to all that belongs to it: data, runs, registered versions, tags and commits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gotorb import layout
from gotorb.errors import TrackingError
from gotorb.tracking.lineage import LABELS_TAG, STAMPS_TAG, commits_with, tags_with
from gotorb.tracking.registry import is_registry_uri, list_models, load_version
from gotorb.tracking.revisions import find_commit, read_lock
from gotorb.tracking.runs import DATA_TAG, MD5_TAG, STAGE_TAG
from gotorb.tracking.store import open_store

MAX_RUNS = 1000


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
        Runs of these models and data: id, name, stage, status, experiment.
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
    open_store()
    if is_registry_uri(name):
        models, data = _around({load_version(name).md5}, set())
    elif (tags := _tags_of_run(name)) is not None:
        models, data = _around({tags[MD5_TAG]} if MD5_TAG in tags else set(), {_data_of(tags)} - {None})
    else:
        models, data = _in_version(name)
    runs = [run for run in _all_runs() if run.data.tags.get(MD5_TAG) in models or _data_of(run.data.tags) in data]
    digests = {_data_of(run.data.tags): run.data.tags.get(DATA_TAG, "") for run in runs}
    return Family(
        name,
        tuple(_describe_data(pair, digests.get(pair, "")) for pair in sorted(data)),
        tuple(_describe_model(md5) for md5 in sorted(models)),
        tuple(_describe_run(run) for run in runs),
    )


Pair = tuple[str, str]
"""md5 of a data set's csv and hdf5."""


def _data_of(tags: dict[str, str]) -> Pair | None:
    return (tags[LABELS_TAG], tags[STAMPS_TAG]) if LABELS_TAG in tags and STAMPS_TAG in tags else None


def _around(models: set[str], data: set[Any]) -> tuple[set[str], set[Pair]]:
    """Models with the data that their training runs name, and the other way round."""
    for run in _all_runs():
        tags = run.data.tags
        pair = _data_of(tags)
        if tags.get(MD5_TAG) in models and pair:
            data.add(pair)
        elif pair in data and tags.get(STAGE_TAG) == "train" and MD5_TAG in tags and not models:
            models.add(tags[MD5_TAG])
    return models, data


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
    import mlflow

    client = mlflow.MlflowClient()
    ids = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=MAX_RUNS))


def _tags_of_run(run_id: str) -> dict[str, str] | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return dict(mlflow.get_run(run_id).data.tags)
    except MlflowException:
        return None


def _describe_data(pair: Pair, digest: str) -> dict[str, Any]:
    known = {"labels_md5": pair[0], "stamps_md5": pair[1], "digest": digest}
    return known | {"git_tags": tags_with(pair[0]), "commit": next(iter(commits_with(pair[0])), "")}


def _describe_model(md5: str) -> dict[str, Any]:
    versions = [f"{row['name']}/{row['version']}" for row in list_models() if row["md5"] == md5]
    aliases = [row["aliases"] for row in list_models() if row["md5"] == md5 and row["aliases"]]
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
    """Mark the runs of a version's models and data with its tag; gives how many."""
    import mlflow

    runs = find_family(tag).runs
    for run in runs:
        mlflow.MlflowClient().set_tag(run["run_id"], "gotorb.version", tag)
    return len(runs)
