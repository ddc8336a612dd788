"""Tags, notes, links, history, resuming and blindness."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb import eyeball
from gotorb.core import layout
from gotorb.dataset.store import open_dataset
from gotorb.eyeball.decisions import Event, Journal
from tests.browser.conftest import LabelServer, wait_until
from tests.browser.test_eyeball import open_page, wait_saved
from tests.unit.apps.small import make_small, write_answers


def journal(server: LabelServer) -> Journal:
    return Journal(server.data_dir / layout.EYEBALL_DB)


def marks(server: LabelServer) -> dict[tuple[str, str], str]:
    return {(row.id, row.kind): row.value for row in journal(server).marks().itertuples()}


def test_a_bogus_gets_tags_a_real_its_kind_and_both_are_exported(
    page: Any, server: LabelServer, tmp_path: Path
) -> None:
    open_page(page, server)
    for key in ("Shift+B", "1", "8", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector("#tiles[data-row='1']")
    for key in ("Shift+R", "4"):
        page.keyboard.press(key)
    assert page.locator("#tagbar button[aria-pressed='true']").all_inner_texts() == ["4 moving"]
    page.keyboard.press("t")
    page.fill("dialog textarea", "trail of 3\nexposures")
    page.keyboard.press("Enter")
    assert "trail of 3" in page.inner_text("#panel .note")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tiles[data-row='2']")
    wait_saved(page)
    assert marks(server) == {("row-0000", "tags"): "dipole,edge", ("row-0001", "tags"): "moving",
                             ("row-0001", "note"): "trail of 3\nexposures"}  # fmt: skip
    page.reload()
    page.wait_for_selector("#tiles[data-row='2']")
    for key in ("ArrowLeft", "z", "z"):
        page.keyboard.press(key)
    page.wait_for_selector("#tiles[data-row='1']")
    wait_saved(page)
    assert marks(server) == {("row-0000", "tags"): "dipole,edge"}
    new_dir = eyeball.export(server.data_dir, out_dir=tmp_path, name="new")
    votes = pd.read_csv(new_dir / layout.EYEBALL_CSV, dtype=str).fillna("")
    assert votes[["id", "label", "tags", "note"]].to_numpy().tolist() == [
        ["row-0000", "bogus", "dipole,edge", ""], ["row-0001", "real", "", ""]
    ]  # fmt: skip


def test_the_page_resumes_at_the_first_row_that_is_left(page: Any, server: LabelServer) -> None:
    open_page(page, server)
    for key in ("ArrowDown", "r", "b"):
        page.keyboard.press(key)
    page.wait_for_selector("#tiles[data-row='12']")
    wait_saved(page)
    page.keyboard.press("h")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#tiles[data-row='11']")
    page.reload()
    page.wait_for_selector("#tiles[data-row='12']")
    assert page.get_attribute("#blind", "aria-pressed") == "true" and "randjunk" not in page.inner_text("#panel")


def test_a_blind_server_tells_nothing_whatever_is_pressed(
    page: Any, serve: Callable[..., LabelServer], tmp_path: Path
) -> None:
    server = serve(make_small(tmp_path / "data"), "--labeller", "ann", "--blind")
    answers: list[str] = []
    page.on("response", lambda answer: answers.append(answer.text()) if "/api/rows" in answer.url else None)
    open_page(page, server)
    for key in ("h", "r", "a"):
        page.keyboard.press(key)
    page.wait_for_selector("dialog[open]")
    assert "%" not in page.inner_text("dialog") and "1 real" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    page.wait_for_selector("#sheet[data-painted]")
    assert page.locator(".cell").first.get_attribute("aria-label") == "row 1, mag 16.1, not decided"
    assert answers and not any("randjunk" in text or '"mp"' in text or '"label":1' in text for text in answers)
    wait_saved(page)
    assert journal(server).events()["blind"].tolist() == [1]
    for path in ("/api/agreement", "/api/points.bin"):
        status = page.evaluate(
            "async (path) => (await fetch(path, path.endsWith('bin') ? {} : { method: 'POST', headers: "
            "{ 'content-type': 'application/json' }, body: '{\"rows\":[]}' })).status", path)  # fmt: skip
        assert status == 403


def test_other_detections_and_links_ask_for_nothing(
    page: Any, serve: Callable[..., LabelServer], tmp_path: Path
) -> None:
    data_dir = make_small(tmp_path / "data")
    path = layout.labels_path(data_dir)
    table = pd.read_csv(path)
    table.loc[5, ["ra", "dec"]] = table.loc[0, ["ra", "dec"]] + 1.5 / 3600 / 1.5
    table["jd"], table["object_id"] = 2459000.5 + table.index, ["" if row % 10 else "ZTF1" for row in table.index]
    table.to_csv(path, index=False)
    server = serve(data_dir, "--labeller", "ann")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    open_page(page, server)
    assert [text.split(" ·")[0] for text in page.locator(".earlier button").all_inner_texts()] == [
        "2020-06-05 00:00", "2020-06-10 00:00", "2020-06-20 00:00", "2020-06-30 00:00"]  # fmt: skip
    links = page.locator(".links a")
    addresses = dict(zip(links.all_inner_texts(), links.evaluate_all("(all) => all.map((a) => a.href)"), strict=True))
    assert set(addresses) >= {"SIMBAD", "NED", "TNS", "Legacy Survey", "MPChecker", "ALeRCE"}
    assert (
        f"{table.loc[0, 'ra']:.6f}"[:8] in addresses["TNS"] and "year=2020&month=05&day=31.00" in addresses["MPChecker"]
    )
    assert all(link.get_attribute("rel") == "noreferrer noopener" for link in links.all())
    page.locator(".earlier button").first.click()
    page.wait_for_selector("#tiles[data-row='5']")
    assert all(url.startswith((server.url, "data:")) for url in asked)


def test_only_the_rows_of_a_file_are_shown_in_its_order(
    page: Any, serve: Callable[..., LabelServer], tmp_path: Path
) -> None:
    (tmp_path / "ids.csv").write_text("id,score\nrow-0031,0.5\nrow-0004,0.4\nrow-0017,0.3\n")
    server = serve(make_small(tmp_path / "data"), "--labeller", "ann", "--rows", str(tmp_path / "ids.csv"))
    open_page(page, server)
    for row in (31, 4, 17):
        page.wait_for_selector(f"#tiles[data-row='{row}']")
        assert page.inner_text("#place").split(" ·")[0].endswith("of 3")
        page.keyboard.press("ArrowRight")


def test_gold_rows_and_repeats_are_not_told_apart(page: Any, serve: Callable[..., LabelServer], tmp_path: Path) -> None:
    data_dir, gold = make_small(tmp_path / "data", n=60), tmp_path / "gold.csv"
    gold.write_text("id,label\nrow-0055,1\nrow-0056,0\n")
    (tmp_path / "ids.csv").write_text("id\n" + "".join(f"row-{row:04d}\n" for row in range(50)))
    words = ("--labeller", "ann", "--gold", str(gold), "--repeat", "0.2", "--rows", str(tmp_path / "ids.csv"))
    server = serve(data_dir, *words)
    open_page(page, server)
    n, seen = 54, []
    for step in range(n):
        wait_until(page, f"document.getElementById('place').textContent.startsWith('{step + 1} of {n}')")
        wait_until(page, "!document.getElementById('tiles').classList.contains('missing')")
        page.wait_for_timeout(30)
        panel = page.inner_text("#panel")
        assert "you:" not in panel and "again" not in panel and "randjunk" not in panel and "mp" not in panel.split()
        seen.append(page.inner_text("#panel .id"))
        page.keyboard.press("r" if seen[-1] == "row-0055" else "b")
    wait_saved(page)
    assert {"row-0055", "row-0056"} < set(seen[:25]) and len(set(seen)) == 52
    found = eyeball.agreement(data_dir, gold=gold).set_index("second")
    assert found.loc["(gold rows)", ["n", "percent"]].tolist() == [2, 100]
    assert found.loc["(itself, repeated)", ["n", "percent"]].tolist() == [2, 100]
    page.reload()
    page.wait_for_selector("#tiles[data-row]")
    for _ in range(n):
        page.keyboard.press("z")
    wait_until(page, "document.getElementById('place').textContent.includes(' 0 decided')")


def test_disputed_rows_stand_side_by_side_for_a_third_vote(page: Any, server: LabelServer) -> None:
    kept = journal(server)
    for who, kinds in (("bob", ("real", "real", "bogus")), ("cy", ("bogus", "real", "real"))):
        kept.append(Event(uuid=f"{who}{row}", labeller=who, id=f"row-{row:04d}", kind=kind)
                    for row, kind in zip((4, 5, 60), kinds, strict=True))  # fmt: skip
    open_page(page, server)
    page.keyboard.press("x")
    page.wait_for_selector("#sheet[data-painted='0/2']")
    cells = page.locator(".cell")
    assert [cell.get_attribute("data-row") for cell in cells.all()] == ["4", "60"]
    assert "bob: real, cy: bogus" in cells.first.get_attribute("aria-label") and "bob" in cells.first.inner_text()
    page.keyboard.press("r")
    wait_saved(page)
    assert {row.id: row.label for row in kept.votes(["row-0004"]).itertuples() if row.labeller == "ann"} == {
        "row-0004": "real"
    }
    page.keyboard.press("Escape")
    wait_until(page, "document.getElementById('sheetname').textContent.startsWith('as in the file')")


def test_examples_of_each_tag_show_the_rows_that_have_it(page: Any, server: LabelServer) -> None:
    open_page(page, server)
    page.keyboard.press("v")
    wait_until(page, "document.getElementById('notice').textContent.startsWith('no row has a tag')")
    for key in ("Shift+B", "1", "Enter", "Shift+B", "1", "4", "Enter", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_selector("#tiles[data-row='3']")
    wait_saved(page)
    page.keyboard.press("v")
    page.wait_for_selector(".examples canvas")
    assert page.locator(".examples b").all_inner_texts() == ["dipole", "satellite"]
    assert page.locator(".examples canvas").count() == 3
    page.locator(".examples button").last.press("Enter")
    page.wait_for_selector("#tiles[data-row='1']")
    assert not page.is_visible("dialog")


def test_the_posterior_tells_threshold_and_calibrated_confidence(
    page: Any, serve: Callable[..., LabelServer], tmp_path: Path
) -> None:
    data_dir = make_small(tmp_path / "data")
    model = write_answers(data_dir, open_dataset(data_dir).labels, np.random.default_rng(5), threshold=0.4)
    open_page(page, serve(data_dir, "--labeller", "ann", "--model", str(model)))
    wait_until(page, "document.querySelector('#panel .posterior') !== null")
    panel = page.inner_text("#panel")
    assert "calls it bogus: threshold 0.400, right in 97 of 100 such rows" in panel and "p(real)" not in panel
    assert "threshold 0.400" in page.get_attribute(".posterior", "aria-label")
