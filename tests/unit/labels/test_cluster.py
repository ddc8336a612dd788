"""Workers of a cluster may die: the image on which they die is given up, the others are done."""

import dask
import pytest
from distributed import LocalCluster

from gotorb.core.executor import Workers
from gotorb.errors import CatalogueError
from gotorb.labels import cluster
from gotorb.labels.jobs import ImageTask, run_images
from tests.unit.labels.test_parallel import Options, make_tasks, work

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # sockets of killed workers


@pytest.fixture(scope="module")
def address():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
    ):
        yield local.scheduler_address


def run(tasks, options, folder, address):
    workers = Workers(chunk=2, scheduler=address)
    return run_images(tasks, work, options, shards_dir=folder / "shards", workers=workers)


def test_image_that_kills_every_worker_is_given_up_alone(address, tmp_path):
    options = Options(str(tmp_path / "journal"), deadly=("im3",))
    outcome = run(make_tasks(), options, tmp_path, address)
    assert [(one.image_id, one.state) for one in outcome.skipped] == [("im3", "crashed")]
    assert outcome.states == {"labelled": 4, "empty": 1, "crashed": 1}


def test_error_that_concerns_all_images_ends_the_run(address, tmp_path):
    tasks = [ImageTask("fatal", "f", (), "f", (), 0.0, 0.0, 0.0, ""), *make_tasks(3)]
    with pytest.raises(CatalogueError, match="no catalogue"):
        run(tasks, Options(str(tmp_path / "j")), tmp_path, address)


def test_cluster_without_workers_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.2)
    monkeypatch.setattr(cluster, "POLL_S", 0.1)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as lonely,
        pytest.raises(Exception, match="no worker at tcp"),
    ):
        run(make_tasks(2), Options(str(tmp_path / "j")), tmp_path, lonely.scheduler_address)
