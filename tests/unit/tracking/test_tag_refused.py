"""Tags that are refused: data that are not here; and a store or disk that fails in the middle."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from gotorb import cli
from gotorb.errors import TrackingError
from gotorb.tracking.contents import cache_path, find_absent
from gotorb.tracking.lineage import tag_data
from tests.unit.tracking.conftest import point_to
from tests.unit.tracking.repository import Repository

STAMPS = "data/dataset/data_stamps.h5"


@pytest.fixture
def repository(two_versions: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    copy = two_versions.copy(tmp_path / "project")
    point_to(monkeypatch, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name, value in {"GIT_COMMITTER_NAME": "tester", "GIT_COMMITTER_EMAIL": "tester@example.org"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_REMOTE_URL", "")
    return copy


def tags(repository: Repository) -> list[str]:
    return repository.git("tag").split()


def test_clone_without_its_data_is_refused(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = repository.clone(tmp_path / "clone")
    point_to(monkeypatch, clone.root)
    monkeypatch.chdir(clone.root)
    assert cli.main(["data", "tag", "dataset-v1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "data/dataset/data_labels.csv" in line and "dvc pull" in line
    assert "dataset-v1" not in tags(clone)


def test_one_output_that_is_neither_here_nor_in_the_cache_is_named(repository: Repository) -> None:
    (repository.root / STAMPS).unlink()
    assert find_absent(repository.root) == []  # the cache has it
    cache_path(repository.lock(STAMPS), repository.root).unlink()
    assert find_absent(repository.root) == [STAMPS]
    with pytest.raises(TrackingError, match=STAMPS):
        tag_data("dataset-v1", message="x")
    assert "dataset-v1" not in tags(repository)


def test_output_that_is_here_alone_counts_and_a_changed_one_does_not(repository: Repository) -> None:
    path, cached = repository.root / STAMPS, cache_path(repository.lock(STAMPS), repository.root)
    content = path.read_bytes()
    path.unlink()
    cached.unlink()
    path.write_bytes(content)
    assert find_absent(repository.root) == []
    path.write_bytes(content + b"x")
    assert find_absent(repository.root) == [STAMPS]


def test_folder_is_absent_without_its_list_or_a_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that is a folder, as DVC keeps it: a list of its files, and each of them."""
    import json

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    name = "0123456789abcdef0123456789abcdef"
    listing = [{"md5": name, "relpath": "a.csv"}]
    from hashlib import md5 as hashed

    text = json.dumps(listing).encode()
    digest = hashed(text, usedforsecurity=False).hexdigest()
    (tmp_path / "dvc.lock").write_text(f"stages: {{a: {{outs: [{{path: folder, md5: {digest}.dir}}]}}}}\n")
    assert find_absent(tmp_path) == ["folder"]
    place = cache_path(f"{digest}.dir", tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(text)
    assert find_absent(tmp_path) == ["folder"]
    member = cache_path(name, tmp_path)
    member.parent.mkdir(parents=True, exist_ok=True)
    member.write_text("content")
    assert find_absent(tmp_path) == []
    shutil.rmtree(member.parent)


def test_store_that_fails_in_the_middle_is_one_line_and_the_tag_stays(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(tag: str) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("gotorb.tracking.lineage.mark_runs", full)
    assert cli.main(["data", "tag", "dataset-v1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gotorb: dataset-v1 is tagged") and "disk is full" in line
    assert "dataset-v1" in tags(repository)
