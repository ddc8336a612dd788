"""Alert streams from a mock broker to rows on disk, compared with a plain loop of fastavro, astropy and Keras."""

import copy
import gzip
import io
import json
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
from astropy.io import fits

from benchmarks.archive import N_ALERTS, NIGHT_SECONDS
from benchmarks.features import make_measured
from benchmarks.rows import Row
from gotorb.core import layout
from gotorb.core.params import StreamParams
from gotorb.core.settings import Settings
from gotorb.streams.clients import kafka
from gotorb.streams.consumer import Plan, Worker
from gotorb.survey.alerts import make_reader
from gotorb.survey.alerts.records import read_records, split_message
from gotorb.survey.alerts.schemas import shipped_versions
from tests.unit.streams.kafka import Broker
from tests.unit.survey.packets import bare, rubin_record
from tests.unit.survey.synthetic import real_data

LAYERS = ["science", "template", "difference"]
PER_TOPIC, N_TOPICS, BATCH = 128, 5, 32
"""The mock broker keeps 5 MB of each of a topic's four partitions: alerts of 120 kB, sent beforehand."""
LATENCY_RATE, LATENCY_S = 100, 15
LIMIT_LATENCY_S = 0.5
N_HISTORY, N_DECODED = 300, 200


def measure() -> list[Row]:
    """Alerts per CPU second end to end, latency, and decoding with a long history."""
    ztf, rubin = _ztf_packets(), _rubin_packets()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            _compare("stream_ztf", Path(folder), ztf, 63, _plain_ztf),
            _compare("stream_rubin", Path(folder), rubin, 29, _plain_rubin),
        ]
        plain = rows[-1].ours
        rows += [Row("night_stream", N_ALERTS / NIGHT_SECONDS, plain, "1/s")]
        for kind in ("measured", "fusion"):
            model = _write_model(Path(folder) / f"{kind}_model", kind)
            rows.append(Row(f"stream_{kind}", _score_all(f"stream_{kind}", Path(folder), rubin, model), plain, "1/s"))
        rows.append(_measure_latency(Path(folder), rubin))
    return [*rows, _measure_decoding()]


def _write_model(folder: Path, kind: str) -> Path:
    """A measured or fusion model for Rubin's stamps, as a training leaves it."""
    from gotorb import models
    from gotorb.training.measured import Fusion, Sigmoid
    from gotorb.training.meta import write_meta
    from gotorb.training.model_files import open_network, write_model

    folder.mkdir()
    model: Any = make_measured(29, tuple(LAYERS))
    if kind == "fusion":
        network = write_model(folder / "network.h5", models.bayesian_vgg6((29, 29, len(LAYERS)))).read_bytes()
        model = Fusion(
            measured=model, network=open_network(network), network_file=network, weight=0.3, calibration=Sigmoid(),
            orientations=1,
        )  # fmt: skip
    write_model(folder / layout.MODEL_H5, model)
    write_meta(folder / layout.META_HKL, {"layers": LAYERS, "threshold": 0.5})
    return folder


def _ztf_packets() -> list[bytes]:
    """Real packets with new ids, so that none is a duplicate."""
    found = []
    for path in sorted(real_data("ztf_packets").glob("*.avro")):
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            record, schema = next(reader), reader.writer_schema
        for number in range(N_TOPICS * PER_TOPIC // 20):
            buffer = io.BytesIO()
            fastavro.writer(buffer, schema, [record | {"candid": record["candid"] + 10**6 * (number + 1)}])
            found.append(buffer.getvalue())
    return found


def _rubin_packets() -> list[bytes]:
    schema = fastavro.parse_schema(json.loads(shipped_versions()["10.0"]))
    found: list[bytes] = []
    for path in sorted(real_data("alerts").joinpath("rubin_wire_v10").glob("*.bin")):
        data = path.read_bytes()
        record = fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)
        for number in range(N_TOPICS * PER_TOPIC // 32):
            one = copy.deepcopy(record)
            one["diaSourceId"] = one["diaSource"]["diaSourceId"] = record["diaSourceId"] + 10**9 * (number + 1)
            found.append(data[:5] + bare(one, schema))
    return found


def _compare(name: str, folder: Path, packets: list[bytes], size: int, plain: Callable[[bytes], np.ndarray]) -> Row:
    """Alerts per CPU second of a worker, and of a plain loop over some of the same packets."""
    from gotorb import classifier, models

    network = models.vgg6((size, size, len(LAYERS)))
    path = classifier.export(network, folder / f"{name}.onnx", meta={"layers": LAYERS, "threshold": 0.5})
    ours = _score_all(name, folder, packets, path)
    some = packets[:: len(packets) // (2 * BATCH)][: 2 * BATCH]
    network.predict(np.zeros((BATCH, size, size, len(LAYERS)), np.float32), verbose=0)
    started = time.process_time()
    for start in range(0, len(some), BATCH):
        stamps = np.stack([plain(packet) for packet in some[start : start + BATCH]])
        network.predict(stamps - np.median(stamps, axis=(1, 2), keepdims=True), batch_size=BATCH, verbose=0)
    return Row(name, ours, len(some) / (time.process_time() - started), "1/s")


def _score_all(name: str, folder: Path, packets: list[bytes], model: Path) -> float:
    """Alerts per CPU second of a worker, from a broker that has them all to rows on disk."""
    broker = Broker()
    try:
        topics = tuple(f"{name}-{number}" for number in range(N_TOPICS))
        for number, topic in enumerate(topics):
            broker.send(topic, packets[number::N_TOPICS])
        with _worker(folder / name, model, topics, broker.address) as worker:
            return len(packets) / _drain(worker, folder / name, len(packets))
    finally:
        broker.close()


class _Nobody:
    """A parent that does not listen."""

    def send(self, _: Any) -> None:
        return

    def poll(self) -> bool:
        return False


@contextmanager
def _worker(folder: Path, model: Path, topics: tuple[str, ...], address: str) -> Iterator[Worker]:
    settings = Settings(gotorb_kafka_servers=address)
    plan = Plan(model=str(model), topics=topics, out_dir=folder, group="bench", run="bench",
                options=StreamParams(batch=BATCH), settings=settings)  # fmt: skip
    worker = Worker(plan, 0, _Nobody())  # type: ignore[arg-type]
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop.set()
        thread.join()


def _drain(worker: Worker, folder: Path, n: int) -> float:
    """CPU seconds of this process from the first row to the last."""
    while not worker.tally.counts["consumed"]:
        time.sleep(0.01)
    before, started = worker.tally.counts["consumed"], time.process_time()
    while worker.tally.counts["consumed"] < n:
        time.sleep(0.05)
    return (time.process_time() - started) * n / (n - before)


def _plain_ztf(packet: bytes) -> np.ndarray:
    record: Any = next(fastavro.reader(io.BytesIO(packet)))
    cutouts = (gzip.decompress(record[f"cutout{one.capitalize()}"]["stampData"]) for one in LAYERS)
    return _stack(cutouts, 63)


def _plain_rubin(packet: bytes) -> np.ndarray:
    record: Any = fastavro.schemaless_reader(io.BytesIO(packet[5:]), _rubin_schema(), None)
    return _stack((record[f"cutout{one.capitalize()}"] for one in LAYERS), 29)


def _rubin_schema(_known: list[Any] = []) -> Any:  # noqa: B006
    if not _known:
        _known.append(fastavro.parse_schema(json.loads(shipped_versions()["10.0"])))
    return _known[0]


def _stack(cutouts: Iterator[bytes], size: int) -> np.ndarray:
    stamp = np.zeros((size, size, len(LAYERS)), np.float32)
    for layer, data in enumerate(cutouts):
        with fits.open(io.BytesIO(data)) as hdus:
            pixels = np.nan_to_num(np.asarray(hdus[0].data, np.float32)[:size, :size])
        stamp[: pixels.shape[0], : pixels.shape[1], layer] = pixels
    return stamp


def _measure_latency(folder: Path, packets: list[bytes]) -> Row:
    """95th percentile from a message's time to its row, at an even rate."""
    producer_config = {"linger.ms": 1, "message.max.bytes": 8_000_000}
    broker = Broker()
    try:
        producer = kafka().Producer({"bootstrap.servers": broker.address, **producer_config})
        producer.list_topics("even", timeout=10)
        with _worker(folder / "latency", folder / "stream_rubin.onnx", ("even",), broker.address) as worker:
            while not worker.consumer.assignment():
                time.sleep(0.1)
            for number, packet in enumerate(packets[: LATENCY_RATE * LATENCY_S]):
                producer.produce("even", value=packet, partition=number % 4)
                producer.poll(1 / LATENCY_RATE)
            producer.flush(10)
            time.sleep(2)
    finally:
        broker.close()
    with sqlite3.connect(folder / "latency" / layout.STREAM_DB) as db:
        waits = [one for (one,) in db.execute("SELECT t_scored - t_event FROM scores ORDER BY t_event")]
    return Row("stream_latency", float(np.percentile(waits[len(waits) // 10 :], 95)), LIMIT_LATENCY_S, "s")


def _measure_decoding() -> Row:
    """Packets with a long history per CPU second, compared with the same decoded whole."""
    schema = fastavro.parse_schema(json.loads(shipped_versions()["10.0"]))
    packet = b"\0" + (1000).to_bytes(4, "big") + bare(rubin_record("10.0", history=N_HISTORY), schema)
    reader = make_reader()
    started = time.process_time()
    for _ in range(N_DECODED * 5):
        (alert,) = reader.read_message(packet)
    ours = N_DECODED * 5 / (time.process_time() - started)
    started = time.process_time()
    for _ in range(N_DECODED // 4):
        (block,) = split_message(packet, reader.store)
        (record,) = read_records(block, history=True)
    assert str(record["diaSourceId"]) == alert.record["candid"]
    return Row("decode_rubin_ddf", ours, N_DECODED // 4 / (time.process_time() - started), "1/s")
