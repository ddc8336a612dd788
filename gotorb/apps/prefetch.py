"""Reading ahead: a thread fetches the next items while the present one is worked on."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
AHEAD = 3
"""Items fetched and not yet taken; more would only take memory."""
NICENESS = 10
_END = object()


def fetch_ahead(items: Iterable[T], *, ahead: int = AHEAD) -> Generator[T, None, None]:
    """Yield the items in their order, fetched by a thread of their own.

    An error of the source is raised where its item would have come. When the caller stops early, the thread ends
    before the generator is closed, so that files are not read by one who is no longer asked.

    Parameters
    ----------
    items : iterable
        Slow to read: files, packets.
    ahead : int
        Items held at most.

    Examples
    --------
    >>> list(fetch_ahead(range(3)))
    [0, 1, 2]
    """
    waiting: queue.Queue[Any] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()
    thread = threading.Thread(target=_fetch, args=(items, waiting, stopped), daemon=True)
    thread.start()
    try:
        while (found := waiting.get()) is not _END:
            if isinstance(found, _Failure):
                raise found.error
            yield found
    finally:
        stopped.set()
        thread.join()


def give_way() -> None:
    """Let this thread run where the network's threads leave a core.

    These wait for each other at every layer, so one that is held up holds up all.
    """
    if sys.platform != "linux":
        return  # elsewhere threads have no priority of their own, and the process would be meant
    with suppress(OSError):
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, min(os.getpriority(os.PRIO_PROCESS, me) + NICENESS, 19))


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _fetch(items: Iterable[Any], waiting: queue.Queue[Any], stopped: threading.Event) -> None:
    give_way()
    try:
        for item in items:
            if not _put(waiting, item, stopped):
                return
        _put(waiting, _END, stopped)
    except BaseException as error:
        _put(waiting, _Failure(error), stopped)


def _put(waiting: queue.Queue[Any], item: Any, stopped: threading.Event) -> bool:
    """Whether the item found room before the caller stopped."""
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=0.05)
            return True
        except queue.Full:
            continue
    return False
