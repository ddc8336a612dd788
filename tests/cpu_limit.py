"""A limit for the CPU time of each test that has no mark `slow`: over it, a test fails.

A test with the mark `long`, which gives the reason, has a wider limit.

CPU time of the test's process, of its children and of the forks of `tests.warm`, without its fixtures. Time on the
clock would say more of the machine's load. CPU time depends on it too: threefold was seen on a busy virtual machine.
So it is counted in seconds of a reference machine. A fixed piece of work shows the pace of this machine: before the
test, if the last look is older than `LOOK_S`, and after a test that seems too long. The slower look counts.
"""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import warm

LIMIT_S = 5.0
LONG_S = 15.0
"""Limit of a test with the mark `long`."""
TOLERANCE = 1.5
"""The same test took up to so many times its usual CPU time on a busy machine, the pace taken into account."""
REFERENCE_S = 0.022
"""CPU seconds of `work` on the reference machine: the two idle cores (AMD EPYC) for which the limit was chosen."""
LOOK_S = 5.0
TAKEN = pytest.StashKey[float]()
_looks = {"when": -LOOK_S, "pace": 1.0}


def work() -> int:
    """Do what a test does most: call functions, make and sort small objects."""
    words = [str(number * 7919 % 100_003) for number in range(60_000)]
    counts: dict[str, int] = {}
    for word in sorted(words):
        counts[word[:2]] = counts.get(word[:2], 0) + len(word)
    return sum(counts.values())


def look() -> float:
    """Pace of this machine now: 2 where everything takes twice the reference machine's CPU time."""
    began = time.process_time()
    work()
    _looks["when"], _looks["pace"] = time.monotonic(), (time.process_time() - began) / REFERENCE_S
    return _looks["pace"]


def used(item: pytest.Item) -> float:
    """CPU seconds so far that count for this test."""
    return sum(os.times()[:4]) + sum(warm.cpu_seconds(folder, item.nodeid) for folder in warm.SERVING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measure the test itself, without its fixtures."""
    if time.monotonic() - _looks["when"] > LOOK_S:
        look()
    pace, before = _looks["pace"], used(item)
    yield
    taken = used(item) - before
    if taken > LIMIT_S * min(pace, 1.0):
        item.stash[TAKEN] = taken / max(pace, look())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    """Fail a test that passed but took too long."""
    report = yield
    taken, limit = item.stash.get(TAKEN, 0.0), LONG_S if item.get_closest_marker("long") else LIMIT_S
    if call.when == "call" and report.passed and taken > TOLERANCE * limit and not item.get_closest_marker("slow"):
        report.outcome = "failed"
        report.longrepr = f"took {taken:.1f} CPU seconds of the reference machine; make it quicker, or mark it slow"
    return report
