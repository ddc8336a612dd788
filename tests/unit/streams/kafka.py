"""A broker in a process of its own (librdkafka's mock), a small exported model, and small packets."""

import gzip
import io
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import onnx
from astropy.io import fits
from onnx import TensorProto, helper

from gotorb.core import layout
from gotorb.streams.decoder import Message
from gotorb.streams.journal import Place
from tests.unit.survey.packets import rubin_record, wire

WIDE = 2048
SIDE, LAYERS = 21, ("science", "template", "difference")
JD = 2_461_000.75
BROKER = """
import ctypes, sys
import confluent_kafka
(name,) = {line.split()[-1] for line in open("/proc/self/maps") if "librdkafka" in line}
library, told = ctypes.CDLL(name), ctypes.create_string_buffer(512)
def call(function, kind, *words):
    made = getattr(library, "rd_kafka_" + function)
    made.restype = kind
    return made(*words)
pointer = ctypes.c_void_p
client = pointer(call("new", pointer, 0, pointer(call("conf_new", pointer)), told, len(told)))
cluster = pointer(call("mock_cluster_new", pointer, client, 1))
call("mock_group_initial_rebalance_delay_ms", None, cluster, 200)
print(call("mock_cluster_bootstraps", ctypes.c_char_p, cluster).decode(), flush=True)
while not sys.stdin.read(1):
    break
"""
"""By itself the mock holds a first member's JoinGroup for 3 s, in every test again."""
EXTRA = "session.timeout.ms=2000,heartbeat.interval.ms=300,reconnect.backoff.max.ms=500,socket.timeout.ms=10000"
OPAQUE = fastavro.parse_schema({
    "type": "record", "name": "alert", "fields": [
        {"name": "objectId", "type": "string"}, {"name": "candid", "type": "long"},
        {"name": "candidate", "type": {"type": "record", "name": "candidate", "fields": [
            {"name": name, "type": "double"} for name in ("jd", "ra", "dec", "magpsf", "xpos", "ypos", "drb", "rb")
        ]}},
        *({"name": f"cutout{layer.capitalize()}", "type": ["null", {
            "type": "record", "name": f"cutout_{layer}", "fields": [
                {"name": "fileName", "type": "string"}, {"name": "stampData", "type": "bytes"}]}]}
          for layer in LAYERS),
    ],
})  # fmt: skip
"""ZTF's fields that are used."""


class Broker:
    """A mock broker; it ends with the process that started it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BROKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()

    def send(self, topic: str, messages: Iterable[Any], *, parts: int = 4, kafka_time: float = 0) -> int:
        """Send values, or (value, key), to partitions in turn; the number sent."""
        from confluent_kafka import Producer

        producer = Producer({"bootstrap.servers": self.address, "message.max.bytes": 8_000_000, "linger.ms": 1})
        producer.list_topics(topic, timeout=10)
        number = -1
        for number, one in enumerate(messages):
            value, key = one if isinstance(one, tuple) else (one, None)
            stamp = {"timestamp": int(kafka_time * 1000)} if kafka_time else {}
            producer.produce(topic, value=value, key=key, partition=number % parts, **stamp)
            producer.poll(0)
        assert producer.flush(20) == 0
        return number + 1

    def received(self, topic: str, n: int) -> list[tuple[str, bytes]]:
        """Keys and values of a topic."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "reader"})
        parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])
        found: list[Any] = []
        until = time.monotonic() + 10
        while len(found) < n and time.monotonic() < until:
            found += [one for one in consumer.consume(100, timeout=0.3) if one.error() is None]
        consumer.close()
        return [(one.key().decode(), one.value()) for one in found]

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def make_model(path: Path, *, size: int = SIDE, n_slow: int = 0) -> Path:
    """A network of one weight for each pixel, exported as gotorb exports; n_slow wide layers only take time."""
    n = size * size * len(LAYERS)
    rng = np.random.default_rng(1)
    shapes = {"weights": (n, 1)} | ({"wide": (n, WIDE), "square": (WIDE, WIDE), "narrow": (WIDE, 1)} if n_slow else {})
    weights = {name: rng.normal(0, 0.002, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Flatten", [layout.ONNX_INPUT], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["sum"]),
    ]
    if n_slow:
        nodes.append(helper.make_node("MatMul", ["flat", "wide"], ["slow0"]))
        nodes += [
            helper.make_node("MatMul", [f"slow{layer}", "square"], [f"slow{layer + 1}"]) for layer in range(n_slow)
        ]
        nodes.append(helper.make_node("MatMul", [f"slow{n_slow}", "narrow"], ["slow"]))
        nodes.append(helper.make_node("Add", ["sum", "slow"], ["all"]))
    nodes.append(helper.make_node("Sigmoid", ["all" if n_slow else "sum"], ["score"]))
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info(layout.ONNX_INPUT, TensorProto.FLOAT, ["n", size, size, len(LAYERS)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor(name, TensorProto.FLOAT, one.shape, one.tobytes(), raw=True)
         for name, one in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    about = {"layers": ",".join(LAYERS), "stamp_size": str(size), "threshold": "0.5", "name": "small", "version": "1",
             "digest": "sha256:0"}  # fmt: skip
    for key in layout.ONNX_KEYS:
        model.metadata_props.add(key=key, value=about[key])
    onnx.save(model, str(path))
    return path


def _cutout(seed: int) -> dict[str, Any]:
    """A packed cut-out of few different numbers, so that it is small."""
    pixels = np.zeros((63, 63), ">f4")
    pixels[30:33, 30:33] = np.random.default_rng(seed).integers(-90, 90, (3, 3))
    buffer = io.BytesIO()
    fits.PrimaryHDU(pixels).writeto(buffer)
    return {"fileName": "", "stampData": gzip.compress(buffer.getvalue(), 6, mtime=0)}


def ztf_record(alert_id: int, *, cutouts: bool = True) -> dict[str, Any]:
    names = ("jd", "ra", "dec", "magpsf", "xpos", "ypos", "drb", "rb")
    values = (JD, (alert_id % 360) + 0.25, 10.5, 18.5, 500.0, 600.0, 0.75, 0.5)
    record = {"objectId": f"ZTF{alert_id % 50}", "candid": alert_id, "candidate": dict(zip(names, values, strict=True))}
    for layer, name in enumerate(LAYERS):
        record[f"cutout{name.capitalize()}"] = _cutout(10 * alert_id + layer) if cutouts else None
    return record


def container(records: Sequence[dict[str, Any]], codec: str = "null") -> bytes:
    buffer = io.BytesIO()
    fastavro.writer(buffer, OPAQUE, records, codec=codec, sync_marker=bytes(16))
    return buffer.getvalue()


def ztf(alert_id: int) -> bytes:
    """A message as ZTF sends it."""
    return container([ztf_record(alert_id)])


def fink(alert_id: int, *, cutouts: bool = True) -> tuple[bytes, bytes]:
    """Value and key of a message as Fink sends it."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, OPAQUE, ztf_record(alert_id, cutouts=cutouts))
    return buffer.getvalue(), json.dumps(_plain(OPAQUE)).encode()


def _plain(schema: Any) -> Any:
    """A parsed schema without fastavro's own marks."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if not key.startswith("__")}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def rubin(alert_id: int, version: str = "10.0", schema_id: int | None = None) -> bytes:
    """A message as Rubin sends it."""
    return wire(rubin_record(version, alert_id=alert_id), version, schema_id)


def message(value: bytes | None, offset: int, key: bytes | None = None, part: int = 0) -> Message:
    return Message(Place("t", part, offset), value, key, time.time())


@contextmanager
def stream(
    words: Sequence[Any], broker: str, *, extra: str = EXTRA, limit_bytes: int = 0, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A ``gotorb stream`` of its own; ended at the end of the block."""
    env = os.environ | {
        "GOTORB_KAFKA_SERVERS": broker, "GOTORB_KAFKA_GROUP": "g", "GOTORB_KAFKA_EXTRA": extra, "OMP_NUM_THREADS": "1",
        **environment,
    }  # fmt: skip

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    process = subprocess.Popen(
        [sys.executable, "-m", "gotorb", "stream", *map(str, words)], env=env, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, preexec_fn=limit if limit_bytes else None,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def ask(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a stream's journal, none while it is not there."""
    path = folder / layout.STREAM_DB
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)
    try:
        return db.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()


def count(folder: Path, table: str = "scores") -> int:
    found = ask(folder, f"SELECT count(*) FROM {table}")
    return int(found[0][0]) if found else 0


def wait_for(what: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is true; its value."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)
    return found


def live(folder: Path) -> dict[str, Any]:
    """The stream's status.json, empty while there is none."""
    path = folder / layout.STATUS_JSON
    return json.loads(path.read_text()) if path.exists() else {}
