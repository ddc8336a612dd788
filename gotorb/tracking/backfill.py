"""Runs of results that this tracking store has not seen: restored from DVC's cache, pulled, or of an earlier tag.

Everything comes from git and DVC: dvc.lock names the files by content, reports/*.json hold the numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from gotorb import layout
from gotorb.params import flatten
from gotorb.settings import project_root
from gotorb.tracking.carrier import Messenger
from gotorb.tracking.journal import Journal
from gotorb.tracking.lineage import LABELS_TAG, STAMPS_TAG, cache_path, make_entry
from gotorb.tracking.lineage import md5 as md5_of
from gotorb.tracking.revisions import find_commit, list_tags, read_file, read_lock
from gotorb.tracking.runs import DATA_TAG, MD5_TAG, STAGE_TAG, VERSION_TAG, Run, send_waiting
from gotorb.tracking.store import journals_dir, open_store

RESTORED_TAG = "gotorb.restored"
DATASET = "data/dataset"
FILES = {LABELS_TAG: layout.LABELS_CSV, STAMPS_TAG: layout.STAMPS_H5}


def import_versions(revisions: list[str], *, name: str) -> list[str]:
    """Make a train and an evaluate run for each model of each version that has none here.

    Parameters
    ----------
    revisions : list of str
        Tags, branches or commits.
    name : str
        Of the experiment (``promote.name``).

    Returns
    -------
    list of str
        Names of the runs made.
    """
    send_waiting()
    return [made for revision in revisions for made in _import(revision, name)]


def import_tags(*, name: str) -> list[str]:
    """The same for every git tag that holds results."""
    return import_versions([tag for tag in list_tags() if read_file(tag, "dvc.lock") is not None], name=name)


def _import(revision: str, experiment: str) -> list[str]:
    lock, made = read_lock(revision), []
    for path, md5 in sorted(lock.items()):
        if not (path.startswith("models/") and path.endswith(f"/{layout.MODEL_H5}")):
            continue
        network = Path(path).parent.name
        if not _known(md5, "train"):
            _restore_training(revision, lock, network, md5, experiment)
            made.append(f"train {network} ({revision})")
        report = read_file(revision, f"reports/{network}.json")
        if report is not None and not _known(md5, "evaluate"):
            _restore_evaluation(revision, lock, network, md5, json.loads(report), f"{experiment}-evaluation")
            made.append(f"evaluate {network} ({revision})")
    return made


def _known(md5: str, stage: str) -> bool:
    """Whether some run of that stage has the model."""
    import mlflow

    open_store()
    client = mlflow.MlflowClient()
    ids = [found.experiment_id for found in client.search_experiments()]
    wanted = f"tags.`{MD5_TAG}` = '{md5}' and tags.`{STAGE_TAG}` = '{stage}' and attributes.status = 'FINISHED'"
    return bool(client.search_runs(ids, wanted, max_results=1))


def _begin(revision: str, lock: dict[str, str], stage: str, network: str, md5: str, experiment: str) -> Run:
    journal, card = Journal.new(journals_dir()), _card(revision, lock)
    run = Run(journal, Messenger(journal))
    tags = {
        STAGE_TAG: stage, RESTORED_TAG: "true", VERSION_TAG: revision, MD5_TAG: md5, "gotorb.network": network,
        "gotorb.git_revision": find_commit(revision), **_data_tags(lock),
    }  # fmt: skip
    run.record("start", experiment=experiment, name=f"{stage} {network}", tags=tags)
    params = yaml.safe_load(read_file(revision, layout.PARAMS_YAML) or "{}")
    run.log_params(flatten(params))
    files = {name: lock[f"{DATASET}/{name}"] for name in FILES.values() if f"{DATASET}/{name}" in lock}
    if files and card:
        context = "test" if stage == "evaluate" else "training"
        run.record("data", data=make_entry(DATASET, files, card), context=context)
        run.set_tags({DATA_TAG: card["digest"]})
    return run


def _data_tags(lock: dict[str, str]) -> dict[str, str]:
    return {tag: lock[f"{DATASET}/{name}"] for tag, name in FILES.items() if f"{DATASET}/{name}" in lock}


def _card(revision: str, lock: dict[str, str]) -> dict[str, Any]:
    """The data set's card from DVC's cache; where that lacks it, its digest alone; {} where nothing tells it."""
    card = cache_path(lock.get(f"{DATASET}/{layout.CARD_JSON}", "none"))
    if card.is_file():
        return json.loads(card.read_text())
    promotion = read_file(revision, layout.PROMOTION_JSON)
    return {"digest": json.loads(promotion)["data_digest"]} if promotion else {}


def _restore_training(revision: str, lock: dict[str, str], network: str, md5: str, experiment: str) -> None:
    run = _begin(revision, lock, "train", network, md5, experiment)
    here = project_root() / "models" / network / layout.MODEL_H5
    for path in (cache_path(md5), here):
        if path.exists() and md5_of(path) == md5:
            run.record("model", path=run.journal.keep_file(path, layout.MODEL_H5), tags={"network": network})
            break
    run.finish("FINISHED")


def _restore_evaluation(
    revision: str, lock: dict[str, str], network: str, md5: str, report: dict[str, Any], experiment: str
) -> None:
    run = _begin(revision, lock, "evaluate", network, md5, experiment)
    run.log_headlines({"test": report, "validation": report.get("validation", {})})
    run.log_json(report, layout.METRICS_JSON)
    run.finish("FINISHED")
