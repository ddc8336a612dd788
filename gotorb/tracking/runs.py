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
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

import gotorb
from gotorb.core import layout
from gotorb.core.files import FULL_DISK
from gotorb.core.logs import first_line
from gotorb.core.params import Params, flatten
from gotorb.core.settings import project_root
from gotorb.errors import GotorbError, TrackingError
from gotorb.evaluation.metrics import fpr_name
from gotorb.tracking.contents import describe_data, md5
from gotorb.tracking.delivery import HERE, MD5_TAG, NOTE_TAG, STAGE_TAG, TRIAL_STATUS, Delivery, find_training
from gotorb.tracking.journal import Journal, find_journals
from gotorb.tracking.store import answers, check_project, check_store, journals_dir, open_store

if TYPE_CHECKING:
    from gotorb.training.trials import Trial

log = logging.getLogger(__name__)
HEADLINE, ERRORS = ("auc", "brier", "ece"), ("fnr", "fpr")
"""Numbers of an evaluation report by which runs are compared, the second at its threshold; the rest is in its json."""
DATA_TAG = "gotorb.data_digest"
EXPERIMENT_TAG = "gotorb.dvc_experiment"
VERSION_TAG = "gotorb.version"
"""Git tags whose data or model a run made or used."""
NETWORK_TAG = "gotorb.network"
COMPLETED = "completed"
BETWEEN_NAMES, REFUSED = re.compile(r"\.(?!\d)|(?<!\d)\."), re.compile(r" ?[^/\w.\- :]+")
"""Dots of a name but those of numbers, and what MLflow refuses in one."""
MISSED_FPR = 0.01
"""False-positive rate of the headline number ``missed``."""


class _Sender:
    """Sends a journal from a thread of its own; after a failure the next try is at the end of the run.

    The thread is a daemon, so that a process that is interrupted twice ends; the journal then keeps the rest.
    """

    def __init__(self, journal: Journal) -> None:
        self.delivery, self._live, self._ended, self._news = Delivery(journal), True, False, Event()
        self._given_up = False
        self._thread = Thread(target=self._work, name=f"record {journal.key}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that the journal has an event more."""
        self._news.set()

    def finish(self, *, whole: bool) -> None:
        """Send the rest, also after a failure, and wait for it; a journal that was sent completely is removed."""
        self._ended = True
        self.wake()
        self._thread.join()
        if whole:
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
            if self._live or (ended and not self._given_up):
                self._send()

    def _send(self) -> None:
        try:
            self.delivery.send()
        except Exception as error:  # also of a file that is gone: a record must not cost a training
            self._live, self._given_up = False, self._ended  # what failed at the end fails again immediately
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
        self._unwritten: list[Callable[[], None]] = []
        self._told, self.stage, self.about = False, "", ""
        self.data: dict[str, str] = {}

    @property
    def run_id(self) -> str:
        """Run id of the tracking store, known when the run has ended; "" if the store was not reached."""
        return self._sender.delivery.run_id

    def record(self, kind: str, *, file: Path | str | None = None, file_name: str = "", **content: Any) -> None:
        """Write an event to the journal, for the thread to send; on a full disk it is tried again with the next event.

        Parameters
        ----------
        kind : str
            One of `delivery.SENDERS`.
        file : Path or str, optional
            File of the event, copied into the journal; or its text.
        file_name : str
            Name of the copy, where it is another.
        **content
            Of the event; plain values.
        """
        content = {"time_ms": time.time_ns() // 1_000_000} | content
        self._unwritten.append(lambda: self._write(kind, file, file_name, content))
        self._write_down()

    def _write(self, kind: str, file: Path | str | None, file_name: str, content: dict[str, Any]) -> None:
        kept = {} if file is None else {"path": self.journal.keep_file(file, file_name)}
        self.journal.add(kind, **content | kept)

    def _write_down(self) -> None:
        try:
            while self._unwritten:
                self._unwritten[0]()
                self._unwritten.pop(0)
        except OSError as error:
            if error.errno not in FULL_DISK:
                self._unwritten.pop(0)
                raise
            if not self._told:
                log.warning("%s takes no more of the run's record (%s); free some space", self.journal.folder, error)
            self._told = True
        self._sender.wake()

    def finish(self, status: str) -> None:
        """End the run and send the rest of it.

        Parameters
        ----------
        status : str
            FINISHED, FAILED or KILLED.
        """
        self.record("end", status=status)
        if self._unwritten:
            log.warning("the disk is full: %d events of the run are lost", len(self._unwritten))
        self._sender.finish(whole=not self._unwritten)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Record parameters, nested ones by dotted names.

        Parameters
        ----------
        values : mapping
            None is left out; functions go by their names.
        """
        self.record("params", values=flat_params(values))

    def log_metrics(self, values: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record the finite numbers of a (nested) mapping; other values are left out.

        Parameters
        ----------
        values : mapping
        step : int, optional
        """
        self.record("metrics", values=flat_metrics(values), step=step)

    def describe(self, rows: Mapping[str, Any] | None = None, *, link: str = "files") -> None:
        """Write the run's description: its sentence, a small table, a link to its files.

        Parameters
        ----------
        rows : mapping, optional
            Table of two columns.
        link : str
            Text of the link.
        """
        table = "".join(f"\n| {name} | {_shown(value)} |" for name, value in (rows or {}).items())
        table = f"\n\n| | |\n|---|---|{table}" if table else ""
        self.set_tags({NOTE_TAG: f"{self.about} [{link}]({HERE}/artifacts){table}"})

    def log_judged(self, digest: str, values: Mapping[str, Mapping[str, Any]], *, child: bool = False) -> None:
        """Record metrics of a model: with its training's run, and with the model by data set.

        Parameters
        ----------
        digest : str
            md5 of the model file.
        values : mapping
            Rows (``test``, ``truth``, ``injected``) -> metrics.
        child : bool
            This run evaluates only that model, and becomes a child of its training's run.
        """
        self.record(
            "judged", md5=digest, values=flat_metrics(values), data=self.data, child=child, stage=self.stage
        )  # fmt: skip

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
            self.record("file", file=Path(path), folder="plots")

    def log_file(self, path: Path) -> None:
        """Record a file, such as a page, as an artifact.

        Parameters
        ----------
        path : Path
        """
        self.record("file", file=Path(path), folder="")

    def log_json(self, content: Mapping[str, Any], name: str) -> None:
        """Record a mapping as a json artifact.

        Parameters
        ----------
        content : mapping
        name : str
            Of the file.
        """
        text = json.dumps(dict(content), indent=2, sort_keys=True)
        self.record("file", file=text, file_name=name, folder="")

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
        self.log_entry(data, context=context)
        self.log_params({"data_digest": card["digest"]})
        self.set_tags(tags | {DATA_TAG: card["digest"]})
        self.log_json(card, "data_card.json")

    def log_entry(self, data: Mapping[str, str], *, context: str) -> None:
        """Record a data set, which metrics of models are measured on from now on.

        Parameters
        ----------
        data : mapping
            From `contents.make_entry`.
        context : str
            Use of the data set.
        """
        self.record("data", data=dict(data), context=context)
        self.data = {"name": data["name"], "digest": data["digest"]}

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags.

        Parameters
        ----------
        tags : mapping
        """
        self.record("tags", values={name: str(value) for name, value in tags.items()})

    def log_model(
        self, model_path: Path, *, tags: Mapping[str, str], params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None, step: int = 0,
    ) -> None:  # fmt: skip
        """Record a model file: raw stamps in, scores out; see `tracking.mlflow_model`.

        Parameters
        ----------
        model_path : Path
            h5 file; objects in DVC's cache, which have no suffix, too.
        tags : mapping of str to str
            Kept with the model; the one named network is its name.
        params : mapping, optional
            Of its training.
        metrics : mapping, optional
            Final metrics, of the run and of the model on the run's data set.
        step : int
            Epoch that they belong to.
        """
        named = {MD5_TAG: md5(model_path)} | ({NETWORK_TAG: tags["network"]} if "network" in tags else {})
        self.set_tags(named)
        self.record(
            "model", file=Path(model_path), file_name=layout.MODEL_H5, tags=dict(tags), step=step, data=self.data,
            params=flat_params(params or {}), metrics=flat_metrics(metrics or {}),
        )  # fmt: skip

    def log_trial(self, trial: Trial) -> None:
        """Record a finished trial of a tuning as a nested run, once, however often the tuning was interrupted.

        Parameters
        ----------
        trial : Trial
            As the tuning hands it on.
        """
        single = {"epochs": trial.epochs, "objective": trial.objective, "n_parameters": trial.parameters or None}
        best = {} if trial.best_epoch is None else best_epoch(trial.history, trial.best_epoch)
        self.record(
            "child", name=trial.name, tuning=trial.tuning, number=trial.number, message=trial.message,
            status=TRIAL_STATUS[trial.status == COMPLETED], duration_ms=int(1000 * trial.seconds),
            params=flat_params(trial.values), metrics=flat_metrics(single | best),
            epochs={f"epoch/{name}": list(values) for name, values in trial.history.items()},
        )  # fmt: skip

    def log_best(self, best: Mapping[str, Any]) -> None:
        """Record the result of a tuning, and mark its trial.

        Parameters
        ----------
        best : mapping
            Content of best.json.
        """
        name, value = best["objective"]["name"], best["objective"]["value"]
        self.record("best", number=best["trial"])
        self.log_metrics({"val": {name.removeprefix("val_"): value}})
        self.describe({"best trial": best["trial"]} | flatten(best["train"]), link="best.json and figure")


def flat_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow keeps them.

    Parameters
    ----------
    values : mapping
        Nested ones become dotted names; None is left out.

    Returns
    -------
    dict
        Texts.
    """
    return {name: _plain(value) for name, value in flatten(dict(values)).items() if value is not None}


def _plain(value: Any) -> str:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return str(list(value) if isinstance(value, tuple) else value)


def flat_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as MLflow keeps them: finite numbers by names with slashes.

    Parameters
    ----------
    values : mapping
        Nested ones are joined; what is no finite number is left out.

    Returns
    -------
    dict
        Numbers. Their names have only characters that MLflow accepts.

    Examples
    --------
    >>> flat_metrics({"by_rule": {"minor planet within 1.5 arcsec, V < 20": 7}})
    {'by_rule/minor planet within 1.5 arcsec V 20': 7.0}
    """
    return {
        REFUSED.sub("", BETWEEN_NAMES.sub("/", name)): float(value)
        for name, value in flatten(dict(values)).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def best_epoch(history: Mapping[str, Any], epoch: int) -> dict[str, dict[str, float]]:
    """Validation metrics of a training's best epoch.

    Parameters
    ----------
    history : mapping
        Quantity -> its value after each epoch; those of the validation rows begin with ``val_``.
    epoch : int
        The best one, from 0.

    Returns
    -------
    dict
        Under ``val``.
    """
    return {"val": {name[4:]: float(series[epoch]) for name, series in history.items() if name.startswith("val_")}}


def headlines(report: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the few numbers of an evaluation report by which models are compared, unrounded.

    Parameters
    ----------
    report : mapping
        As `gotorb.evaluation.metrics.measure_scores` returns it.

    Returns
    -------
    dict
        auc, brier, ece; fnr and fpr at the threshold; missed, the FNR at 1 % FPR.
    """
    errors = {key: report.get("at_threshold", {}).get(key) for key in ERRORS}
    missed = {"missed": report.get("fnr_at_fpr", {}).get(fpr_name(MISSED_FPR))}
    return {key: report.get(key) for key in HEADLINE} | errors | missed


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@contextmanager
def track_stage(
    stage: str, params: Params, *, used: Mapping[str, Any] | None = None, name: str | None = None, about: str = "",
    experiment: str = "",
) -> Iterator[Run]:  # fmt: skip
    """Track one stage; an exception ends the run as FAILED.

    Parameters
    ----------
    stage : str
        Name of the stage.
    params : Params
        All of params.yaml.
    used : mapping, optional
        Options of the stage, which the run records with the seed and the version of the code: nothing of other stages.
    name : str, optional
        Name of the run; the stage's when left out.
    about : str
        One sentence for the run's description.
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
    given = {"seed": params.seed} | dict(used or {}) | {"code_version": gotorb.__version__}
    tags = _who() | _experiment() | known | {STAGE_TAG: stage, "gotorb.git_revision": _git_revision()}
    run = start_run(f"{params.promote.name}{experiment}", name or stage, tags)
    run.about = about
    try:
        run.log_params(given)
        if about:
            run.describe()
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
    try:
        run = Run(Journal.new(journals_dir()))
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrackingError(f"{journals_dir()} takes no record of a run ({reason}); free some space there") from None
    run.stage = tags.get(STAGE_TAG, "")
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
    found = None if where is None else find_training(client, md5_of_model, where.experiment_id)
    return None if found is None else str(found.info.run_id)


def sync_runs(*, patience_s: float = -1) -> int:
    """Send what journals of ended or interrupted runs hold to the tracking store.

    One that cannot be sent does not keep the others back.

    Parameters
    ----------
    patience_s : float
        Seconds to wait for another process that does the same; without end when negative.

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
    check_project()
    failed, n_sent = [], 0
    with FileLock(journals_dir().parent / ".sync.lock", timeout=patience_s):
        for journal in waiting_journals():
            try:
                journal.close_if_orphaned()
                Delivery(journal).send()
                journal.finish()
                n_sent += 1
            except (GotorbError, OSError) as error:
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
