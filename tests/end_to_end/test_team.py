"""From laptop to team by .env alone: PostgreSQL, S3 and a tracking server, all real; a project and a second clone.

At the end the server is down from a run's start, or dies in its middle: nothing is lost after a sync.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gotorb.core import layout
from gotorb.tracking.contents import md5
from tests.end_to_end.clones import ROOT, clean_environment
from tests.end_to_end.services import KEYS, Team, team
from tests.unit.tracking.repository import Repository

TRAIN = """
from pathlib import Path
from matplotlib.figure import Figure
from gotorb.dataset.card import make_card
from gotorb.core.params import read_params
from gotorb.tracking.registry import register
from gotorb.tracking.runs import md5, track_stage
for name in ("vgg6", "bayesian_vgg6"):
    path = Path("models", name, "model.h5")
    with track_stage("train", read_params(), name=f"train {name}") as run:
        run.log_data(Path("data/dataset"), make_card("data/dataset"), context="training")
        run.log_epoch(0, {"loss": 0.5})
        Figure().savefig(path.with_name("plot.png"))
        run.log_plots([path.with_name("plot.png")])
        run.log_model(path, tags={"network": name})
    tags = {"layers": "science,template,difference,ptp", "threshold": "0.5", "network": name}
    print(register("gotorb", run.run_id, md5(path), tags).uri)
"""
LOAD = """
import numpy as np
from gotorb import classifier
from gotorb.dataset.store import open_dataset
from gotorb.models import find_model
origin = find_model("models:/gotorb@production")
stamps = open_dataset("data/dataset").read_stamps(range(20), list(origin.layers))
print(np.abs(classifier.predict(origin.model, stamps) - classifier.predict("models/vgg6", stamps)).max())
"""
LONG_TRAIN = """
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
"""A training in whose middle the server may die, and its evaluation."""


class Place(NamedTuple):
    """A checkout, and how people work in it: nothing in the environment, all in .env."""

    repository: Repository
    warm_python: Path

    @property
    def root(self) -> Path:
        return self.repository.root

    def popen(self, *words: str) -> subprocess.Popen[str]:
        environment = clean_environment(ROOT, self.warm_python)
        environment = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
        return subprocess.Popen(
            ["python", *words], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def python(self, *words: str, code: int = 0) -> str:
        with self.popen(*words) as process:
            said, told = process.communicate(timeout=300)
        assert process.returncode == code, said + told
        return said

    def gotorb(self, *words: str, code: int = 0) -> str:
        return self.python("-m", "gotorb", *words, code=code)


class World(NamedTuple):
    """The servers, a project that has trained and registered with them, and what that printed."""

    team: Team
    place: Place
    printed: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, warm_python: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("team")
    repository = Repository.new(folder / "project", warm_python)
    with team(folder / "servers", warm_python) as servers:
        (repository.root / ".env").write_text(servers.env)
        place = Place(repository, warm_python)
        yield World(servers, place, place.python("-c", TRAIN))


def client(world: World) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(world.team.tracking)


def test_runs_are_in_the_database_and_artifacts_in_s3(world: World) -> None:
    import sqlalchemy

    assert world.printed.split() == ["models:/gotorb/1", "models:/gotorb/2"]
    with sqlalchemy.create_engine(world.team.database).connect() as connection:
        found = connection.execute(sqlalchemy.text("select name, status, artifact_uri from runs order by name"))
        rows = [tuple(row) for row in found]
    assert [row[:2] for row in rows] == [("train bayesian_vgg6", "FINISHED"), ("train vgg6", "FINISHED")]
    assert all(row[2].startswith("s3://artifacts/") for row in rows)
    assert not (world.place.root / "mlruns" / "mlflow.db").exists()
    assert not list((world.place.root / "mlruns" / "journals").glob("*"))


def test_registered_model_is_promoted_and_loads_by_its_alias(world: World) -> None:
    options = ["--to", "production", "--reason", "first", "--max-ece", "1"]
    told = json.loads(world.place.gotorb("promote", "models:/gotorb/1", *options, "--json"))
    assert told["promoted"] is True
    assert client(world).get_model_version_by_alias("gotorb", "production").version in (1, "1")
    assert float(world.place.python("-c", LOAD)) == 0


def test_data_are_pushed_with_the_tag_and_pulled_in_a_clone(world: World, tmp_path: Path) -> None:
    told = world.place.gotorb("data", "tag", "dataset-v1")
    assert "2 runs are marked" in told
    clone = world.place._replace(repository=world.place.repository.clone(tmp_path / "clone"))
    (clone.root / ".env").write_text(world.team.env)
    clone.gotorb("dvc", "pull", "--quiet")
    for name in ("data/dataset/data_stamps.h5", f"models/vgg6/{layout.MODEL_H5}"):
        assert (clone.root / name).read_bytes() == (world.place.root / name).read_bytes()
    assert clone.repository.git("status", "--porcelain") == ""
    assert float(clone.python("-c", LOAD)) == 0  # the team's registry, from another checkout
    assert "every file is what dvc.lock says" in clone.gotorb("verify")
    assert "train vgg6 finished" in clone.gotorb("lineage", "dataset-v1")


def test_doctor_tells_of_server_store_and_remote(world: World) -> None:
    lines = dict(line.split(": ", 1) for line in world.place.gotorb("doctor").splitlines())
    assert lines["ok    tracking"] == f"{world.team.tracking} answers"
    assert lines["ok    artifacts"] == "kept where the tracking server says"
    assert lines["ok    data remote"].startswith("s3://data/dvc answers")
    assert lines["ok    journals"] == "no run waits"


def test_no_secret_is_written_where_git_looks(world: World) -> None:
    tracked = world.place.repository.git("ls-files").split()
    assert ".env" not in tracked and ".dvc/config.local" not in tracked
    assert not any("for-this-test-only" in (world.place.root / name).read_text(errors="replace") for name in tracked)
    assert "for-this-test-only" not in (world.place.root / ".dvc" / "config.local").read_text()


def train(world: World, name: str, tmp_path: Path, *, dies: bool) -> None:
    """A training and its evaluation; the server may die when half of the epochs are done."""
    half = tmp_path / "half"
    with world.place.popen("-c", LONG_TRAIN, name, str(half)) as process:
        while not half.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        if dies:
            wait_for_run(world, name)
            world.team.server.kill()
        half.unlink()
        told = process.communicate(timeout=300)
        assert process.returncode == 0, told


def sync(world: World) -> str:
    """Send what waits; what is said on both streams."""
    with world.place.popen("-m", "gotorb", "sync") as process:
        said = "".join(process.communicate(timeout=300))
    assert process.returncode == 0, said
    return said


def wait_for_run(world: World, name: str) -> None:
    while name not in runs(world):
        time.sleep(0.05)


def runs(world: World) -> dict[str, Any]:
    ids = [found.experiment_id for found in client(world).search_experiments()]
    return {run.info.run_name: run for run in client(world).search_runs(ids)}


def journals(world: World) -> list[Path]:
    return list((world.place.root / "mlruns" / "journals").glob("*"))


def assert_whole(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (KEYS | {"MLFLOW_S3_ENDPOINT_URL": world.team.s3}).items():
        monkeypatch.setenv(key, value)
    store, known = client(world), runs(world)
    training, judging = known[name], known[f"evaluate {name}"]
    assert (training.info.status, judging.info.status) == ("FINISHED", "FINISHED")
    curve = store.get_metric_history(training.info.run_id, "epoch/val_auc")
    assert [(point.step, point.value) for point in curve] == list(enumerate([0.5, 0.6, 0.7, 0.9, 0.8, 0.7]))
    assert training.data.params.items() >= {"model": "vgg6", "learning_rate": "0.001", "seed": "1"}.items()
    assert (training.data.metrics["val/auc"], training.data.metrics["test/auc"]) == (0.9, 0.75)
    (output,) = training.outputs.model_outputs
    model = store.get_logged_model(output.model_id)
    assert (model.name, str(model.status)) == (name, "READY")
    found: dict[str, Any] = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics}
    assert found == {"val/auc": (0.9, "dataset"), "test/auc": (0.75, "dataset")}
    assert model.artifact_location.startswith("s3://artifacts/")
    assert judging.data.tags["mlflow.parentRunId"] == training.info.run_id
    assert "gotorb.lost_events" not in training.data.tags
    assert journals(world) == []


def test_server_down_from_the_start(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.team.server.kill()
    change_model(world.place.root)
    train(world, "down", tmp_path, dies=False)
    assert len(journals(world)) == 2
    world.team.server.start()
    assert "2 runs sent" in sync(world)
    assert_whole(world, "down", monkeypatch)
    assert "0 runs sent" in sync(world)


def test_server_dies_midway(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.team.server.start()
    change_model(world.place.root)
    train(world, "midway", tmp_path, dies=True)
    assert len(journals(world)) == 2
    world.team.server.start()
    sync(world)
    assert_whole(world, "midway", monkeypatch)


def test_line_cut_while_the_disk_was_full_costs_that_line(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.team.server.kill()
    change_model(world.place.root)
    train(world, "cut", tmp_path, dies=False)
    path = sorted(journals(world))[0] / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    (number,) = [i for i, line in enumerate(lines) if '"epoch/val_auc": 0.8' in line]
    lines[number] = lines[number][:30]
    path.write_text("".join(lines))
    world.team.server.start()
    said = sync(world)
    assert "2 runs sent" in said and "cut" in said
    run = runs(world)["cut"]
    steps = [point.step for point in client(world).get_metric_history(run.info.run_id, "epoch/val_auc")]
    assert steps == [0, 1, 2, 3, 5] and run.data.tags["gotorb.lost_events"] == "1"
    assert run.data.metrics["test/auc"] == 0.75 and run.info.status == "FINISHED"
    assert journals(world) == []


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
