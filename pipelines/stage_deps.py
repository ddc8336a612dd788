"""Code dependencies of the stages in dvc.yaml, computed from the imports of their scripts.

``python -m pipelines.stage_deps --write`` brings dvc.yaml up to date, ``--check`` fails where it is not. A stage
depends on every file of code that its script imports, directly or not, so that a change of code makes it run again.
"""

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DVC_YAML = ROOT / "dvc.yaml"
DEPS = re.compile(r"^( *)deps: \[[^\]]*\]", re.MULTILINE)
WIDTH = 116
PACKAGES = ("gotorb", "pipelines", "studies")
EXEMPT = {
    "gotorb/__init__.py": "the version, which only provenance names",
    "gotorb/cli": "typed by users; stages do not call it",
    "gotorb/errors.py": "names and messages of failures; a failed stage has no outputs",
    "gotorb/core/layout.py": "names on disk: dvc.yaml has the same ones, so a change fails immediately",
    "gotorb/core/logs.py": "the console and logs, which .dvcignore hides",
    "gotorb/core/params.py": "its values are in the params of each stage",
    "gotorb/core/settings.py": "places, not content",
    "gotorb/core/__init__.py": "no code",
    "gotorb/tracking": "records, to a store that is no output; only promote depends on it",
    "gotorb/visualise": "pages, which are no outputs",
    "pipelines/__init__.py": "start and end of a stage",
    # the stage's own choice, by params that it depends on; serves data/survey, which is a dependency itself
    "gotorb/simulate/source.py": "serves the survey that a stage depends on",
}
"""Code that may change without a change of outputs, and the reason; not followed further."""
EXTRA = {"pipelines/promote.py": ("gotorb/tracking",)}
"""Exempt code that a script depends on all the same."""


def code_deps(script: Path, *, fold: bool = True) -> list[str]:
    """List the code that a script imports, directly or not.

    Parameters
    ----------
    script : Path
        File below the project's root.
    fold : bool
        Name a folder instead of all its files where all of them are needed.

    Returns
    -------
    list of str
        Paths from the project's root: the script first, then the rest in alphabetical order.
    """
    own = _name(script)
    files = _needed(script) - {own}
    extra = EXTRA.get(own, ())
    if not fold:
        files |= {_name(path) for folder in extra for path in _code_files(ROOT / folder)}
        return [own, *sorted(files)]
    return [own, *sorted({*_fold(files), *extra})]


def stage_script(cmd: str) -> Path:
    """File of the module that a stage's command runs.

    Parameters
    ----------
    cmd : str
        Such as ``python -m pipelines.train vgg6``.

    Returns
    -------
    Path
        The script.
    """
    return ROOT / (cmd.split()[2].replace(".", "/") + ".py")


def is_code(dep: str) -> bool:
    """True for code of the project, false for data.

    Parameters
    ----------
    dep : str
        Entry of a stage's deps, from the project's root.

    Returns
    -------
    bool
        Whether it lies in one of the project's packages.
    """
    return dep.split("/")[0] in PACKAGES


def renew_deps(stages: dict[str, Any], *, fold: bool = True) -> None:
    """Replace the code among the deps of stages in place; data stay as they are, behind the code.

    Parameters
    ----------
    stages : dict
        Name -> stage, as dvc.yaml holds them.
    fold : bool
        As in `code_deps`.
    """
    for stage in stages.values():
        body = stage.get("do", stage)
        wanted = code_deps(stage_script(body["cmd"]), fold=fold)
        wanted += [dep for dep in body.get("deps", ()) if not is_code(dep)]
        if wanted != list(body.get("deps", ())):
            body["deps"] = wanted


def read_stages() -> dict[str, Any]:
    """Read the stages of dvc.yaml: name -> stage, for a foreach stage its body."""
    stages = yaml.safe_load(DVC_YAML.read_text(encoding="utf-8"))["stages"]
    return {name: stage.get("do", stage) for name, stage in stages.items()}


def stale_stages() -> dict[str, list[str]]:
    """Stages of dvc.yaml whose code deps differ from the imports, with the entries that are missing or too many."""
    found = {}
    for name, stage in read_stages().items():
        listed = {dep for dep in stage["deps"] if is_code(dep)}
        if differing := sorted(listed ^ set(code_deps(stage_script(stage["cmd"])))):
            found[name] = differing
    return found


def write_deps() -> None:
    """Bring the code deps in dvc.yaml up to date; everything else and all comments stay."""
    stages = read_stages()
    renew_deps(stages)
    deps = iter(stage["deps"] for stage in stages.values())
    text = DVC_YAML.read_text(encoding="utf-8")
    DVC_YAML.write_text(DEPS.sub(lambda old: _format_deps(old[1], next(deps)), text), encoding="utf-8")


def _format_deps(indent: str, deps: list[str]) -> str:
    words = ", ".join(f'"{dep}"' if "{" in dep else dep for dep in deps)
    return textwrap.fill(
        f"deps: [{words}]", WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.stage_deps", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="bring dvc.yaml up to date")
    action.add_argument("--check", action="store_true", help="fail where dvc.yaml is not up to date")
    if parser.parse_args().write:
        write_deps()
    stale = stale_stages()
    for name, differing in stale.items():
        print(f"stage {name}: {', '.join(differing)} differ; run python -m pipelines.stage_deps --write")
    return 1 if stale else 0


def _needed(script: Path) -> set[str]:
    """All files that a script imports, without the exempt ones and those that only these import."""
    seen: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path not in seen and not _covered(_name(path), EXEMPT):
            seen.add(path)
            todo += sorted(_imported(path))
    return {_name(path) for path in seen if _has_code(path)}


@cache
def _imported(path: Path) -> frozenset[Path]:
    """Files of the project that a file imports, anywhere in it but for type checkers."""
    found: set[Path] = set()
    for module in _modules(_parse(path)):
        if module.split(".")[0] in PACKAGES:
            found |= set(_sources(module))
    return frozenset(found)


def _modules(node: ast.AST) -> Iterator[str]:
    """Names of the modules that a tree imports."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _modules(child)


def _sources(module: str) -> Iterator[Path]:
    """Files that importing a module reads: its own, and those of the packages around it."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        path = ROOT.joinpath(*parts[:n])
        yield from (found for found in (path / "__init__.py", path.with_suffix(".py")) if found.is_file())


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _has_code(path: Path) -> bool:
    """True if a file holds more than its docstring."""
    tree = _parse(path)
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _covered(path: str, by: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in by)


def _code_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if _has_code(path)]


def _fold(files: set[str]) -> set[str]:
    """Replace files by their folder where all of its code is needed."""
    folders = {parent for path in files for parent in Path(path).parents if len(parent.parts) > 1}
    for folder in sorted(folders, key=lambda one: len(one.parts)):
        inside = {_name(path) for path in _code_files(ROOT / folder)}
        if len(inside) > 1 and inside <= files:
            files = (files - inside) | {folder.as_posix()}
    return files


if __name__ == "__main__":
    sys.exit(main())
