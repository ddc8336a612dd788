"""The same `make` on a dask cluster of this machine: the same bytes, whatever happens to its workers."""

import os
import signal
import threading
import time

import pytest
from distributed import Client, LocalCluster

from gotorb import label_data
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


@pytest.mark.slow
def test_worker_killed_at_its_work_changes_no_byte(labelled, address, tmp_path):
    killed = []

    def kill_a_busy_worker():
        with Client(address, set_as_default=False) as client:
            pids = client.run(os.getpid)
            while not killed:
                busy = [worker for worker, tasks in client.processing().items() if tasks and worker in pids]
                if busy:
                    os.kill(pids[busy[0]], signal.SIGKILL)
                    killed.append(busy[0])
                time.sleep(0.01)

    killer = threading.Thread(target=kill_a_busy_worker, daemon=True)
    killer.start()
    data_dir = make(tmp_path)
    killer.join(timeout=10)
    assert killed, "no worker was seen at work: the test shows nothing"
    assert data_digest(data_dir) == data_digest(labelled)


def test_no_scheduler_at_the_address_says_which_setting(served, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1")
    monkeypatch.setattr("gotorb.core.executor.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(ConfigError, match=r"no dask scheduler at 'tcp://127.0.0.1:1'.*DASK_SCHEDULER_ADDRESS"):
        make(tmp_path)
