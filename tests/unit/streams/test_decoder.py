"""From messages to rows: every message is a row, a dead letter or waits, whatever its bytes are."""

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gotorb.classifier.scores import load_scorer
from gotorb.core.params import ArchiveParams, StreamParams
from gotorb.core.settings import Settings
from gotorb.errors import MostlyDead
from gotorb.streams.consumer import make_pipeline
from gotorb.streams.decoder import MAX_SCHEMA_ID, Outcome, Pipeline
from gotorb.streams.folder import retry_dead
from gotorb.streams.journal import Batch, DeadLetter, Journal, Place
from gotorb.streams.status import Tally
from gotorb.survey.alerts.schemas import shipped_versions
from tests.unit.streams.kafka import container, fink, message, rubin, ztf, ztf_record


def pipeline(model: Path, tmp_path: Path, **options: object) -> Pipeline:
    settings = Settings(gotorb_cache_dir=str(tmp_path / "cache"))
    return make_pipeline(load_scorer(str(model)), StreamParams(**options), settings, ArchiveParams())  # type: ignore[arg-type]


def damaged(rng: random.Random, value: bytes) -> bytes:
    """A packet cut short, with bytes changed, put in or taken out."""
    place = rng.randrange(len(value))
    kind = rng.randrange(4)
    if kind == 0:
        return value[:place]
    if kind == 1:
        return value[:place] + bytes([value[place] ^ (1 << rng.randrange(8))]) + value[place + 1 :]
    if kind == 2:
        return value[:place] + rng.randbytes(rng.randrange(1, 9)) + value[place:]
    return value[:place] + value[place + rng.randrange(1, 9) :]


@pytest.mark.parametrize("framing", ["container", "wire", "key"])
def test_damaged_packets_are_counted_and_never_slow(framing: str, model: Path, tmp_path: Path) -> None:
    rng, made, slowest = random.Random(framing), pipeline(model, tmp_path), 0.0
    good, key = {"container": (ztf(5), None), "wire": (rubin(6), None), "key": fink(7)}[framing]
    journal = Journal(tmp_path, ("m", "1", "d"))
    journal.move(("t", 0), 0, run="r", reason="")
    counts = {"waiting": 0}
    for offset in range(700):
        started = time.perf_counter()
        outcome = made.run([message(damaged(rng, good), offset, key)])
        slowest = max(slowest, time.perf_counter() - started)
        counts["waiting"] += len(outcome.waiting)
        journal.write(outcome.batch)
    (entry,) = journal.ledger()
    assert slowest < 1
    assert entry["balanced"] and counts["waiting"] <= entry["gaps"] <= 20  # their schema's id was hit
    assert entry["dead"] > 100


def test_the_framing_does_not_change_a_score(model: Path, tmp_path: Path) -> None:
    value, key = fink(3)
    messages = [message(container([ztf_record(3)], codec), number) for number, codec in enumerate(("null", "deflate"))]
    found = pipeline(model, tmp_path).run([*messages, message(value, 2, key)]).batch
    assert len(found.rows) == 3 and len({row.score for row in found.rows}) == 1


def test_scores_do_not_depend_on_the_batch(model: Path, tmp_path: Path) -> None:
    made = pipeline(model, tmp_path)
    messages = [message(ztf(number), number) for number in range(64)]
    whole = [row.score for row in made.run(messages).batch.rows]
    single = [row.score for one in messages for row in made.run([one]).batch.rows]
    assert whole == single


def test_an_unknown_id_waits_and_holds_up_its_partition_only(model: Path, tmp_path: Path) -> None:
    messages = [message(ztf(0), 0), message(rubin(1, "10.0", 777), 1), message(ztf(2), 2), message(ztf(3), 0, part=1)]
    found = pipeline(model, tmp_path).run(messages)
    assert {partition: offset for partition, (offset, _) in found.waiting.items()} == {("t", 0): 1}
    assert [row.alert_id for row in found.batch.rows] == ["0", "3"]
    assert found.batch.dead == []


def test_a_lone_unknown_id_is_damage_and_an_impossible_one_too(model: Path, tmp_path: Path) -> None:
    later = [message(rubin(number, "10.0"), number) for number in range(2, 6)]
    found = pipeline(model, tmp_path).run([message(rubin(1, "10.0", 777), 1), *later])
    assert (len(found.batch.dead), len(found.batch.rows), found.waiting) == (1, 4, {})
    found = pipeline(model, tmp_path).run([message(rubin(1, "10.0", MAX_SCHEMA_ID + 1), 1)])
    assert len(found.batch.dead) == 1


def test_dead_letters_are_read_again(model: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path, ("m", "1", "d"))
    journal.move(("t", 0), 0, run="r", reason="")
    lone = [message(rubin(0, "10.0", 777), 0), *(message(rubin(one, "10.0"), one) for one in range(1, 5))]
    journal.write(pipeline(model, tmp_path).run([*lone, message(b"garbage", 5)]).batch)
    assert retry_dead(journal, pipeline(model, tmp_path)) == {"waiting": 1, "dead": 1}
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    (schemas / "777.avsc").write_text(shipped_versions()["10.0"])
    assert retry_dead(journal, pipeline(model, tmp_path, schemas=str(schemas))) == {"scored": 1, "dead": 1}
    assert journal.ledger()[0]["balanced"]


@pytest.mark.parametrize(
    ("dead", "stops"), [([True] * 100, True), ([True] * 99 + [False], False), ([True, False] * 500, False),
                        ([True, True, False] * 340, True)],
)  # fmt: skip
def test_a_stream_of_dead_letters_stops(dead: list[bool], stops: bool) -> None:
    tally = Tally(StreamParams().max_dead, StreamParams().max_dead_fraction)
    places = [Place("t", 0, number) for number in range(len(dead))]
    letters = [DeadLetter(place=place, kind="unreadable", reason="x", key=None, value=b"")
               for place, one in zip(places, dead, strict=True) if one]  # fmt: skip
    tally.add(Outcome(Batch(places, [], letters)), Counter(), 0.0)
    if stops:
        with pytest.raises(MostlyDead):
            tally.check()
    else:
        tally.check()


def test_posterior_samples_are_kept(tmp_path: Path, model: Path) -> None:
    made = pipeline(model, tmp_path)

    class Network:
        has_posterior = True

        def score(self, stamps: np.ndarray) -> np.ndarray:
            return np.full(len(stamps), 0.25, np.float32)

        def sample(self, stamps: np.ndarray, n: int, *, seed: int) -> np.ndarray:
            return np.random.default_rng(seed).uniform(0.5, 1, (len(stamps), n)).astype(np.float32)

    made.scorer.__dict__["compiled"] = Network()
    made.options = replace(made.options, n_samples=5)
    (row,) = made.run([message(ztf(1), 0)]).batch.rows
    assert row.score == 0.25 and row.called == 1 and row.mean is not None and 0.5 < row.mean < 1
