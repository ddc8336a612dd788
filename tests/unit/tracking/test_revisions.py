"""Versions beside the user's own: what git and DVC know of them, and that no file here changes."""

import subprocess
import sys
from pathlib import Path

import pytest

from gotorb.errors import TrackingError
from gotorb.tracking.revisions import checked_out, find_commit, promoted_network, read_lock


class Repo:
    """A small repository with one DVC stage."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.run("git", "init", "--quiet")
        self.dvc("init", "--quiet")
        (root / "dvc.yaml").write_text("stages: {copy: {cmd: cp text data, deps: [text], outs: [data]}}\n")
        (root / ".gitignore").write_text(".gotorb\n")

    def run(self, *command: str) -> str:
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"] if command[0] == "git" else []
        done = subprocess.run(
            [command[0], *who, *command[1:]], cwd=self.root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def dvc(self, *words: str) -> None:
        self.run(sys.executable, "-m", "dvc", *words)

    def commit(self, text: str, tag: str) -> None:
        """Make a version whose data hold a text."""
        (self.root / "text").write_text(text)
        self.dvc("repro", "--quiet")
        (self.root / "reports").mkdir(exist_ok=True)
        (self.root / "reports" / "promotion.json").write_text(f'{{"model": "net_{text}"}}')
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", text)
        self.run("git", "tag", tag)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two tagged versions; a change of the second lies uncommitted."""
    repo = Repo(tmp_path_factory.mktemp("repo") / "project")
    repo.commit("one", "v1")
    repo.commit("two", "v2")
    (repo.root / "text").write_text("mine")
    return repo


def test_old_version_is_brought_beside_the_users_files(repo: Repo) -> None:
    before = {path: path.read_bytes() for path in (repo.root / "text", repo.root / "data", repo.root / "dvc.lock")}
    with checked_out("v1", ["data"], repo.root) as tree:
        assert (tree / "data").read_text() == "one"
        assert tree.parent == repo.root / ".gotorb"
    assert not tree.exists()
    assert {path: path.read_bytes() for path in before} == before
    assert repo.run("git", "worktree", "list").count("\n") == 1


def test_work_tree_goes_when_the_block_fails(repo: Repo) -> None:
    with pytest.raises(ZeroDivisionError), checked_out("v1", ["data"], repo.root) as tree:
        raise ZeroDivisionError
    assert not tree.exists()


def test_lock_and_network_are_those_of_the_version(repo: Repo) -> None:
    first, second = (read_lock(tag, repo.root) for tag in ("v1", "v2"))
    assert first.keys() == second.keys() == {"data"}
    assert first["data"] != second["data"]
    assert promoted_network("v1", repo.root) == "net_one"
    assert find_commit("v1", repo.root) != find_commit("v2", repo.root)


@pytest.mark.parametrize("name", ["v3", "--output=x", ""])
def test_unknown_version_is_named(repo: Repo, name: str) -> None:
    with pytest.raises(TrackingError, match=f"no version '{name}'"):
        find_commit(name, repo.root)


def test_lost_data_are_told_with_what_to_do(repo: Repo, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(repo.root), str(clone)], check=True)
    with pytest.raises(TrackingError, match="DVC_REMOTE_URL"), checked_out("v1", ["data"], clone):
        pass
    assert not list((clone / ".gotorb").glob("version-*"))


def test_data_come_from_the_remote_where_the_cache_lacks_them(repo: Repo, tmp_path: Path) -> None:
    store, clone = tmp_path / "store", tmp_path / "clone"
    repo.dvc("push", "--quiet", "--all-tags", "--remote", add_remote(repo.root, store))
    subprocess.run(["git", "clone", "--quiet", str(repo.root), str(clone)], check=True)
    add_remote(clone, store)
    with checked_out("v1", ["data"], clone) as tree:
        assert (tree / "data").read_text() == "one"


def add_remote(root: Path, store: Path) -> str:
    words = [sys.executable, "-m", "dvc", "remote", "add", "--local", "--default", "--force", "store", str(store)]
    subprocess.run(words, cwd=root, check=True, capture_output=True)
    return "store"
