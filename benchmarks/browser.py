"""A browser without a screen and a server that can be killed: for benchmarks and for tests of pages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
LIMIT_SECONDS = 60


class LabelServer:
    """`gotorb eyeball` as a process on a port that stays the same when it is killed and started again."""

    python = sys.executable

    def __init__(self, data_dir: Path, *words: str) -> None:
        self.data_dir, self.words = data_dir, words
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        command = [self.python, "-m", "gotorb", "eyeball", str(self.data_dir), "--port", str(self.port), *self.words]
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

    def peak_mib(self) -> float:
        """Peak memory so far, mapped files included."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def find_browser() -> str | None:
    """Path of Chromium: GOTORB_CHROMIUM, or where distributions put it."""
    return os.environ.get("GOTORB_CHROMIUM") or next((name for name in BROWSERS if Path(name).exists()), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """Headless Chromium while the block runs; an event loop runs in this thread until it ends."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
