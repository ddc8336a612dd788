"""The command as a whole, and the package: help, usage errors, one-line errors, lazy front doors."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gotorb as package
from gotorb import cli
from gotorb.errors import ConfigError
from tests.cpu_limit import look
from tests.unit.cli.conftest import Said, shell

Call = Callable[..., Said]
HELP_SECONDS, IMPORT_SECONDS = 0.5, 0.05  # CPU seconds of the reference machine
COMMANDS = {name: text for _, names in cli.GROUPS.values() for name, text in names.items()}
HEAVY = {"tensorflow", "mlflow", "pandas", "numpy", "astropy"}
README_VERBS = {
    "label", "synthetic", "marshall", "relabel", "clean", "dataset", "catalogue", "train", "tune", "evaluate",
    "benchmark", "export", "score", "visualise", "night", "why", "eyeball", "explore", "ask", "promote", "rollback",
    "models", "runs", "sync", "ui", "verify", "lineage", "data", "doctor", "params", "figure", "simulate",
    "threshold", "compare",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself_with_an_example(gotorb: Call, name: str) -> None:
    said = gotorb(name, "--help")
    assert said.code == 0
    assert f"gotorb {name}" in said.out
    assert "example" in said.out.lower()
    assert "\n\n    " not in said.out  # the docstring's own indentation


def test_every_verb_of_the_readme_is_a_command() -> None:
    assert COMMANDS.keys() >= README_VERBS


def test_help_lists_every_command_in_its_group(gotorb: Call) -> None:
    said = gotorb("--help")
    assert said.code == 0
    parts = said.out.split("\n\n")
    for title, names in cli.GROUPS.values():
        (part,) = (part for part in parts if part.startswith(f"{title}:\n"))
        lines = [line.split(maxsplit=1) for line in part.splitlines()[1:]]
        assert lines == [list(item) for item in names.items()]


def test_one_line_helps_begin_with_a_verb() -> None:
    firsts = {text.split()[0] for text in COMMANDS.values()}
    assert not {word for word in firsts if word.endswith("s") or word in ("the", "a", "what", "how", "who")}


def test_help_needs_no_heavy_library(project: Path) -> None:
    code = (
        "import sys, time\n"
        "started = time.process_time()\n"
        "import gotorb\n"
        "took = time.process_time() - started\n"
        "import gotorb.cli\n"
        "try: gotorb.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(took, time.process_time() - started, sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    imported, helped, heavy = done.stdout.splitlines()[-1].split(maxsplit=2)
    assert heavy == "[]"
    pace = max(1.0, look())
    assert float(imported) < IMPORT_SECONDS * pace and float(helped) < HELP_SECONDS * pace


def test_front_doors_are_imported_when_they_are_used() -> None:
    assert set(package.FRONT_DOORS) < set(dir(package)) and set(package.FRONT_DOORS) < set(package.__all__)
    for name in package.FRONT_DOORS:
        assert getattr(package, name).__name__ == f"gotorb.{package.HOMES.get(name, name)}"
    with pytest.raises(AttributeError, match="no attribute 'label_date'"):
        package.label_date  # noqa: B018


def test_version_is_the_packages(gotorb: Call) -> None:
    assert gotorb("--version").out.strip() == f"gotorb {package.__version__}"


@pytest.mark.parametrize("words", [[], ["fly"], ["params", "--no-such"], ["ui", "--port", "high"]])
def test_wrong_usage_is_exit_code_2(gotorb: Call, words: list[str]) -> None:
    said = gotorb(*words)
    assert said.code == 2
    assert said.out == ""
    assert "usage: gotorb" in said.err


def test_exit_codes_of_a_process(project: Path) -> None:
    done = shell("params", "seed", cwd=project)
    assert (done.code, done.out.splitlines()[0], done.err) == (0, "seed = 2", "")
    failed = shell("params", "--params", "nowhere.yaml", cwd=project)
    assert failed == Said(1, "", f"gotorb: no nowhere.yaml in {project.resolve()}; run inside the project's folder\n")
    assert shell("fly", cwd=project).code == 2


def test_debug_raises_the_error(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"no nowhere\.yaml"):
        cli.main(["--debug", "params", "--params", "nowhere.yaml"])


def test_interruption_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch, gotorb: Call) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gotorb.tracking.runs.sync_runs", interrupt)
    assert gotorb("sync") == Said(130, "", "gotorb: stopped\n")


def test_reader_that_leaves_early_is_no_error(project: Path) -> None:
    line = f"{sys.executable} -m gotorb params | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("seed = 2")
    assert "Traceback" not in done.stderr
