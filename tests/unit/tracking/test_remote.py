"""DVC's local configuration: changed as a whole, nothing of the user's is lost, and any letters are allowed."""

import subprocess
from pathlib import Path

import pytest

from gotorb.errors import TrackingError
from gotorb.tracking.contents import DVC, change_config, find_remote, set_remote
from pipelines.repro import set_up_dvc

MINE = """# mine
[core]
    remote = étoile   # why
['remote "étoile"']
    url = /données/é π
    password = "a#b, c"
[cache]
    type = hardlink
"""


def ask(root: Path, *words: str) -> str:
    return subprocess.run([*DVC, "config", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DVC_REMOTE_URL", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    root = tmp_path / "projet é π"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = True\n")
    return root


def test_a_remote_with_any_letters_keeps_all_else(project: Path) -> None:
    local = project / ".dvc" / "config.local"
    local.write_text(MINE, encoding="utf-8")
    local.chmod(0o600)
    (project / ".env").write_text("DVC_REMOTE_URL='magasin é, π #1'\n", encoding="utf-8")
    set_remote(project)
    first = local.read_bytes()
    set_remote(project)
    assert local.read_bytes() == first
    assert find_remote(project) == f"{project}/magasin é, π #1"
    assert ask(project, "remote.étoile.password") == "a#b, c"
    assert ask(project, "cache.type") == "hardlink"
    assert local.read_text(encoding="utf-8").startswith("# mine\n")
    assert local.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_read_stays_as_it_is(project: Path) -> None:
    local = project / ".dvc" / "config.local"
    local.write_bytes(b"[core]\n    remote = \xe9\n")
    (project / ".env").write_text("DVC_REMOTE_URL=store\n")
    with pytest.raises(TrackingError, match="UTF-8"):
        set_remote(project)
    assert local.read_bytes() == b"[core]\n    remote = \xe9\n"


@pytest.mark.parametrize("value", ["a\nb", "a'b\"c", "a\0"])
def test_values_that_cannot_be_written_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError):
        change_config(tmp_path / "config", {("core", "remote"): value})
    assert not (tmp_path / "config").exists()


def test_a_broken_configuration_is_told_and_not_taken_for_an_empty_one(project: Path) -> None:
    (project / ".dvc" / "config.local").write_text("[core\n")
    with pytest.raises(TrackingError, match="config"):
        find_remote(project)


def test_a_source_below_any_letters_is_set_up_twice(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    here = Path("sources/quelle é")
    here.mkdir(parents=True)
    (here / ".setup-old").mkdir()  # of an interrupted set-up
    for _ in range(2):
        set_up_dvc(here)
        place = subprocess.run([*DVC, "cache", "dir"], cwd=here, capture_output=True, text=True, check=True).stdout
        assert (here / place.strip()).resolve() == (project / ".dvc" / "cache").resolve()
    assert sorted(path.name for path in here.iterdir()) == [".dvc", ".dvcignore", ".setup-old"]
