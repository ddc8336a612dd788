"""Relations of a run, a model or a tag, joined by content (md5): data, runs, versions, commits.

Runs of results that the tracking store has not seen (of an earlier tag, pulled, or restored from DVC's cache) are made
from git and DVC: dvc.lock names the files by content, ``reports/*.json`` hold the numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import yaml

from gotorb.core import layout
from gotorb.core.settings import project_root
from gotorb.errors import TrackingError
from gotorb.tracking.contents import DVC_LOCK, FILE_TAGS, LABELS_TAG, STAMPS_TAG, cache_path, make_entry
from gotorb.tracking.contents import md5 as md5_of
from gotorb.tracking.delivery import MD5_TAG, STAGE_TAG
from gotorb.tracking.registry import is_registry_uri, list_models, load_version
from gotorb.tracking.runs import DATA_TAG, NETWORK_TAG, VERSION_TAG, Run, send_waiting, start_run
from gotorb.tracking.store import open_store, translated
from gotorb.tracking.trainings import judged, log_training, used_params
from gotorb.tracking.versions import commits_with, find_commit, list_tags, read_file, read_lock, tag_commit, tags_with
from gotorb.training.meta import read_meta

PAGE = 1000
VIEW, WORKFLOW = "gotorb", "workflowType=machine_learning"
"""Key of the view of the runs' table that MLflow's pages share, and their menu."""
COLUMNS = ("test/auc", "test/missed", "test/ece", "truth/auc", "injected/found", "injected/found_faint", "val/auc")
SHOWN = ("attributes.`Models`", "params.`model`", "params.`learning_rate`")
"""Columns of that table: metrics, the first of which sorts it, and others."""
RESTORED_TAG = "gotorb.restored"
DATASET = "data/dataset"
Pair = tuple[str, str]
"""md5 of a data set's csv and hdf5."""


@dataclass(frozen=True)
class Family:
    """Data, models and runs that belong together.

    Attributes
    ----------
    asked : str
        Where it was entered.
    data : tuple of dict
        Data sets: md5 of csv and of hdf5, digest where a run has it, git tags and newest commit that hold them.
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
    """Walk from one name to all that belongs to it.

    Parameters
    ----------
    name : str
        Run id, registered model (``models:/name/version``, ``models:/name@alias``), or git tag, branch or commit.

    Returns
    -------
    Family
        Data, models and runs.

    Raises
    ------
    TrackingError
        If it is none of these.
    """
    send_waiting()
    known = _all_runs()
    if is_registry_uri(name):
        models = {load_version(name).md5} - {""}
        data = _seen_by(models, known)
    elif (tags := _tags_of_run(name, known)) is not None:
        data = {pair} if (pair := _data_of(tags)) else set()
        models = {tags[MD5_TAG]} if MD5_TAG in tags else _trained_on(data, known)
    else:
        models, data = _in_version(name)
    return _describe(name, models, data, [run for run in known if _belongs(run.data.tags, models, data)])


def _belongs(tags: dict[str, str], models: set[str], data: set[Pair]) -> bool:
    """True for a run of one of the models, or of one of the data sets and of no model at all."""
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
    tags = _data_tags(lock)
    return set(_models_of(lock).values()), {pair} if (pair := _data_of(tags)) else set()


def _models_of(lock: dict[str, str]) -> dict[str, str]:
    """Network -> md5 of its file in a dvc.lock, sorted."""
    ours = {
        path: md5 for path, md5 in lock.items() if path.startswith("models/") and Path(path).name == layout.MODEL_H5
    }
    return {Path(path).parent.name: md5 for path, md5 in sorted(ours.items())}


def _data_tags(lock: dict[str, str]) -> dict[str, str]:
    return {tag: lock[f"{DATASET}/{name}"] for tag, name in FILE_TAGS.items() if f"{DATASET}/{name}" in lock}


def _all_runs() -> list[Any]:
    """All runs, the oldest first."""
    client, page = open_store(), None
    runs: list[Any] = []
    ids = [found.experiment_id for found in client.search_experiments()]
    while page != "":
        found = client.search_runs(ids, order_by=["attributes.start_time ASC"], max_results=PAGE, page_token=page)
        runs += found
        page = found.token or ""
    return runs


def _tags_of_run(run_id: str, runs: list[Any]) -> dict[str, str] | None:
    return next((dict(run.data.tags) for run in runs if run.info.run_id == run_id), None)


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
    return {"labels_md5": pair[0], "stamps_md5": pair[1], "digest": digest} | _in_git(*pair)


def _describe_model(md5: str, registered: list[dict[str, str]]) -> dict[str, Any]:
    ours = [row for row in registered if row["md5"] == md5]
    versions = [f"{row['name']}/{row['version']}" for row in ours]
    aliases = [alias for row in ours for alias in row["aliases"].split(", ") if alias]
    return {"md5": md5, "registered": versions, "aliases": aliases} | _in_git(md5)


def _in_git(*md5s: str) -> dict[str, Any]:
    return {"git_tags": tags_with(*md5s), "commit": next(iter(commits_with(*md5s)), "")}


def _describe_run(run: Any) -> dict[str, Any]:
    known, stage = run.info, run.data.tags.get(STAGE_TAG, "")
    return {"run_id": known.run_id, "name": known.run_name, "stage": stage, "status": known.status}


class Tagged(NamedTuple):
    """A version after it was tagged: its commit, the remote with its data ("" for none), number of runs marked."""

    commit: str
    remote: str
    n_runs: int


def tag_data(name: str, *, message: str) -> Tagged:
    """Tag the commit that is checked out, push its data and mark its runs; see `versions.tag_commit`.

    Parameters
    ----------
    name : str
        Of the tag.
    message : str
        Of the annotated tag.

    Returns
    -------
    Tagged
        Commit, remote and number of runs.
    """
    commit, remote = tag_commit(name, message)
    with translated(f"{name} is tagged, but its runs are not marked"):
        return Tagged(commit, remote, mark_runs(name))


def mark_runs(tag: str) -> int:
    """Mark the runs of a version's models and data with its tag, next to the tags they have.

    Parameters
    ----------
    tag : str
        Of git.

    Returns
    -------
    int
        Runs marked.
    """
    runs, client = find_family(tag).runs, open_store()
    for run in runs:
        marks = client.get_run(run["run_id"]).data.tags.get(VERSION_TAG, "")
        client.set_tag(run["run_id"], VERSION_TAG, ", ".join(sorted({tag, *filter(None, marks.split(", "))})))
    return len(runs)


def import_tags(*, name: str) -> list[str]:
    """Import every git tag that holds results; see `import_versions`.

    Parameters
    ----------
    name : str
        Of the experiment.

    Returns
    -------
    list of str
        Names of the runs made.
    """
    return import_versions([tag for tag in list_tags() if read_file(tag, DVC_LOCK) is not None], name=name)


def import_versions(revisions: Sequence[str], *, name: str) -> list[str]:
    """Make a train and an evaluate run for each model of each version that has none here.

    Parameters
    ----------
    revisions : sequence of str
        Tags, branches or commits.
    name : str
        Of the experiment (``promote.name``).

    Returns
    -------
    list of str
        Names of the runs made.
    """
    send_waiting()
    return [made for revision in revisions for made in _Version(revision, read_lock(revision)).restore(name)]


class _Version(NamedTuple):
    """A version whose runs are made from git and DVC."""

    revision: str
    lock: dict[str, str]

    def restore(self, experiment: str) -> list[str]:
        """Make the runs that are missing; names of those made."""
        made = []
        for network, md5 in _models_of(self.lock).items():
            if not _known(md5, "train"):
                self._restore_training(network, md5, experiment)
                made.append(f"train {network} ({self.revision})")
            report = read_file(self.revision, f"reports/{network}.json")
            if report is not None and not _known(md5, "evaluate"):
                self._restore_evaluation(network, md5, json.loads(report), experiment)
                made.append(f"evaluate {network} ({self.revision})")
        return made

    def _restore_training(self, network: str, md5: str, experiment: str) -> None:
        found, described = self._find(network, layout.MODEL_H5), self._find(network, layout.META_HKL)
        meta = {} if described is None else read_meta(described)
        run = self._begin("train", network, md5, experiment, used_params(meta))
        if found is not None and meta:
            log_training(run, found, meta, network=network, curves=True)
        elif found is not None:
            run.log_model(found, tags={"network": network})
        run.finish("FINISHED")

    def _find(self, network: str, name: str) -> Path | None:
        """A model's file in DVC's cache or in this checkout."""
        wanted = self.lock.get(f"models/{network}/{name}", "none")
        here = project_root() / "models" / network / name
        return next((path for path in (cache_path(wanted), here) if path.exists() and md5_of(path) == wanted), None)

    def _restore_evaluation(self, network: str, md5: str, report: dict[str, Any], experiment: str) -> None:
        values = judged(report, self._report("truth"), self._report("injections"), network)
        run = self._begin("evaluate", network, md5, experiment, {"network": network})
        run.log_metrics({"test": values["test"]})
        run.log_judged(md5, values, child=True)
        run.log_json(report, layout.METRICS_JSON)
        run.finish("FINISHED")

    def _report(self, name: str) -> dict[str, Any]:
        text = read_file(self.revision, f"reports/{name}.json")
        return json.loads(text) if text else {}

    def _begin(self, stage: str, network: str, md5: str, experiment: str, used: dict[str, Any]) -> Run:
        tags = {
            STAGE_TAG: stage, RESTORED_TAG: "true", VERSION_TAG: self.revision, MD5_TAG: md5, NETWORK_TAG: network,
            "gotorb.git_revision": find_commit(self.revision), **_data_tags(self.lock),
        }  # fmt: skip
        run = start_run(experiment, f"{stage} {network}", tags)
        run.about = f"{stage} of {network} in version {self.revision}, recorded from git and DVC."
        run.describe()
        params = yaml.safe_load(read_file(self.revision, layout.PARAMS_YAML) or "{}")
        run.log_params({"seed": params.get("seed")} | used)
        names = FILE_TAGS.values()
        files = {name: self.lock[f"{DATASET}/{name}"] for name in names if f"{DATASET}/{name}" in self.lock}
        if files and (card := self._card()):
            run.log_entry(make_entry(DATASET, files, card), context="test" if stage == "evaluate" else "training")
            run.set_tags({DATA_TAG: card["digest"]})
        return run

    def _card(self) -> dict[str, Any]:
        """Card of the data set from DVC's cache; where it is missing there, its digest alone; {} without that."""
        card = cache_path(self.lock.get(f"{DATASET}/{layout.CARD_JSON}", "none"))
        if card.is_file():
            return json.loads(card.read_text())
        promotion = read_file(self.revision, layout.PROMOTION_JSON)
        return {"digest": json.loads(promotion)["data_digest"]} if promotion else {}


def _known(md5: str, stage: str) -> bool:
    """True if some run of that stage has the model."""
    client = open_store()
    ids = [found.experiment_id for found in client.search_experiments()]
    wanted = f"tags.`{MD5_TAG}` = '{md5}' and tags.`{STAGE_TAG}` = '{stage}' and attributes.status = 'FINISHED'"
    return bool(client.search_runs(ids, wanted, max_results=1))


def page_addresses(name: str) -> list[str]:
    """Parts of addresses, after the server's, of MLflow's pages that compare the trainings of an experiment.

    Parameters
    ----------
    name : str
        Of the experiment.

    Returns
    -------
    list of str
        ``#/...``: the table of trainings with the headline metrics and, of two networks or more, the page that compares
        the newest training of each.
    """
    client = open_store()
    where = client.get_experiment_by_name(name)
    if where is None:
        return ["#/experiments"]
    view = {
        "searchFilter": f"tags.`{STAGE_TAG}` = 'train'", "orderByKey": f"metrics.`{COLUMNS[0]}`", "orderByAsc": False,
        "selectedColumns": [*SHOWN, *(f"metrics.`{column}`" for column in COLUMNS)],
    }  # fmt: skip
    client.set_experiment_tag(where.experiment_id, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))
    table = f"#/experiments/{where.experiment_id}/runs?viewStateShareKey={VIEW}&{WORKFLOW}"
    wanted = f"{view['searchFilter']} and attributes.status = 'FINISHED'"
    found = client.search_runs([where.experiment_id], wanted, order_by=["attributes.start_time ASC"])
    newest = {run.data.tags.get(NETWORK_TAG, run.info.run_name): run.info.run_id for run in found}
    both = {"runs": json.dumps([*newest.values()]), "experiments": json.dumps([where.experiment_id])}
    return [table, f"#/compare-runs?{urlencode(both)}&{WORKFLOW}"] if len(newest) > 1 else [table]
