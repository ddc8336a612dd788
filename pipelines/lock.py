"""Write requirements.lock: exact versions and hashes of every package, in three sections.

`# set-up` is the installer, `# run` is what the pipeline needs, `# test` is every other extra. A package belongs to the
first section that needs it. `make repro` installs the first two sections, `make test` all three.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

LOCK = Path("requirements.lock")
SETUP_PACKAGES = frozenset({"uv"})
RUN_EXTRA = "survey"
COMPILE = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--no-header",
           "--no-annotate", "--quiet"]  # fmt: skip


def main() -> int:
    """Resolve pyproject.toml and write the lock."""
    parser = argparse.ArgumentParser(prog="make lock")
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of every package")
    args = parser.parse_args()
    try:
        lock = _resolve(upgrade=args.upgrade)
    except subprocess.CalledProcessError:
        print(f"make lock: no new {LOCK}; correct pyproject.toml as uv says above", file=sys.stderr)
        return 1
    LOCK.write_text(lock)
    return 0


def _resolve(*, upgrade: bool) -> str:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, LOCK.name)
        if not upgrade:
            whole.write_bytes(LOCK.read_bytes())  # uv keeps the versions of a file that it replaces
        _run([*COMPILE, "--all-extras", "--generate-hashes", "--output-file", str(whole)])
        run_names = package_names(_run([*COMPILE, "--extra", RUN_EXTRA, "--constraint", str(whole)]))
        return arrange(whole.read_text(), run_names)


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def package_names(lock: str) -> set[str]:
    """Names of the packages of a lock file.

    Parameters
    ----------
    lock : str
        Text of the lock file.

    Returns
    -------
    set of str

    Examples
    --------
    >>> sorted(package_names("numpy==2.4.6 ; python_full_version < '3.12'\\nscipy==1.17.1"))
    ['numpy', 'scipy']
    """
    return set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))


def arrange(lock: str, run_names: Collection[str]) -> str:
    """Sections of a lock file, each package with its hashes.

    Parameters
    ----------
    lock : str
        Lock of all packages.
    run_names : collection of str
        Packages that the pipeline needs.

    Returns
    -------
    str
        The same packages under the headings `# set-up`, `# run` and `# test`.

    Examples
    --------
    >>> print(arrange("numpy==2.4.6\\npytest==9.0\\nuv==0.13.9\\n", {"numpy"}), end="")
    # set-up
    uv==0.13.9
    # run
    numpy==2.4.6
    # test
    pytest==9.0
    """
    sections: dict[str, list[str]] = {"set-up": [], "run": [], "test": []}
    for block in re.findall(r"^[\w.-]+==.*\n(?:[ \t].*\n)*", lock, re.MULTILINE):
        sections[_section(block.partition("==")[0], run_names)].append(block)
    return "".join(f"# {heading}\n{''.join(blocks)}" for heading, blocks in sections.items())


def _section(name: str, run_names: Collection[str]) -> str:
    if name in SETUP_PACKAGES:
        return "set-up"
    return "run" if name in run_names else "test"


if __name__ == "__main__":
    sys.exit(main())
