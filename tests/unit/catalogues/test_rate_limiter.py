"""The rate limiter holds whatever its users do, dying included."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from gotorb.catalogues.skybot import RateLimiter


def after(seconds: float) -> float:
    return time.monotonic() + seconds


def hold(folder: Path, ready) -> None:
    with RateLimiter(folder, 1, 0.0).passing(after(200)):
        ready.set()
        time.sleep(60)


def test_pass_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(200)
    limiter = RateLimiter(tmp_path, 1, 0.0)
    with pytest.raises(TimeoutError, match="other look-ups"), limiter.passing(after(0.1)):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with limiter.passing(after(30)):
        pass


@pytest.mark.parametrize("text", ["", "1e400", "nan", "broken", "-5", "4102444800.0"])  # the last: in the year 2100
def test_senseless_next_start_holds_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "next").write_text(text)
    with RateLimiter(tmp_path, 2, 0.0).passing(after(30)):
        pass


def test_postponed_start_is_waited_for(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, 2, 0.0)
    limiter.postpone(0.3)
    started = time.monotonic()
    with limiter.passing(after(5)):
        assert time.monotonic() - started >= 0.29


def test_pass_is_given_back_after_an_error(tmp_path: Path) -> None:
    limiter = RateLimiter(tmp_path, 1, 0.0)
    for _ in range(3):
        with pytest.raises(KeyError), limiter.passing(after(30)):
            raise KeyError
