"""People at the keyboard, and a server that dies under their hands."""

import re
import threading
import time
from collections import Counter
from typing import Any

import pytest

from gotorb.core import layout
from gotorb.eyeball.decisions import Journal
from tests.browser.conftest import LabelServer, wait_until

KEYS = {"r": "real", "b": "bogus", "u": "unsure", "f": "flag"}


def open_page(page: Any, server: LabelServer, query: str = "") -> Any:
    page.goto(server.url + query)
    page.wait_for_selector("#tiles[data-row]")
    return page


def wait_saved(page: Any) -> None:
    wait_until(page, "document.getElementById('status').textContent === 'saved'")


def wait_ahead(page: Any, n: int) -> None:
    """Until the pixels of n rows are in the browser."""
    wait_until(page, f"Number(document.getElementById('tiles').dataset.ahead) >= {n}")
    page.wait_for_timeout(300)


def records(server: LabelServer) -> list[tuple[str, str, str]]:
    events = Journal(server.data_dir / layout.EYEBALL_DB).events()
    return [(row.labeller, row.id, row.kind) for row in events.itertuples()]


def test_a_hundred_quick_presses_are_a_hundred_records_and_as_many_undos(page: Any, server: LabelServer) -> None:
    wait_ahead(open_page(page, server), 100)
    pressed = ["rbuf"[number * 7 % 4] for number in range(100)]
    for key in pressed:
        page.keyboard.press(key)
    wait_saved(page)
    assert records(server) == [("ann", f"row-{row:04d}", KEYS[key]) for row, key in enumerate(pressed)]
    page.reload()
    page.wait_for_selector("#tiles[data-row]")
    for number in range(100):
        page.keyboard.press("z")
        page.wait_for_selector(f"#tiles[data-row='{99 - number}']")
    wait_saved(page)
    assert Journal(server.data_dir / layout.EYEBALL_DB).current().empty
    page.keyboard.press("z")
    wait_until(page, "document.getElementById('notice').textContent === 'nothing left to take back'")


def test_presses_while_the_server_is_away_are_kept_once(page: Any, server: LabelServer) -> None:
    wait_ahead(open_page(page, server), 60)
    for number in range(20):
        if number == 7:
            server.kill()
        page.keyboard.press("r")
    wait_until(page, "document.getElementById('status').textContent.startsWith('offline')")
    assert int(page.inner_text("#status").split()[1]) >= 13
    server.start()
    wait_saved(page)
    assert records(server) == [("ann", f"row-{row:04d}", "real") for row in range(20)]


def test_waiting_decisions_survive_a_closed_page(page: Any, server: LabelServer) -> None:
    wait_ahead(open_page(page, server), 20)
    server.kill()
    for _ in range(5):
        page.keyboard.press("b")
    page.goto("about:blank")
    server.start()
    wait_saved(open_page(page, server))
    assert [kind for _, _, kind in records(server)] == ["bogus"] * 5
    assert "5 decided" in page.inner_text("#place")


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_two_labellers_and_a_server_killed_again_and_again(chromium: Any, server: LabelServer, n_kills: int) -> None:
    """Nothing acknowledged is lost, nothing is duplicate, and every key press arrives."""
    pages = []
    for who in ("ann", "bob"):
        made = chromium.new_context().new_page()
        wait_ahead(open_page(made, server, f"?labeller={who}"), 120)
        pages.append(made)

    def torment() -> None:
        for _ in range(n_kills):
            server.kill()
            server.start()
            time.sleep(0.4)

    thread = threading.Thread(target=torment)
    thread.start()
    n_pressed = 0
    while n_pressed < 30 or (thread.is_alive() and n_pressed < 150):
        for made, key in zip(pages, ("rb"[n_pressed % 2], "bu"[n_pressed % 2]), strict=True):
            made.keyboard.press(key)
        n_pressed += 1
        pages[0].wait_for_timeout(20 * n_kills)
    thread.join()
    for made in pages:
        wait_saved(made)
    seen = Counter(records(server))
    wanted = {("ann", f"row-{n:04d}", KEYS["rb"[n % 2]]) for n in range(n_pressed)}
    wanted |= {("bob", f"row-{n:04d}", KEYS["bu"[n % 2]]) for n in range(n_pressed)}
    assert set(seen) == wanted and set(seen.values()) == {1}


def test_a_stamp_that_was_not_seen_is_not_judged(page: Any, server: LabelServer) -> None:
    asks_for_3 = re.compile(r"/pixels/(\d+,)*3(,\d+)*\.bin")
    page.route(asks_for_3, lambda route: route.abort())
    wait_ahead(open_page(page, server), 20)
    for _ in range(6):
        page.keyboard.press("r")
    wait_saved(page)
    assert [id_ for _, id_, _ in records(server)] == ["row-0000", "row-0001", "row-0002"]
    assert "nothing was recorded" in page.inner_text("#notice")


def test_blind_hides_what_would_sway_and_is_recorded(page: Any, server: LabelServer) -> None:
    open_page(page, server)
    assert "randjunk" in page.inner_text("#panel")
    page.keyboard.press("h")
    assert "randjunk" not in page.inner_text("#panel") and "random forest" not in page.inner_text("#panel").lower()
    page.keyboard.press("r")
    page.keyboard.press("h")
    page.wait_for_selector("#tiles[data-row='1']")
    page.keyboard.press("b")
    wait_saved(page)
    events = Journal(server.data_dir / layout.EYEBALL_DB).events()
    assert events["blind"].tolist() == [1, 0]
    assert (events["shown_ms"] >= 0).all()


def test_keys_move_enlarge_filter_and_find(page: Any, server: LabelServer) -> None:
    open_page(page, server)
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#tiles[data-row='10']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#tiles[data-row='9']")
    page.keyboard.press("3")
    assert page.locator(".tile.chosen figcaption span").inner_text() == "difference"
    page.keyboard.press("g")
    page.fill("dialog input", "row-0077")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tiles[data-row='77']")
    page.keyboard.press("/")
    page.check("dialog input[value='mp']")
    page.fill("dialog input[name='min_mag']", "19")
    page.click("dialog .primary")
    page.wait_for_selector("#tiles[data-row='113']")
    assert page.inner_text("#place").startswith("1 of 19")
    page.keyboard.press("?")
    assert "take back" in page.inner_text("dialog")


def test_two_labellers_see_their_agreement(chromium: Any, server: LabelServer) -> None:
    for who, keys in (("ann", "rrbb"), ("bob", "rbbb")):
        made = chromium.new_context().new_page()
        wait_ahead(open_page(made, server, f"?labeller={who}"), 8)
        for key in keys:
            made.keyboard.press(key)
        wait_saved(made)
    made.keyboard.press("a")
    made.wait_for_selector("dialog table")
    row = made.locator("dialog tr", has_text="ann").filter(has_text="bob").inner_text().split("\t")
    assert row[2:4] == ["4", "75.0 %"] and row[5] == "0.50"
