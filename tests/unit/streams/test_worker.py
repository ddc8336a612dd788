"""A worker with a slow network keeps its partitions and its memory."""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import psutil
import pytest

from gotorb.core.settings import Settings
from gotorb.errors import ConfigError, Refused
from gotorb.streams.clients import Health, client_settings
from gotorb.streams.consumer import Plan, StreamOptions, Worker
from gotorb.streams.decoder import Message, Outcome
from gotorb.streams.status import LOOPBACK, MetricsServer, Totals, show_line, show_metrics
from tests.unit.streams.kafka import EXTRA, Broker, ask, count, live, make_model, stream, wait_for, ztf

SLOW_S = 4.0
MAX_MEMORY = 600_000_000
"""Largest memory of a worker [byte]."""
MEGABYTE = 1_000_000


def test_a_slow_batch_keeps_partitions_and_memory(broker: Broker, model: Path, tmp_path: Path) -> None:
    topics = [f"slow-{number}" for number in range(4)]
    for topic in topics:  # 80 MB
        broker.send(topic, [b"x" * 500_000] * 40)
    broker.send(topics[0], [ztf(number) for number in range(40)])
    settings = Settings(
        gotorb_kafka_servers=broker.address,
        gotorb_kafka_extra=f"{EXTRA},max.poll.interval.ms=2500,queued.max.messages.kbytes=4096",
    )
    options = StreamOptions(batch=8, pause_s=0.5, max_dead=10_000, max_dead_fraction=1.0)
    plan = Plan(model=str(model), topics=tuple(topics), out_dir=tmp_path, group="slow", run="r", options=options,
                settings=settings)  # fmt: skip
    ours, theirs = multiprocessing.Pipe()
    worker = Worker(plan, 0, theirs)
    quick, seen, before = worker.pipeline.run, [], psutil.Process().memory_info().rss

    def run(messages: Sequence[Message]) -> Outcome:
        if not seen:
            time.sleep(SLOW_S)
            seen.append(psutil.Process().memory_info().rss - before)
        return quick(messages)

    worker.pipeline.run = run  # type: ignore[method-assign]
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_for(lambda: count(tmp_path, "dead") + count(tmp_path) == 4 * 40 + 40)
    finally:
        worker.stop.set()
        thread.join()
    reports = []
    while ours.poll():
        reports.append(ours.recv())
    assert seen[0] < 60 * MEGABYTE
    assert {one["state"] for one in reports} >= {"paused", "running"}
    assert sum(one["counts"].get("redelivered", 0) for one in reports) == 0
    assert reports[-1]["rebalances"] <= 2  # joined and left: the group never took it for dead
    assert ask(tmp_path, "SELECT count(DISTINCT alert_id) FROM scores") == [(40,)]


@pytest.mark.slow
def test_a_slow_network_does_not_pile_up_alerts(broker: Broker, tmp_path: Path) -> None:
    """80 MB wait at the broker, and a batch takes about a second."""
    model, out, largest = make_model(tmp_path / "slow.onnx", n_slow=60), tmp_path / "out", 0
    topics = [f"pile-{number}" for number in range(4)]
    for topic in topics:
        broker.send(topic, [*([b"x" * 500_000] * 40), *(ztf(int(topic[-1]) * 100 + number) for number in range(80))])
    words = [model, *topics, "--out", out, "--until", "end", "--max-dead", 10_000, "--max-dead-fraction", 1.0]
    with stream([*words, "--status-s", 0.3], broker.address, GOTORB_KAFKA_GROUP="pile") as process:
        while process.poll() is None:
            for pid in live(out).get("workers", []):
                with suppress(psutil.NoSuchProcess):
                    largest = max(largest, psutil.Process(pid).memory_info().rss)
            time.sleep(0.1)
    assert process.returncode == 0
    assert count(out) == 320 and count(out, "dead") == 160
    assert 0 < largest < MAX_MEMORY
    assert live(out)["seconds"]["score"] > 2


def test_settings_of_clients_come_from_env() -> None:
    settings = Settings(
        gotorb_kafka_servers="a:1", gotorb_kafka_security="SASL_SSL", gotorb_kafka_username="me",
        gotorb_kafka_password="secret", gotorb_kafka_ca="ca.pem", gotorb_kafka_extra="fetch.wait.max.ms=7, a=b=c",
    )  # fmt: skip
    assert "secret" not in repr(settings) and "a=b=c" not in repr(settings)
    found = client_settings(settings, group_id="g", fetch_wait_max_ms=1)
    assert found == {
        "bootstrap.servers": "a:1", "security.protocol": "sasl_ssl", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me", "sasl.password": "secret", "ssl.ca.location": "ca.pem", "group.id": "g",
        "fetch.wait.max.ms": "7", "a": "b=c",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [{}, {"gotorb_kafka_servers": "a:1", "gotorb_kafka_security": "tls"},
     {"gotorb_kafka_servers": "a:1", "gotorb_kafka_extra": "s3cret"}],
)  # fmt: skip
def test_wrong_settings_are_told_without_secrets(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="GOTORB_KAFKA_") as caught:
        client_settings(Settings(**values))
    assert "s3cret" not in str(caught.value)


class Error:
    """An error of the client."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def str(self) -> str:
        return "told"


@pytest.mark.parametrize(
    ("name", "refused"),
    [("_AUTHENTICATION", True), ("TOPIC_AUTHORIZATION_FAILED", True), ("GROUP_AUTHORIZATION_FAILED", True),
     ("_SSL", True), ("_ALL_BROKERS_DOWN", False), ("_TRANSPORT", False)],
)  # fmt: skip
def test_only_a_refusal_ends_the_waiting(name: str, refused: bool) -> None:
    health = Health()
    health.on_error(Error(name))
    if refused:
        with pytest.raises(Refused):
            health.check()
    else:
        health.check()


def report(**counts: int) -> dict[str, Any]:
    return {
        "counts": counts, "seconds": {"decode": 1.0}, "kinds": {"empty": counts.get("dead", 0)}, "last": 1.0,
        "batches": 1, "rebalances": 1, "latencies": [0.1, 0.2], "scores": [0.05, 0.95], "inputs": [],
        "memory": 7, "state": "running",
        "connected": True, "n_different": 0, "lag": {"t-0": 3}, "waiting": {},
    }  # fmt: skip


def test_counts_of_dead_workers_are_kept() -> None:
    totals = Totals()
    totals.take(0, report(consumed=10, scored=8, dead=2))
    totals.bury(0)
    totals.take(0, report(consumed=5, scored=5))
    found = totals.describe()
    assert (found["consumed"], found["scored"], found["dead_kinds"]["empty"], found["deaths"]) == (15, 13, 2, 1)
    text = show_metrics(found)
    assert "gotorb_stream_scored_total 13\n" in text
    assert 'gotorb_stream_lag{partition="t-0"} 3\n' in text
    assert 'gotorb_stream_score_bucket{le="+Inf"} 4\n' in text


def test_the_newest_alerts_are_compared_and_served_on_this_machine_only() -> None:
    totals, rng = Totals(), np.random.default_rng(1)
    totals.before = pd.DataFrame({"mag": rng.normal(18, 1, 500), "snr": np.nan, "best": rng.uniform(0, 1, 500)})
    inputs = [
        (mag, None, None, score) for mag, score in zip(rng.normal(20, 1, 300), rng.uniform(0, 1, 300), strict=True)
    ]
    totals.take(0, report(consumed=300, scored=300) | {"inputs": inputs})
    found = totals.describe()
    assert {one["name"]: one["verdict"] for one in found["drift"]} == {"mag": "shifted", "best": "same"}
    assert "mag shifted" in show_line(found) and "best" not in show_line(found)
    server = MetricsServer(0)
    server.text = show_metrics(found)
    try:
        with urlopen(f"http://{LOOPBACK}:{server.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert server.server.server_address[0] == LOOPBACK
    finally:
        server.close()
    (delta,) = [line for line in text.splitlines() if line.startswith('gotorb_stream_drift_delta{column="mag"}')]
    assert float(delta.split()[1]) > 0.5
    assert 'gotorb_stream_latency_seconds{quantile="0.95"} 0.195' in text
