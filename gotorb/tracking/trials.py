"""Trials of a tuning as nested runs, each exactly once however often the tuning was killed.

A trial's run is written when the trial is finished. A tuning that goes on has a new parent run: it takes over the
finished runs of its trials, removes the half-written ones, and the parent that died is marked as killed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gotorb.tracking.runs import Run

if TYPE_CHECKING:
    from gotorb.training.trials import Trial

TUNING_TAG, TRIAL_TAG = "gotorb.tuning", "gotorb.trial"
CONTINUED_TAG = "gotorb.continued_by"
PARENT_TAG, NAME_TAG = "mlflow.parentRunId", "mlflow.runName"
COMPLETED, MAX_RUNS = "completed", 10_000
STATUS = {True: "FINISHED", False: "FAILED"}


class TrialRuns:
    """Nested runs under a run in progress.

    Parameters
    ----------
    run : Run
        The parent.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def record(self, trial: Trial) -> None:
        """Record a finished trial, unless an earlier run of the same tuning has done so."""
        params = {**trial.values, "parameters": trial.parameters, "continues": trial.continues}
        single = {"epochs": trial.epochs, "objective": trial.objective}
        self.run.record(
            "child", name=trial.name, tuning=trial.tuning, number=trial.number, message=trial.message,
            status=STATUS[trial.status == COMPLETED], duration_ms=int(1000 * trial.seconds),
            params={name: str(value) for name, value in params.items() if value is not None},
            epochs={f"epoch/{name}": list(values) for name, values in trial.history.items()},
            metrics={name: float(value) for name, value in single.items() if value is not None},
        )  # fmt: skip


def record_child(client: Any, parent: str, event: dict[str, Any]) -> None:
    """Write a trial's run into the store, unless it is there; called by the delivery of its parent's journal.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    parent : str
        Id of the parent run.
    event : dict
        As `TrialRuns.record` wrote it.
    """
    known = client.get_run(parent)
    experiment = known.info.experiment_id
    if CONTINUED_TAG in known.data.tags:
        return  # a later tuning has these trials by now
    if event["number"] in _take_over(client, experiment, parent, event["tuning"]):
        return
    tags = {PARENT_TAG: parent, NAME_TAG: event["name"], TUNING_TAG: event["tuning"], TRIAL_TAG: str(event["number"])}
    tags |= {"gotorb.message": event["message"]} if event["message"] else {}
    child = client.create_run(experiment, start_time=event["time_ms"] - event["duration_ms"], tags=tags)
    _log(client, child.info.run_id, event)
    client.set_terminated(child.info.run_id, event["status"], end_time=event["time_ms"])


def _log(client: Any, run_id: str, event: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param

    now = event["time_ms"]
    metrics = [Metric(name, value, now, 0) for name, value in event["metrics"].items()]
    metrics += [
        Metric(name, value, now, epoch)
        for name, values in event["epochs"].items()
        for epoch, value in enumerate(values)
    ]
    for start in range(0, len(metrics), 500):  # more are refused
        client.log_batch(run_id, metrics=metrics[start : start + 500])
    client.log_batch(run_id, params=[Param(name, value) for name, value in event["params"].items()])


def _take_over(client: Any, experiment: str, parent: str, tuning: str) -> set[int]:
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
        elif run.info.status in STATUS.values() and int(number) not in known:
            client.set_tag(run_id, PARENT_TAG, parent)
            known.add(int(number))
        else:
            client.delete_run(run_id)
    return known


def _close_parent(client: Any, run_id: str, status: str, parent: str) -> None:
    client.set_tag(run_id, CONTINUED_TAG, parent)
    if status == "RUNNING":
        client.set_terminated(run_id, "KILLED")
