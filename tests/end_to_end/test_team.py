"""From laptop to team by .env alone: PostgreSQL, S3 and a tracking server, all real; a project and a second clone."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gotorb.core import layout
from tests.end_to_end.clones import ROOT, clean_environment
from tests.end_to_end.services import Team, team
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


class Place(NamedTuple):
    """A checkout, and how people work in it: nothing in the environment, all in .env."""

    repository: Repository
    warm_python: Path

    @property
    def root(self) -> Path:
        return self.repository.root

    def python(self, *words: str, code: int = 0) -> str:
        environment = clean_environment(ROOT, self.warm_python)
        environment = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            ["python", *words], cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

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
