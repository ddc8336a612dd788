"""Events of a journal into the tracking store, each acknowledged; what is sent twice is there once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gotorb.errors import TrackingError
from gotorb.tracking.journal import Event, Journal
from gotorb.tracking.store import answers, open_experiment, tracking_uri

KEY_TAG = "gotorb.run_key"
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

    def send(self) -> None:
        """Send what is not there yet.

        Raises
        ------
        TrackingError
            If the store is a server that does not answer any more; what is left stays in the journal.
        """
        if not answers():
            raise TrackingError(f"tracking server {tracking_uri()} does not answer")
        for event in self.journal.unsent():
            try:
                SENDERS[event["kind"]](self, event)
            except Exception as error:
                if not is_unreachable(error):
                    raise
                raise TrackingError(f"tracking server {tracking_uri()} does not answer any more") from None
            self.journal.acknowledge(self.run_id)

    @property
    def client(self) -> Any:
        """MLflow's own."""
        import mlflow

        return mlflow.MlflowClient()


def is_unreachable(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that a server cannot be reached or is broken."""
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import RequestException

    while error is not None:
        if isinstance(error, RequestException | ConnectionError | TimeoutError):
            return True
        if isinstance(error, MlflowException) and not isinstance(error, RestException):
            text = str(error)
            if "API request to" in text or "Max retries exceeded" in text or "timed out" in text:
                return True
        if isinstance(error, RestException) and error.get_http_status_code() >= 500:
            return True
        error = error.__cause__ or error.__context__
    return False


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

    log_model(delivery.run_id, delivery.journal.folder / event["path"], name=MODEL_ARTIFACT, tags=event["tags"])


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
