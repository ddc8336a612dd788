"""Trials over several processes: a worker that dies costs its trial a second try, and never stops the others.

Each worker is a pool of one process, so that it is known which trial died with it.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from queue import SimpleQueue

from gotorb.training.trials import Setting, Task, Trial, describe_failure, make_trial, run_trial

LOG = logging.getLogger(__name__)
TRIES = 2
Submit = Callable[[Task], "Future[Trial]"]


@contextmanager
def open_workers(n_workers: int, setting: Setting) -> Iterator[Submit]:
    """Yield a function that has a task done: here at once when there is one worker, else in another process.

    Parameters
    ----------
    n_workers : int
        Processes; 1 works in this one.
    setting : Setting
        Of the tuning.
    """
    if n_workers == 1:
        yield lambda task: _do_here(task, setting)
        return
    idle: SimpleQueue[Worker] = SimpleQueue()
    workers = [Worker(setting) for _ in range(n_workers)]
    for worker in workers:
        idle.put(worker)

    def work(task: Task) -> Trial:
        worker = idle.get()
        try:
            return worker.run(task)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(n_workers) as threads:
        try:
            yield lambda task: threads.submit(work, task)
        finally:
            for worker in workers:
                worker.stop()


def _do_here(task: Task, setting: Setting) -> "Future[Trial]":
    done: Future[Trial] = Future()
    done.set_result(run_trial(task, setting))
    return done


class Worker:
    """A process that trains, and is replaced when it dies.

    Parameters
    ----------
    setting : Setting
        Of the tuning.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.stopped = False
        self.pool = _open_pool()

    def run(self, task: Task) -> Trial:
        """Do a task; one whose process died twice is a failed trial."""
        for _ in range(TRIES):
            if self.stopped:
                raise KeyboardInterrupt
            try:
                return self.pool.submit(run_trial, task, self.setting).result()
            except BrokenProcessPool:
                LOG.warning("the worker of trial %d died", task.number)
                self.pool = _open_pool()
        return make_trial(task, self.setting, describe_failure(f"its worker died {TRIES} times"), 0, 0.0)

    def stop(self) -> None:
        """End the process at once; what it was at is on disk up to its last epoch."""
        self.stopped = True
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)


def _open_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_obey_parent)


def _obey_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed: nothing may write to its folder later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
