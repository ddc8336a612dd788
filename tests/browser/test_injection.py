"""Hostile text in every field that a file or a person names runs nowhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pytest

from gotorb import eyeball
from gotorb.dataset.store import open_dataset
from gotorb.eyeball.context import make_links
from tests.browser.conftest import LabelServer, wait_until
from tests.unit.apps.small import make_small, write_answers

RUN = "window.ran=(window.ran||0)+1"
PAYLOADS = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f'"><img src=x onerror="{RUN}">',
    f"'><svg/onload='{RUN}'>",
    f"</script><script>{RUN}</script>",
    f"<details open ontoggle={RUN}>x",
    f"<input autofocus onfocus={RUN}>",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    f"</title></style><img src=x onerror={RUN}>",
]


def test_payloads_run_on_a_page_that_escapes_nothing(page: Any) -> None:
    """The control: each of them works where text is put into html."""
    for payload in PAYLOADS:
        page.goto("about:blank")
        assert page.evaluate("window.ran") is None
        page.set_content(f"<title></title><p>{payload}</p>")
        wait_until(page, "window.ran > 0")


@pytest.fixture
def hostile(serve: Callable[..., LabelServer], tmp_path: Path) -> LabelServer:
    """A data set whose folder, model, ids and texts are payloads, each of them somewhere in each field."""
    n = len(PAYLOADS)
    data_dir = make_small(
        tmp_path / PAYLOADS[1].replace("/", "_"), n=4 * n,
        ids=[f"{row} {PAYLOADS[row % n]}" for row in range(4 * n)],
        metalabels=[PAYLOADS[(row + 1) % n] for row in range(4 * n)],
    )  # fmt: skip
    path = data_dir / "data_labels.csv"
    table = open_dataset(data_dir).table
    for shift, name in enumerate(("image_name", "object_id", "host_id", "rule", "ut", "split"), start=2):
        table[name] = [PAYLOADS[(row + shift) % n] for row in range(len(table))]
    table.to_csv(path, index=False)
    labels = open_dataset(data_dir).labels
    model = write_answers(data_dir, labels, np.random.default_rng(5), name=PAYLOADS[2].replace("/", "_"))
    return serve(data_dir, "--model", str(model))


def test_nothing_runs(page: Any, hostile: LabelServer, tmp_path: Path) -> None:
    foreign: list[str] = []
    home = hostile.url
    page.on("request", lambda request: None if request.url.startswith((home, "data:", "blob:", "file:"))
            else foreign.append(request.url))  # fmt: skip
    for number, payload in enumerate(PAYLOADS):
        page.goto(f"{home}?labeller={quote(payload[:64])}")
        page.wait_for_selector("#tiles[data-row]")
        page.keyboard.press("r")
        page.keyboard.press("ArrowLeft")
        press(page, "a", "Escape", "/", "Escape", "?", "Escape")
        ask_place(page)
        page.fill("dialog input", f"{number} {payload}")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#tiles[data-row='{number}']")
        assert payload in page.inner_text("#panel .id")
        assert page.evaluate("window.ran") is None
        take_note(page, payload)
        page.keyboard.press("w")
        page.wait_for_selector("#sheet[data-painted]")
        page.keyboard.press("Space")
        page.keyboard.press("3")
        press(page, "v", "Escape", "x", "Escape", "Escape", "Escape")
        assert page.evaluate("window.ran") is None
    read_notes(page, hostile)
    page.goto(f"{home}explorer")
    page.wait_for_selector("body[data-ready]")
    sweep(page)
    model = hostile.words[-1]
    page.goto(eyeball.explore(hostile.data_dir, model, tmp_path / "explorer.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    sweep(page)
    assert foreign == []


@pytest.mark.parametrize("payload", [*PAYLOADS, "javascript:alert(1)", "x&redirect=//evil.org#"])
def test_payloads_stay_inside_the_address_of_a_link(payload: str) -> None:
    ((_, address),) = make_links(
        {"ra": 1.0, "dec": 2.0, "object_id": payload}, {"a": "https://a.org/?id={object_id}&x=1"}
    )
    found = urlsplit(address)
    assert (found.scheme, found.netloc, found.fragment) == ("https", "a.org", "")
    assert parse_qs(found.query) == {"id": [payload], "x": ["1"]}


def press(page: Any, *keys: str) -> None:
    """Open and close dialogs, each long enough for its first frames."""
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(15)


def ask_place(page: Any) -> None:
    """Open the dialog that asks for a row, whichever dialogs the server's answers open late."""
    for _ in range(100):
        page.keyboard.press("g")
        page.wait_for_timeout(50)
        if page.locator("dialog[open] input[placeholder]").count():
            return
        page.keyboard.press("Escape")
    raise AssertionError("no dialog asks for a row")


def take_note(page: Any, payload: str) -> None:
    """Write a payload as the note of the row, and see it as text."""
    page.keyboard.press("t")
    page.fill("dialog textarea", payload)
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#panel .note') !== null")
    assert page.inner_text("#panel .note") == payload


def read_notes(page: Any, hostile: LabelServer) -> None:
    """Another annotator sees the notes, tags and decisions of those whose names are payloads."""
    wait_until(page, "document.getElementById('status').textContent === 'saved'")
    page.goto(f"{hostile.url}?labeller=bob")
    page.wait_for_selector("#tiles[data-row]")
    for number, payload in enumerate(PAYLOADS):
        page.wait_for_selector(f"#tiles[data-row='{number}']")
        wait_until(page, "document.querySelector('#panel .note') !== null")
        assert any(payload in text for text in page.locator("#panel .note").all_inner_texts())
        page.keyboard.press("ArrowRight")
    assert page.evaluate("window.ran") is None


def sweep(page: Any) -> None:
    """Colour by everything, move over the map, click."""
    for name in page.locator("#colour option").all_inner_texts():
        page.select_option("#colour", name)
    box = page.locator("#above").bounding_box()
    for step in range(60):
        page.mouse.move(box["x"] + box["width"] * step / 60, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
