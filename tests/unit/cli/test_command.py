"""The command as a whole: help, usage errors, one-line errors."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import gotorb as package
from gotorb.cli import COMMANDS
from tests.unit.cli.conftest import Said, shell

Call = Callable[..., Said]
HELP_SECONDS = 0.5


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_subcommand_explains_itself_with_an_example(gotorb: Call, name: str) -> None:
    said = gotorb(name, "--help")
    assert said.code == 0
    assert f"gotorb {name}" in said.out
    assert "example" in said.out.lower()


def test_help_lists_every_subcommand(gotorb: Call) -> None:
    said = gotorb("--help")
    assert said.code == 0
    for name, text in COMMANDS.items():
        assert name in said.out
        assert text.split(",")[0] in " ".join(said.out.split())


def test_help_needs_no_heavy_library(project: Path) -> None:
    import subprocess

    code = (
        "import sys, gotorb.cli\n"
        "try: gotorb.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'mlflow', 'pandas', 'numpy', 'astropy'} & set(sys.modules)))"
    )
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.process_time() - started < HELP_SECONDS


def test_version_is_the_packages(gotorb: Call) -> None:
    assert gotorb("--version").out.strip() == f"gotorb {package.__version__}"


@pytest.mark.parametrize("words", [[], ["fly"], ["params", "--no-such"], ["ui", "--port", "high"]])
def test_wrong_usage_is_exit_code_2(gotorb: Call, words: list[str]) -> None:
    said = gotorb(*words)
    assert said.code == 2
    assert said.out == ""
    assert "usage: gotorb" in said.err


def test_error_is_one_line_and_exit_code_1(project: Path) -> None:
    said = shell("params", "--file", "nowhere.yaml", cwd=project)
    assert said == Said(1, "", f"gotorb: no nowhere.yaml in {project.resolve()}; run inside the project's folder\n")


def test_debug_shows_the_traceback(project: Path) -> None:
    said = shell("--debug", "params", "--file", "nowhere.yaml", cwd=project)
    assert said.code == 1
    assert said.err.startswith("Traceback")
    assert "ConfigError: no nowhere.yaml" in said.err


def test_reader_that_leaves_early_is_no_error(project: Path) -> None:
    import subprocess

    line = f"{sys.executable} -m gotorb params | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("seed = 2")
    assert "Traceback" not in done.stderr
