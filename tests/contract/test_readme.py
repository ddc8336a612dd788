"""Claims of README and reports, compared with the files that stages wrote."""

import re
from pathlib import Path

import pytest

from benchmarks.rows import COMPETENT, MEANINGS, make_page, table_of_waits
from gotorb import classifier, clean_data, label_data
from pipelines.readme import END, START, make_learning, make_study, make_table, replace_block
from tests.contract.links import find_broken
from tests.contract.test_project import tracked

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_LINES, MAX_SESSION_LINES = 250, 10
SECTIONS = (
    "Installation and setup", "Pre-built validation datasets", "Creating labelled dataset", "Train a model",
    "Evaluate a model", "Visualising results", "New: Bayesian Neural Networks", "New: Tune model hyperparameters",
)  # fmt: skip
"""Sections that users of the first version know, in their order."""


def test_readme_is_short():
    (session,) = re.findall(r"```python\n([^`]*?evaluate[^`]*?load.*?)```", README, re.DOTALL)
    assert len(README.splitlines()) <= MAX_LINES
    assert len(session.splitlines()) <= MAX_SESSION_LINES


def test_sections_keep_their_order():
    headings = re.findall(r"^(.+)\n-{5,}$", README, re.MULTILINE)
    assert [name for name in headings if name in SECTIONS] == list(SECTIONS)


def test_table_of_results_is_the_one_of_the_reports():
    assert replace_block(README, make_table(ROOT / "reports")) == README


@pytest.mark.parametrize(("page", "make"), [("studies", make_study), ("active-learning", make_learning)])
def test_measured_parts_of_pages_are_those_of_the_study(page, make):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert replace_block(text, make(ROOT / "studies/large/reports")) == text


def test_costs_come_from_the_rows_that_were_measured():
    rows = [{"name": "repro_seconds", "ours": 255.4}, {"name": "archive_score", "ours": 2500.0}]
    assert table_of_waits(rows)[2:] == [
        "| `make repro` on the embedded survey: time, peak memory, disk with DVC's cache | 4.3 min |",
        "| score 10^6 of these stamps; with 20 posterior samples each | 6.7 min |",
        "| a Rubin night, 10^7 alerts in 10 hours, plain scores | 11 % of one machine |",
    ]


def test_page_of_benchmarks_explains_every_row_once():
    rows = [
        {"name": name, "ours": 1.0, "reference": 1.0, "ratio": 1.0, "unit": "s", "machine": "here"} for name in MEANINGS
    ]
    page = make_page(rows)
    assert set(COMPETENT) < set(MEANINGS)
    assert all(page.count(f"| `{name}` |") == 1 and page.count(f"- `{name}`: ") == 1 for name in MEANINGS)
    assert "Measured on: here." in page


def test_block_is_replaced_and_the_rest_kept():
    assert replace_block(f"a\n{START}\nold\n{END}\nb", "new\n") == f"a\n{START}\nnew\n{END}\nb"


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in tracked("*.md")))
def test_every_local_link_leads_somewhere(page):
    text = re.sub(r"^```(?!\{).*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(((?!http|#)[^)#\s]+)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_broken_links_of_a_site_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"></p><a href="b.html#there"></a><a href="#here"></a>')
    (tmp_path / "b.html").write_text('<a href="a.html#there"></a><a href="c.html"></a><a href="https://c.html"></a>')
    assert find_broken(tmp_path) == ["a.html: b.html#there", "b.html: a.html#there", "b.html: c.html"]


def test_every_page_is_in_a_table_of_contents():
    listed = {"index"}
    for path in tracked("docs/*.md"):
        for block in re.findall(r"```\{toctree\}(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {(path.parent / name).resolve().relative_to(ROOT / "docs").as_posix() for name in names}
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in tracked("docs/*.md")}
    assert pages <= listed


@pytest.mark.parametrize(
    ("module", "name"), sorted(set(re.findall(r"\b(label_data|clean_data|classifier)\.(\w+)\(", README)))
)
def test_every_function_named_exists(module, name):
    modules = {"label_data": label_data, "clean_data": clean_data, "classifier": classifier}
    assert callable(getattr(modules[module], name))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make (\w+)", README)) - {"their"}))
def test_every_make_target_named_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
