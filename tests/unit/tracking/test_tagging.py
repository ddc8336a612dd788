"""`gotorb data tag` and the remote of .env: what is tagged is committed, pushed where there is a remote, and marked."""

import os
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from gotorb import cli
from gotorb.errors import TrackingError
from gotorb.tracking.contents import check_remote, find_remote, set_remote
from gotorb.tracking.lineage import import_versions, tag_data
from tests.shared import point_to
from tests.unit.tracking.repository import Repository


@pytest.fixture
def repository(two_versions: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    copy = two_versions.copy(tmp_path / "project")
    point_to(monkeypatch, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    for name, value in {"GIT_COMMITTER_NAME": "tester", "GIT_COMMITTER_EMAIL": "tester@example.org"}.items():
        monkeypatch.setenv(name, value)
    for name in ("DVC_REMOTE_URL", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")  # and what read_settings exports is undone
        monkeypatch.delenv(name)
    return copy


def local_config(repository: Repository) -> str:
    path = repository.root / ".dvc" / "config.local"
    return path.read_text() if path.exists() else ""


def test_tag_without_a_remote_says_that_data_stay_here(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    import_versions(["HEAD"], name="gotorb")
    assert cli.main(["data", "tag", "dataset-v1", "--message", "the first"]) == 0
    said = capsys.readouterr()
    head = repository.git("rev-parse", "HEAD").strip()
    assert said.out == f"dataset-v1 is commit {head[:10]}; 4 runs are marked\n"
    assert "on this machine only: set DVC_REMOTE_URL" in said.err
    assert repository.git("cat-file", "-t", "dataset-v1").strip() == "tag"  # annotated
    assert "the first" in repository.git("tag", "-n", "--list", "dataset-v1")
    client = mlflow.MlflowClient(f"sqlite:///{repository.root}/mlruns/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert {run.data.tags["gotorb.version"] for run in runs} == {"HEAD, dataset-v1"}


def test_tag_pushes_to_the_remote_of_env_and_a_clone_can_pull(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.root / ".env").write_text("DVC_REMOTE_URL=../the store\n")
    tagged = tag_data("dataset-v1", message="x")
    assert tagged.remote == str(tmp_path / "the store")
    assert repository.git("status", "--porcelain") == ""
    assert "all is pushed" in check_remote()
    clone = repository.clone(tmp_path / "elsewhere" / "clone")
    (clone.root / ".env").write_text(f"DVC_REMOTE_URL={tmp_path}/the store\n")
    os.environ.pop("DVC_REMOTE_URL")
    set_remote(clone.root)
    clone.dvc("pull", "--quiet")
    name = "data/dataset/data_stamps.h5"
    assert (clone.root / name).read_bytes() == (repository.root / name).read_bytes()


@pytest.mark.parametrize("name", ["dvc.lock", "reports/vgg6.json", "params.yaml", "reports/new.json"])
def test_uncommitted_results_are_refused_by_name(repository: Repository, name: str) -> None:
    with (repository.root / name).open("a") as file:
        file.write("\n")
    with pytest.raises(TrackingError, match=f"not committed: {name}; commit"):
        tag_data("dataset-v1", message="x")
    assert "dataset-v1" not in repository.git("tag")


def test_taken_and_impossible_names_are_refused(repository: Repository) -> None:
    (repository.root / "code.py").write_text("")
    repository.commit("v3")
    with pytest.raises(TrackingError, match="tag 'v1' is of another commit"):
        tag_data("v1", message="x")
    with pytest.raises(TrackingError, match="git makes no tag 'a b'"):
        tag_data("a b", message="x")
    assert tag_data("v3", message="x").commit == repository.git("rev-parse", "v3").strip()


def test_push_that_fails_is_told_and_the_same_command_goes_on(repository: Repository, tmp_path: Path) -> None:
    wall = tmp_path / "store"
    wall.write_text("no folder")
    (repository.root / ".env").write_text(f"DVC_REMOTE_URL={wall}\n")
    with pytest.raises(TrackingError, match=r"tag 'dataset-v1' is made, but its data could not be pushed .*again"):
        tag_data("dataset-v1", message="x")
    wall.unlink()
    assert tag_data("dataset-v1", message="x").remote == str(wall)


@pytest.mark.parametrize(
    ("url", "endpoint", "expected"),
    [
        ("s3://bucket/path", "http://127.0.0.1:9000", "endpointurl = http://127.0.0.1:9000"),
        ("ssh://host/path", "http://127.0.0.1:9000", "url = ssh://host/path"),
    ],
)
def test_address_and_endpoint_are_written_once_where_git_does_not_look(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, expected: str
) -> None:
    monkeypatch.setenv("DVC_REMOTE_URL", url)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", endpoint)
    set_remote()
    assert expected in local_config(repository) and find_remote() == url
    assert ("endpointurl" in local_config(repository)) is url.startswith("s3")
    assert repository.git("status", "--porcelain") == ""
    called: list[tuple[str, ...]] = []
    watch: Callable[..., str] = lambda _, *words: called.append(words) or ""  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr("gotorb.tracking.contents._run", watch)
        set_remote()
    assert called == []  # asking DVC again would take a second of each `make repro`
    monkeypatch.setenv("DVC_REMOTE_URL", f"{url}/other")
    set_remote()
    assert find_remote() == f"{url}/other"


def test_nothing_is_written_without_an_address(repository: Repository) -> None:
    set_remote()
    assert local_config(repository) == "" and find_remote() == ""
    assert check_remote() == "DVC_REMOTE_URL is not set: data stay on this machine"


def test_doctor_tells_of_a_remote_that_cannot_be_reached(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "wall").write_text("no folder")
    monkeypatch.setenv("DVC_REMOTE_URL", str(tmp_path / "wall" / "store"))
    with pytest.raises(TrackingError, match=r"remote .*store cannot be reached \(ERROR: .*; correct DVC_REMOTE_URL"):
        check_remote()
