"""Trials of a tuning as nested runs, each exactly once however often the tuning was killed.

A trial's run is written when the trial is finished. A tuning that goes on has a new parent run: it takes over the
finished runs of its trials, removes the half-written ones, and the parent that died is marked as killed.
"""

from __future__ import annotations

import time
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
        from mlflow import MlflowClient

        self.run, self.client = run, MlflowClient()
        self.experiment = self.client.get_run(run.run_id).info.experiment_id
        self.recorded: dict[str, set[int]] = {}

    def record(self, trial: Trial) -> None:
        """Record a finished trial, unless an earlier run of the same tuning has done so."""
        if trial.tuning not in self.recorded:
            self.recorded[trial.tuning] = self._take_over(trial.tuning)
        if trial.number in self.recorded[trial.tuning]:
            return
        tags = {
            PARENT_TAG: self.run.run_id, NAME_TAG: trial.name, TUNING_TAG: trial.tuning, TRIAL_TAG: str(trial.number),
        }  # fmt: skip
        ended = int(1000 * time.time())
        child = self.client.create_run(self.experiment, start_time=ended - int(1000 * trial.seconds), tags=tags)
        self._log(child.info.run_id, trial)
        self.client.set_terminated(child.info.run_id, STATUS[trial.status == COMPLETED], end_time=ended)
        self.recorded[trial.tuning].add(trial.number)

    def _log(self, run_id: str, trial: Trial) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params: dict[str, Any] = {**trial.values, "parameters": trial.parameters, "continues": trial.continues}
        now = int(1000 * time.time())
        metrics = [
            Metric(f"epoch/{name}", value, now, epoch)
            for name, values in trial.history.items()
            for epoch, value in enumerate(values)
        ]
        metrics.append(Metric("epochs", trial.epochs, now, 0))
        if trial.objective is not None:
            metrics.append(Metric("objective", trial.objective, now, 0))
        given = [Param(name, str(value)) for name, value in params.items() if value is not None]
        notes = [RunTag("gotorb.message", trial.message)] if trial.message else []
        for start in range(0, len(metrics), 500):  # more are refused
            self.client.log_batch(run_id, metrics=metrics[start : start + 500])
        self.client.log_batch(run_id, params=given, tags=notes)

    def _take_over(self, tuning: str) -> set[int]:
        """Numbers of the trials that an earlier parent has recorded; they become this parent's."""
        self.client.set_tag(self.run.run_id, TUNING_TAG, tuning)
        known: set[int] = set()
        where = f"tags.`{TUNING_TAG}` = '{tuning}'"
        for run in self.client.search_runs([self.experiment], where, max_results=MAX_RUNS):
            run_id, number = run.info.run_id, run.data.tags.get(TRIAL_TAG)
            if run_id == self.run.run_id:
                continue
            if number is None:
                self._close_parent(run_id, run.info.status)
            elif run.info.status in STATUS.values() and int(number) not in known:
                self.client.set_tag(run_id, PARENT_TAG, self.run.run_id)
                known.add(int(number))
            else:
                self.client.delete_run(run_id)
        return known

    def _close_parent(self, run_id: str, status: str) -> None:
        self.client.set_tag(run_id, CONTINUED_TAG, self.run.run_id)
        if status == "RUNNING":
            self.client.set_terminated(run_id, "KILLED")
