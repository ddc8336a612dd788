"""Many images over the workers of a dask cluster, which share this machine's folders.

A worker that dies costs what it was at a retry on another (dask does that); a group of images on which
workers keep dying is taken apart, and an image on which they die even alone is given up.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gotorb.errors import ConfigError, DataError
from gotorb.labels.tasks import Job, Part, Skipped, Take

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
    queue = deque(parts)
    running: dict[Any, Part] = {}
    with _connect(address) as client:
        while queue or running:
            while queue and len(running) < IN_FLIGHT:
                part = queue.popleft()
                running[client.submit(job, part, pure=False)] = part
            for future in _wait(client, list(running), address):
                queue.extend(_take_result(future, running.pop(future), take, address))


def _take_result(future: Any, part: Part, take: Take, address: str) -> list[Part]:
    """Hand on what became of a part; return what must be tried again."""
    from distributed import KilledWorker

    try:
        take(future.result())
    except KilledWorker:
        if len(part) > 1:
            log.warning("workers died on a group of %d images; each is tried alone", len(part))
            return [[task] for task in part]
        take([Skipped.crashed(part[0])])
    except ModuleNotFoundError as error:
        raise DataError(f"a worker of {address} has no module {error.name!r}; install gotorb there") from None
    return []


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
            f"no dask scheduler at {address!r} ({error}); correct DASK_SCHEDULER_ADDRESS or --scheduler"
        ) from None
    with client:
        yield client
