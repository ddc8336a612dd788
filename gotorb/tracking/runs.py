"""One tracked run for each stage: parameters, revision, data, wall time, metrics, figures, and failures.

A run writes its journal first and hands each event on to the tracking store. Where that is a server that is down, or
goes down, the run goes on and the journal waits for ``gotorb sync``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

import gotorb
from gotorb.errors import GotorbError, TrackingError
from gotorb.params import Params, flatten
from gotorb.settings import project_root
from gotorb.tracking.carrier import Carrier, Courier, Messenger
from gotorb.tracking.delivery import Delivery
from gotorb.tracking.journal import Journal, find_journals
from gotorb.tracking.lineage import describe_data, md5
from gotorb.tracking.store import check_store, journals_dir, open_store

log = logging.getLogger(__name__)
HEADLINE = ("auc", "average_precision", "brier", "ece", "threshold")
ERRORS, HEADLINE_ERRORS = "at_threshold", ("fnr", "fpr", "mme")
"""Numbers of an evaluation report by which runs are compared; the rest is in the report's json."""
COURIERS_S = 120.0
"""Seconds that a question to the store waits for couriers under way."""
STAGE_TAG, MD5_TAG, DATA_TAG = "gotorb.stage", "gotorb.model_md5", "gotorb.data_digest"
EXPERIMENT_TAG = "gotorb.dvc_experiment"
VERSION_TAG = "gotorb.version"
"""Git tags whose data or model a run made or used."""


class Run:
    """A run in progress; every method only records.

    Parameters
    ----------
    journal : Journal
        Where its events are kept until the tracking store has them.
    carrier : Carrier
        Brings them there.
    """

    def __init__(self, journal: Journal, carrier: Carrier) -> None:
        self.journal, self._carrier = journal, carrier

    @property
    def run_id(self) -> str:
        """The tracking store's name of the run; "" while it is not known."""
        return self._carrier.run_id

    def record(self, kind: str, **content: Any) -> None:
        """Write an event to the journal and hand it on."""
        self.journal.add(kind, **content)
        self._carrier.deliver()

    def finish(self, status: str) -> None:
        """End the run, and hand on what is left."""
        self.journal.add("end", status=status)
        self._carrier.finish()

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters."""
        self.record("params", values={name: str(value) for name, value in values.items() if value is not None})

    def log_metrics(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record the finite numbers of a (nested) mapping; other values are left out."""
        numbers = {
            name.replace(".", "/"): float(value)
            for name, value in flatten(dict(values)).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        self.record("metrics", values=numbers, step=step)

    def log_headlines(self, reports: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the few numbers of each evaluation report that make runs comparable, as ``<report>/<number>``."""
        self.log_metrics({name: headlines(report) for name, report in reports.items()})

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record one epoch's metrics."""
        self.log_metrics({f"epoch/{name}": value for name, value in values.items()}, step=epoch)

    def log_plots(self, paths: Iterable[Path]) -> None:
        """Record pictures as ``plots/<name>``."""
        for path in paths:
            self.record("file", path=self.journal.keep_file(path), folder="plots")

    def log_json(self, content: Mapping[str, Any], name: str) -> None:
        """Record a mapping as a json artifact."""
        path = self.journal.place(name)
        path.write_text(json.dumps(dict(content), indent=2, sort_keys=True), encoding="utf-8")
        self.record("file", path=str(path.relative_to(self.journal.folder)), folder="")

    def log_data(self, data_dir: Path, card: Mapping[str, Any], *, context: str) -> None:
        """Record which data set, by content, the run made or used."""
        data, tags = describe_data(data_dir, card)
        self.record("data", data=data, context=context)
        self.set_tags(tags | {DATA_TAG: card["digest"]})
        self.log_json(card, "data_card.json")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags."""
        self.record("tags", values={name: str(value) for name, value in tags.items()})

    def log_model(self, model_path: Path, *, tags: Mapping[str, str]) -> None:
        """Record a model file: raw stamps in, scores out; see `tracking.flavor`."""
        self.set_tags({MD5_TAG: md5(model_path)})
        self.record("model", path=self.journal.keep_file(model_path), tags=dict(tags))


def headlines(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers of an evaluation report by which runs are compared."""
    errors = {key: report.get(ERRORS, {}).get(key) for key in HEADLINE_ERRORS}
    return {key: report.get(key) for key in HEADLINE} | errors


@contextmanager
def track_stage(
    stage: str, params: Params, *, name: str | None = None, experiment: str = "", beside: bool = False
) -> Iterator[Run]:
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
    beside : bool
        Whether a process of its own talks to the tracking store, so that the stage need not wait for MLflow. It goes
        on after the stage (`wait_for_couriers`), and the run's `run_id` is not known here.
    """
    run, started = _start(stage, params, name or stage, experiment, Courier if beside else Messenger), time.monotonic()
    status = "FAILED"
    try:
        run.log_params(params.flat())
        yield run
        run.log_metrics({"wall_seconds": time.monotonic() - started})
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.finish(status)


def _start(stage: str, params: Params, name: str, experiment: str, carry: Callable[[Journal], Carrier]) -> Run:
    check_store()
    journal = Journal.new(journals_dir())
    run = Run(journal, carry(journal))
    known = {
        STAGE_TAG: stage,
        "gotorb.code_version": gotorb.__version__,
        "gotorb.git_revision": git_revision(),
        "gotorb.source": params.label.source,
    }
    where = f"{params.promote.name}{experiment}"
    run.record("start", experiment=where, name=name, tags=_who() | _experiment() | known)
    return run


def _who() -> dict[str, str]:
    import getpass

    try:
        return {"mlflow.user": getpass.getuser(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "gotorb"}
    except (OSError, KeyError):
        return {}


def in_experiment() -> bool:
    """Whether this is a stage of a DVC experiment (``dvc exp run``)."""
    return bool(os.environ.get("DVC_EXP_NAME"))


def _experiment() -> dict[str, str]:
    """Name of the DVC experiment that runs the stage, if one does."""
    found = os.environ.get("DVC_EXP_NAME", "")
    return {EXPERIMENT_TAG: found} if found else {}


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
    wanted = f"tags.`{MD5_TAG}` = '{md5_of_model}' and tags.`{STAGE_TAG}` = 'train' and attributes.status = 'FINISHED'"
    runs = client.search_runs([where.experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    return runs[0].info.run_id if runs else None


def sync_runs() -> int:
    """Send what journals hold to the tracking store; gives how many runs these were.

    One that cannot be sent does not keep the others back.

    Raises
    ------
    TrackingError
        If any could not be sent.
    """
    failed, n_sent = [], 0
    wait_for_couriers()
    with FileLock(journals_dir().parent / ".sync.lock"):
        for journal in waiting_journals():
            try:
                journal.close_if_orphaned()
                Delivery(journal).send()
                journal.finish()
                n_sent += 1
            except GotorbError as error:
                failed.append(f"{journal.folder}: {error}")
    if failed:
        raise TrackingError(f"{n_sent} runs sent, {len(failed)} not ({failed[0]}); mend that, then `gotorb sync` again")
    return n_sent


def send_waiting() -> None:
    """Send what waits before the store is asked what it knows; a failure is told, and no more."""
    wait_for_couriers()
    try:
        if waiting_journals():
            sync_runs()
    except TrackingError as error:
        log.warning("%s", error)


def wait_for_couriers() -> None:
    """Until the couriers of runs that have ended are back, or have had their time."""
    end = time.monotonic() + COURIERS_S
    while any(journal.is_underway for journal in find_journals(journals_dir())) and time.monotonic() < end:
        time.sleep(0.1)


def waiting_journals() -> list[Journal]:
    """Journals that nobody writes any more, with something that the tracking store lacks."""
    return [journal for journal in find_journals(journals_dir()) if not journal.owner_lives]
