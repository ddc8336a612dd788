"""Code blocks of README and docs: each is run as written, read as a file, or marked with the reason why not.

The line that opens a block says which. A language alone: blocks of ``sh`` and ``python`` run here, in the finished
small project; ``yaml`` holds parameters, ``ini`` settings of .env, and ``text`` is output. ``sh run by test_NAME``: the
test of that name reads the block from the page. ``sh not run: REASON``: the reason, and the test that covers it.
"""

import json
import os
import re
from itertools import pairwise
from typing import NamedTuple

import pytest
import yaml

from gotorb.core.params import Params
from pipelines.notebook import run_notebook
from pipelines.repro import merge
from tests.contract.test_project import tracked
from tests.end_to_end.clones import ROOT, Project

pytestmark = pytest.mark.timeout(1800)  # the first test makes the small project
BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)\n\1```$", re.DOTALL | re.MULTILINE)
OPENING = re.compile(r"(?:(?:sh|python)(?: run by (?P<test>test_\w+)| not run: (?P<reason>.{10,}))?|yaml|ini|text)")
SESSION = "from gotorb import classifier\nfrom gotorb.dataset.store"
"""Beginning of the session of README, whose output has a test of its own."""
SLOW = {
    "docs/tutorials/first-run.md": "scores all images, with pages",
    "docs/tutorials/night.md": "scores all images of a night three times",
    "docs/tutorials/versions.md": "draws a figure from a commit, with its data",
}
"""Page -> why its blocks take too long for every run."""


class Block(NamedTuple):
    """A code block of a page."""

    page: str
    line: int
    opening: str
    code: str

    @property
    def runs_here(self) -> bool:
        return self.opening in ("sh", "python") and not (self.page == "README.md" and self.code.startswith(SESSION))


def read_blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(page, text[: one.start()].count("\n") + 1, one[2], one[3]) for one in BLOCK.finditer(text)]
    return [block for block in found if not block.opening.startswith("{")]  # a table of contents, or a picture


def list_pages() -> list[str]:
    """Pages for users; the reports are written by stages."""
    names = [path.relative_to(ROOT).as_posix() for path in tracked("*.md")]
    return sorted(name for name in names if "/" not in name or name.startswith("docs/"))


BLOCKS = [block for page in list_pages() for block in read_blocks(page)]
RUN = sorted({block.page for block in BLOCKS if block.runs_here})


def test_every_block_is_run_or_has_a_reason() -> None:
    unknown = [f"{one.page}:{one.line}: {one.opening}" for one in BLOCKS if not OPENING.fullmatch(one.opening)]
    assert unknown == []
    openings = [block.opening for block in BLOCKS]
    assert sum(block.runs_here for block in BLOCKS) >= 12
    named = set(re.findall(r"\btest_\w+", " ".join(openings)))
    assert named <= {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


def test_blocks_run_elsewhere_are_read_from_their_page() -> None:
    for block in BLOCKS:
        if name := (OPENING.fullmatch(block.opening) or {"test": None})["test"]:
            (path,) = (ROOT / "tests").rglob(f"{name}.py")
            assert block.page.split("/")[-1] in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.opening == "yaml"], ids=lambda one: one.page)
def test_parameters_of_pages_exist(block: Block) -> None:
    project = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert Params.model_validate(merge(project, yaml.safe_load(block.code)))


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.opening == "ini"], ids=lambda one: one.page)
def test_settings_of_pages_exist(block: Block) -> None:
    known = re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    names = re.findall(r"^(\w+)=", block.code, re.MULTILINE)
    assert names and set(names) <= set(known)


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project."""
    copy = finished.copy(tmp_path_factory.mktemp("documents") / "gotorb")
    return Project(copy.root, copy.environment | {"COLUMNS": "100"})


def test_session_of_the_readme(project: Project) -> None:
    ((session, shown),) = [
        (first.code, second.code)
        for first, second in pairwise(BLOCKS)
        if first.page == "README.md" and first.code.startswith(SESSION)
    ]
    done = project.run("python", "-c", session)
    assert done.returncode == 0, done.stderr
    numbers = re.compile(r"\d+(?:\.\d+)?")
    assert numbers.sub("N", done.stdout.strip()) == numbers.sub("N", shown)
    reported = json.loads((project.root / "reports" / "bayesian_vgg6.json").read_text())
    assert done.stdout.startswith(f"AUC {reported['auc']:.4f} on {reported['n_real']} real")


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in RUN])
def test_blocks_run_as_written(project: Project, page: str) -> None:
    for block in BLOCKS:
        if block.page == page and block.runs_here:
            done = project.run(*(["bash", "-euc"] if block.opening == "sh" else ["python", "-c"]), block.code)
            assert done.returncode == 0, f"{page}:{block.line}\n{block.code}\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb")))
def test_notebooks_run(project: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ.keys() - project.environment.keys():
        monkeypatch.delenv(key)
    for key, value in project.environment.items():
        monkeypatch.setenv(key, value)
    notebook = run_notebook(project.root / "notebooks" / name)
    written = json.dumps(notebook)
    assert str(project.root) not in written
    assert len(written) < 1_000_000
