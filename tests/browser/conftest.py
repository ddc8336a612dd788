"""A browser without a screen, a small data set, and a server in a process of its own that can be killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from benchmarks import browser
from benchmarks.browser import find_browser, open_browser
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from tests.unit.apps.small import make_small, write_answers


def wait_until(page: Any, expression: str, *, seconds: float = 30) -> None:
    """Wait for a JavaScript expression to be true; asked from outside, since the page's policy forbids eval."""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"still not: {expression}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="package")
def started() -> Iterator[Any]:
    """A browser, or the reason why there is none; of this folder: tests elsewhere run event loops of their own."""
    pytest.importorskip("playwright.sync_api", reason="pip install 'gotorb[dev]' for browser tests")
    if find_browser() is None:
        pytest.skip("no Chromium found; install one or name it in GOTORB_CHROMIUM")
    with open_browser() as browser:
        yield browser


@pytest.fixture
def chromium(started: Any) -> Iterator[Any]:
    """The browser; pages that a test leaves open are closed after it."""
    yield started
    for context in started.contexts:
        context.close()


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


class LabelServer(browser.LabelServer):
    """The same as a fork of the waiting python, whose stand-in kills it on SIGTERM and then ends."""

    def kill(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@pytest.fixture
def serve(warm_python: Path) -> Iterator[Callable[..., LabelServer]]:
    """Start `gotorb eyeball DATA WORDS...`; what was started ends with the test."""
    started: list[LabelServer] = []

    def call(data_dir: Path, *words: str) -> LabelServer:
        served = LabelServer(data_dir, *words)
        served.python = str(warm_python)
        started.append(served)
        served.start()
        return served

    yield call
    for served in started:
        served.kill()


@pytest.fixture
def server(serve: Callable[..., LabelServer], tmp_path: Path) -> LabelServer:
    """A server of 150 rows; ann is looking."""
    return serve(make_small(tmp_path / "data", n=150), "--labeller", "ann")


@pytest.fixture
def mapped(serve: Callable[..., LabelServer], tmp_path: Path) -> LabelServer:
    """A server whose model has already been asked: two clouds, real ones to the right."""
    data_dir = make_small(tmp_path / "data", n=150)
    labels = open_dataset(data_dir).labels
    model = write_answers(data_dir, labels, np.random.default_rng(5))
    return serve(data_dir, "--labeller", "ann", "--model", str(model))


@pytest.fixture
def hard(serve: Callable[..., LabelServer], tmp_path: Path) -> LabelServer:
    """A server of rows with huge peaks, gaps, and layers of one value."""
    data_dir = make_small(tmp_path / "data", n=60)
    with h5py.File(layout.stamps_path(data_dir), "r+") as file:
        stamps = file[layout.STAMPS_KEY][:]
        stamps[:, 4, 4] *= np.logspace(-3, 6, 60)[:, None]
        stamps *= np.logspace(-4, 4, 60)[::-1, None, None, None]
        stamps[7, :, 6:], stamps[8, ..., 2], stamps[9, ..., 0] = 0, 5, 0
        stamps[10, 4, 4], stamps[11] = [1e29, -1e29, 1e29, 0, 1, 2], np.round(stamps[11])
        file[layout.STAMPS_KEY][:] = stamps
    return serve(data_dir, "--labeller", "ann")


@pytest.fixture
def placed(serve: Callable[..., LabelServer], tmp_path: Path) -> tuple[LabelServer, Path]:
    """A server of rows whose images have pixels of 1.24 arcsec, east to the left; and its data set."""
    data_dir = make_small(tmp_path / "data", n=70)
    path = layout.labels_path(data_dir)
    table = pd.read_csv(path, dtype={"image_id": str})
    rng = np.random.default_rng(3)
    x, y = rng.integers(100, 1000, 70), rng.integers(100, 1000, 70)
    dec = 20 + (y - 500) * 1.24 / 3600
    table = table.assign(x=x, y=y, dec=dec, ra=10 - (x - 500) * 1.24 / 3600 / np.cos(np.radians(dec)))
    table.to_csv(path, index=False)
    return serve(data_dir, "--labeller", "ann"), data_dir
