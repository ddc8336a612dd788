"""The released package: wheel and sdist, installed into empty environments and used without the repository."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import gotorb
from tests.contract.test_project import ROOT, tracked
from tests.end_to_end.clones import FOREIGN
from tests.model.blobs import make_blobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
UV = Path(sys.executable).with_name("uv")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command like a user who has only Python: in an empty folder, with an empty home."""
    home = tmp_path_factory.mktemp("home")
    outside = {name: value for name, value in os.environ.items() if not name.startswith((*FOREIGN, "PYTHON"))}
    outside |= {"UV_CACHE_DIR": cache_folder(), "HOME": str(home), "OMP_NUM_THREADS": "1"}
    outside.pop("VIRTUAL_ENV", None)

    def command(*words: object, cwd: Path = home) -> str:
        done = subprocess.run([*map(str, words)], cwd=cwd, env=outside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return command


def cache_folder() -> str:
    return subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def built(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the sdist of this checkout, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("release")
    for path in tracked():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for kind in ("sdist", "wheel"):
        where = folder / "source" if kind == "sdist" else unpack(folder / "dist", folder / "unpacked")
        code = f"from setuptools.build_meta import build_{kind}; build_{kind}({str(folder / 'dist')!r})"
        (folder / "dist").mkdir(exist_ok=True)
        run(sys.executable, "-c", code, cwd=where)
    return folder / "dist"


def unpack(dist: Path, target: Path) -> Path:
    (archive,) = dist.glob("*.tar.gz")
    target.mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", target, "--strip-components=1"], check=True)
    return target


@pytest.fixture(scope="module")
def installed(built: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment that had nothing before the wheel."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    run(UV, "venv", "--quiet", "--python", sys.executable, venv)
    lock = venv.with_name("run.lock")
    lock.write_text(re.search(r"^# run$(.*?)^# test$", (ROOT / "requirements.lock").read_text(), re.M | re.S)[1])
    python = ("--quiet", "--python", venv / "bin" / "python")
    run(UV, "pip", "install", *python, "--no-deps", "--require-hashes", "-r", lock)
    run(UV, "pip", "install", *python, "--offline", next(built.glob("*.whl")))  # fails when a dependency is missing
    return venv / "bin"


def test_names_carry_the_version(built: Path) -> None:
    version = gotorb.__version__
    assert {path.name for path in built.iterdir()} == {f"gotorb-{version}.tar.gz", f"gotorb-{version}-py3-none-any.whl"}
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()


def test_wheel_of_the_sdist_holds_every_file_of_the_package(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {str(path.relative_to(ROOT)) for path in tracked("gotorb")}


def test_installed_package_trains_and_scores_without_the_repository(installed: Path, run: Run, tmp_path: Path) -> None:
    assert run(installed / "gotorb", "--version", cwd=tmp_path).split() == ["gotorb", gotorb.__version__]
    where = run(installed / "python", "-c", "import gotorb; print(gotorb.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    make_blobs(tmp_path / "labelled", n=120, size=25)
    train = ("train", "labelled", "--model", "bayesian_vgg6", "--epochs", "1", "--out-dir", "models", "--name", "first")
    run(installed / "gotorb", *train, cwd=tmp_path)
    run(installed / "gotorb", "score", "models/first", "labelled", "--out-path", "scores.csv", cwd=tmp_path)
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 120 and scores["score"].between(0, 1).all() and scores["std"].notna().all()


def test_installed_package_simulates_a_survey(installed: Path, run: Run, tmp_path: Path) -> None:
    small = ("--n-fields", "1", "--n-visits", "1", "--size", "320", "--n-asteroids", "150", "--n-training-fields", "3")
    run(installed / "gotorb", "simulate", "survey", *small, cwd=tmp_path)
    assert list((tmp_path / "survey").rglob("*.fits"))
