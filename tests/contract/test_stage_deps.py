"""A stage depends on every file of code that it reads: dvc.yaml misses none, or results would be stale unnoticed."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from gotorb import layout
from pipelines.repro import SOURCES_YAML, source_stages

ROOT = Path(__file__).parents[2]
EXEMPT = {
    "gotorb/__init__.py",  # the version, which only provenance tells
    "gotorb/cli",  # what people type; stages do not
    "gotorb/errors.py",  # names and messages of failures; a failed stage has no outputs
    "gotorb/layout.py",  # names on disk: dvc.yaml names the same ones, so a change fails at once
    "gotorb/logs.py",  # what is told on the console and in logs, which .dvcignore hides
    "gotorb/params.py",  # what is read is in the params of each stage, value by value
    "gotorb/settings.py",  # .env: where things are, not what they are
    "gotorb/tracking",  # records, to a store that is no output; promote alone depends on it
    "pipelines/__init__.py",  # how a stage starts and ends
}
"""Code that may change without a change of outputs, and why."""
LAZY = {
    # the stage's own choice, by params that it depends on, of what else is imported
    "gotorb/simulate/source.py",  # serves the survey in data/survey, which is a dependency itself
}


def sources(module: str) -> Iterator[Path]:
    """Files that importing a module reads: its own, and those of the packages around it."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:n])
        yield from (found for found in (path / "__init__.py", path.with_suffix(".py")) if found.is_file())


@cache
def imported(path: Path) -> frozenset[Path]:
    """Files of the project that a file imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for module in modules(node):
            if module.split(".")[0] in ("gotorb", "pipelines"):
                found |= set(sources(module))
    return frozenset(found)


def modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def covered(path: str, by: set[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in by)


def needed(script: Path) -> set[str]:
    """All files that a script comes to import, without the exempt ones and what only those import."""
    seen: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path in seen or covered(name(path), EXEMPT):
            continue
        seen.add(path)
        todo += [] if name(path) in LAZY else sorted(imported(path))
    return {name(path) for path in seen if has_code(path)}


@cache
def has_code(path: Path) -> bool:
    """Whether a file holds more than its docstring."""
    return len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


def stages(tree: dict[str, Any]) -> Iterator[tuple[str, Path, set[str]]]:
    """Name, script and dependencies on code of each stage."""
    for stage, body in tree["stages"].items():
        body = body.get("do", body)
        script = ROOT / (body["cmd"].split()[2].replace(".", "/") + ".py")
        yield stage, script, {str(dep).removeprefix("../../") for dep in body["deps"]}


def all_stages() -> list[Any]:
    trees = {"dvc.yaml": yaml.safe_load((ROOT / "dvc.yaml").read_text())}
    known = yaml.safe_load(SOURCES_YAML.read_text())
    for source, change in known.items():
        here = Path(change.get("folder", f"{layout.SOURCES_DIR}/x"))
        trees[source] = source_stages(change, Path("/data"), here)
    return [
        pytest.param(script, deps, id=f"{tree}:{stage}")
        for tree, content in trees.items()
        for stage, script, deps in stages(content)
    ]


@pytest.mark.parametrize(("script", "deps"), all_stages())
def test_stage_depends_on_all_code_that_it_imports(script: Path, deps: set[str]) -> None:
    missing = sorted(path for path in needed(script) if not covered(path, deps))
    assert missing == [], f"add to its deps: {', '.join(missing)}"


@pytest.mark.parametrize(("script", "deps"), all_stages())
def test_stage_depends_on_no_code_that_it_does_not_import(script: Path, deps: set[str]) -> None:
    """Such a dependency makes a stage run again for nothing."""
    code = {dep for dep in deps if dep.startswith(("gotorb/", "pipelines/"))}
    used = needed(script) | {"gotorb/tracking"}
    assert sorted(dep for dep in code if not any(covered(path, {dep}) for path in used)) == []


def test_exempt_code_exists() -> None:
    assert [one for one in (*EXEMPT, *LAZY) if not (ROOT / one).exists()] == []


def test_an_import_inside_a_function_counts() -> None:
    """The label stage reads SkyBoT's code only when params ask for it."""
    assert "gotorb/catalogues/skybot.py" in needed(ROOT / "pipelines" / "label.py")
