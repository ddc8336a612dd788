"""Workers are killed, frozen and cut off from the broker: no alert is lost, and none has two rows."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from gotorb.cli import main
from tests.unit.streams.kafka import Broker, ask, count, live, stream, wait_for, ztf

CHUNK = 20
MAX_MEMORY = 600_000_000
"""Largest memory of a worker [byte]."""


def feed(broker: Broker, topic: str, values: list[bytes], seconds: float) -> threading.Thread:
    """Send values at an even pace, from a thread."""

    def send() -> None:
        for start in range(0, len(values), CHUNK):
            broker.send(topic, values[start : start + CHUNK])
            time.sleep(seconds * CHUNK / len(values))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def check_whole(out: Path, n: int) -> None:
    """Every alert has one row, and every offset is accounted for."""
    assert ask(out, "SELECT count(*), count(DISTINCT alert_id), count(score) FROM scores") == [(n, n, n)]
    assert ask(out, "SELECT sum(next - first) FROM offsets") == [(n,)]
    assert [count(out, table) for table in ("dead", "duplicates", "gaps")] == [0, 0, 0]


def kill_workers(out: Path, n: int, seconds: float) -> None:
    """Kill a random worker n times."""
    rng = random.Random(7)
    for _ in range(n):
        time.sleep(seconds * rng.uniform(0.3, 1.0))
        pids = wait_for(lambda: live(out).get("workers"))
        try:
            os.kill(rng.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    ("n_alerts", "n_kills", "seconds"),
    [(400, 3, 5.0), pytest.param(5000, 20, 90.0, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_random_kills_lose_and_double_nothing(
    n_alerts: int, n_kills: int, seconds: float, broker: Broker, model: Path, tmp_path: Path
) -> None:
    topic, out, values = f"kills-{n_alerts}", tmp_path / "out", [ztf(number) for number in range(n_alerts)]
    broker.send(topic, values[:CHUNK])
    words = [model, topic, "--out", out, "--workers", 3, "--status-s", 0.3, "--batch", 8, "--until", n_alerts]
    with stream(words, broker.address, GOTORB_KAFKA_GROUP=topic) as process:
        wait_for(lambda: count(out))
        thread = feed(broker, topic, values[CHUNK:], seconds)
        kill_workers(out, n_kills, seconds / n_kills)
        thread.join()
        assert process.wait(timeout=120) == 0
    check_whole(out, n_alerts)
    assert live(out)["deaths"] >= n_kills - 1
    assert max(live(out)["memory"]) < MAX_MEMORY
    export_and_compare(out, model, values, tmp_path)


def export_and_compare(out: Path, model: Path, values: list[bytes], tmp_path: Path) -> None:
    """The export has the bytes of `gotorb score` over the same packets as files."""
    packets = tmp_path / "packets"
    packets.mkdir()
    for number, value in enumerate(values):
        (packets / f"{number}.avro").write_bytes(value)
    assert main(["stream", "export", str(out), "--to", str(tmp_path / "stream.csv")]) == 0
    assert main(["score", str(model), str(packets), "--out-path", str(tmp_path / "files.csv")]) == 0
    assert (tmp_path / "stream.csv").read_bytes() == (tmp_path / "files.csv").read_bytes()


def test_a_frozen_worker_wakes_up_and_doubles_nothing(broker: Broker, model: Path, tmp_path: Path) -> None:
    out, values = tmp_path / "out", [ztf(number) for number in range(400)]
    broker.send("frozen", values[:CHUNK])
    words = [model, "frozen", "--out", out, "--workers", 2, "--status-s", 0.3, "--batch", 8, "--until", 400]
    with stream(words, broker.address, GOTORB_KAFKA_GROUP="frozen") as process:
        wait_for(lambda: count(out))
        pid = wait_for(lambda: live(out).get("workers"))[0]
        thread = feed(broker, "frozen", values[CHUNK:], 3)
        time.sleep(0.5)
        os.kill(pid, signal.SIGSTOP)
        thread.join()
        wait_for(lambda: count(out) == 400)  # by the other worker, which has its partitions
        os.kill(pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 0
    check_whole(out, 400)


@pytest.mark.parametrize("seconds", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_a_stopped_broker_is_waited_for(seconds: float, model: Path, tmp_path: Path) -> None:
    broker, out = Broker(), tmp_path / "out"
    try:
        broker.send("away", [ztf(number) for number in range(100)])
        words = [model, "away", "--out", out, "--until", 300, "--batch", 8]
        with stream(words, broker.address, GOTORB_KAFKA_GROUP="away") as process:
            wait_for(lambda: count(out) == 100)
            broker.freeze()
            time.sleep(seconds)
            broker.thaw()
            broker.send("away", [ztf(number) for number in range(100, 300)])
            assert process.wait(timeout=60) == 0
        check_whole(out, 300)
    finally:
        broker.close()


def test_workers_end_with_their_parent_and_the_next_call_resumes(broker: Broker, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    broker.send("parent", [ztf(number) for number in range(100)])
    words = [model, "parent", "--out", out, "--workers", 2, "--status-s", 0.3]
    with stream(words, broker.address, GOTORB_KAFKA_GROUP="parent") as process:
        wait_for(lambda: count(out) == 100)
        pids = wait_for(lambda: live(out).get("workers"))
        process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)
    broker.send("parent", [ztf(number) for number in range(100, 200)])
    with stream([*words, "--until", "end"], broker.address, GOTORB_KAFKA_GROUP="parent") as process:
        assert process.wait(timeout=60) == 0
    check_whole(out, 200)
