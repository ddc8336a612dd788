"""Workers of a cluster may die: the item on which they die is given up, the others are done."""

import dask
import pytest
from distributed import LocalCluster

from gotorb.core import executor
from gotorb.core.executor import Executor, Workers
from gotorb.errors import ConfigError, DataError
from tests.unit.core.test_executor import Deadly, work

pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # sockets of killed workers


@pytest.fixture(scope="module")
def address():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
    ):
        yield local.scheduler_address


def run(items, address):
    with Executor(Workers(chunk=2, scheduler=address)) as pool:
        return pool.map(work, items, crashed=lambda item: "crashed")


def test_item_that_kills_every_worker_is_given_up_alone(address, tmp_path):
    items = [0, 1, Deadly(str(tmp_path / "journal"), always=True), 3, 4]
    assert run(items, address) == [0, 1, "crashed", 9, 16]


def test_error_of_a_job_ends_the_run(address):
    with pytest.raises(ValueError, match="no negative"):
        run([1, -1, 2], address)


def test_cluster_without_workers_is_told(monkeypatch):
    monkeypatch.setattr(executor, "PATIENCE_S", 0.2)
    monkeypatch.setattr(executor, "POLL_S", 0.1)
    with (
        LocalCluster(n_workers=0, dashboard_address=":0") as lonely,
        pytest.raises(DataError, match="no worker at tcp"),
    ):
        run([1, 2], lonely.scheduler_address)


def test_no_scheduler_at_the_address_says_which_setting(monkeypatch):
    monkeypatch.setattr(executor, "CONNECT_TIMEOUT_S", 1)
    with pytest.raises(ConfigError, match=r"no dask scheduler at 'tcp://127.0.0.1:1'.*DASK_SCHEDULER_ADDRESS"):
        run([1], "tcp://127.0.0.1:1")
