"""One flipped byte of anything that DVC knows is found and named."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gotorb import cli
from gotorb.core import layout
from gotorb.errors import TrackingError
from gotorb.tracking.contents import cache_path, find_damage
from gotorb.tracking.versions import read_lock
from tests.unit.tracking.repository import Repository


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, two_versions: Repository) -> Repository:
    """With a folder among its outputs, next to files."""
    repository = two_versions.copy(tmp_path_factory.mktemp("verify") / "project")
    stages = (repository.root / "dvc.yaml").read_text()
    more = "  folder: {cmd: mkdir -p data/folder && echo one > data/folder/one, outs: [data/folder]}\n"
    (repository.root / "dvc.yaml").write_text(stages + more)
    repository.dvc("repro", "--quiet")
    return repository


@pytest.fixture
def repository(original: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    yield original.copy(tmp_path / "project")


def flip(path: Path, where: float = 0.5) -> None:
    """Flip one bit in the middle of a file, whatever its mode; the file of a hard link gets a copy of its own."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * where)] ^= 1
    path.unlink()
    path.write_bytes(content)


def test_nothing_is_said_of_whole_files(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_damage() == []
    assert cli.main(["verify"]) == 0
    assert capsys.readouterr().out == "every file is what dvc.lock says\n"


@pytest.mark.parametrize(
    "name",
    [
        "data/dataset/data_labels.csv",
        "data/dataset/data_stamps.h5",
        f"models/vgg6/{layout.MODEL_H5}",
        "data/folder/one",
    ],
)
def test_flipped_byte_of_a_file_is_found(repository: Repository, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip(repository.root / name)
    (line,) = find_damage()
    assert line.startswith(f"{name} is not what dvc.lock says")
    assert cli.main(["verify"]) == 1
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("name", ["data/dataset/data_stamps.h5", "data/folder"])
def test_flipped_byte_of_the_cache_is_found(repository: Repository, name: str) -> None:
    """Of a file, and of the list of a folder's files; DVC itself trusts both."""
    cached = cache_path(repository.lock(name))
    flip(cached)
    assert [line.split(" in ")[0] for line in find_damage()] == [str(cached)]


def test_flipped_byte_of_an_earlier_version_is_found(repository: Repository) -> None:
    cached = cache_path(read_lock("v1", repository.root)["data/dataset/data_stamps.h5"])
    assert cached != cache_path(repository.lock("data/dataset/data_stamps.h5")) and find_damage() == []
    flip(cached, 0.9)
    assert [line.split(" in ")[0] for line in find_damage()] == [str(cached)]


def test_project_without_results_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(TrackingError, match=r"no dvc\.lock"):
        find_damage()
