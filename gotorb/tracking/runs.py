"""One tracked run for each stage: parameters, revision, data, wall time, metrics, figures, and failures.

A run writes its journal first. A thread of the same process brings each event to the tracking store, so the stage waits
neither for the import of MLflow nor for a server, and the curves of a training grow while it runs. What is left at the
end of the stage is sent then. If the server is down, or goes down, the stage continues and the journal waits for
``gotorb sync`` or the next stage.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

import gotorb
from gotorb.core.params import Params, flatten
from gotorb.core.settings import project_root
from gotorb.errors import GotorbError, TrackingError
from gotorb.tracking.contents import describe_data, md5
from gotorb.tracking.journal import TRIAL_STATUS, Delivery, Journal, find_journals
from gotorb.tracking.store import answers, check_store, first_line, journals_dir, open_store

if TYPE_CHECKING:
    from gotorb.training.trials import Trial

log = logging.getLogger(__name__)
HEADLINE = ("auc", "average_precision", "brier", "ece", "threshold")
ERRORS, HEADLINE_ERRORS = "at_threshold", ("fnr", "fpr", "mme")
"""Numbers of an evaluation report by which runs are compared; the rest is in the report's json."""
STAGE_TAG, MD5_TAG, DATA_TAG = "gotorb.stage", "gotorb.model_md5", "gotorb.data_digest"
EXPERIMENT_TAG = "gotorb.dvc_experiment"
VERSION_TAG = "gotorb.version"
"""Git tags whose data or model a run made or used."""
COMPLETED = "completed"


class _Sender:
    """Sends a journal from a thread of its own; after a failure the next try is at the end of the run.

    The thread is a daemon, so that a process that is interrupted twice ends; the journal then keeps the rest.
    """

    def __init__(self, journal: Journal) -> None:
        self.delivery, self._live, self._ended, self._news = Delivery(journal), True, False, Event()
        self._thread = Thread(target=self._work, name=f"record {journal.key}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that the journal has an event more."""
        self._news.set()

    def finish(self) -> None:
        """Send the rest, also after a failure, and wait until this is done."""
        self._ended = True
        self.wake()
        self._thread.join()
        self.delivery.journal.finish()
        self.delivery.journal.release()

    def _work(self) -> None:
        if waiting_journals() and answers():
            send_waiting(patience_s=0)
        ended = False
        while not ended:
            self._news.wait()
            self._news.clear()
            ended = self._ended  # read first: what came before the end is sent below
            if self._live or ended:
                self._send()

    def _send(self) -> None:
        try:
            self.delivery.send()
        except Exception as error:  # also of a file that is gone: a record is not worth a training
            self._live = False
            where = self.delivery.journal.folder
            log.warning("%s; the run is recorded in %s, send it later with `gotorb sync`", first_line(error), where)


class Run:
    """A run in progress; every method only records.

    Parameters
    ----------
    journal : Journal
        Where its events are kept until the tracking store has them.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal, self._sender = journal, _Sender(journal)

    @property
    def run_id(self) -> str:
        """The tracking store's name of the run, known when the run has ended; "" if the store was not reached."""
        return self._sender.delivery.run_id

    def record(self, kind: str, **content: Any) -> None:
        """Write an event to the journal, for the thread to send.

        Parameters
        ----------
        kind : str
            One of `journal.SENDERS`.
        **content
            Of the event; plain values.
        """
        self.journal.add(kind, **content)
        self._sender.wake()

    def finish(self, status: str) -> None:
        """End the run and send the rest of it.

        Parameters
        ----------
        status : str
            FINISHED, FAILED or KILLED.
        """
        self.journal.add("end", status=status)
        self._sender.finish()

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters.

        Parameters
        ----------
        values : mapping
            None is left out.
        """
        self.record("params", values={name: str(value) for name, value in values.items() if value is not None})

    def log_metrics(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record the finite numbers of a (nested) mapping; other values are left out.

        Parameters
        ----------
        values : mapping
        step : int, optional
        """
        numbers = {
            name.replace(".", "/"): float(value)
            for name, value in flatten(dict(values)).items()
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        }
        self.record("metrics", values=numbers, step=step)

    def log_headlines(self, reports: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the few numbers of each evaluation report that make runs comparable, as ``<report>/<number>``.

        Parameters
        ----------
        reports : mapping
            Metrics by name of the report.
        """
        self.log_metrics({name: _headlines(report) for name, report in reports.items()})

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record one epoch's metrics.

        Parameters
        ----------
        epoch : int
        values : mapping of str to float
        """
        self.log_metrics({f"epoch/{name}": value for name, value in values.items()}, step=epoch)

    def log_plots(self, paths: Iterable[Path]) -> None:
        """Record pictures as ``plots/<name>``.

        Parameters
        ----------
        paths : iterable of Path
        """
        for path in paths:
            self.record("file", path=self.journal.keep_file(path), folder="plots")

    def log_json(self, content: Mapping[str, Any], name: str) -> None:
        """Record a mapping as a json artifact.

        Parameters
        ----------
        content : mapping
        name : str
            Of the file.
        """
        path = self.journal.place(name)
        path.write_text(json.dumps(dict(content), indent=2, sort_keys=True), encoding="utf-8")
        self.record("file", path=str(path.relative_to(self.journal.folder)), folder="")

    def log_data(self, data_dir: Path, card: Mapping[str, Any], *, context: str) -> None:
        """Record the data set that the run made or used, by its content.

        Parameters
        ----------
        data_dir : Path
        card : mapping
            From `dataset.card.make_card`.
        context : str
            Use of the data set.
        """
        data, tags = describe_data(data_dir, card)
        self.record("data", data=data, context=context)
        self.set_tags(tags | {DATA_TAG: card["digest"]})
        self.log_json(card, "data_card.json")

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags.

        Parameters
        ----------
        tags : mapping
        """
        self.record("tags", values={name: str(value) for name, value in tags.items()})

    def log_model(self, model_path: Path, *, tags: Mapping[str, str]) -> None:
        """Record a model file: raw stamps in, scores out; see `tracking.mlflow_model`.

        Parameters
        ----------
        model_path : Path
        tags : mapping of str to str
        """
        self.set_tags({MD5_TAG: md5(model_path)})
        self.record("model", path=self.journal.keep_file(model_path), tags=dict(tags))

    def log_trial(self, trial: Trial) -> None:
        """Record a finished trial of a tuning as a nested run, once, however often the tuning was interrupted.

        Parameters
        ----------
        trial : Trial
            As the tuning hands it on.
        """
        params = {**trial.values, "parameters": trial.parameters, "continues": trial.continues}
        single = {"epochs": trial.epochs, "objective": trial.objective}
        self.record(
            "child", name=trial.name, tuning=trial.tuning, number=trial.number, message=trial.message,
            status=TRIAL_STATUS[trial.status == COMPLETED], duration_ms=int(1000 * trial.seconds),
            params={name: str(value) for name, value in params.items() if value is not None},
            epochs={f"epoch/{name}": list(values) for name, values in trial.history.items()},
            metrics={name: float(value) for name, value in single.items() if value is not None},
        )  # fmt: skip


def _headlines(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers of an evaluation report by which runs are compared."""
    errors = {key: report.get(ERRORS, {}).get(key) for key in HEADLINE_ERRORS}
    return {key: report.get(key) for key in HEADLINE} | errors


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

    Yields
    ------
    Run
        In progress.

    Raises
    ------
    TrackingError
        If the store is a file that cannot be used; a server that is down raises nothing.
    """
    check_store()
    started, status = time.monotonic(), "FAILED"
    known = {"gotorb.code_version": gotorb.__version__, "gotorb.source": params.label.source}
    tags = _who() | _experiment() | known | {STAGE_TAG: stage, "gotorb.git_revision": _git_revision()}
    run = start_run(f"{params.promote.name}{experiment}", name or stage, tags)
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


def start_run(experiment: str, name: str, tags: Mapping[str, str]) -> Run:
    """Begin a run; `Run.finish` ends it.

    Parameters
    ----------
    experiment, name : str
        Of the run.
    tags : mapping
        First tags.

    Returns
    -------
    Run
        In progress.
    """
    run = Run(Journal.new(journals_dir()))
    run.record("start", experiment=experiment, name=name, tags=dict(tags))
    return run


def _who() -> dict[str, str]:
    import getpass

    try:
        return {"mlflow.user": getpass.getuser(), "mlflow.source.type": "LOCAL", "mlflow.source.name": "gotorb"}
    except (OSError, KeyError):
        return {}


def in_experiment() -> bool:
    """True in a stage of a DVC experiment (``dvc exp run``)."""
    return bool(os.environ.get("DVC_EXP_NAME"))


def _experiment() -> dict[str, str]:
    """Name of the DVC experiment that runs the stage, if one does."""
    found = os.environ.get("DVC_EXP_NAME", "")
    return {EXPERIMENT_TAG: found} if found else {}


def _git_revision() -> str:
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
    """Find the newest finished run that logged a model.

    Parameters
    ----------
    md5_of_model : str
        Of the model file.
    experiment : str
        Name of the experiment.

    Returns
    -------
    str or None
        Its id.
    """
    client = open_store()
    where = client.get_experiment_by_name(experiment)
    if where is None:
        return None
    wanted = f"tags.`{MD5_TAG}` = '{md5_of_model}' and tags.`{STAGE_TAG}` = 'train' and attributes.status = 'FINISHED'"
    runs = client.search_runs([where.experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    return str(runs[0].info.run_id) if runs else None


def sync_runs(*, patience_s: float = -1) -> int:
    """Send what journals of ended or interrupted runs hold to the tracking store.

    One that cannot be sent does not keep the others back.

    Parameters
    ----------
    patience_s : float
        Seconds to wait for another process that does the same; for ever when negative.

    Returns
    -------
    int
        Runs sent.

    Raises
    ------
    TrackingError
        If any could not be sent.
    filelock.Timeout
        If the other process takes longer.
    """
    failed, n_sent = [], 0
    with FileLock(journals_dir().parent / ".sync.lock", timeout=patience_s):
        for journal in waiting_journals():
            try:
                journal.close_if_orphaned()
                Delivery(journal).send()
                journal.finish()
                n_sent += 1
            except GotorbError as error:
                failed.append(f"{journal.folder}: {error}")
    if failed:
        raise TrackingError(f"{n_sent} runs sent, {len(failed)} not ({failed[0]}); fix that, then `gotorb sync` again")
    return n_sent


def send_waiting(*, patience_s: float = -1) -> None:
    """Send waiting journals before the store is read; a failure is only a warning.

    Parameters
    ----------
    patience_s : float
        As in `sync_runs`; another process that takes longer is left to its work.
    """
    try:
        if waiting_journals():
            sync_runs(patience_s=patience_s)
    except TrackingError as error:
        log.warning("%s", error)
    except Timeout:
        log.info("another process sends the waiting runs")


def waiting_journals() -> list[Journal]:
    """Journals of ended processes with events that are missing in the tracking store."""
    return [journal for journal in find_journals(journals_dir()) if not journal.owner_lives]
