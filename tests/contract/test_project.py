"""Files of the project that must agree with each other."""

import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from gotorb.core.settings import Settings
from tests.contract.house import lines_of_code

ROOT = Path(__file__).parents[2]
MAX_LINES = 400
"""Of code: blank lines and docstrings do not count."""


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows."""
    listed = ["git", "ls-files", "-z", "--", *patterns]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]


def lock_lines() -> list[str]:
    return (ROOT / "requirements.lock").read_text().splitlines()


def locked() -> dict[str, str]:
    """Package -> version of the lock file."""
    found = (re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line) for line in lock_lines())
    return {normal(match[1]): match[2] for match in found if match}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *(one for group in project["optional-dependencies"].values() for one in group)]


def test_lock_names_no_index_and_no_host() -> None:
    wrong = [line for line in lock_lines() if "://" in line or "index-url" in line or "find-links" in line]
    assert wrong == []


def test_every_locked_package_has_a_hash() -> None:
    text = "\n".join(lock_lines())
    blocks = re.split(r"\n(?=\S)", text)
    assert [block.split()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block] == []


def test_every_dependency_is_locked() -> None:
    names = {normal(re.split(r"[<>=\[; ]", one)[0]) for one in declared()}
    assert names - set(locked()) == set()


def test_env_example_has_every_setting() -> None:
    text = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z_0-9]+)=", text, flags=re.MULTILINE))
    assert {field.name.upper() for field in fields(Settings)} <= named


def test_no_file_is_too_long() -> None:
    long = {str(path.relative_to(ROOT)): n for path in tracked("*.py") if (n := lines_of_code(path)) > MAX_LINES}
    long.pop("gotorb/core/params.py", None)  # one table, the only home of every default
    assert long == {}


def test_secrets_and_products_are_not_in_git() -> None:
    names = [str(path.relative_to(ROOT)) for path in tracked()]
    assert [name for name in names if re.match(r"(\.env$|data/|models/|mlruns/(?!\.gitignore)|\.gotorb/)", name)] == []


def test_a_test_over_the_limit_fails_unless_it_is_marked_slow(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert request.config.pluginmanager.has_plugin("tests.cpu_limit")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n slow\n long\n")
    (tmp_path / "conftest.py").write_text("from tests import cpu_limit\ncpu_limit.LIMIT_S = 0.1\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest, time\nfrom tests.cpu_limit import work\n"
        "def test_long(): [work() for _ in range(16)]\n"
        "@pytest.mark.slow\ndef test_slow(): test_long()\n"
        "@pytest.mark.long('why')\ndef test_reason(): test_long()\n"
        "def test_waits(): time.sleep(0.5)\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "tests.cpu_limit", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    outcomes = re.findall(r"^(FAILED|PASSED) \S+::(\w+)", done.stdout, flags=re.MULTILINE)
    assert sorted(outcomes) == [
        ("FAILED", "test_long"),
        ("PASSED", "test_reason"),
        ("PASSED", "test_slow"),
        ("PASSED", "test_waits"),
    ]
