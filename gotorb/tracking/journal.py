"""Events of a run: on disk first, so that no server can lose or slow a run, and from there into the tracking store.

A journal is a folder: ``events.jsonl`` with one event a line, the files that events speak of, and ``sent.json`` with
the number of events that the tracking store has. Once all are sent the folder goes; ``gotorb sync`` sends what is left.
An event that is sent twice is in the store once.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from gotorb.errors import GotorbError, TrackingError
from gotorb.tracking.store import answers, artifacts_answer, connect, first_line, open_experiment, shown_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)
EVENTS, SENT, OWNER = "events.jsonl", "sent.json", "process.json"
FORSAKEN_S = 24 * 3600.0
"""Age of the last event at which the process of another machine counts as gone."""
Event = dict[str, Any]
KEY_TAG = "gotorb.run_key"
REFUSED_TAG = "gotorb.refused"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "REQUEST_LIMIT_EXCEEDED")
"""Error codes of MLflow for what it will never take, however often it is sent."""
BATCH_METRICS, BATCH_PARAMS = 500, 100
"""More at a time are refused."""
MODEL_ARTIFACT = "model"
WITH_FILES = ("file", "model")
"""Kinds of events that go to the artifact store."""
TUNING_TAG, TRIAL_TAG = "gotorb.tuning", "gotorb.trial"
CONTINUED_TAG = "gotorb.continued_by"
PARENT_TAG, NAME_TAG = "mlflow.parentRunId", "mlflow.runName"
MAX_RUNS = 10_000
TRIAL_STATUS = {True: "FINISHED", False: "FAILED"}
"""Status of the run of a trial that was completed, or not."""


class Journal:
    """The events of one run, in order.

    Parameters
    ----------
    folder : Path
        Made when it is new.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def new(cls, parent: Path) -> Journal:
        """Start a journal of this process in a folder of its own; later ones have later names.

        Parameters
        ----------
        parent : Path
            Folder of all journals.

        Returns
        -------
        Journal
            Without events.
        """
        journal = cls(parent / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}")
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        (journal.folder / OWNER).write_text(json.dumps(owner))
        return journal

    @property
    def owner_lives(self) -> bool:
        """True while the process that writes the journal is at work."""
        try:
            owner = json.loads((self.folder / OWNER).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if owner["host"] != socket.gethostname():
            return time.time() - (self.folder / EVENTS).stat().st_mtime < FORSAKEN_S
        try:  # another process may have got the number since
            process = psutil.Process(owner["pid"])
            return abs(process.create_time() - owner["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def release(self) -> None:
        """Say that no more will be written, though the process lives on."""
        (self.folder / OWNER).unlink(missing_ok=True)

    def close_if_orphaned(self) -> None:
        """End a run whose process was killed before it could."""
        path = self.folder / EVENTS
        if self.owner_lives or not path.exists():  # the last of it has just been sent
            return
        content = path.read_bytes()  # the cut may be inside a letter
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:  # the kill came while a line was written
            path.write_bytes(whole)
        if whole and self._last_kind() != "end":
            self.add("end", status="KILLED")

    def _last_kind(self) -> str:
        return next((event["kind"] for event in map(_parse, reversed(self._lines())) if event), "")

    def last_values(self) -> dict[str, tuple[float, int, int]]:
        """Last value of each metric that the tracking store has, with its time [ms] and step."""
        sent = self._lines()[: self.sent["n"]]
        events = [event for event in map(_parse, sent) if event and event["kind"] == "metrics"]
        return {
            name: (value, event["time_ms"], event["step"] or 0)
            for event in events
            for name, value in event["values"].items()
        }

    def _lines(self) -> list[str]:
        path = self.folder / EVENTS
        # not splitlines(), which cuts at more than the end of a line
        return path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []

    @property
    def key(self) -> str:
        """Name of the run in the tracking store, whichever id the store gives it."""
        return self.folder.name

    def add(self, kind: str, **content: Any) -> None:
        """Append an event; the time is that of the call.

        Parameters
        ----------
        kind : str
            One of `SENDERS`.
        **content
            Of the event; plain values.
        """
        line = json.dumps({"kind": kind, "time_ms": time.time_ns() // 1_000_000} | content, default=str)
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def place(self, name: str) -> Path:
        """New path in the journal for a file of an event; its folder is made.

        Parameters
        ----------
        name : str
            Of the file.

        Returns
        -------
        Path
        """
        path = self.folder / f"{uuid.uuid4().hex[:12]}" / Path(name).name
        path.parent.mkdir()
        return path

    def keep_file(self, path: Path, name: str = "") -> str:
        """Copy a file into the journal.

        Parameters
        ----------
        path : Path
        name : str
            Of the copy; the file's own when empty.

        Returns
        -------
        str
            Path relative to the journal.
        """
        target = self.place(name or path.name)
        shutil.copyfile(path, target)
        return str(target.relative_to(self.folder))

    def unsent(self) -> Iterator[Event]:
        """Events that the tracking store does not have; a line cut off by a kill is the last, and left out."""
        for line in self._lines()[self.sent["n"] :]:
            event = _parse(line)
            if event is None:
                return
            yield event

    @property
    def sent(self) -> dict[str, Any]:
        """Number of events that the tracking store has (n), and its name of the run (run_id)."""
        path = self.folder / SENT
        return json.loads(path.read_text()) if path.exists() else {"n": 0, "run_id": ""}

    def _acknowledge(self, run_id: str) -> None:
        """Record that one more event is in the tracking store."""
        content = json.dumps({"n": self.sent["n"] + 1, "run_id": run_id})
        part = self.folder / f"{SENT}.part"
        part.write_text(content)
        part.replace(self.folder / SENT)

    def finish(self) -> None:
        """Remove the journal when all is sent."""
        if not any(True for _ in self.unsent()):
            # first what makes it a journal: no process may find it half removed and send it again
            (self.folder / EVENTS).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)


def _parse(line: str) -> Event | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def find_journals(parent: Path) -> list[Journal]:
    """Journals with unsent events, the oldest first.

    Parameters
    ----------
    parent : Path

    Returns
    -------
    list of Journal
    """
    folders = sorted(path for path in parent.glob("*") if (path / EVENTS).exists()) if parent.is_dir() else []
    return [Journal(path) for path in folders]


class Delivery:
    """Sends the events of one journal to the store.

    Parameters
    ----------
    journal : Journal
        Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.run_id: str = journal.sent["run_id"]
        self._client: MlflowClient | None = None

    def send(self) -> None:
        """Send what is not there yet.

        Raises
        ------
        TrackingError
            If the store does not answer, does not let us in, or breaks; what is left stays in the journal.
        """
        if not answers():
            raise TrackingError(f"tracking server {shown_uri()} does not answer")
        for event in self.journal.unsent():
            if event["kind"] in WITH_FILES and not artifacts_answer():
                raise TrackingError("the artifact store of MLFLOW_S3_ENDPOINT_URL does not answer")
            self._send(event)
            self.journal._acknowledge(self.run_id)

    def _send(self, event: Event) -> None:
        try:
            SENDERS[event["kind"]](self, event)
        except GotorbError:
            raise
        except Exception as error:  # of mlflow, its server, boto or a database: a record is not worth a training
            if self.run_id and getattr(error, "error_code", "") in REFUSALS:
                self._leave_out(event, error)
                return
            raise TrackingError(f"tracking store {shown_uri()} fails ({first_line(error)})") from error

    def _leave_out(self, event: Event, error: Exception) -> None:
        """Leave out what the store will never take, and let the run say so."""
        log.warning("the tracking store refuses %s of run %s (%s)", event["kind"], self.run_id, first_line(error))
        self.client.set_tag(self.run_id, f"{REFUSED_TAG}.{event['kind']}", first_line(error))

    @property
    def client(self) -> MlflowClient:
        """MLflow's own, of the store."""
        self._client = self._client or connect()
        return self._client


def _start(delivery: Delivery, event: Event) -> None:
    """Make the run, or find it if a kill came between making and acknowledging it."""
    experiment = open_experiment(event["experiment"])
    known = delivery.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{delivery.journal.key}'", max_results=1)
    if known:
        delivery.run_id = known[0].info.run_id
        return
    tags = event["tags"] | {KEY_TAG: delivery.journal.key, NAME_TAG: event["name"]}
    made = delivery.client.create_run(experiment, start_time=event["time_ms"], tags=tags)
    delivery.run_id = made.info.run_id


def _params(delivery: Delivery, event: Event) -> None:
    _log_params(delivery.client, delivery.run_id, event["values"])


def _metrics(delivery: Delivery, event: Event) -> None:
    found = {name: (value, event["time_ms"], event["step"] or 0) for name, value in event["values"].items()}
    _log_metrics(delivery.client, delivery.run_id, _as_metrics(found))


def _tags(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import RunTag

    tags = [RunTag(name, str(value)) for name, value in event["values"].items()]
    delivery.client.log_batch(delivery.run_id, tags=tags)


def _file(delivery: Delivery, event: Event) -> None:
    path = delivery.journal.folder / event["path"]
    delivery.client.log_artifact(delivery.run_id, str(path), event["folder"] or None)


def _data(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = DatasetInput(Dataset(**event["data"]), [InputTag("mlflow.data.context", event["context"])])
    delivery.client.log_inputs(delivery.run_id, [data])


def _model(delivery: Delivery, event: Event) -> None:
    from gotorb.tracking.mlflow_model import Artefact, log_model

    if _has_model(delivery):
        return  # a kill came between sending and acknowledging
    artefact = Artefact(delivery.run_id, delivery.journal.folder / event["path"], MODEL_ARTIFACT, event["tags"])
    log_model(delivery.client, artefact, _as_metrics(delivery.journal.last_values()))


def _has_model(delivery: Delivery) -> bool:
    """True if the run has its model, whole; one that was cut off is deleted."""
    outputs = delivery.client.get_run(delivery.run_id).outputs
    for output in outputs.model_outputs if outputs else ():
        if str(delivery.client.get_logged_model(output.model_id).status) == "READY":
            return True
        delivery.client.delete_logged_model(output.model_id)
    return False


def _end(delivery: Delivery, event: Event) -> None:
    delivery.client.set_terminated(delivery.run_id, event["status"], end_time=event["time_ms"])


def _as_metrics(values: Mapping[str, tuple[float, int, int]]) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(name, *value) for name, value in values.items()]


def _log_metrics(client: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), BATCH_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])


def _log_params(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)) for name, value in values.items()]
    for start in range(0, len(params), BATCH_PARAMS):
        client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])


def _child(delivery: Delivery, event: Event) -> None:
    """Write a tuning's trial as a nested run, unless it is there.

    A trial's run is written when the trial is finished. A tuning that is resumed has a new parent run: it takes over
    the finished runs of its trials, removes the half-written ones, and the parent that died is marked as killed.
    """
    client, parent = delivery.client, delivery.run_id
    known = client.get_run(parent)
    experiment = known.info.experiment_id
    if CONTINUED_TAG in known.data.tags:
        return  # a later tuning has these trials by now
    if event["number"] in _take_over(client, experiment, parent, event["tuning"]):
        return
    tags = {PARENT_TAG: parent, NAME_TAG: event["name"], TUNING_TAG: event["tuning"], TRIAL_TAG: str(event["number"])}
    tags |= {"gotorb.message": event["message"]} if event["message"] else {}
    child = client.create_run(experiment, start_time=event["time_ms"] - event["duration_ms"], tags=tags)
    _log_trial(client, child.info.run_id, event)
    client.set_terminated(child.info.run_id, event["status"], end_time=event["time_ms"])


def _log_trial(client: MlflowClient, run_id: str, event: Event) -> None:
    now = event["time_ms"]
    metrics = _as_metrics({name: (value, now, 0) for name, value in event["metrics"].items()})
    for name, values in event["epochs"].items():
        metrics += [metric for step, value in enumerate(values) for metric in _as_metrics({name: (value, now, step)})]
    _log_metrics(client, run_id, metrics)
    _log_params(client, run_id, event["params"])


def _take_over(client: MlflowClient, experiment: str, parent: str, tuning: str) -> set[int]:
    """Numbers of the trials that are in the store, finished; those of an earlier parent become this parent's."""
    client.set_tag(parent, TUNING_TAG, tuning)
    known: set[int] = set()
    where = f"tags.`{TUNING_TAG}` = '{tuning}'"
    for run in client.search_runs([experiment], where, max_results=MAX_RUNS):
        run_id, number = run.info.run_id, run.data.tags.get(TRIAL_TAG)
        if run_id == parent:
            continue
        if number is None:
            _close_parent(client, run_id, run.info.status, parent)
        elif run.info.status in TRIAL_STATUS.values() and int(number) not in known:
            client.set_tag(run_id, PARENT_TAG, parent)
            known.add(int(number))
        else:
            client.delete_run(run_id)
    return known


def _close_parent(client: MlflowClient, run_id: str, status: str, parent: str) -> None:
    client.set_tag(run_id, CONTINUED_TAG, parent)
    if status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


SENDERS: dict[str, Callable[[Delivery, Event], None]] = {
    "start": _start,
    "params": _params,
    "metrics": _metrics,
    "tags": _tags,
    "file": _file,
    "data": _data,
    "model": _model,
    "child": _child,
    "end": _end,
}
