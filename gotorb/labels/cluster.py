"""Many images over the workers of a dask cluster, which share this machine's folders.

A worker that dies costs what it was at a retry on another (dask does that). Dask blames all that waited on the
dead worker, so images of which it despairs are tried again, one at a time at the end: then the image that kills a
worker is the only one there, and only that one is given up.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gotorb.errors import ConfigError, DataError
from gotorb.labels.tasks import ImageTask, Job, Part, Skipped, Take

log = logging.getLogger(__name__)
CONNECT_TIMEOUT_S = 10
POLL_S = 5
PATIENCE_S = 120
"""How long a cluster may be without any worker before the run gives up."""
IN_FLIGHT = 500


def run_on_cluster(parts: Sequence[Part], job: Job, take: Take, *, address: str) -> None:
    """Let a cluster do all parts.

    Raises
    ------
    ConfigError
        If there is no scheduler at the address, or dask is not installed.
    DataError
        If the cluster has no workers for a long time, or they lack gotorb.
    """
    with _connect(address) as client:
        suspects = _run_parts(client, parts, job, take, address, in_flight=IN_FLIGHT)
        if suspects:
            log.warning("workers died and %d images were with them; each is tried alone", len(suspects))
        for suspect in suspects:
            for task in _run_parts(client, [[suspect]], job, take, address, in_flight=1):
                take([Skipped.crashed(task)])


def _run_parts(
    client: Any, parts: Sequence[Part], job: Job, take: Take, address: str, *, in_flight: int
) -> list[ImageTask]:
    """Hand on what becomes of the parts; return the images that were with workers that died."""
    from distributed import KilledWorker

    queue = deque(parts)
    running: dict[Any, Part] = {}
    suspects: list[ImageTask] = []
    while queue or running:
        while queue and len(running) < in_flight:
            part = queue.popleft()
            running[client.submit(job, part, pure=False)] = part
        for future in _wait(client, list(running), address):
            part = running.pop(future)
            try:
                take(future.result())
            except KilledWorker:
                suspects.extend(part)
            except ModuleNotFoundError as error:
                raise DataError(f"a worker of {address} has no module {error.name!r}; install gotorb there") from None
    return suspects


def _wait(client: Any, futures: list[Any], address: str) -> list[Any]:
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
                    f"no worker at {address} for {PATIENCE_S} s; start some and run again: finished images are kept"
                ) from None


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
