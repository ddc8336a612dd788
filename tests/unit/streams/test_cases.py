"""Cases that users of alert streams reported, each against a broker."""

import json
import signal
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gotorb.cli import main
from gotorb.survey.alerts.schemas import shipped_versions
from tests.unit.streams.kafka import (
    EXTRA,
    Broker,
    ask,
    container,
    count,
    fink,
    live,
    rubin,
    stream,
    wait_for,
    ztf,
    ztf_record,
)

Run = Callable[..., int]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(broker: Broker, model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`gotorb stream` in this process, to the end of the topic unless told otherwise."""
    monkeypatch.setenv("GOTORB_KAFKA_SERVERS", broker.address)
    monkeypatch.setenv("GOTORB_KAFKA_EXTRA", EXTRA)
    monkeypatch.setenv("GOTORB_CACHE_DIR", str(out.parent / "cache"))

    def call(topic: str, *words: Any) -> int:
        until = [] if "--until" in words else ["--until", "end"]
        group = [] if "--group" in words else ["--group", topic]
        return main(["stream", str(model), topic, "--out", str(out), *until, *group, *map(str, words)])

    return call


def outcomes(out: Path) -> dict[str, int]:
    found = {name: count(out, name) for name in ("dead", "duplicates")}
    scored, bare = ask(out, "SELECT count(score), count(*) - count(score) FROM scores")[0]
    return {"scored": scored, "bare": bare, **found}


def test_messages_of_every_kind_are_counted(run: Run, broker: Broker, out: Path) -> None:
    big = rubin(7) + b""
    values: list[Any] = [
        ztf(1), container([ztf_record(2), ztf_record(3)]), container([ztf_record(4)], "deflate"), fink(5), rubin(6),
        rubin(7, "9.0"), rubin(8, "11.1"),
        fink(9, cutouts=False),  # a broker's copy
        ztf(1),  # the same alert again
        b"", None, b"garbage", ztf(10)[:-300], b"\x00", b'{"json": 1}', b"\x00" * 1_500_000, big[:200],
        fink(11)[0],  # without its key
    ]  # fmt: skip
    n = broker.send("kinds", values)
    assert run("kinds", "--keep-packets", out.parent / "kept") == 0
    assert outcomes(out) == {"scored": 8, "bare": 1, "dead": 9, "duplicates": 1}
    assert ask(out, "SELECT sum(next - first), sum(extra) FROM offsets") == [(n, 1)]
    kinds = dict(ask(out, "SELECT kind, count(*) FROM dead GROUP BY kind"))
    assert kinds == {"empty": 2, "unreadable": 7}
    assert ask(out, "SELECT max(length(value)) FROM dead") == [(1_500_000,)]
    assert ask(out, "SELECT score, reason FROM scores WHERE alert_id = 9") == [(None, "no cut-outs in the packet")]
    assert main(["stream", "status", str(out)]) == 0
    check_replay(out, out.parent / "kept", out.parent / "again")


def check_replay(out: Path, kept: Path, again: Path) -> None:
    """Kept packets give the same rows without a broker, and the same counts."""
    model = ask(out, "SELECT 1 FROM about WHERE name = 'model'")
    assert model
    words = ["--model", str(next(kept.parent.parent.parent.rglob("small.onnx"))), "--out", str(again)]
    assert main(["stream", "replay", str(kept), *words]) == 0
    assert outcomes(again) == outcomes(out)
    for folder in (out, again):
        assert main(["stream", "export", str(folder), "--to", str(folder / "all.parquet"), "--every-column"]) == 0
    first, second = (pd.read_parquet(folder / "all.parquet").drop(columns=["t_event", "t_scored"])
                     for folder in (out, again))  # fmt: skip
    pd.testing.assert_frame_equal(first, second)


class Registry(ThreadingHTTPServer):
    """A schema registry that fails until it is told to work."""

    def __init__(self) -> None:
        self.works, self.asked = False, 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                known = outer.works and self.path == "/schemas/ids/4321"
                body = json.dumps({"schema": shipped_versions()["10.0"]}).encode() if known else b"{}"
                self.send_response(200 if known else 500)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def test_an_unknown_schema_stops_its_partition_until_the_registry_knows_it(run: Run, broker: Broker, out: Path) -> None:
    registry, threads = Registry(), []
    broker.send("late", [ztf(number) for number in range(8)])
    broker.send("late", [rubin(100 + number, "10.0", 4321) for number in range(3)], parts=1)
    broker.send("late", [ztf(number) for number in range(8, 60)])

    def mend() -> None:
        wait_for(lambda: count(out) == 47)  # all of three partitions, and two of the one that waits
        wait_for(lambda: registry.asked > 2 and live(out).get("waiting"))
        registry.works = True

    threads.append(threading.Thread(target=mend))
    threads[0].start()
    address = f"http://127.0.0.1:{registry.server_port}"
    code = run("late", "--schemas", address, "--retry-s", 0.3, "--status-s", 0.2)
    threads[0].join()
    registry.shutdown()
    registry.server_close()
    assert code == 0
    assert outcomes(out) == {"scored": 63, "bare": 0, "dead": 0, "duplicates": 0}
    order = ask(out, "SELECT alert_id FROM scores WHERE part = 0 ORDER BY t_scored, off LIMIT 5")
    assert [one for (one,) in order] == ["0", "4", "100", "101", "102"]


def test_expired_alerts_are_a_gap_and_the_journal_is_ahead_of_the_group(run: Run, broker: Broker, out: Path) -> None:
    broker.send("expired", [ztf(number) for number in range(20)], parts=1)
    assert run("expired") == 0
    broker.send("expired", [bytes(400_000)] * 30, parts=1)  # the mock keeps 5 MB
    broker.send("expired", [ztf(number) for number in range(20, 30)], parts=1)
    assert run("expired", "--strict") == 4
    ((first, last, reason),) = ask(out, "SELECT first, last, reason FROM gaps")
    assert first == 20 and last > 20 and reason == "expired at the broker"
    assert count(out) == 30
    assert ask(out, "SELECT next FROM offsets WHERE next > 0") == [(60,)]
    assert count(out, "dead") == 60 - 30 - (last - first + 1)


def test_streams_begin_where_they_are_told(run: Run, broker: Broker, out: Path) -> None:
    broker.send("begin", [ztf(number) for number in range(40)], kafka_time=1_700_000_000)
    broker.send("begin", [ztf(number) for number in range(40, 60)], kafka_time=1_800_000_000)
    assert run("begin", "--from", "latest") == 0
    assert count(out) == 0
    broker.send("begin", [ztf(number) for number in range(60, 64)])
    assert run("begin") == 0
    assert sorted(int(one) for (one,) in ask(out, "SELECT alert_id FROM scores")) == [60, 61, 62, 63]


def test_most_packets_dead_stops_the_stream(run: Run, broker: Broker, out: Path, capfd: Any) -> None:
    broker.send("schema", [b"\x00\x00\x00\x03\xe8 not a record of this schema"] * 200, parts=1)
    assert run("schema", "--max-dead", 50) == 3
    assert "schema?" in capfd.readouterr().err
    assert 50 <= count(out, "dead") < 200


def test_scores_are_published_once(run: Run, broker: Broker, out: Path) -> None:
    broker.send("night", [ztf(number) for number in range(80)])
    assert run("night", "--publish", "scores", "--above", 0.6) == 0
    high = dict(ask(out, "SELECT alert_id, score FROM scores WHERE score >= 0.6"))
    assert 0 < len(high) < 80
    assert ask(out, "SELECT count(*) FROM outbox WHERE published = 0") == [(0,)]
    found = broker.received("scores", len(high))
    assert sorted(key for key, _ in found) == sorted(high)
    assert {key: json.loads(value)["score"] for key, value in found} == high


def test_a_folder_belongs_to_one_group_and_one_stream(run: Run, broker: Broker, out: Path, model: Path) -> None:
    broker.send("mine", [ztf(1)])
    with stream([model, "mine", "--out", out, "--metrics-port", 0], broker.address, GOTORB_KAFKA_GROUP="mine") as first:
        wait_for(lambda: count(out))
        assert run("mine") == 1  # it runs
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=30) == 0
    assert run("mine", "--group", "other") == 1
    assert live(out)["state"] == "stopped"


def test_a_refused_account_is_told(run: Run, broker: Broker, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    secret = "pa55word-that-nobody-may-see"
    monkeypatch.setenv("GOTORB_KAFKA_SECURITY", "sasl_plaintext")
    monkeypatch.setenv("GOTORB_KAFKA_USERNAME", "me")
    monkeypatch.setenv("GOTORB_KAFKA_PASSWORD", secret)
    started = time.monotonic()
    assert run("refused") == 2
    assert time.monotonic() - started < 30
    told = capfd.readouterr()
    assert "refuse" in told.err and secret not in told.err + told.out


def test_brokers_that_are_away_are_waited_for(model: Path, out: Path) -> None:
    with stream([model, "t", "--out", out], "127.0.0.1:9") as process:
        assert process.stderr is not None
        assert any(b"brokers away" in line for line in process.stderr)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize("resumed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_full_disk_stops_without_a_commit(resumed: bool, broker: Broker, model: Path, out: Path, run: Run) -> None:
    broker.send("full", [ztf(number) for number in range(800)])
    words = [model, "full", "--out", out, "--until", "end"]
    with stream(words, broker.address, limit_bytes=150_000, GOTORB_KAFKA_GROUP="full") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and b"stream.db" in told
    kept = count(out)
    assert kept < 800
    assert ask(out, "SELECT sum(next - first) FROM offsets") == [(kept,)]
    if resumed:
        time.sleep(4)  # the mock broker can wait without end for a sole member that died while another one joins
        assert run("full") == 0
        assert count(out) == 800


def test_check_writes_nothing(run: Run, broker: Broker, out: Path, capsys: Any) -> None:
    broker.send("try", [ztf(number) for number in range(4)])
    assert run("try", "--check") == 0
    assert "score 0." in capsys.readouterr().out
    assert not out.exists()
