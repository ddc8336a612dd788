"""Reading ahead: a thread fetches the next items while the present one is worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
AHEAD = 3
"""Items fetched and not yet taken; more would only take memory."""
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


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _fetch(items: Iterable[Any], waiting: queue.Queue[Any], stopped: threading.Event) -> None:
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
