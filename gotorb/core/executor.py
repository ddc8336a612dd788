"""Items of work over processes or a dask cluster; an item on which workers die fails alone.

A worker that dies (out of memory, or in a library's crash) takes down what it was at. Those items are tried again,
each alone: the ones that were only near the death succeed, the one that kills its worker a second time is given up.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from typing import Any, NamedTuple, Self, TypeVar

from tqdm import tqdm

from gotorb.core.logs import describe_duration
from gotorb.errors import ConfigError, DataError

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
Part = Sequence[int]
"""Numbers of the items that a worker takes at a time."""

CONNECT_TIMEOUT_S = 10
"""Longest wait for a dask scheduler."""
POLL_S = 5
"""Time between two looks at a cluster's workers."""
PATIENCE_S = 120
"""How long a cluster may be without any worker before the run gives up."""
IN_FLIGHT = 500
"""Parts that are with the cluster at a time."""


TELL_EVERY_S = 15
"""Time between two lines about the progress, where there is no terminal for a bar."""


class _Progress:
    """Progress of some items: a bar on a terminal, else a line in the log now and then."""

    def __init__(self, *, total: int, desc: str, unit: str) -> None:
        self.total, self.desc, self.unit, self.n = total, desc, unit, 0
        self._bar = tqdm(total=total, desc=desc, unit=unit, leave=False, disable=None, file=sys.stderr)
        self._begun = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, n: int) -> None:
        """Count finished items.

        Parameters
        ----------
        n : int
        """
        self.n += n
        self._bar.update(n)
        now = time.monotonic()
        if self._bar.disable and now - self._told > TELL_EVERY_S and self.n < self.total:
            left = describe_duration((now - self._begun) / self.n * (self.total - self.n))
            log.info("%s: %d of %d, %s left", self.desc, self.n, self.total, left)
            self._told = now


@dataclass(frozen=True)
class Workers:
    """Executor options.

    Attributes
    ----------
    n_processes : int
        Processes of this machine; 1 works in this process.
    chunk : int
        Items that a worker takes at a time. More than one saves traffic; all of them are tried again if it dies.
    scheduler : str
        Address of a dask scheduler; when given, its workers do the work and `n_processes` is ignored.
    """

    n_processes: int = 1
    chunk: int = 1
    scheduler: str = ""


HERE = Workers()
"""This process."""


class _Work(NamedTuple):
    """A job, all its items, and the receiver of some items' results."""

    job: Callable[[Any], Any]
    items: Sequence[Any]
    take: Callable[[Part, Sequence[Any]], None]

    def of(self, part: Part) -> list[Any]:
        """Items of a part."""
        return [self.items[number] for number in part]


class Executor:
    """A pool of workers that outlives the death of some of them; a context manager.

    Parameters
    ----------
    workers : Workers
        How many, and where.
    initializer : callable, optional
        Module-level function that each process calls once before its first item; not used on a cluster.
    initargs : tuple
        Its arguments.

    Examples
    --------
    >>> with Executor(HERE) as executor:
    ...     executor.map(abs, [-2, 3], crashed=lambda item: 0)
    [2, 3]
    """

    def __init__(
        self, workers: Workers, *, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()
    ) -> None:
        self.workers = workers
        self._initializer, self._initargs = initializer, initargs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._in_this_process and self._initializer is not None:
            self._initializer(*self._initargs)
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_pool()

    @property
    def _in_this_process(self) -> bool:
        return self.workers.n_processes == 1 and not self.workers.scheduler

    def map(
        self,
        job: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        crashed: Callable[[Item], Result],
        title: str = "",
        unit: str = "it",
    ) -> list[Result]:
        """Do all items.

        Parameters
        ----------
        job : callable
            ``job(item) -> result``: a module-level function, or a `functools.partial` of one, since it travels to
            processes. What it raises ends the run.
        items : sequence
            Plain values that can be pickled.
        crashed : callable
            ``crashed(item) -> result`` for an item on which a worker died twice; it may raise instead.
        title, unit : str
            Of the progress: a bar on a terminal, a line now and then elsewhere.

        Returns
        -------
        list
            Results in the order of the items.

        Raises
        ------
        ConfigError
            If there is no scheduler at the address given, or dask is not installed.
        DataError
            If the cluster has no workers for a long time, or gotorb is missing there.
        """
        found: dict[int, Result] = {}
        with _Progress(total=len(items), desc=title, unit=unit) as progress:

            def take(part: Part, results: Sequence[Result]) -> None:
                found.update(zip(part, results, strict=True))
                progress.update(len(results))

            for number in self._run(_Work(job, items, take)):
                take([number], [crashed(items[number])])
        return [found[number] for number in range(len(items))]

    def _run(self, work: _Work) -> Iterator[int]:
        """Do the work; yield the items that cannot be done because workers die on them."""
        numbers, size = range(len(work.items)), self.workers.chunk
        parts = [numbers[start : start + size] for start in numbers[::size]]
        if self.workers.scheduler:
            yield from _run_on_cluster(work, parts, self.workers.scheduler)
        elif self._in_this_process:
            for number in numbers:
                work.take([number], [work.job(work.items[number])])
        else:
            yield from self._run_in_pools(work, parts)

    def _run_in_pools(self, work: _Work, parts: Sequence[Part]) -> Iterator[int]:
        """A worker that dies breaks its pool: the items it may have died on are tried again, each alone."""
        n, waiting = self.workers.n_processes, parts
        while waiting:
            self._pool = self._pool or self._open_pool(n)
            left = _run_pool(self._pool, work, waiting)
            if left:
                self._drop_pool()
            suspects, waiting = left[:n], left[n:]
            for number in (number for part in suspects for number in part):
                with self._open_pool(1) as pool:
                    if _run_pool(pool, work, [[number]]):
                        yield number

    def _open_pool(self, n_processes: int) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        start = (self._initializer, self._initargs)
        return ProcessPoolExecutor(n_processes, mp_context=spawn, initializer=_start_worker, initargs=start)

    def _drop_pool(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _start_worker(initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the parent; end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait_for([parent.sentinel]), os._exit(1)), daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _do_part(job: Callable[[Item], Result], part: Sequence[Item]) -> list[Result]:
    return [job(item) for item in part]


def _run_pool(pool: ProcessPoolExecutor, work: _Work, parts: Sequence[Part]) -> list[Part]:
    """Run until all is done or the pool breaks; return what is left, first what the workers were at."""
    left, futures = dict(enumerate(parts)), dict[Future, int]()
    try:
        for number, part in enumerate(parts):
            futures[pool.submit(_do_part, work.job, work.of(part))] = number
        for future in as_completed(list(futures)):
            results = future.result()
            work.take(left.pop(futures[future]), results)
    except BrokenProcessPool:
        log.warning("a worker process died; what it was at is tried again")
        for future, number in futures.items():
            if number in left and future.done() and future.exception() is None:
                work.take(left.pop(number), future.result())
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)  # leaving the pool's block would let all of them run
        raise
    return list(left.values())


def _run_on_cluster(work: _Work, parts: Sequence[Part], address: str) -> Iterator[int]:
    """Let a dask cluster do the work; yield the items on which its workers die.

    Dask itself gives what a dead worker was at to another one. It blames all that waited on the dead worker, so items
    of which it despairs are tried one at a time at the end: then the one that kills is the only one there.
    """
    with _connect(address) as client:
        suspects = _run_parts(client, work, parts, in_flight=IN_FLIGHT)
        if suspects:
            log.warning("workers died and %d items were with them; each is tried alone", len(suspects))
        for suspect in suspects:
            yield from _run_parts(client, work, [[suspect]], in_flight=1)


def _run_parts(client: Any, work: _Work, parts: Sequence[Part], *, in_flight: int) -> list[int]:
    """Take the results of the parts; return the items that were with workers that died."""
    from distributed import KilledWorker

    queue, running, suspects = deque(parts), dict[Any, Part](), list[int]()
    while queue or running:
        while queue and len(running) < in_flight:
            part = queue.popleft()
            running[client.submit(_do_part, work.job, work.of(part), pure=False)] = part
        for future in _wait(client, list(running)):
            part = running.pop(future)
            try:
                work.take(part, future.result())
            except KilledWorker:
                suspects.extend(part)
            except ModuleNotFoundError as error:
                raise DataError(
                    f"a worker of {_address(client)} has no module {error.name!r}; install gotorb there"
                ) from None
    return suspects


def _wait(client: Any, futures: list[Any]) -> list[Any]:
    """Futures that are done, at least one."""
    from distributed import wait

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return list(wait(futures, timeout=POLL_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            if client.scheduler_info(n_workers=-1)["workers"]:
                deadline = time.monotonic() + PATIENCE_S
            elif time.monotonic() > deadline:
                raise DataError(
                    f"no worker at {_address(client)} for {PATIENCE_S} s; start some and run again: what is finished "
                    "is kept"
                ) from None


def _address(client: Any) -> str:
    return str(client.scheduler_info(n_workers=0)["address"])


@contextmanager
def _connect(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise ConfigError("dask.distributed is not installed; pip install 'gotorb[scale]'") from None
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler at {address!r} ({error}); correct DASK_SCHEDULER_ADDRESS or --dask-scheduler-address"
        ) from None
    with client:
        yield client
