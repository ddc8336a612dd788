"""The contact sheet: many rows under one key, one undo for all, nothing lost when the server dies."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.eyeball.decisions import Journal
from gotorb.stamps.images import paint_stamps
from tests.browser.conftest import LabelServer, wait_until
from tests.browser.test_explorer import lasso
from tests.unit.apps.small import make_small

CELL = """(i) => { const canvas = document.querySelectorAll(".cell canvas")[i];
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]; }"""
SAVED = "document.getElementById('status').textContent === 'saved'"


def open_sheet(page: Any, server: LabelServer, query: str = "") -> Any:
    page.goto(server.url + query)
    page.wait_for_selector("#tiles[data-row]")
    page.keyboard.press("w")
    page.wait_for_selector("#sheet[data-painted]")
    return page


def press(page: Any, keys: str) -> None:
    for key in keys.split():
        page.keyboard.press(key)


def current(server: LabelServer) -> dict[tuple[str, str], str]:
    rows = Journal(server.data_dir / layout.EYEBALL_DB).current().itertuples()
    return {(row.labeller, row.id): row.label for row in rows}


def ids(*numbers: int) -> list[str]:
    return [f"row-{number:04d}" for number in numbers]


def shown(page: Any) -> list[int]:
    return [int(row) for row in page.locator(".cell").evaluate_all("(all) => all.map((one) => one.dataset.row)")]


def test_a_cell_shows_three_layers_as_python_paints_them(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    data = open_dataset(server.data_dir)
    assert shown(page) == list(range(20))
    for row in (0, 7, 19):
        cell = np.array(page.evaluate(CELL, row), np.uint8).reshape(9, 29, 4)
        layers = ("science", "template", "difference")
        wanted = paint_stamps(data.read_stamps([row], layers), layers)[0, :, ::-1]
        for layer in range(3):
            np.testing.assert_array_equal(cell[:, 10 * layer : 10 * layer + 9, :3], wanted[layer])
    assert page.locator(".cell").nth(1).get_attribute("aria-label") == "row 1, mag 16.0, real"


def test_one_key_labels_the_selection_and_one_undo_takes_it_back(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    press(page, "Control+a b")
    wait_until(page, SAVED)
    assert current(server) == {("ann", id_): "bogus" for id_ in ids(*range(20))}
    events = Journal(server.data_dir / layout.EYEBALL_DB).events()
    assert len(events) == 20 and events["uuid"].nunique() == 20 and events["batch"].nunique() == 1
    press(page, "r")  # the one in focus only
    press(page, "z")
    wait_until(page, SAVED)
    assert len(current(server)) == 20
    page.reload()
    page.wait_for_selector("#tiles[data-row]")
    press(page, "w z")
    wait_until(page, "document.getElementById('announce').textContent === 'taken back: 20 rows'")
    wait_until(page, SAVED)
    assert current(server) == {} and len(Journal(server.data_dir / layout.EYEBALL_DB).events()) == 42


def test_selecting_by_keys_and_mouse(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    columns = int(
        page.evaluate("getComputedStyle(document.getElementById('sheet')).gridTemplateColumns.split(' ').length")
    )
    press(page, "ArrowRight Shift+ArrowRight Shift+ArrowRight u")
    press(page, "ArrowDown Space ArrowLeft Space f")
    page.locator(".cell").nth(15).click()
    page.locator(".cell").nth(18).click(modifiers=["Shift"])
    press(page, "r")
    wait_until(page, SAVED)
    wanted = dict.fromkeys(ids(1, 2, 3), "unsure") | dict.fromkeys(ids(15, 16, 17, 18), "real")
    wanted |= dict.fromkeys(ids(3 + columns, 2 + columns), "flag")
    assert current(server) == {("ann", id_): kind for id_, kind in wanted.items()}
    page.locator(".cell").nth(15).click()
    press(page, "Escape")
    assert page.locator(".cell.selected").count() == 0


def test_pages_sizes_opening_and_leaving(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    press(page, "PageDown")
    page.wait_for_selector("#sheet[data-painted='20/20']")
    assert shown(page) == list(range(20, 40))
    press(page, "+")
    page.wait_for_selector("#sheet[data-painted='20/30']")
    for _ in range(5):
        press(page, "+")
    page.wait_for_selector("#sheet[data-painted='20/80']")
    for _ in range(8):
        press(page, "-")
    page.wait_for_selector("#sheet[data-painted='20/12']")
    press(page, "ArrowRight ArrowRight Enter")
    page.wait_for_selector("#tiles[data-row='22']")
    assert not page.is_visible("#sheet") and page.is_visible("#panel")
    press(page, "w")
    page.wait_for_selector("#sheet[data-painted='22/12']")
    press(page, "Escape")
    assert page.is_visible("#tiles") and page.evaluate("document.activeElement === document.body")


def test_nearest_rows_come_as_a_sheet(page: Any, mapped: LabelServer) -> None:
    open_sheet(page, mapped)
    labels = open_dataset(mapped.data_dir).labels
    press(page, "ArrowRight n")
    wait_until(page, "document.getElementById('sheetname').textContent.startsWith('nearest to row 1 ')")
    page.wait_for_selector("#sheet[data-painted]")
    assert shown(page)[0] == 1 and (labels[shown(page)] == 1).all()
    press(page, "Control+a r Escape")
    wait_until(page, SAVED)
    assert len(current(mapped)) == 20
    wait_until(page, "document.getElementById('sheetname').textContent.startsWith('as in the file')")


def test_without_a_model_features_tell_what_is_near(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    press(page, "n")
    wait_until(page, "document.getElementById('sheetname').textContent.startsWith('nearest to row 0 ')")
    assert len(set(shown(page))) == 20


def test_a_lasso_opens_a_sheet(page: Any, mapped: LabelServer) -> None:
    page.goto(mapped.url + "explorer")
    page.wait_for_selector("body[data-ready]")
    assert lasso(page, 0.78, 0.5, 0.21, 0.49) == 75
    page.click("text=as a sheet")
    page.wait_for_selector("#sheet[data-painted='0/20']")
    assert "75 rows" in page.inner_text("#sheetname")
    assert all(row % 2 == 1 for row in shown(page))


def test_digits_tag_the_selection(page: Any, server: LabelServer) -> None:
    open_sheet(page, server)
    press(page, "Space ArrowRight Space 1 4 b")
    wait_until(page, SAVED)
    marks = Journal(server.data_dir / layout.EYEBALL_DB).marks()
    assert marks[["id", "value"]].to_numpy().tolist() == [
        ["row-0000", "dipole,satellite"],
        ["row-0001", "dipole,satellite"],
    ]
    press(page, "z z")
    wait_until(page, SAVED)
    assert Journal(server.data_dir / layout.EYEBALL_DB).marks()["value"].tolist() == ["dipole", "dipole"]


@pytest.mark.slow  # test_eyeball kills the server in each run of the tests
@pytest.mark.parametrize("n_kills", [24])
def test_sheets_tags_notes_and_undo_of_two_annotators_survive_kills(
    chromium: Any, serve: Callable[..., LabelServer], tmp_path: Path, n_kills: int
) -> None:
    """At the end each page shows the journal's content, and no event is duplicate."""
    server = serve(make_small(tmp_path / "data", n=80), "--labeller", "ann")
    pages = []
    for who in ("ann", "bob"):
        made = chromium.new_context(viewport={"width": 1400, "height": 860}).new_page()
        made.goto(f"{server.url}?labeller={who}")
        made.wait_for_selector("#tiles[data-row]")
        wait_until(made, "Number(document.getElementById('tiles').dataset.ahead) >= 80")
        made.wait_for_timeout(300)
        made.keyboard.press("w")
        pages.append(made)

    def torment() -> None:
        for _ in range(n_kills):
            server.kill()
            server.start()
            time.sleep(0.4)

    thread = threading.Thread(target=torment)
    thread.start()
    n_rounds, wanted = 0, Counter[str]()
    while n_rounds < 12 or (thread.is_alive() and n_rounds < 120):
        for made, kind in zip(pages, ("b", "r"), strict=True):
            made.wait_for_selector("#sheet[data-painted]")
            press(made, f"Control+a {kind} Space {n_rounds % 9 + 1} Escape u z")
            press(made, "t")
            made.keyboard.type(f"note {n_rounds}")
            press(made, "Enter")
            press(made, "PageDown" if n_rounds % 4 < 3 else "PageUp")
            wanted.update({"label": 20, "tags": 1, "note": 1, "undo": 1})
        n_rounds += 1
        pages[0].wait_for_timeout(20 * n_kills)
    thread.join()
    for made in pages:
        wait_until(made, SAVED, seconds=60)
    events = Journal(server.data_dir / layout.EYEBALL_DB).events()
    seen = Counter(events["kind"].replace({"real": "label", "bogus": "label", "unsure": "label"}))
    wanted["label"] += wanted["undo"]
    assert seen == wanted and events["uuid"].nunique() == len(events)
    found = current(server)
    assert all(label == {"ann": "bogus", "bob": "real"}[who] for (who, _), label in found.items())
    assert server.data_dir and {who for who, _ in found} == {"ann", "bob"}
