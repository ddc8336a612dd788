"""State of a stream: counts of all workers together, as status.json, Prometheus' text and a line on the terminal."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from gotorb.core import layout
from gotorb.core.files import write_json
from gotorb.errors import MostlyDead
from gotorb.evaluation.drift import DRIFT_COLUMNS, measure_drift
from gotorb.evaluation.metrics import rounded
from gotorb.streams.decoder import Outcome
from gotorb.streams.journal import open_existing

PERCENTILES = (50, 95, 99)
N_BINS = 20
"""Bins of the scores from 0 to 1."""
RATE_S = 10.0
"""Time over which the rate is taken [s]."""
KEPT = 5000
"""Newest latencies, of which the percentiles are."""
LOOPBACK = "127.0.0.1"
RECENT = 1000
"""Messages over which the fraction of dead letters is taken."""
MAX_SAMPLES = 500
"""Latencies and scores of a report."""
COUNTED = ("consumed", "scored", "bare", "dead", "duplicates", "redelivered", "gaps")
STATES = ("failed", "draining", "paused", "joining", "starting", "running", "stopped")
"""States of workers; the stream's is the first that one of them has."""


class Tally:
    """Counts of a worker since its start, and its newest latencies and scores.

    Parameters
    ----------
    max_dead : int
        Dead letters in a row at which it stops.
    max_fraction : float
        Fraction of the last messages, likewise.
    """

    def __init__(self, max_dead: int, max_fraction: float) -> None:
        self.max_dead, self.max_fraction = max_dead, max_fraction
        self.counts: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=MAX_SAMPLES)
        self.scores: deque[float] = deque(maxlen=MAX_SAMPLES)
        self.inputs: deque[tuple[float | None, ...]] = deque(maxlen=MAX_SAMPLES)
        self.recent: deque[bool] = deque(maxlen=RECENT)
        self.in_a_row = self.rebalances = self.slow = self.batches = 0
        self.last = self.reported = 0.0
        self.reason = ""

    def add(self, outcome: Outcome, counts: Counter[str], write_s: float) -> None:
        """Add a batch.

        Parameters
        ----------
        outcome : Outcome
        counts : Counter
            Of the journal.
        write_s : float
            Time of the transaction [s].
        """
        now, batch = time.time(), outcome.batch
        self.counts.update(counts)
        self.counts["consumed"] += len(batch.places)
        self.seconds.update(outcome.seconds | {"write": write_s})
        self.kinds.update(letter.kind for letter in batch.dead)
        self.latencies.extend(now - row.t_event for row in batch.rows if row.t_event)
        scored = [row for row in batch.rows if row.score is not None]
        self.scores.extend(row.score for row in scored if row.score is not None)
        self.inputs.extend((*row.inputs, row.score if row.mean is None else row.mean) for row in scored)
        dead = {letter.place: letter.reason for letter in batch.dead}
        for place in batch.places:
            self.in_a_row = self.in_a_row + 1 if place in dead else 0
            self.recent.append(place in dead)
        self.reason = next(reversed(dead.values()), self.reason)
        self.batches, self.last = self.batches + bool(batch.places), now

    def check(self) -> None:
        """Raise MostlyDead where the packets, not single ones of them, cannot be read."""
        many = len(self.recent) == RECENT and sum(self.recent) > self.max_fraction * RECENT
        if self.in_a_row >= self.max_dead or many:
            raise MostlyDead(
                f"{self.in_a_row} packets in a row, {sum(self.recent)} of the last {len(self.recent)}, cannot be read "
                f"(schema? the last: {self.reason}); correct --schemas or the topic, then `gotorb stream retry`"
            )

    def report(self) -> dict[str, Any]:
        """The counts as plain values; latencies and scores are handed over once."""
        self.reported = time.monotonic()
        found = {
            "counts": dict(self.counts), "seconds": dict(self.seconds), "kinds": dict(self.kinds), "last": self.last,
            "batches": self.batches, "rebalances": self.rebalances, "latencies": list(self.latencies),
            "scores": list(self.scores), "inputs": list(self.inputs), "memory": psutil.Process().memory_info().rss,
        }  # fmt: skip
        self.latencies.clear()
        self.inputs.clear()
        self.scores.clear()
        return found


class Totals:
    """Counts of all workers, including those that died."""

    def __init__(self) -> None:
        self.started = time.time()
        self.reports: dict[int, dict[str, Any]] = {}
        self.gone: dict[str, Counter[str]] = {name: Counter() for name in ("counts", "kinds", "seconds")}
        self.deaths = 0
        self.latencies: deque[float] = deque(maxlen=KEPT)
        self.scores = np.zeros(N_BINS, int)
        self.inputs: deque[tuple[float | None, ...]] = deque(maxlen=KEPT)
        self.before: pd.DataFrame | None = None
        self._rate: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def take(self, number: int, report: dict[str, Any]) -> None:
        """Take a report of a worker.

        Parameters
        ----------
        number : int
            Of the worker.
        report : dict
            From `consumer.Worker`.
        """
        self.reports[number] = report
        self.latencies.extend(report["latencies"])
        self.scores += np.histogram(report["scores"], N_BINS, (0, 1))[0]
        self.inputs.extend(report["inputs"])

    def bury(self, number: int) -> None:
        """Keep the counts of a worker that died.

        Parameters
        ----------
        number : int
        """
        report = self.reports.pop(number, None)
        self.deaths += 1
        if report is None:
            return
        for name, total in self.gone.items():
            total.update(report[name])

    def describe(self, **more: Any) -> dict[str, Any]:
        """Everything as plain values.

        Parameters
        ----------
        **more
            Further entries, which win.

        Returns
        -------
        dict
        """
        reports = list(self.reports.values())
        counts, kinds, seconds = (Counter(self.gone[name]) for name in ("counts", "kinds", "seconds"))
        for one in reports:
            counts.update(one["counts"])
            kinds.update(one["kinds"])
            seconds.update(one["seconds"])
        last = max((one["last"] for one in reports), default=0.0)
        states = {one["state"] for one in reports} or {"starting"}
        found = {
            "state": next(state for state in STATES if state in states),
            "connected": any(one["connected"] for one in reports), "started": self.started, "written": time.time(),
            **{name: counts[name] for name in COUNTED}, "dead_kinds": dict(kinds),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "rate": self._measure_rate(counts["consumed"]), "latency_s": self._latency(),
            "scores": self.scores.tolist(), "drift": self._drift(), "lag": _join(reports, "lag"),
            "waiting": _join(reports, "waiting"),
            "since_last_s": round(time.time() - last, 1) if last else None, "deaths": self.deaths,
            "rebalances": sum(one["rebalances"] for one in reports),
            "different": sum(one["n_different"] for one in reports),
            "memory": [one["memory"] for one in reports],
        }  # fmt: skip
        return found | more

    def _measure_rate(self, consumed: int) -> float:
        now = time.monotonic()
        self._rate.append((now, consumed))
        while len(self._rate) > 2 and now - self._rate[1][0] > RATE_S:
            self._rate.popleft()
        (then, before), passed = self._rate[0], now - self._rate[0][0]
        return round((consumed - before) / passed, 1) if passed > 0 and then < now else 0.0

    def _drift(self) -> list[dict[str, Any]]:
        """The newest alerts against the training set; nothing until that is scored."""
        if self.before is None or not self.inputs:
            return []
        now = pd.DataFrame(list(self.inputs), columns=list(DRIFT_COLUMNS), dtype=float)
        return [rounded(one) for one in measure_drift(now, self.before, DRIFT_COLUMNS)]

    def _latency(self) -> dict[str, float]:
        if not self.latencies:
            return {}
        found = np.percentile(np.array(self.latencies), PERCENTILES)
        return {f"p{percent}": round(float(value), 3) for percent, value in zip(PERCENTILES, found, strict=True)}


def _join(reports: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return {key: value for one in reports for key, value in one[name].items()}


def show_line(status: dict[str, Any]) -> str:
    """One line for the terminal.

    Parameters
    ----------
    status : dict
        From `Totals.describe`.

    Returns
    -------
    str
    """
    state = "brokers away" if status["memory"] and not status["connected"] else status["state"]
    parts = [
        state, f"{status['scored']} scored", f"{status['rate']:g}/s", f"lag {sum(status['lag'].values())}",
        f"{status['dead']} dead",
    ]  # fmt: skip
    parts += [
        f"{status[name]} {word}" for name, word in (("bare", "without cut-outs"), ("gaps", "missing")) if status[name]
    ]
    if status["latency_s"]:
        parts.append(f"p95 {status['latency_s']['p95']:.2f} s")
    parts += [f"{one['name']} {one['verdict']}" for one in status["drift"] if one["verdict"] != "same"]
    parts += [f"{partition} waits for a schema" for partition in status["waiting"]]
    return " · ".join(parts)


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Write status.json.

    Parameters
    ----------
    folder : Path
    status : dict
    """
    write_json(folder / layout.STATUS_JSON, status)


def read_training(folder: Path) -> pd.DataFrame | None:
    """Training set's scores and measurements that a stream is compared with.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    DataFrame or None
        Columns `DRIFT_COLUMNS`; None while they are not there.
    """
    path = folder / layout.TRAINING_CSV
    return pd.read_csv(path, dtype=float) if path.exists() else None


def read_status(folder: Path) -> dict[str, Any]:
    """State of a stream's folder, running or not: the journal's ledger, and the newest status.json.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict
        about, partitions (see `Journal.ledger`), totals, balanced, dead (kind -> number), gaps, unpublished, live.

    Raises
    ------
    DataError
        If there is no journal.
    """
    with closing(open_existing(folder)) as journal:
        partitions = journal.ledger()
        names = ("consumed", "extra", "scored", "bare", "dead", "duplicates", "gaps", "redelivered")
        found = {
            "about": dict(journal.read("SELECT name, value FROM about")), "partitions": partitions,
            "totals": {name: sum(one[name] for one in partitions) for name in names},
            "balanced": all(one["balanced"] for one in partitions),
            "dead": dict(journal.read("SELECT kind, count(*) FROM dead GROUP BY kind")),
            "dead_reasons": [one for (one,) in journal.read("SELECT reason FROM dead ORDER BY rowid DESC LIMIT 3")],
            "gaps": dict(journal.read("SELECT reason, sum(last - first + 1) FROM gaps GROUP BY reason")),
            "unpublished": journal.read("SELECT count(*) FROM outbox WHERE published = 0")[0][0],
        }  # fmt: skip
    path = folder / layout.STATUS_JSON
    return found | {"live": json.loads(path.read_text(encoding="utf-8")) if path.exists() else None}


def show_metrics(status: dict[str, Any]) -> str:
    """Prometheus' text of a stream's state.

    Parameters
    ----------
    status : dict
        From `Totals.describe`.

    Returns
    -------
    str
    """
    lines: list[str] = []

    def add(name: str, kind: str, values: dict[str, Any], label: str = "") -> None:
        lines.append(f"# TYPE gotorb_stream_{name} {kind}")
        for key, value in values.items():
            labels = f'{{{label}="{_escape(key)}"}}' if label else ""
            lines.append(f"gotorb_stream_{name}{labels} {value:g}")

    for name in COUNTED:
        add(f"{name}_total", "counter", {"": status[name]})
    add("dead_by_kind_total", "counter", status["dead_kinds"], "kind")
    add("seconds_total", "counter", status["seconds"], "step")
    add("lag", "gauge", status["lag"], "partition")
    add("latency_seconds", "gauge", {f"{int(key[1:]) / 100:g}": value for key, value in status["latency_s"].items()},
        "quantile")  # fmt: skip
    add("rate", "gauge", {"": status["rate"]})
    add("drift_ks", "gauge", {one["name"]: one["ks"] for one in status["drift"]}, "column")
    add("drift_delta", "gauge", {one["name"]: one["delta"] for one in status["drift"]}, "column")
    add("connected", "gauge", {"": int(status["connected"])})
    add("waiting_partitions", "gauge", {"": len(status["waiting"])})
    add("memory_bytes", "gauge", {str(number): value for number, value in enumerate(status["memory"])}, "worker")
    add("worker_deaths_total", "counter", {"": status["deaths"]})
    add("rebalances_total", "counter", {"": status["rebalances"]})
    edges = {f"{(number + 1) / N_BINS:g}": sum(status["scores"][: number + 1]) for number in range(N_BINS)}
    lines.append("# TYPE gotorb_stream_score histogram")
    lines += [f'gotorb_stream_score_bucket{{le="{edge}"}} {n}' for edge, n in (edges | {"+Inf": edges["1"]}).items()]
    lines.append(f"gotorb_stream_score_count {edges['1']}")
    if status["since_last_s"] is not None:
        add("since_last_seconds", "gauge", {"": status["since_last_s"]})
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


class MetricsServer:
    """Prometheus' text on this machine only.

    Parameters
    ----------
    port : int
        0 for a free one.
    """

    def __init__(self, port: int) -> None:
        self.text = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer.text.encode()
                self.send_response(200 if self.path in ("/", "/metrics") else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
