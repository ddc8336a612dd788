"""A browser without a screen, a small data set, and a server in a process of its own that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotorb.dataset.store import open_dataset
from tests.unit.apps.small import make_small, write_answers

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
LIMIT_SECONDS = 60


class LabelServer:
    """`gotorb eyeball` as a process on a port that stays the same when it is killed and started again."""

    def __init__(self, data_dir: Path, *words: str) -> None:
        self.data_dir, self.words = data_dir, words
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [sys.executable, "-m", "gotorb", "eyeball", str(self.data_dir), "--port", str(self.port), *self.words]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        ends = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}api/meta", timeout=5).read()
                return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < ends, "the server does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def wait_until(page: Any, expression: str, *, seconds: float = 30) -> None:
    """Wait for a JavaScript expression to be true; asked from outside, since the page's policy forbids eval."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"still not: {expression}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser, or the reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'gotorb[dev]' for browser tests")
    path = os.environ.get("GOTORB_CHROMIUM") or next((name for name in BROWSERS if Path(name).exists()), None)
    if path is None:
        pytest.skip("no Chromium found; install one or name it in GOTORB_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh page of a fresh profile, on which no script may fail."""
    context = chromium.new_context(viewport={"width": 1400, "height": 860})
    made = context.new_page()
    failures: list[str] = []
    made.on("pageerror", lambda error: failures.append(str(error)))
    yield made
    context.close()
    assert failures == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    """A server of 150 rows, started; ann is looking."""
    served = LabelServer(make_small(tmp_path / "data", n=150), "--labeller", "ann")
    served.start()
    yield served
    served.kill()


@pytest.fixture
def mapped(tmp_path: Path) -> Iterator[LabelServer]:
    """A server whose model has already been asked: two clouds, real ones to the right."""
    data_dir = make_small(tmp_path / "data", n=150)
    labels = open_dataset(data_dir).labels
    model = write_answers(data_dir, labels, np.random.default_rng(5))
    served = LabelServer(data_dir, "--labeller", "ann", "--model", str(model))
    served.start()
    yield served
    served.kill()
