"""Run, data, model and tag find each other by content, in the project and in a fresh clone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from gotorb import cli
from gotorb.core import layout
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.errors import TrackingError
from gotorb.tracking.contents import md5
from gotorb.tracking.dvc_source import DvcSource
from gotorb.tracking.lineage import find_family, import_tags, mark_runs
from gotorb.tracking.registry import register, set_alias
from gotorb.tracking.runs import track_stage
from gotorb.tracking.store import journals_dir
from tests.shared import point_to
from tests.unit.tracking.repository import NETWORKS, Repository

NAMES = (layout.LABELS_CSV, layout.STAMPS_H5)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, two_versions: Repository
) -> Iterator[tuple[Repository, dict[str, str]]]:
    """A project with two versions, its runs as the stages make them, and the best model of v1 registered."""
    repository = two_versions.copy(tmp_path_factory.mktemp("lineage") / "project")
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, repository.root)
        patch.chdir(repository.root)
        check_out(repository, "v1")
        ids = {f"{name} v1": run for name, run in record(repository.root).items()}
        where = repository.root / "models" / "vgg6" / layout.MODEL_H5
        set_alias(register("gotorb", ids["train vgg6 v1"], md5(where), {"layers": ""}), "champion")
        check_out(repository, "v2")
        ids |= {f"{name} v2": run for name, run in record(repository.root).items()}
        yield repository, ids


def check_out(repository: Repository, tag: str) -> None:
    repository.git("checkout", "--quiet", tag)
    repository.dvc("checkout", "--quiet")


def record(root: Path) -> dict[str, str]:
    """Runs as the stages of the pipeline make them."""
    params, data_dir, ids = read_params(root / layout.PARAMS_YAML), root / "data" / "dataset", {}
    card = make_card(data_dir)
    with track_stage("dataset", params) as run:
        run.log_data(data_dir, card, context="all")
    ids["dataset"] = run.run_id
    for name in NETWORKS:
        path = root / "models" / name / layout.MODEL_H5
        with track_stage("train", params, name=f"train {name}") as run:
            run.log_data(data_dir, card, context="training")
            run.log_model(path, tags={})
        ids[f"train {name}"] = run.run_id
        with track_stage("evaluate", params, name=f"evaluate {name}", experiment="-evaluation") as run:
            run.set_tags({"gotorb.model_md5": md5(path)})
            run.log_data(data_dir, card, context="test")
        ids[f"evaluate {name}"] = run.run_id
    return ids


def ids_of(family: Any) -> set[str]:
    return {run["run_id"] for run in family.runs}


def test_tag_leads_to_its_data_models_and_runs(made: tuple[Repository, dict[str, str]]) -> None:
    repository, ids = made
    for tag in ("v1", "v2"):
        family = find_family(tag)
        assert ids_of(family) == {run for name, run in ids.items() if name.endswith(tag)}
        assert len(family.models) == 2 and [one["git_tags"] for one in family.models] == [[tag], [tag]]
        (data,) = family.data
        assert data["git_tags"] == [tag] and data["commit"] == repository.git("rev-parse", tag).strip()
        assert len(data["digest"]) == 64


def test_registered_model_leads_to_its_runs_and_data(made: tuple[Repository, dict[str, str]]) -> None:
    _, ids = made
    family = find_family("models:/gotorb@champion")
    assert ids_of(family) == {ids["dataset v1"], ids["train vgg6 v1"], ids["evaluate vgg6 v1"]}
    (model,) = family.models
    assert (model["registered"], model["aliases"], model["git_tags"]) == (["gotorb/1"], ["champion"], ["v1"])
    assert family.data[0]["git_tags"] == ["v1"]


@pytest.mark.parametrize("name", ["train vgg6 v1", "evaluate vgg6 v1"])
def test_run_of_a_model_leads_to_model_data_and_tag(made: tuple[Repository, dict[str, str]], name: str) -> None:
    _, ids = made
    family = find_family(ids[name])
    assert [model["registered"] for model in family.models] == [["gotorb/1"]]
    assert (family.data[0]["git_tags"], family.models[0]["git_tags"]) == (["v1"], ["v1"])
    assert ids["dataset v1"] in ids_of(family) and not any(ids[n] in ids_of(family) for n in ids if n.endswith("v2"))


def test_run_that_made_data_leads_to_every_model_trained_on_them(made: tuple[Repository, dict[str, str]]) -> None:
    repository, ids = made
    family = find_family(ids["dataset v2"])
    expected = {repository.lock(f"models/{name}/{layout.MODEL_H5}") for name in NETWORKS}
    assert {model["md5"] for model in family.models} == expected
    assert ids_of(family) == {run for name, run in ids.items() if name.endswith("v2")}


def test_a_run_keeps_every_tag_it_is_marked_with(made: tuple[Repository, dict[str, str]]) -> None:
    repository, ids = made
    repository.git("tag", "dataset-v1", "v1")
    try:
        assert mark_runs("v1") == mark_runs("dataset-v1") == mark_runs("v1") == 5
        assert mlflow.get_run(ids["train vgg6 v1"]).data.tags["gotorb.version"] == "dataset-v1, v1"
        assert "gotorb.version" not in mlflow.get_run(ids["train vgg6 v2"]).data.tags
    finally:
        repository.git("tag", "--delete", "dataset-v1")


def test_lineage_is_told_by_the_command(
    made: tuple[Repository, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, ids = made
    assert cli.main(["lineage", "models:/gotorb/1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2][:2]] == ["data", "model"] and lines[4].split() == ["run", "stage"]
    assert lines[3].split()[1:4] == ["gotorb/1", "champion", "v1"]
    assert lines[5].split()[0] == ids["dataset v1"] and len(lines) == 8
    assert cli.main(["lineage", "nonsense"]) == 1
    assert "'nonsense' is no run id, no registered model" in capsys.readouterr().err


def test_source_of_a_runs_data_brings_the_files_of_its_version(
    made: tuple[Repository, dict[str, str]], tmp_path: Path
) -> None:
    """From DVC's cache: the files of v1 are no longer in the checkout."""
    repository, ids = made
    recorded = mlflow.get_run(ids["train vgg6 v1"]).inputs.dataset_inputs[0].dataset
    source = mlflow.data.get_source(recorded)
    assert isinstance(source, DvcSource)
    folder = Path(source.load(str(tmp_path / "v1")))
    tags = mlflow.get_run(ids["train vgg6 v1"]).data.tags
    known = [tags["gotorb.labels_md5"], tags["gotorb.stamps_md5"]]
    assert [md5(folder / name) for name in NAMES] == known
    assert known[0] != repository.lock("data/dataset/data_labels.csv") or known[1] != repository.lock(
        "data/dataset/data_stamps.h5"
    )


@pytest.mark.slow
def test_source_brings_the_files_from_the_remote_where_the_cache_lacks_them(
    made: tuple[Repository, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, ids = made
    recorded = mlflow.get_run(ids["train vgg6 v1"]).inputs.dataset_inputs[0].dataset
    repository.dvc("remote", "add", "--local", "--default", "--force", "store", str(tmp_path / "store"))
    repository.dvc("push", "--quiet", "--all-tags")
    clone = repository.clone(tmp_path / "clone")
    monkeypatch.setenv("DVC_ROOT", str(clone.root))
    monkeypatch.setenv("DVC_REMOTE_URL", "")  # and what read_settings exports is undone
    with pytest.raises(TrackingError, match="DVC_REMOTE_URL"):
        mlflow.data.get_source(recorded).load(str(tmp_path / "nothing"))
    (clone.root / ".env").write_text(f"DVC_REMOTE_URL={tmp_path}/store\n")
    monkeypatch.delenv("DVC_REMOTE_URL")
    folder = Path(mlflow.data.get_source(recorded).load(str(tmp_path / "files")))
    tags = mlflow.get_run(ids["train vgg6 v1"]).data.tags
    assert [md5(folder / name) for name in NAMES] == [tags["gotorb.labels_md5"], tags["gotorb.stamps_md5"]]
    assert clone.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_fresh_clone_gets_the_runs_of_every_tag_once(
    made: tuple[Repository, dict[str, str]],
    fresh_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository, _ = made
    clone = repository.clone(tmp_path / "clone")
    clone.dvc("remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    repository.dvc("remote", "add", "--local", "--default", "--force", "store", str(tmp_path / "store"))
    repository.dvc("push", "--quiet", "--all-tags")
    clone.dvc("pull", "--quiet", "--all-tags")
    shutil.copytree(fresh_store, clone.root / layout.MLRUNS_DIR)
    with monkeypatch.context() as patch:
        point_to(patch, clone.root)
        patch.chdir(clone.root)
        assert cli.main(["runs", "import", "--all-tags"]) == 0
        assert sorted(capsys.readouterr().out.splitlines()) == sorted(
            f"{stage} {name} ({tag})" for tag in ("v1", "v2") for stage in ("train", "evaluate") for name in NETWORKS
        )
        assert import_tags(name="gotorb") == []
        client = mlflow.MlflowClient(f"sqlite:///{clone.root}/mlruns/mlflow.db")
        ids = [found.experiment_id for found in client.search_experiments()]
        runs = client.search_runs(ids)
        assert len(runs) == 8 and not list(journals_dir().glob("*"))
        for run in runs:
            assert run.info.status == "FINISHED" and run.data.params["seed"] == "1"
            assert run.data.tags["gotorb.restored"] == "true"
            (data,) = run.inputs.dataset_inputs
            assert isinstance(mlflow.data.get_source(data.dataset), DvcSource)
            assert '"n_rows": 120' in data.dataset.profile
        evaluation = next(run for run in runs if run.info.run_name == "evaluate vgg6")
        assert evaluation.data.metrics["test/auc"] == 0.91
        training = next(run for run in runs if run.info.run_name == "train vgg6")
        assert training.data.metrics["test/auc"] == 0.91 and training.data.tags["gotorb.run.evaluate"]
        version = register("gotorb", training.info.run_id, training.data.tags["gotorb.model_md5"], {})
        assert mlflow.tensorflow.load_model(version.uri).input_shape[1:] == (9, 9, 4)
        assert {run["run_id"] for run in find_family("v1").runs} < {run.info.run_id for run in runs}
