"""The report of a pipeline: written and opened."""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.browser import open_browser
from benchmarks.rows import Row

N, LIMIT_SECONDS, LIMIT_OPEN, LIMIT_MIB = 2000, 5.0, 2.0, 8.0


def measure() -> list[Row]:
    """Seconds to write and to open the page of two models on 2000 test rows, and its size."""
    from gotorb.visualise.report_page import write_report
    from tests.unit.test_report_page import make_project, promote

    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        here = make_project(Path(folder), n=N, size=55)
        promote(here, model="bayesian_vgg6", champion=True)
        os.chdir(here)
        write_report(here)  # imports
        started = time.perf_counter()
        path = write_report(here)
        written = time.perf_counter() - started
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        page.goto(f"file://{path}", wait_until="load")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        opened = time.perf_counter() - started
        return [
            Row("report_seconds", written, LIMIT_SECONDS, "s"),
            Row("report_open", opened, LIMIT_OPEN, "s"),
            Row("report_size", path.stat().st_size / 2**20, LIMIT_MIB, "MiB"),
        ]
