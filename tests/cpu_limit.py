"""A limit for the CPU time of each test that has no mark `slow`.

CPU time of the test's process, of its children and of `tests.warm`, since time on the clock says more of the machine.
On a busy virtual machine CPU time grows too (threefold was seen), so that a test over `LIMIT_S` is only listed at the
end of the session. With GOTORB_TEST_STRICT=1, for an idle machine, it fails.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests import warm

LIMIT_S = 5.0
IS_STRICT = os.environ.get("GOTORB_TEST_STRICT", "0") == "1"
CPU = "cpu seconds"


def used(item: pytest.Item) -> float:
    """CPU seconds so far that count for this test."""
    return sum(os.times()[:4]) + sum(warm.cpu_seconds(folder, item.nodeid) for folder in warm.SERVING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measure the test itself, without its fixtures."""
    before = used(item)
    yield
    item.user_properties.append((CPU, used(item) - before))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    """Fail a test that passed but took too long, where that is asked for."""
    report = yield
    taken = dict(item.user_properties).get(CPU, 0.0)
    is_over = taken > LIMIT_S and not item.get_closest_marker("slow")
    if IS_STRICT and call.when == "call" and report.passed and is_over:
        report.outcome = "failed"
        report.longrepr = f"took {taken:.1f} CPU seconds; make it quicker, or mark it slow"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List tests over the limit that are not marked."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    slow = [(dict(one.user_properties).get(CPU, 0.0), one.nodeid) for one in reports if "slow" not in one.keywords]
    over = sorted((pair for pair in slow if pair[0] > LIMIT_S), reverse=True)
    if over:
        terminalreporter.section(f"over {LIMIT_S:g} CPU seconds, without the mark slow")
        for seconds, name in over:
            terminalreporter.line(f"{seconds:6.1f} s  {name}")
