"""The environment that the Makefile sets up: what it installs, with which installer, and what the wheel holds."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.lock import arrange, package_names
from tests.contract.test_project import ROOT, tracked

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
NOT_IMPORTED = {
    "dvc": "program",
    "dvc-s3": "DVC loads it for a remote on S3",
    "dvc-ssh": "DVC loads it for a remote behind SSH",
    "ipykernel": "kernel of the notebook",
    "mypy": "program",
    "myst-parser": "extension of Sphinx",
    "moto": "program that stands in for S3",
    "numpydoc": "program",
    "pre-commit": "program",
    "pydata-sphinx-theme": "theme of Sphinx",
    "pytest-timeout": "plugin of pytest",
    "pytest-xdist": "plugin of pytest",
    "ruff": "program",
    "setuptools": "builds the package",
    "sphinx": "program",
    "sphinx-copybutton": "extension of Sphinx",
    "sphinx-design": "extension of Sphinx",
    "tensorboard": "keras-tuner imports it and does not declare it",
    "types-psycopg2": "types for mypy",
    "types-pyyaml": "types for mypy",
    "types-tqdm": "types for mypy",
    "uv": "program",
}
"""Dependency -> why it is declared although no file imports it."""
FAKE_PYTHON = """#!/bin/sh
test "$1" = -m || exit 0
mkdir -p .venv/bin
cp {folder}/pip {folder}/uv .venv/bin
"""
"""Stands in for `python -m venv`."""
FAKE_INSTALLER = """#!/bin/sh
echo {name} "$@" >> calls
test {exit_code} = 0 && cat /dev/stdin >> input
exit {exit_code}
"""


def section_names() -> dict[str, set[str]]:
    """Section of the lock -> names of its packages."""
    parts = re.split(r"^# (.+)\n", LOCK, flags=re.MULTILINE)
    return {heading: package_names(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def locked_lines(text: str) -> list[str]:
    """Packages and hashes of a lock file without its headings, sorted."""
    return sorted(line for line in text.splitlines() if not line.startswith("#"))


def requirements(*extras: str) -> list[Requirement]:
    """Declared requirements of gotorb, of the extras too."""
    optional = PROJECT["optional-dependencies"]
    return [
        Requirement(text) for text in [*PROJECT["dependencies"], *(one for name in extras for one in optional[name])]
    ]


def installed_closure(found: list[Requirement]) -> set[str]:
    """Names of the installed packages that requirements need, directly or not."""
    names: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while found:
        one = found.pop()
        name = canonicalize_name(one.name)
        for extra in {"", *one.extras}:
            if (name, extra) not in seen and (not one.marker or one.marker.evaluate({"extra": ""})):
                seen.add((name, extra))
                names.add(name)
                found += _needed(name, extra)
    return names


def _needed(name: str, extra: str) -> list[Requirement]:
    needed = [Requirement(text) for text in distribution(name).requires or []]
    kept = [one for one in needed if not one.marker or one.marker.evaluate({"extra": extra})]
    for one in kept:
        one.marker = None
    return kept


def is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False  # of another platform or another Python


def imported_packages(*folders: str) -> set[str]:
    """Distributions whose modules the files of some folders import."""
    modules: set[str] = set()
    for path in tracked(*(f"{folder}/*.py" for folder in folders)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    owners = packages_distributions()
    return {canonicalize_name(name) for module in modules for name in owners.get(module, [])} - {"gotorb"}


def run_make(folder: Path, *words: str) -> str:
    """Output of make."""
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout


def make_environment(folder: Path, *, uv_exit_code: int) -> str:
    """Run the Makefile's set-up with programs that only record how they are called."""
    fakes = {
        "python": FAKE_PYTHON.format(folder=folder),
        "pip": FAKE_INSTALLER.format(name="pip", exit_code=0),
        "uv": FAKE_INSTALLER.format(name="uv", exit_code=uv_exit_code),
    }
    for name, text in fakes.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return run_make(folder, f"PYTHON={folder}/python", ".venv/.ready", ".venv/.ready-test")


def test_every_package_is_in_one_section() -> None:
    sections = section_names()
    assert list(sections) == ["set-up", "run", "test"]
    assert sum(map(len, sections.values())) == len(set().union(*sections.values()))


def test_run_section_is_what_the_pipeline_needs() -> None:
    run = {name for name in section_names()["run"] if is_installed(name)}
    assert run == installed_closure(requirements("survey"))


def test_whole_lock_is_what_all_extras_need() -> None:
    locked = {name for name in package_names(LOCK) if is_installed(name)}
    assert locked == installed_closure(requirements(*PROJECT["optional-dependencies"]))


def test_arranged_lock_keeps_each_version_and_its_hashes() -> None:
    numpy = "numpy==2.4 ; python_version < '3.12' \\\n    --hash=sha256:0\nnumpy==2.5 \\\n    --hash=sha256:1\n"
    pytest_, uv = "pytest==9.0 \\\n    --hash=sha256:2\n", "uv==0.13 \\\n    --hash=sha256:3\n"
    assert arrange(numpy + pytest_ + uv, {"numpy"}) == f"# set-up\n{uv}# run\n{numpy}# test\n{pytest_}"


@pytest.mark.parametrize(("uv_exit_code", "installers"), [(0, ["uv"]), (1, ["uv", "pip"])])
def test_every_package_is_installed_once_with_hashes(tmp_path: Path, uv_exit_code: int, installers: list[str]) -> None:
    shown = make_environment(tmp_path, uv_exit_code=uv_exit_code)
    calls = (tmp_path / "calls").read_text().splitlines()
    hashed = [call.split()[0] for call in calls if "--require-hashes" in call]
    assert hashed == ["pip", *installers, *installers]
    assert [call.split()[0] for call in calls if "--editable ." in call] == installers
    assert locked_lines((tmp_path / "input").read_text()) == locked_lines(LOCK)
    assert shown.count("uv failed") == 2 * uv_exit_code


def test_pipeline_does_not_wait_for_what_tests_need() -> None:
    steps = run_make(ROOT, "--dry-run", "--always-make", "repro")
    assert ".ready-test" not in steps
    assert "requirements.lock" in steps


def test_help_describes_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.+)", MAKEFILE, re.MULTILINE)[0].split()
    shown = run_make(ROOT).splitlines()
    assert [line.split()[0] for line in shown] == targets
    assert all(len(line.split()) > 2 for line in shown)


def test_every_dependency_is_used() -> None:
    declared = {canonicalize_name(one.name) for one in requirements(*PROJECT["optional-dependencies"])}
    assert declared - imported_packages("gotorb", "pipelines", "benchmarks", "tests") == set(NOT_IMPORTED)


def test_every_import_is_declared() -> None:
    declared = {canonicalize_name(one.name) for one in requirements(*PROJECT["optional-dependencies"])}
    assert imported_packages("gotorb", "pipelines") - declared <= {"mlflow-skinny", "mlflow-tracing"}  # parts of mlflow


def test_same_python_versions_everywhere() -> None:
    named = [text.rsplit("3.", 1)[1] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    low, high = int(named[0]), int(named[-1])
    assert PROJECT["requires-python"] == f">=3.{low},<3.{high + 1}"
    assert f"not (3, {low}) <= sys.version_info[:2] <= (3, {high})" in MAKEFILE


def test_wheel_holds_gotorb_alone_and_whole(tmp_path: Path) -> None:
    for path in tracked("gotorb", "pipelines", "pyproject.toml", "README.md", "LICENSE"):
        copy = tmp_path / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "source", capture_output=True, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {str(path.relative_to(ROOT)) for path in tracked("gotorb")}
