"""Pages in headless Chromium: hostile text runs nowhere, and sorting and filtering do what they say."""

import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gotorb.core.settings import Settings
from gotorb.dataset.store import open_dataset
from gotorb.errors import ConfigError
from gotorb.visualise import Look, write_block
from tests.browser.conftest import LabelServer, wait_until
from tests.browser.pages import THRESHOLD, make_judged

PAYLOADS = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    '"><script>window.hit=1</script>',
    '"><img src=x onerror="window.hit=1">',
    "<svg onload=window.hit=1></svg>",
    '"><svg/onload=window.hit=1>',
    "<details open ontoggle=window.hit=1>x</details>",
    "</title></style><script>window.hit=1</script>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<video><source onerror=window.hit=1></video>",
)


def write(folder: Path, text: str | None, n: int = 2, look: Look | None = None) -> Path:
    name = text or "model"
    scorer: Any = SimpleNamespace(name=name, version=name, size=55)
    line = write_block(folder, make_judged(n, text=text), scorer, THRESHOLD, settings=Settings(), look=look or Look())
    return folder / line["file"]


HIT = "window.hit === 1"


def was_hit(page: Any, path: Path) -> bool:
    page.goto(f"file://{path}")
    page.wait_for_timeout(150)
    return bool(page.evaluate(HIT))


def test_hostile_text_runs_nowhere_but_on_an_unescaped_page(chromium: Any, tmp_path: Path) -> None:
    asked: list[str] = []
    page = chromium.new_context().new_page()  # not the fixture: scripts of the control page may fail
    page.on("request", lambda request: asked.append(request.url))
    for number, payload in enumerate(PAYLOADS):
        path = write(tmp_path / str(number), payload)
        del asked[:]
        assert not was_hit(page, path), payload
        assert all(url.startswith(("file:", "data:")) for url in asked)
        assert page.locator("#rows > .row").count() == 2
        control = path.with_name("control.html")
        policy_free = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))
        control.write_text(html.unescape(policy_free), encoding="utf-8")
        page.goto(f"file://{control}")
        wait_until(page, HIT)  # else the test proves nothing


def test_the_policy_stops_what_escaping_would_miss(page: Any, tmp_path: Path) -> None:
    path = write(tmp_path, None)
    path.write_text(path.read_text(encoding="utf-8").replace("<main", f"{PAYLOADS[0]}{PAYLOADS[1]}<main"), "utf-8")
    assert not was_hit(page, path)


def test_a_page_sorts_and_filters(page: Any, tmp_path: Path) -> None:
    path = write(tmp_path, None, n=30)
    page.goto(f"file://{path}")
    numbers = "(rows) => rows.map((row) => Number(row.getAttribute('data-%s')))"
    rows = page.locator("#rows > .row")
    best = rows.evaluate_all(numbers % "best")
    assert best == sorted(best, reverse=True)
    page.select_option("#sort", "mag up")
    mags = rows.evaluate_all(numbers % "mag")
    assert mags == sorted(mags) and len(mags) == 30
    page.click("#turn")
    assert rows.evaluate_all(numbers % "mag") == mags[::-1]
    page.select_option("#call", "real")
    shown = page.locator("#rows > .row:not([hidden])")
    assert shown.count() == sum(value >= THRESHOLD for value in best)
    page.select_option("#call", "")
    page.fill("#faint", "10")
    assert shown.count() == sum(mag <= 10 for mag in mags)
    page.fill("#faint", "")
    page.fill("#words", "id-7")
    assert shown.count() == 1
    page.click("#rows > .row:not([hidden]) .strip img")
    assert page.locator(".row.big").count() == 1


def test_an_id_leads_to_its_stamp_in_eyeball(page: Any, server: LabelServer, tmp_path: Path) -> None:
    known = str(open_dataset(server.data_dir).ids[7])
    page.goto(f"file://{write(tmp_path, known, look=Look(eyeball=server.url))}")
    with page.context.expect_page() as opened:
        page.click(f"#rows a.id >> text={known} >> nth=0")
    wait_until(opened.value, "document.getElementById('tiles').dataset.row === '7'")


@pytest.mark.parametrize("address", ["javascript:alert(1)", "http://a b", "ftp://host", 'http://x" onclick="y'])
def test_a_link_holds_no_script(address: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        Look(eyeball=address)


def test_keys_move_mark_and_save_what_relabel_reads(page: Any, tmp_path: Path) -> None:
    page.goto(f"file://{write(tmp_path, None, n=12)}")
    order = page.locator("#rows > .row").evaluate_all("(rows) => rows.map((row) => row.dataset.name)")
    for key in ("j", "r", "b", "j", "k", "r", "u", "k", "u", "r", "j", " "):
        page.keyboard.press(key)  # r and b move to the next row
    assert page.locator(".row.big").count() == 1
    marks = page.locator(".row.markreal, .row.markbogus").evaluate_all("(rows) => rows.map((row) => row.dataset.name)")
    with page.expect_download() as downloaded:
        page.click("#save")
    table = pd.read_csv(downloaded.value.path(), dtype=str)
    assert list(table) == ["photometry_id", "label"] and set(table["photometry_id"]) == set(marks)
    assert (
        table.set_index("photometry_id")["label"].to_dict() | {order[0]: "1"}
        == table.set_index("photometry_id")["label"].to_dict()
    )


def test_the_threshold_slides_with_counts_and_words(page: Any, tmp_path: Path) -> None:
    page.goto(f"file://{write(tmp_path, None, n=30)}")
    best = page.locator("#rows > .row").evaluate_all("(rows) => rows.map((row) => Number(row.dataset.best))")
    for threshold in (0.2, 0.8):
        page.fill("#threshold", str(threshold))
        n_real = sum(value >= threshold for value in best)
        assert (page.inner_text("#nreal"), page.inner_text("#nbogus")) == (str(n_real), str(30 - n_real))
        assert page.locator("#rows > .row.real").count() == n_real
        assert page.locator("#rows .word").all_text_contents().count("real") == n_real
    page.click("#original")
    assert page.inner_text("#nreal") == str(sum(value >= THRESHOLD for value in best))


def test_rows_have_names_and_the_difference_is_large(page: Any, tmp_path: Path) -> None:
    page.goto(f"file://{write(tmp_path, None, n=3)}")
    page.wait_for_selector(".row canvas.large")
    names = page.locator("#rows > .row").evaluate_all("(rows) => rows.map((row) => row.getAttribute('aria-label'))")
    assert all(re.match(r"id-\d, score \d\.\d{3}, (real|bogus)", name) for name in names)
    same = """() => { const row = document.querySelector(".row"), image = row.querySelector(".strip img");
      const copy = document.createElement("canvas"); copy.width = image.naturalWidth; copy.height = image.naturalHeight;
      const pen = copy.getContext("2d"); pen.drawImage(image, 0, 0); const side = copy.height;
      const ours = row.querySelector(".large").getContext("2d").getImageData(0, 0, side, side).data;
      return pen.getImageData(2 * (side + 1), 0, side, side).data.every((value, i) => value === ours[i]); }"""
    assert page.evaluate(same)
