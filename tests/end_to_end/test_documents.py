"""Code blocks of README and tutorials: run as written in the small project, or named here with the reason."""

import json
import os
import re
import subprocess

import pytest

from pipelines.notebook import run_notebook
from tests.end_to_end.clones import ROOT, Project

pytestmark = pytest.mark.timeout(1800)  # the first test makes the small project
TUTORIALS = ("first-run", "night", "labelling", "versions", "notebooks")
PAGES = ("README.md", *(f"docs/tutorials/{name}.md" for name in TUTORIALS))
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)\n\1```$", re.DOTALL | re.MULTILINE)
SESSION = "from gotorb import classifier\nfrom gotorb.dataset.store"
NOT_RUN = {
    "README.md": {
        "git clone": "downloads gotorb; test_pipeline runs what `make repro` runs",
        "AUC ": "output of the session, which test_session_of_the_readme compares",
        "gotorb check images": "needs images of your own; test_own_survey runs these commands",
        "pip install": "installs; test_package does so in an empty environment",
        "stamps, meta = hickle": "runs code of the file; README names the safe reader, which test_datapack runs",
        "import pympc": "downloads the catalogue",
        "from gotorb import label_data": "needs the gotophoto database; test_label runs it on the embedded survey",
        "from gotorb import classifier\n\nmodel": "names a placeholder of a folder; test_train runs it",
        "classifier.evaluate(model, meta)": "continues the block before; test_evaluate runs it",
    },
    "docs/tutorials/first-run.md": {
        "git clone": "downloads gotorb; test_pipeline runs what `make repro` runs",
        "gotorb eyeball data/dataset": "needs a browser; test_eyeball runs the page",
        "gotorb eyeball export": "needs decisions; test_eyeball exports them",
        "make repro": "trains again; test_pipeline changes a parameter",
        "git checkout": "test_tracked_models restores a version",
    },
    "docs/tutorials/night.md": {
        "gotorb why": "names a detection of the default survey; test_why runs it",
        "gotorb eyeball night": "needs a browser; test_audit runs the whole night",
    },
    "docs/tutorials/labelling.md": {
        "gotorb eyeball data/dataset": "needs a browser; test_eyeball runs the page",
        "gotorb eyeball export": "needs decisions; test_eyeball exports them",
        "gotorb evaluate": "needs the model of the block before; test_verbs runs it",
    },
    "docs/tutorials/versions.md": {
        "gotorb data tag": "test_story tags, draws, promotes and rolls back",
        "gotorb figure": "test_story tags, draws, promotes and rolls back",
        "gotorb models": "test_story tags, draws, promotes and rolls back",
        "gotorb serve": "needs a server; test_readme_serving runs these lines",
    },
}
"""Page -> beginning of a block that is not run here -> the reason, and the test that covers it."""


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the code blocks of a page; tables of contents are none."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(language, code) for _, language, code in BLOCK.findall(text) if not code.startswith(":maxdepth")]


def is_excused(page: str, code: str) -> bool:
    return any(code.lstrip().startswith(start) for start in NOT_RUN.get(page, {}))


def test_every_block_is_run_or_has_a_reason() -> None:
    unknown = [
        f"{page}: {code.splitlines()[0]}"
        for page in PAGES
        for language, code in blocks(page)
        if not is_excused(page, code) and language != "sh" and not code.startswith(SESSION)
    ]
    assert unknown == []
    used = {(page, start) for page in PAGES for _, code in blocks(page) for start in NOT_RUN.get(page, {})
            if code.lstrip().startswith(start)}  # fmt: skip
    assert used == {(page, start) for page, starts in NOT_RUN.items() for start in starts}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project."""
    copy = finished.copy(tmp_path_factory.mktemp("documents") / "gotorb")
    return Project(copy.root, copy.environment | {"COLUMNS": "100"})


def test_session_of_the_readme(project: Project) -> None:
    ((_, session),) = [one for one in blocks("README.md") if one[1].startswith(SESSION)]
    ((_, shown),) = [one for one in blocks("README.md") if one[0] == "text"]
    done = project.run("python", "-c", session)
    assert done.returncode == 0, done.stderr
    numbers = re.compile(r"\d+(?:\.\d+)?")
    assert numbers.sub("N", done.stdout.strip()) == numbers.sub("N", shown)
    reported = json.loads((project.root / "reports" / "bayesian_vgg6.json").read_text())
    assert done.stdout.startswith(f"AUC {reported['auc']:.4f} on {reported['n_real']} real")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_blocks_of_tutorials_run(project: Project, page: str) -> None:
    for language, code in blocks(page):
        if language == "sh" and not is_excused(page, code):
            command = ["bash", "-euc", code]
            done = subprocess.run(
                command, cwd=project.root, env=project.environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"


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
