"""Crashes at each moment at which a file gets its final name."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

Point = tuple[str, str]
"""Name of a file, and ``before`` or ``after`` it is there."""


class Crash(BaseException):
    """Ends a call as a signal would: no code of ours handles it."""


@contextmanager
def crash_at(is_due: Callable[[Point], bool]) -> Iterator[None]:
    """Raise `Crash` at the first write point for which the function returns True."""

    def crash(point: Point) -> None:
        if is_due(point):
            raise Crash

    def crashing(rename: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any, **options: Any) -> None:
            crash((os.fspath(target), "before"))
            rename(source, target, **options)
            crash((os.fspath(target), "after"))

        return call

    with mock.patch("os.replace", crashing(os.replace)), mock.patch("os.rename", crashing(os.rename)):
        yield


def crash_everywhere(call: Callable[[], Any], *, at_most: int = 200) -> tuple[Any, list[Point]]:
    """Call again and again, each time until the next write point, until a call ends by itself.

    Parameters
    ----------
    call : callable
        Resumes what an earlier call of it left.
    at_most : int
        Calls; more mean that each writes under new names.

    Returns
    -------
    object
        Result of the last call.
    list of (str, str)
        Where the others crashed.
    """
    points: list[Point] = []

    def is_new(point: Point) -> bool:
        return point not in points and points.append(point) is None

    for _ in range(at_most):
        try:
            with crash_at(is_new):
                return call(), points
        except Crash:
            continue
    raise AssertionError(f"no end after {at_most} crashes; the last: {points[-4:]}")
