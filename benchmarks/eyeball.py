"""The pages of eyeball on 100,000 rows, in a browser without a screen or graphics card, against stated limits."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.browser import LabelServer, open_browser
from benchmarks.memory import make_table
from benchmarks.rows import Row
from gotorb.core import layout
from gotorb.dataset.store import open_dataset, write_dataset
from gotorb.eyeball.inference import kept_path, write_opinions
from gotorb.stamps.images import scale_stamps, to_grey
from gotorb.survey.pixels import prepare_stamps

N_ROWS, SIZE, N_DRAWN, BLOCK, N_COMPONENTS, N_SAMPLES = 100_000, 55, 4000, 500, 30, 20
N_PRESSES, PAUSE_MS, N_TURNS, WARM_UP_MS = 200, 120, 20, 3000
N_SHEETS, N_CELLS, READING_MS = 30, 42, 600
DARK, ALLOWED = 0.05 * 255, 0.02
"""Median grey below which a panel is black, and the part of the panels that may be."""
LIMITS = {"eyeball_key": 50, "eyeball_key_p95": 100, "eyeball_memory": 400, "explorer_ready": 1.5,
          "explorer_redraw": 60, "explorer_lasso": 0.1, "sheet_paint": 300, "sheet_label": 200}  # fmt: skip
UNITS = {"eyeball_memory": "MiB", "explorer_ready": "s", "explorer_lasso": "s"}
WATCH = """
window.took = [];
let began = 0;
for (const kind of ["keydown", "wheel", "pointerup"]) {
  addEventListener(kind, (event) => { began = event.timeStamp; }, { capture: true, passive: true });
}
const painted = () => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => window.took.push(performance.now() - began);
  channel.port2.postMessage(0);
});
addEventListener("DOMContentLoaded", () => {
  new MutationObserver((seen) => {
    if (seen.some(({ target, attributeName }) => target.hasAttribute(attributeName) && !target.dataset.i)) painted();
  }).observe(document.body, {
    subtree: true, attributes: true,
    attributeFilter: ["data-row", "data-ms", "data-n", "data-painted", "data-labelled"],
  });
});
"""
"""Notes the time from an event to the frame after the page says that it has drawn."""


def measure() -> list[Row]:
    """One server, one browser, both pages."""
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        data_dir, model = make_rows(Path(folder) / "data")
        server = LabelServer(data_dir, "--labeller", "reader", "--model", str(model))
        try:
            server.start()
            page = browser.new_page(viewport={"width": 1400, "height": 860})
            page.add_init_script(WATCH)
            found = press_keys(page, server.url) | turn_sheets(page, server.url) | explore(page, server.url)
            found["eyeball_memory"] = server.peak_mib()
        finally:
            server.kill()
    rows = [Row(name, found[name], limit, UNITS.get(name, "ms")) for name, limit in LIMITS.items()]
    black = count_black_panels()
    return rows if black is None else [*rows, Row("black_panels", black, ALLOWED, "of the panels")]


def count_black_panels() -> float | None:
    """Largest part of the science and template panels that is black, over the sets that are here; None without any."""
    parts = []
    if layout.labels_path("data/dataset").exists():
        data = open_dataset("data/dataset")
        parts.append([_panel_greys(stamps) for _, stamps in data.batches(layers=("science", "template"))])
    real = Path(os.environ.get("GOTORB_TEST_DATA", "")) / "ztf" / "ztf_stamps.h5"
    if real.exists():
        with h5py.File(real) as file:
            stamps = file["stamps"]
            blocks = [
                prepare_stamps(stamps[at : at + BLOCK, ..., :2], "median")[0] for at in range(0, len(stamps), BLOCK)
            ]
            parts.append([_panel_greys(block) for block in blocks])
    found = [np.concatenate(greys).ravel() for greys in parts]
    return max((float(np.mean(greys[np.isfinite(greys)] < DARK)) for greys in found), default=None)


def _panel_greys(stamps: np.ndarray) -> np.ndarray:
    z = scale_stamps(stamps).z
    grey = np.ma.masked_array(to_grey(z, ("science", "template")), np.isnan(z))
    return np.ma.median(grey, axis=(1, 2)).filled(np.nan)


def make_rows(data_dir: Path) -> tuple[Path, Path]:
    """A data set of noise, and the answers of a model that was never run: two clouds on the map."""
    table = make_table(N_ROWS)
    write_dataset(data_dir, table, _blocks())
    rng, labels = np.random.default_rng(3), table["label"].to_numpy(int)
    vectors = rng.normal(0, 1, (N_ROWS, N_COMPONENTS))
    vectors[:, 0] += 6 * labels
    score = np.clip(labels * 0.7 + rng.normal(0.15, 0.1, N_ROWS), 0, 1)
    samples = np.clip(score[:, None] + rng.normal(0, 0.03, (N_ROWS, N_SAMPLES)), 0, 1)
    model = data_dir / "model"
    model.write_bytes(b"a model whose answers are known")
    path = kept_path(data_dir, str(model), N_SAMPLES, 0)
    path.parent.mkdir()
    write_opinions(path, score=score, samples=samples, places={"pca": vectors[:, :2]}, vectors=vectors)
    return data_dir, model


def _blocks() -> Iterator[np.ndarray]:
    """Stamps of all rows, 7 GB: the first `N_DRAWN` again and again, since the server reads no virtual arrays."""
    rng = np.random.default_rng(2)
    drawn = rng.normal(0, 1, (N_DRAWN, SIZE, SIZE, 6)).astype(np.float32)
    drawn[:, SIZE // 2, SIZE // 2] = (np.arange(N_DRAWN) // BLOCK * BLOCK / 1000)[:, None]
    for start in range(0, N_ROWS, BLOCK):
        at = start % N_DRAWN
        yield drawn[at : at + BLOCK]


def press_keys(page: Any, url: str) -> dict[str, float]:
    """Decide on row after row."""
    page.goto(f"{url}?order=random")
    page.wait_for_selector("#tiles[data-row]")
    page.wait_for_timeout(WARM_UP_MS)
    page.evaluate("window.took.length = 0")
    for number in range(N_PRESSES):
        page.keyboard.press("rb"[number % 2])
        page.wait_for_timeout(PAUSE_MS)
    took = page.evaluate("window.took")
    if len(took) != N_PRESSES:
        raise RuntimeError(f"{len(took)} stamps painted after {N_PRESSES} presses")
    return {"eyeball_key": statistics.median(took), "eyeball_key_p95": float(np.percentile(took, 95))}


def turn_sheets(page: Any, url: str) -> dict[str, float]:
    """Turn the contact sheet at a reader's pace, and label all of each by one key."""
    page.goto(f"{url}?order=random")
    page.wait_for_selector("#tiles[data-row]")
    page.keyboard.press("w")
    while int(page.get_attribute("#sheet", "data-painted", timeout=30_000).split("/")[1]) != N_CELLS:
        page.keyboard.press("+")
        page.wait_for_selector("#sheet[data-painted]")
    painted, labelled = [], []
    for _ in range(N_SHEETS):
        page.wait_for_timeout(READING_MS)
        painted.append(_time_key(page, "PageDown"))
        page.keyboard.press("Control+a")
        labelled.append(_time_key(page, "b"))
    return {"sheet_paint": statistics.median(painted), "sheet_label": statistics.median(labelled)}


def _time_key(page: Any, key: str) -> float:
    """Milliseconds from a key press to the frame that shows its result."""
    page.evaluate("window.took.length = 0")
    page.keyboard.press(key)
    while not page.evaluate("window.took.length"):
        page.wait_for_timeout(5)
    return float(page.evaluate("window.took.at(-1)"))


def explore(page: Any, url: str) -> dict[str, float]:
    """Open the map, turn the wheel, draw a lasso around the right half."""
    page.goto(f"{url}explorer")
    page.wait_for_selector("body[data-ready]")
    ready = float(page.get_attribute("body", "data-ready")) / 1000
    box = page.locator("#above").bounding_box()
    x, y, width, height = box["x"], box["y"], box["width"], box["height"]
    page.mouse.move(x + width / 2, y + height / 2)
    page.wait_for_timeout(500)
    page.evaluate("window.took.length = 0")
    for turn in range(N_TURNS):
        page.mouse.wheel(0, -60 if turn % 2 else 60)
        page.wait_for_timeout(250)
    redraw = statistics.median(page.evaluate("window.took"))
    page.keyboard.press("l")
    corners = [(0.5, 0.02), (0.98, 0.02), (0.98, 0.98), (0.5, 0.98), (0.5, 0.5)]
    page.mouse.move(x + width * 0.5, y + height * 0.02)
    page.mouse.down()
    for across, down in corners:
        page.mouse.move(x + width * across, y + height * down, steps=20)
    page.evaluate("window.took.length = 0")
    page.mouse.up()
    page.wait_for_timeout(500)
    if int(page.get_attribute("#selection", "data-n")) < N_ROWS // 4:
        raise RuntimeError("the lasso caught too few points")
    return {
        "explorer_ready": ready,
        "explorer_redraw": redraw,
        "explorer_lasso": max(page.evaluate("window.took")) / 1000,
    }
