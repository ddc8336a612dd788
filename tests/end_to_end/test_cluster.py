"""The same `make` on a dask cluster of this machine: the same bytes, whatever happens to its workers."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import pandas as pd
import pytest
from distributed import Client, LocalCluster

from gotorb import classifier, label_data, models
from gotorb.cli import main
from gotorb.core import layout
from gotorb.dataset.card import data_digest
from gotorb.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # sockets of killed workers


@pytest.fixture(scope="module")
def cluster():
    """Two workers, one thread each."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local:
        yield local


@pytest.fixture
def address(cluster, served, monkeypatch):
    """The cluster named by the environment, as a user names it."""
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    return cluster.scheduler_address


def make(out_dir):
    return label_data.make(100, out_dir, name="run", provider="pympc", seed=1, chunk=1)


def test_cluster_gives_the_same_bytes(labelled, address, tmp_path):
    assert data_digest(make(tmp_path)) == data_digest(labelled)


@contextmanager
def one_worker_killed(address):
    """Kill a worker that is at work while the block runs."""
    killed, over = [], threading.Event()

    def kill_a_busy_worker():
        with Client(address, set_as_default=False) as client:
            pids = client.run(os.getpid)
            while not (killed or over.is_set()):
                busy = [worker for worker, tasks in client.processing().items() if tasks and worker in pids]
                if busy:
                    os.kill(pids[busy[0]], signal.SIGKILL)
                    killed.append(busy[0])
                time.sleep(0.01)

    killer = threading.Thread(target=kill_a_busy_worker, daemon=True)
    killer.start()
    yield
    over.set()
    killer.join(timeout=10)
    assert killed, "no worker was seen at work: the test shows nothing"


@pytest.mark.slow
def test_worker_killed_at_its_work_changes_no_byte(labelled, address, tmp_path):
    with one_worker_killed(address):
        data_dir = make(tmp_path)
    assert data_digest(data_dir) == data_digest(labelled)


def test_a_cluster_scores_images_to_the_same_bytes_though_a_worker_is_killed(
    labelled, served, tiny_survey, cluster, tmp_path, monkeypatch
):
    """Folders of images, and a data set, by a worker each."""
    pytest.importorskip("onnxruntime")
    network = models.vgg6((55, 55, 4), spatial_dropout=0.0, block1=2, block2=2, dense=4)
    model = classifier.export(network, tmp_path / "model.onnx", meta={"layers": layout.LAYERS[:4], "threshold": 0.5})
    nights = sorted({path.parent for path in (tiny_survey / layout.STORAGE_DIR).rglob("*.fits*")})
    words = ["score", str(model), *map(str, nights), str(labelled), "--no-posterior", "--out-path"]
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "")
    monkeypatch.chdir(tmp_path)
    assert main([*words, "alone.csv"]) == 0
    with one_worker_killed(cluster.scheduler_address):
        assert main([*words, "cluster.csv", "--scheduler", cluster.scheduler_address]) == 0
    assert (tmp_path / "cluster.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    assert pd.read_csv(tmp_path / "alone.csv")["data_sha256"].nunique() > 4


def test_no_scheduler_at_the_address_says_which_setting(served, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1")
    monkeypatch.setattr("gotorb.core.executor.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(ConfigError, match=r"no dask scheduler at 'tcp://127.0.0.1:1'.*DASK_SCHEDULER_ADDRESS"):
        make(tmp_path)
