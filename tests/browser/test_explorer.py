"""The latent explorer, served and as one file."""

import math
from pathlib import Path
from typing import Any

from gotorb import eyeball
from gotorb.dataset.store import open_dataset
from tests.browser.conftest import LabelServer, wait_until


def lasso(page: Any, x: float, y: float, width: float, height: float) -> int:
    """Draw an ellipse in fractions of the field; how many rows it holds."""
    box = page.locator("#above").bounding_box()

    def go(turn: float) -> tuple[float, float]:
        return (box["x"] + box["width"] * (x + width * math.cos(turn)),
                box["y"] + box["height"] * (y + height * math.sin(turn)))  # fmt: skip

    page.keyboard.down("Shift")
    page.mouse.move(*go(0))
    page.mouse.down()
    for step in range(1, 40):
        page.mouse.move(*go(step * math.tau / 40))
    page.mouse.up()
    page.keyboard.up("Shift")
    return int(page.get_attribute("#selection", "data-n"))


def click_point(page: Any, *, n_layers: int) -> None:
    """Move over the right-hand cloud until a point is under the mouse, see its stamp, click it, see neighbours."""
    row = find_point(page)
    wait_until(page, f"document.getElementById('row').textContent.includes('row-{row:04d}')")
    assert page.locator("#row canvas").count() == n_layers
    page.mouse.down()
    page.mouse.up()
    page.wait_for_selector("#neighbours figure")
    assert page.locator("#neighbours figure").count() == 12


def find_point(page: Any) -> int:
    """Number of the first row that the mouse meets."""
    box = page.locator("#above").bounding_box()
    for step in range(200):
        page.mouse.move(box["x"] + box["width"] * (0.6 + 0.3 * step / 200), box["y"] + box["height"] * 0.5)
        row = int(page.get_attribute("#above", "data-hovered") or -1)
        if row >= 0:
            return row
    raise AssertionError("no point found")


def test_hover_click_lasso_and_back_to_eyeball(page: Any, mapped: LabelServer) -> None:
    labels = open_dataset(mapped.data_dir).labels
    page.goto(mapped.url + "explorer")
    page.wait_for_selector("body[data-ready]")
    click_point(page, n_layers=6)
    assert lasso(page, 0.78, 0.5, 0.21, 0.49) == labels.sum()
    assert page.locator("#selection dd").all_inner_texts() == ["75", "75"]
    with page.expect_download() as downloaded:
        page.click("text=export ids")
    lines = Path(downloaded.value.path()).read_text().splitlines()
    assert lines[0] == "id" and len(lines) == 76
    page.click("text=look at them")
    page.wait_for_selector("#tiles[data-row]")
    assert page.inner_text("#place").startswith("1 of 75")


def test_one_file_works_without_server_or_network(page: Any, mapped: LabelServer, tmp_path: Path) -> None:
    model = mapped.words[-1]
    path = eyeball.explore(mapped.data_dir, model, tmp_path / "explorer.html")
    mapped.kill()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]")
    click_point(page, n_layers=3)
    assert lasso(page, 0.78, 0.5, 0.21, 0.49) == 75
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
