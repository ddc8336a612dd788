"""The search itself: trials are asked of the oracle, trained, and told to it, the same however often it is killed.

The oracle is told results in the order of the trials' numbers, and trial k is asked for when exactly the results of
the trials up to k - n_workers are told. So it depends on no timing which trials there are, and a tuning that goes on
finds the same trials again: those whose results are on disk are not trained.
"""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from gotorb.training.oracle import Limited
from gotorb.training.space import read_values
from gotorb.training.trials import COMPLETED, Setting, Task, Trial, find_trial, keep_trial
from gotorb.training.workers import Submit, open_workers

LOG = logging.getLogger(__name__)


def run_trials(oracle: Limited, setting: Setting, *, max_epochs: int, n_workers: int = 1) -> Iterator[Trial]:
    """Yield the trials of a tuning, in order of their numbers, as they are finished.

    Parameters
    ----------
    oracle : Limited
        A new one.
    setting : Setting
        What the trials share.
    max_epochs : int
        Epochs of a trial when the oracle sets none.
    n_workers : int
        Trials at a time.
    """
    window: deque[tuple[Any, Task, Future[Trial]]] = deque()
    firsts: dict[int, int] = {}
    with open_workers(n_workers, setting) as submit:
        while True:
            while len(window) < n_workers and (asked := oracle.create_trial(f"worker {len(oracle.trials)}")):
                if asked.status != "RUNNING":
                    break
                task = read_task(asked, max_epochs, firsts)
                window.append((asked, task, _do(task, setting, submit)))
            if not window:
                return
            asked, task, future = window.popleft()
            trial = future.result()
            keep_trial(task, trial, setting)
            tell(oracle, asked, trial, setting.objective)
            yield trial


def _do(task: Task, setting: Setting, submit: Submit) -> "Future[Trial]":
    found = find_trial(task, setting)
    if found is None:
        begun = "" if task.continues is None else f", going on from trial {task.continues:02d}"
        LOG.info("trial %02d to epoch %d%s: %s", task.number, task.epochs, begun, task.values)
        return submit(task)
    LOG.info("trial %02d was done before", task.number)
    done: Future[Trial] = Future()
    done.set_result(found)
    return done


def read_task(asked: Any, max_epochs: int, firsts: dict[int, int]) -> Task:
    """What a trial of keras-tuner asks for; `firsts` takes note of where each training began."""
    values, number = asked.hyperparameters.values, int(asked.trial_id)
    continues = int(values["tuner/trial_id"]) if "tuner/trial_id" in values else None
    firsts[number] = number if continues is None else firsts[continues]
    return Task(number, read_values(values), values.get("tuner/epochs", max_epochs), continues, firsts[number])


def tell(oracle: Limited, asked: Any, trial: Trial, objective: str) -> None:
    """Tell the oracle what came of a trial."""
    if trial.status == COMPLETED:
        oracle.update_trial(asked.trial_id, {objective: trial.objective}, step=trial.best_epoch)
        asked.status = "COMPLETED"
    else:
        asked.status, asked.message = "FAILED", trial.message
    oracle.end_trial(asked)


def choose_best(trials: list[Trial], direction: str) -> Trial | None:
    """The best completed trial, the earliest of equals; None when none was completed."""
    sign = 1 if direction == "min" else -1
    completed = [trial for trial in trials if trial.status == COMPLETED]
    return min(completed, key=lambda trial: sign * (trial.objective or 0.0), default=None)
