"""Delivery of a run's events to the tracking store: each kind of event by MLflow's own call.

What the store will never take costs that metric, parameter or tag alone, and the run says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gotorb.core.logs import first_line
from gotorb.core.params import PromoteParams
from gotorb.errors import GotorbError, TrackingError
from gotorb.tracking.journal import CUT, Event, Journal
from gotorb.tracking.store import answers, artifacts_answer, connect, open_experiment, shown_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

log = logging.getLogger(__name__)
STAGE_TAG, MD5_TAG = "gotorb.stage", "gotorb.model_md5"
KEY_TAG, RUN_TAG = "gotorb.run_key", "gotorb.run"
LOST_TAG, REFUSED_TAG = "gotorb.lost_events", "gotorb.refused"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "REQUEST_LIMIT_EXCEEDED")
"""Error codes of MLflow for what it will never take, however often it is sent."""
AT_MOST = {"metrics": 500, "params": 100, "tags": 100}
"""More of them at a time are refused."""
MAX_TAG = 5000
WITH_FILES = ("file", "model")
"""Kinds of events that go to the artifact store."""
TUNING_TAG, TRIAL_TAG, BEST_TAG = "gotorb.tuning", "gotorb.trial", "gotorb.best"
CONTINUED_TAG = "gotorb.continued_by"
PARENT_TAG, NAME_TAG, NOTE_TAG = "mlflow.parentRunId", "mlflow.runName", "mlflow.note.content"
HERE = "{here}"
"""Stands for the address of the run's own page in its description."""
SETS = {
    "val": "validation, best epoch",
    "test": "test",
    "truth": "simulator's truth",
    "injected": "injected",
}
"""Beginning of a metric's name -> the rows that it is measured on."""
MAX_RUNS = 10_000
TRIAL_STATUS = {True: "FINISHED", False: "FAILED"}
"""Status of the run of a trial that was completed, or not."""


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
        self._refused: dict[str, list[str]] = {}

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
            self.journal.acknowledge(self.run_id)

    def _send(self, event: Event) -> None:
        try:
            self._tell_cut(event)
            if self._begun(event):
                getattr(self, f"_on_{event['kind']}")(event)
        except GotorbError:
            raise
        except Exception as error:  # of mlflow, its server, boto or a database: a record is not worth a training
            if not (self.run_id and is_refusal(error)):
                raise TrackingError(f"tracking store {shown_uri()} fails ({first_line(error)})") from error
            self.leave_out(event["kind"], error)

    def _tell_cut(self, event: Event) -> None:
        if event["kind"] == CUT or "after_cut" in event:
            log.warning("a line of %s was cut by a kill or a full disk; its event is lost", self.journal.folder)
            if self.run_id:
                self.client.set_tag(self.run_id, LOST_TAG, str(self.journal.n_cut))

    def _begun(self, event: Event) -> bool:
        """True when there is something to send, and a run to send it to; one whose first line was cut gets another."""
        if event["kind"] == "start" or self.run_id:
            return event["kind"] != CUT
        if event["kind"] in (CUT, "end"):
            return False
        known = {"experiment": PromoteParams().name, "name": self.journal.key, "time_ms": event["time_ms"]}
        self._on_start(known | {"tags": {LOST_TAG: str(self.journal.n_cut)}})
        return True

    def leave_out(self, kind: str, error: Exception) -> None:
        """Leave out what the store will never take, and let the run say so.

        Parameters
        ----------
        kind : str
            Of what is refused.
        error : Exception
            Of MLflow.
        """
        log.warning("the tracking store refuses %s of run %s (%s)", kind, self.run_id, first_line(error))
        known = self._refused.setdefault(kind, [])
        known.append(first_line(error))
        self.client.set_tag(self.run_id, f"{REFUSED_TAG}.{kind}", "; ".join(known)[:MAX_TAG])

    @property
    def client(self) -> MlflowClient:
        """MLflow's own, of the store."""
        self._client = self._client or connect()
        return self._client

    def log(self, kind: str, items: Sequence[Any], run_id: str = "") -> None:
        """Send metrics, parameters or tags; one that is refused does not keep back the others.

        Parameters
        ----------
        kind : {"metrics", "params", "tags"}
        items : sequence of MLflow's entities of that kind
        run_id : str
            Of another run than the journal's.
        """
        for start in range(0, len(items), AT_MOST[kind]):
            self._log_some(kind, list(items[start : start + AT_MOST[kind]]), run_id or self.run_id)

    def _log_some(self, kind: str, items: list[Any], run_id: str) -> None:
        try:
            self.client.log_batch(run_id, **{kind: items})  # type: ignore[arg-type]
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(items) == 1:
                self.leave_out(kind, error)
                return
            for part in (items[: len(items) // 2], items[len(items) // 2 :]):
                self._log_some(kind, part, run_id)

    def _on_start(self, event: Event) -> None:
        """Make the run, or find it if a kill came between making and acknowledging it."""
        experiment = open_experiment(event["experiment"])
        known = self.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{self.journal.key}'", max_results=1)
        if known:
            self.run_id = known[0].info.run_id
            return
        tags = event["tags"] | {KEY_TAG: self.journal.key, NAME_TAG: event["name"]}
        made = self.client.create_run(experiment, start_time=event["time_ms"], tags=tags)
        self.run_id = made.info.run_id

    def _on_params(self, event: Event) -> None:
        self.log("params", _as_params(event["values"]))

    def _on_metrics(self, event: Event) -> None:
        self.log("metrics", _as_metrics(event["values"], event["time_ms"], event["step"] or 0))

    def _on_tags(self, event: Event) -> None:
        from mlflow.entities import RunTag

        values = {name: str(value) for name, value in event["values"].items()}
        if HERE in values.get(NOTE_TAG, ""):
            experiment = self.client.get_run(self.run_id).info.experiment_id
            values[NOTE_TAG] = values[NOTE_TAG].replace(HERE, f"#/experiments/{experiment}/runs/{self.run_id}")
        self.log("tags", [RunTag(name, value) for name, value in values.items()])

    def _on_file(self, event: Event) -> None:
        path = self.journal.folder / event["path"]
        self.client.log_artifact(self.run_id, str(path), event["folder"] or None)

    def _on_data(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = DatasetInput(Dataset(**event["data"]), [InputTag("mlflow.data.context", event["context"])])
        self.client.log_inputs(self.run_id, [data])

    def _on_model(self, event: Event) -> None:
        from gotorb.tracking.mlflow_model import Artefact, log_model

        client, tags = self.client, event["tags"]
        model_id = find_logged_model(client, client.get_run(self.run_id), repair=True)
        if not model_id:  # else a kill came between sending and acknowledging
            name = tags.get("network", "model")
            path = self.journal.folder / event["path"]
            made = Artefact(run_id=self.run_id, path=path, name=name, tags=tags, params=event.get("params", {}))
            model_id = log_model(client, made)
        known = {"model_id": model_id} | _named(event.get("data"))
        self.log("metrics", _as_metrics(event.get("metrics", {}), event["time_ms"], event.get("step", 0), **known))
        describe_model(client, self.run_id)

    def _on_child(self, event: Event) -> None:
        """Write a tuning's trial as a nested run, unless it is there.

        A trial's run is written when the trial is finished. A tuning that is resumed has a new parent run: it takes
        over the finished runs of its trials, removes the half-written ones, and the parent that died is marked as
        killed.
        """
        client, parent = self.client, self.run_id
        known = client.get_run(parent)
        experiment = known.info.experiment_id
        if CONTINUED_TAG in known.data.tags:
            return  # a later tuning has these trials by now
        if event["number"] in _take_over(client, experiment, parent, event["tuning"]):
            return
        tags = {
            PARENT_TAG: parent,
            NAME_TAG: event["name"],
            TUNING_TAG: event["tuning"],
            TRIAL_TAG: str(event["number"]),
        }
        tags |= {"gotorb.message": event["message"]} if event["message"] else {}
        child = client.create_run(experiment, start_time=event["time_ms"] - event["duration_ms"], tags=tags)
        _log_trial(self, child.info.run_id, event)
        client.set_terminated(child.info.run_id, event["status"], end_time=event["time_ms"])

    def _on_best(self, event: Event) -> None:
        """Mark the best trial of the run's tuning."""
        client = self.client
        where = f"tags.`{PARENT_TAG}` = '{self.run_id}' and tags.`{TRIAL_TAG}` = '{event['number']}'"
        for trial in client.search_runs([client.get_run(self.run_id).info.experiment_id], where):
            client.set_tag(trial.info.run_id, BEST_TAG, "true")
            client.set_tag(self.run_id, f"{BEST_TAG}_trial", trial.info.run_id)

    def _on_judged(self, event: Event) -> None:
        """Give a model's metrics to its training's run and to the model, and link both with this run."""
        from mlflow.entities import LoggedModelInput

        client, own = self.client, self.client.get_run(self.run_id)
        training = find_training(client, event["md5"], own.info.experiment_id)
        if training is None:
            log.info("no run here has trained the model of md5 %s; `gotorb runs import HEAD` makes it", event["md5"])
            return
        run_id, model_id = training.info.run_id, find_logged_model(client, training)
        known = {"model_id": model_id} | _named(event["data"]) if model_id else {}
        self.log("metrics", _as_metrics(event["values"], event["time_ms"], 0, **known), run_id)
        known_inputs = {one.model_id for one in own.inputs.model_inputs} if own.inputs else set()
        if model_id and model_id not in known_inputs:
            client.log_inputs(self.run_id, models=[LoggedModelInput(model_id)])
        if event["child"]:
            client.set_tag(self.run_id, PARENT_TAG, run_id)
        client.set_tag(run_id, f"{RUN_TAG}.{event['stage']}", self.run_id)
        describe_model(client, run_id)

    def _on_end(self, event: Event) -> None:
        self.client.set_terminated(self.run_id, event["status"], end_time=event["time_ms"])


def is_refusal(error: Exception) -> bool:
    """Tell what the store will never take from what another try may bring.

    Parameters
    ----------
    error : Exception
        Of MLflow.

    Returns
    -------
    bool
        True if no other try can succeed.
    """
    return getattr(error, "error_code", "") in REFUSALS


def find_logged_model(client: MlflowClient, run: Run, *, repair: bool = False) -> str:
    """MLflow's name of the model that a run logged.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    run : mlflow.entities.Run
        A training's.
    repair : bool
        Delete one that was cut off while it was sent.

    Returns
    -------
    str
        "" without a whole one.
    """
    for output in run.outputs.model_outputs if run.outputs else ():
        if str(client.get_logged_model(output.model_id).status) == "READY":
            return str(output.model_id)
        if repair:
            client.delete_logged_model(output.model_id)
    return ""


def find_training(client: MlflowClient, md5: str, experiment_id: str) -> Run | None:
    """The newest finished run of a training that made a model.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    md5 : str
        Of the model file.
    experiment_id : str
        Where the training was recorded.

    Returns
    -------
    mlflow.entities.Run or None
        The run.
    """
    wanted = f"tags.`{MD5_TAG}` = '{md5}' and tags.`{STAGE_TAG}` = 'train' and attributes.status = 'FINISHED'"
    found = client.search_runs([experiment_id], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    return found[0] if found else None


def describe_model(client: MlflowClient, run_id: str) -> None:
    """Write the metrics of a training's run into its description, as a table, and into its model's.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    run_id : str
        Of the training.
    """
    run = client.get_run(run_id)
    sentence = run.data.tags.get(NOTE_TAG, "").split("\n\n|")[0]
    rows = [f"| {title} | {text} |" for name, title in SETS.items() if (text := _listed(run.data.metrics, name))]
    place, runs = f"#/experiments/{run.info.experiment_id}/runs", RUN_TAG + "."
    judging = {name.removeprefix(runs): one for name, one in run.data.tags.items() if name.startswith(runs)}
    links = [f"[{stage}]({place}/{one}/artifacts)" for stage, one in sorted(judging.items())]
    rows += [f"| figures and all numbers | {', '.join(links)} |"] if links else []
    note = "\n".join([f"{sentence}\n\n| rows | metrics |", "|---|---|", *rows])
    client.set_tag(run_id, NOTE_TAG, note)
    if model_id := find_logged_model(client, run):
        client.set_logged_model_tags(model_id, {NOTE_TAG: note})


def _listed(metrics: Mapping[str, float], name: str) -> str:
    ours = {key.removeprefix(f"{name}/"): value for key, value in metrics.items() if key.startswith(f"{name}/")}
    return ", ".join(f"{key} {value:.4f}" for key, value in sorted(ours.items()))


def _named(data: Mapping[str, str] | None) -> dict[str, str]:
    """MLflow's names of the data set of a metric."""
    return {"dataset_name": data["name"], "dataset_digest": data["digest"]} if data else {}


def _as_metrics(values: Mapping[str, float], time_ms: int, step: int, **known: str) -> list[Metric]:
    from mlflow.entities import Metric

    return [Metric(name, value, time_ms, step, **known) for name, value in values.items()]


def _as_params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)) for name, value in values.items()]


def _log_trial(delivery: Delivery, run_id: str, event: Event) -> None:
    now = event["time_ms"]
    delivery.log("metrics", _as_metrics(event["metrics"], now, 0), run_id)
    for name, values in event["epochs"].items():
        delivery.log("metrics", [_as_metrics({name: value}, now, step)[0] for step, value in enumerate(values)], run_id)
    delivery.log("params", _as_params(event["params"]), run_id)


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
