"""Events of a journal into the tracking store, each acknowledged; what is sent twice is there once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gotorb.errors import GotorbError, TrackingError
from gotorb.tracking.journal import Event, Journal
from gotorb.tracking.store import answers, artifacts_answer, open_experiment, open_store, shown_uri

log = logging.getLogger(__name__)
KEY_TAG = "gotorb.run_key"
REFUSED_TAG = "gotorb.refused"
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST", "REQUEST_LIMIT_EXCEEDED")
"""What MLflow answers to what it will never take, however often it is sent."""
BATCH = 500
"""More metrics at a time are refused."""
MODEL_ARTIFACT = "model"


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
        self._is_open = False

    def send(self) -> None:
        """Send what is not there yet.

        Raises
        ------
        TrackingError
            If the store does not answer, does not let us in, or breaks; what is left stays in the journal.
        """
        if not answers():
            raise TrackingError(f"tracking server {shown_uri()} does not answer")
        if not self._is_open:  # what another process began has no start event left
            open_store()
            self._is_open = True
        for event in self.journal.unsent():
            if event["kind"] in WITH_FILES and not artifacts_answer():
                raise TrackingError("the artifact store of MLFLOW_S3_ENDPOINT_URL does not answer")
            self._send(event)
            self.journal.acknowledge(self.run_id)

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
        """Go on without what the store will never take, and let the run say so."""
        log.warning("the tracking store refuses %s of run %s (%s)", event["kind"], self.run_id, first_line(error))
        self.client.set_tag(self.run_id, f"{REFUSED_TAG}.{event['kind']}", first_line(error))

    @property
    def client(self) -> Any:
        """MLflow's own."""
        import mlflow

        return mlflow.MlflowClient()


def first_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _start(delivery: Delivery, event: Event) -> None:
    """Make the run, or find it if a kill came between making and acknowledging it."""
    experiment = open_experiment(event["experiment"])
    known = delivery.client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{delivery.journal.key}'", max_results=1)
    if known:
        delivery.run_id = known[0].info.run_id
        return
    tags = event["tags"] | {KEY_TAG: delivery.journal.key, "mlflow.runName": event["name"]}
    made = delivery.client.create_run(experiment, start_time=event["time_ms"], tags=tags)
    delivery.run_id = made.info.run_id


def _params(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)) for name, value in event["values"].items()]
    for start in range(0, len(params), 100):
        delivery.client.log_batch(delivery.run_id, params=params[start : start + 100])


def _metrics(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import Metric

    time_ms, step = event["time_ms"], event["step"] or 0
    metrics = [Metric(name, value, time_ms, step) for name, value in event["values"].items()]
    for start in range(0, len(metrics), BATCH):
        delivery.client.log_batch(delivery.run_id, metrics=metrics[start : start + BATCH])


def _tags(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import RunTag

    tags = [RunTag(name, str(value)) for name, value in event["values"].items()]
    delivery.client.log_batch(delivery.run_id, tags=tags)


def _file(delivery: Delivery, event: Event) -> None:
    path = delivery.journal.folder / event["path"]
    delivery.client.log_artifact(delivery.run_id, str(path), event["folder"] or None)


def _data(delivery: Delivery, event: Event) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(**event["data"])
    delivery.client.log_inputs(
        delivery.run_id, [DatasetInput(data, [InputTag("mlflow.data.context", event["context"])])]
    )


def _model(delivery: Delivery, event: Event) -> None:
    from gotorb.tracking.flavor import log_model

    if _has_model(delivery):
        return  # a kill came between sending and acknowledging
    log_model(delivery.run_id, delivery.journal.folder / event["path"], name=MODEL_ARTIFACT, tags=event["tags"])


def _has_model(delivery: Delivery) -> bool:
    """Whether the run has its model, whole; one that was cut off is taken away."""
    outputs = delivery.client.get_run(delivery.run_id).outputs
    for output in outputs.model_outputs if outputs else ():
        if str(delivery.client.get_logged_model(output.model_id).status) == "READY":
            return True
        delivery.client.delete_logged_model(output.model_id)
    return False


def _child(delivery: Delivery, event: Event) -> None:
    from gotorb.tracking.trials import record_child

    record_child(delivery.client, delivery.run_id, event)


def _end(delivery: Delivery, event: Event) -> None:
    delivery.client.set_terminated(delivery.run_id, event["status"], end_time=event["time_ms"])


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
WITH_FILES = ("file", "model")
"""Kinds of events that go to the artifact store."""
