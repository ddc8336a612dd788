"""Versions next to the user's own: what git and DVC know of them, and that no file here changes."""

from pathlib import Path

import pytest

from gotorb.errors import TrackingError
from gotorb.tracking.contents import md5
from gotorb.tracking.versions import checked_out, find_commit, promoted_network, read_lock
from tests.unit.tracking.repository import Repository

STAMPS, LABELS = "data/dataset/data_stamps.h5", "data/dataset/data_labels.csv"


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, two_versions: Repository) -> Repository:
    """Two tagged versions; a change of the second is not committed."""
    repo = two_versions.copy(tmp_path_factory.mktemp("repo") / "project")
    (repo.root / "dvc.yaml").write_text("# mine\n")
    return repo


def test_old_version_is_brought_beside_the_users_files(repo: Repository) -> None:
    before = {path: path.read_bytes() for path in (repo.root / name for name in (STAMPS, "dvc.yaml", "dvc.lock"))}
    with checked_out("v1", [STAMPS], repo.root) as tree:
        assert md5(tree / STAMPS) == read_lock("v1", repo.root)[STAMPS] != repo.lock(STAMPS)
        assert not (tree / LABELS).exists()
        assert tree.parent == repo.root / ".gotorb"
    assert not tree.exists()
    assert {path: path.read_bytes() for path in before} == before
    assert repo.git("worktree", "list").count("\n") == 1


def test_work_tree_goes_when_the_block_fails(repo: Repository) -> None:
    with pytest.raises(ZeroDivisionError), checked_out("v1", [STAMPS], repo.root) as tree:
        raise ZeroDivisionError
    assert not tree.exists()


def test_lock_and_network_are_those_of_the_version(repo: Repository) -> None:
    first, second = (read_lock(tag, repo.root) for tag in ("v1", "v2"))
    assert first.keys() == second.keys() >= {STAMPS, LABELS}
    assert first[STAMPS] != second[STAMPS]
    assert [promoted_network(tag, repo.root) for tag in ("v1", "v2")] == ["vgg6", "bayesian_vgg6"]
    assert find_commit("v1", repo.root) != find_commit("v2", repo.root)


@pytest.mark.parametrize("name", ["v3", "--output=x", ""])
def test_unknown_version_is_named(repo: Repository, name: str) -> None:
    with pytest.raises(TrackingError, match=f"no version '{name}'"):
        find_commit(name, repo.root)


def test_lost_data_are_told_with_what_to_do(repo: Repository, tmp_path: Path) -> None:
    clone = repo.clone(tmp_path / "clone").root
    with pytest.raises(TrackingError, match="DVC_REMOTE_URL"), checked_out("v1", [STAMPS], clone):
        pass
    assert not list((clone / ".gotorb").glob("version-*"))
