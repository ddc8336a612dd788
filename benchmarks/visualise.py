"""A page of 500 detections: made, opened and sorted."""

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from benchmarks.browser import open_browser
from benchmarks.rows import Row

N, LIMIT_SECONDS, LIMIT_MIB, LIMIT_OPEN, LIMIT_SORT = 500, 5.0, 15.0, 2.0, 0.2
SORT = """async (value) => {
  const select = document.getElementById("sort");
  select.value = value;
  const started = performance.now();
  select.dispatchEvent(new Event("change"));
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  return (performance.now() - started) / 1000;
}"""


def measure() -> list[Row]:
    """Seconds to make the page, its size, seconds to open and to sort it."""
    from gotorb.core.settings import Settings
    from gotorb.visualise import SORTS, Look, write_block
    from tests.browser.pages import THRESHOLD, make_judged

    judged = make_judged(N)
    scorer = SimpleNamespace(name="model", version="1", size=judged.found.stamps.shape[1])
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        write_block(Path(folder), make_judged(2), scorer, THRESHOLD, settings=Settings(), look=Look())  # imports
        started = time.perf_counter()
        line = write_block(Path(folder), judged, scorer, THRESHOLD, settings=Settings(), look=Look())
        made, path = time.perf_counter() - started, Path(folder) / line["file"]
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        started = time.perf_counter()
        page.goto(f"file://{path}", wait_until="load")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))")
        opened = time.perf_counter() - started
        sorting = max(page.evaluate(SORT, value) for value, _ in SORTS)
        size = path.stat().st_size / 2**20
    return [
        Row("visualise_seconds", made, LIMIT_SECONDS, "s"),
        Row("visualise_size", size, LIMIT_MIB, "MiB"),
        Row("visualise_open", opened, LIMIT_OPEN, "s"),
        Row("visualise_sort", sorting, LIMIT_SORT, "s"),
    ]
