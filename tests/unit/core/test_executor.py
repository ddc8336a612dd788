"""Results come in order; a worker that dies costs its item a second try, an item that kills twice is given up."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from gotorb.core.executor import Executor, Workers


@dataclass(frozen=True)
class Deadly:
    """An item on which its worker dies, always or only at the first try."""

    journal: str
    always: bool = False


def work(item):
    if isinstance(item, Deadly):
        with Path(item.journal).open("a") as file:
            file.write("tried\n")
        if item.always or Path(item.journal).read_text().count("tried") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"
    if item < 0:
        raise ValueError(f"no negative {item}")
    return item**2


def run(items, **options):
    with Executor(Workers(**options)) as executor:
        return executor.map(work, items, crashed=lambda item: "crashed")


@pytest.mark.parametrize("chunk", [1, 2, 7])
def test_results_are_in_the_order_of_the_items(chunk):
    assert run([3, 1, 2, 0, 5], n_processes=2, chunk=chunk) == [9, 1, 4, 0, 25]
    assert run([3, 1, 2, 0, 5], chunk=chunk) == [9, 1, 4, 0, 25]
    assert run([], chunk=chunk) == []


def test_worker_that_dies_once_costs_a_retry(tmp_path):
    items = [0, 1, Deadly(str(tmp_path / "journal")), 3, 4]
    assert run(items, n_processes=2) == [0, 1, "survived", 9, 16]


def test_item_that_kills_twice_is_given_up_and_no_other(tmp_path):
    journal = tmp_path / "journal"
    items = [0, 1, Deadly(str(journal), always=True), 3, 4, 5]
    assert run(items, n_processes=2, chunk=2) == [0, 1, "crashed", 9, 16, 25]
    assert journal.read_text().count("tried") == 2


def test_error_of_a_job_ends_the_run():
    for options in ({}, {"n_processes": 2}):
        with pytest.raises(ValueError, match="no negative -1"):
            run([1, -1, 2], **options)


_STARTED = []


def start(value):
    _STARTED.append(value)


def started_with(item):
    return item, list(_STARTED), os.getpid()


def test_initializer_runs_once_in_each_process_and_the_pool_is_kept_between_maps():
    with Executor(Workers(2), initializer=start, initargs=("ready",)) as executor:
        found = [one for _ in range(2) for one in executor.map(started_with, [1, 2, 3], crashed=lambda item: None)]
    assert [item for item, _, _ in found] == [1, 2, 3, 1, 2, 3]
    assert all(values == ["ready"] for _, values, _ in found)
    assert len({pid for _, _, pid in found}) <= 2 and os.getpid() not in {pid for _, _, pid in found}


def sleep_and_tell(journal):
    Path(journal).with_suffix(f".{os.getpid()}").touch()
    time.sleep(60)


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = (
        "from gotorb.core.executor import *; from tests.unit.core.test_executor import sleep_and_tell\n"
        f"if __name__ == '__main__': Executor(Workers(2)).map(sleep_and_tell, [{str(tmp_path / 'pid')!r}] * 2, "
        "crashed=lambda item: None)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": root})
    try:
        pids = wait_for(lambda: found if len(found := [int(p.suffix[1:]) for p in tmp_path.glob("pid.*")]) == 2 else [])
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found
