"""A team's server with PostgreSQL and S3 that is down from the start, or dies midway: nothing is lost after a sync."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from gotorb.tracking.contents import md5
from tests.end_to_end.clones import ROOT, clean_environment
from tests.end_to_end.services import KEYS, Team, postgres, s3
from tests.unit.tracking.repository import Repository
from tests.unit.tracking.server import Process, mlflow_server

EPOCHS = 6
TRAIN = """
import json, sys, time
from pathlib import Path
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.contents import md5
from gotorb.tracking.runs import track_stage
from gotorb.training.meta import read_meta
from gotorb.tracking.trainings import log_training
name, half = sys.argv[1], Path(sys.argv[2])
path = Path("models/vgg6/model.h5")
meta = {"model": "vgg6", "layers": ["science", "template", "difference", "ptp"], "threshold": 0.5, "best_epoch": 3,
        "parameters": {"model": "vgg6", "learning_rate": 0.001}, "history": {"val_auc": [0.5, 0.6, 0.7, 0.9, 0.8, 0.7]}}
with track_stage("train", read_params(), name=name, used=meta["parameters"], about="A training.") as run:
    run.log_data(Path("data/dataset"), make_card("data/dataset"), context="training")
    for epoch, auc in enumerate(meta["history"]["val_auc"]):
        run.log_epoch(epoch, {"val_auc": auc})
        if epoch == 2:
            half.write_text("reached")
            while half.exists():
                time.sleep(0.05)
    log_training(run, path, meta, network=name)
with track_stage("evaluate", read_params(), name=f"evaluate {name}") as run:
    run.log_data(Path("data/dataset"), make_card("data/dataset"), context="test")
    run.log_judged(md5(path), {"test": {"auc": 0.75}}, child=True)
    run.log_json({"auc": 0.75}, "report.json")
"""


class World(NamedTuple):
    """The servers, and a project that knows them by .env alone."""

    team: Team
    server: Process
    repository: Repository
    environment: dict[str, str]

    def popen(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["python", *words], cwd=self.repository.root, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def sync(self) -> str:
        with self.popen("-m", "gotorb", "sync") as process:
            said = process.communicate(timeout=300)[0]
            assert process.returncode == 0, said
            return said

    def journals(self) -> list[Path]:
        return list((self.repository.root / "mlruns" / "journals").glob("*"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("offline")
    repository = Repository.new(folder / "project")
    environment = {
        name: value for name, value in clean_environment(ROOT, warm_python).items() if not name.startswith("AWS_")
    }
    with postgres(folder / "postgres") as database, s3(folder / "s3", "artifacts", "data") as store:
        tracking, server = mlflow_server(
            folder / "mlflow", store=database, artifacts="s3://artifacts", MLFLOW_S3_ENDPOINT_URL=store, **KEYS
        )
        team = Team(tracking, store, database)
        (repository.root / ".env").write_text(team.env)
        try:
            yield World(team, server, repository, environment)
        finally:
            server.kill()


def train(world: World, name: str, tmp_path: Path, *, dies: bool) -> None:
    """A training and its evaluation; the server may die when half of the epochs are done."""
    half = tmp_path / "half"
    with world.popen("-c", TRAIN, name, str(half)) as process:
        while not half.exists():
            assert process.poll() is None, process.communicate()[0]
        if dies:
            wait_for_run(world, name)
            world.server.kill()
        half.unlink()
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said


def wait_for_run(world: World, name: str) -> None:
    while name not in runs(world):
        pass


def runs(world: World) -> dict[str, Run]:
    client = MlflowClient(world.team.tracking)
    ids = [found.experiment_id for found in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(ids)}


def assert_whole(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (KEYS | {"MLFLOW_S3_ENDPOINT_URL": world.team.s3}).items():
        monkeypatch.setenv(key, value)
    client, known = MlflowClient(world.team.tracking), runs(world)
    training, judging = known[name], known[f"evaluate {name}"]
    assert (training.info.status, judging.info.status) == ("FINISHED", "FINISHED")
    curve = client.get_metric_history(training.info.run_id, "epoch/val_auc")
    assert [(point.step, point.value) for point in curve] == list(enumerate([0.5, 0.6, 0.7, 0.9, 0.8, 0.7]))
    assert training.data.params.items() >= {"model": "vgg6", "learning_rate": "0.001", "seed": "1"}.items()
    assert (training.data.metrics["val/auc"], training.data.metrics["test/auc"]) == (0.9, 0.75)
    (output,) = training.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.name, str(model.status)) == (name, "READY")
    found: dict[str, Any] = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert found == {"val/auc": (0.9, "dataset"), "test/auc": (0.75, "dataset")}
    assert model.artifact_location.startswith("s3://artifacts/")
    assert judging.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert "gotorb.lost_events" not in training.data.tags
    assert world.journals() == []


def test_server_down_from_the_start(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.server.kill()
    train(world, "down", tmp_path, dies=False)
    assert len(world.journals()) == 2
    world.server.start()
    assert "2 runs sent" in world.sync()
    assert_whole(world, "down", monkeypatch)
    again = world.sync()
    assert "0 runs sent" in again


def test_server_dies_midway(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.server.start()
    change_model(world.repository.root)
    train(world, "midway", tmp_path, dies=True)
    assert len(world.journals()) == 2
    world.server.start()
    world.sync()
    assert_whole(world, "midway", monkeypatch)


def test_line_cut_while_the_disk_was_full_costs_that_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.server.kill()
    change_model(world.repository.root)
    train(world, "cut", tmp_path, dies=False)
    path = sorted(world.journals())[0] / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    (number,) = [i for i, line in enumerate(lines) if '"epoch/val_auc": 0.8' in line]
    lines[number] = lines[number][:30]
    path.write_text("".join(lines))
    world.server.start()
    said = world.sync()
    assert "2 runs sent" in said and "cut" in said
    run = runs(world)["cut"]
    client = MlflowClient(world.team.tracking)
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "epoch/val_auc")]
    assert steps == [0, 1, 2, 3, 5] and run.data.tags["gotorb.lost_events"] == "1"
    assert run.data.metrics["test/auc"] == 0.75 and run.info.status == "FINISHED"
    assert world.journals() == []


def change_model(root: Path) -> None:
    """Another model file, so that an evaluation finds the training of its own."""
    import h5py

    path = root / "models" / "vgg6" / "model.h5"
    before, content = md5(path), path.read_bytes()
    path.unlink()  # a link into DVC's cache
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        file.attrs["gotorb_test"] = json.dumps(before)
    assert md5(path) != before
