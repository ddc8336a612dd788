"""The page paints what Python paints, and changes contrast, scale and cursor without a request."""

from pathlib import Path
from typing import Any

import numpy as np

from gotorb.dataset.store import open_dataset
from gotorb.stamps.images import paint_stamps, scale_stamps
from tests.browser.conftest import LabelServer, wait_until

PAINTED = """() => [...document.querySelectorAll(".tile canvas")].map((canvas) =>
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data])"""
GREYS = """async ([layers, size, rows]) => {
  const { Stretch, unpackStamps } = await import("/static/stretch.js");
  const meta = await (await fetch("/api/meta")).json();
  const answer = await (await fetch(`/pixels/${rows.join(",")}.bin`)).arrayBuffer();
  const stretch = new Stretch(meta.stretch, layers);
  return unpackStamps(answer, rows, layers.length, size).map((stamp) =>
    layers.map((_, i) => [...stretch.greyLevels(stamp, i)]));
}"""


def painted(page: Any, size: int) -> np.ndarray:
    return np.array(page.evaluate(PAINTED), np.uint8).reshape(-1, size, size, 4)[..., :3]


def open_page(page: Any, server: LabelServer) -> Any:
    page.goto(server.url)
    page.wait_for_selector("#tiles[data-row='0']")
    return open_dataset(server.data_dir)


def test_the_page_shows_the_pixels_of_python(page: Any, server: LabelServer) -> None:
    data = open_page(page, server)
    for row in range(4):
        page.wait_for_selector(f"#tiles[data-row='{row}']")
        wanted = paint_stamps(data.read_stamps([row]), data.layers)[0]
        np.testing.assert_array_equal(painted(page, data.size), wanted[:, ::-1])
        page.keyboard.press("ArrowRight")


def test_greys_of_hard_stamps_are_equal(page: Any, hard: LabelServer) -> None:
    """Peaks of a million sigma, gaps, layers of one value: every grey is the same, missing pixels too."""
    data = open_page(page, hard)
    rows = list(range(len(data)))
    found = np.array(page.evaluate(GREYS, [list(data.layers), data.size, rows])).reshape(-1, 6, data.size, data.size)
    stamps = data.read_stamps(rows)
    picture, missing = paint_stamps(stamps, data.layers), np.moveaxis(np.isnan(scale_stamps(stamps).z), -1, 1)
    assert missing.any() and (found[~missing] == picture[..., 0][~missing]).all()
    assert (found[missing] == -1).all()


def test_contrast_scale_cursor_and_blink_ask_for_nothing(page: Any, server: LabelServer) -> None:
    data = open_page(page, server)
    wait_until(page, "Number(document.getElementById('tiles').dataset.ahead) >= 120")
    page.wait_for_timeout(300)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = painted(page, data.size)
    for key, back in (("]", "s"), ("[", "s"), ("i", "i"), ("l", "l"), ("o", "o")):
        page.keyboard.press(key)
        assert (painted(page, data.size) != before).any(), key
        page.keyboard.press(back)
        np.testing.assert_array_equal(painted(page, data.size), before)
    box = page.locator(".tile canvas").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 2.5 / 9, box["y"] + box["height"] * 8.5 / 9)
    z = scale_stamps(data.read_stamps([0])).z[0, 0, 2]
    assert page.locator("#cursor span").first.inner_text() == f"science {z[0]:.1f} σ"
    page.keyboard.press(" ")
    np.testing.assert_array_equal(painted(page, data.size)[0], before[1])
    wait_until(page, "document.querySelector('.tile figcaption span').textContent === 'science'")
    page.keyboard.press(" ")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    assert (painted(page, data.size) != before).any() and page.locator(".tile.chosen").count() == 0
    assert asked == []


def test_the_cursor_tells_the_place_on_the_sky(page: Any, placed: tuple[LabelServer, Path]) -> None:
    """x, y and ra, dec of the middle pixel are the row's own; a pixel further they differ by the pixel's scale."""
    server, _ = placed
    data = open_page(page, server)
    row = data.table.iloc[0]
    box = page.locator(".tile canvas").first.bounding_box()
    for step, offset in ((0, 0.0), (2, 2.0)):
        page.mouse.move(box["x"] + box["width"] * (4.5 + step) / 9, box["y"] + box["height"] * 0.5)
        x, place = page.locator("#cursor span").all_inner_texts()[-2:]
        assert x == f"x {int(row['x']) + step} y {int(row['y'])}"
        ra, dec = float(place.split()[1]), float(place.split()[3])
        assert abs(dec - row["dec"]) * 3600 < 0.05
        turned = (ra - row["ra"]) * 3600 * np.cos(np.radians(row["dec"]))
        assert abs(turned + offset * 1.24) < 0.05
