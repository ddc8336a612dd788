"""The journal of a run: what a kill leaves, who writes it, and that all arrives once."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gotorb.errors import TrackingError
from gotorb.tracking.delivery import Delivery
from gotorb.tracking.journal import EVENTS, OWNER, SENT, Journal, find_journals
from gotorb.tracking.runs import sync_runs
from gotorb.tracking.store import journals_dir, tracking_uri

START = {"experiment": "gotorb", "name": "one", "tags": {"gotorb.stage": "train"}}


def client() -> MlflowClient:
    return MlflowClient(tracking_uri())


def runs() -> list:
    ids = [found.experiment_id for found in client().search_experiments()]
    return list(client().search_runs(ids))


def written(*, end: bool = True) -> Journal:
    """A journal that its process has left."""
    journal = Journal.new(journals_dir())
    journal.add("start", **START)
    journal.add("metrics", values={"loss": 0.5}, step=3)
    if end:
        journal.add("end", status="FINISHED")
    journal.release()
    return journal


def test_what_a_journal_holds_arrives_with_its_times_and_the_journal_goes(project: Path) -> None:
    journal = written()
    lines = (journal.folder / EVENTS).read_text().splitlines()
    times = [json.loads(line)["time_ms"] for line in lines]
    assert sync_runs() == 1
    (run,) = runs()
    assert (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time) == (
        "one", "FINISHED", times[0], times[2],
    )  # fmt: skip
    (point,) = client().get_metric_history(run.info.run_id, "loss")
    assert (point.value, point.step, point.timestamp) == (0.5, 3, times[1])
    assert find_journals(journals_dir()) == []
    assert sync_runs() == 0


@pytest.mark.parametrize("n_acknowledged", [0, 1, 2])
def test_what_was_sent_but_not_acknowledged_is_there_once(project: Path, n_acknowledged: int) -> None:
    journal = written()
    Delivery(journal).send()
    run_id = journal.sent["run_id"]
    (journal.folder / SENT).write_text(json.dumps({"n": n_acknowledged, "run_id": run_id if n_acknowledged else ""}))
    assert sync_runs() == 1
    (run,) = runs()
    assert run.info.run_id == run_id
    assert len(client().get_metric_history(run_id, "loss")) == 1


def test_journal_is_none_before_the_rest_of_it_is_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that looks while another removes what it has sent must not find half of it, and send that again."""
    journal, seen = written(), []
    Delivery(journal).send()
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: seen.append((folder, find_journals(journals_dir()))))
    journal.finish()
    assert seen == [(journal.folder, [])]
    Journal(journal.folder).close_if_orphaned()  # it was listed a moment before
    assert not (journal.folder / EVENTS).exists()
    (run,) = runs()
    assert run.info.status == "FINISHED"


def test_journal_without_an_end_ends_as_killed(project: Path) -> None:
    written(end=False)
    assert sync_runs() == 1
    (run,) = runs()
    assert (run.info.status, run.data.metrics["loss"]) == ("KILLED", 0.5)


@pytest.mark.parametrize("torn", [b'{"kind": "metrics", "val', '{"kind": "tags", "x": "é'.encode()[:-1], b"{"])
def test_line_torn_by_a_kill_is_left_out_and_the_rest_arrives(project: Path, torn: bytes) -> None:
    journal = written(end=False)
    with (journal.folder / EVENTS).open("ab") as file:
        file.write(torn)
    assert sync_runs() == 1
    (run,) = runs()
    assert (run.info.status, run.data.metrics) == ("KILLED", {"loss": 0.5})


def test_owner_is_known_by_more_than_its_number(project: Path) -> None:
    """Another process may have got the number of one that died."""
    journal = Journal.new(journals_dir())
    assert journal.owner_lives
    owner = json.loads((journal.folder / OWNER).read_text())
    (journal.folder / OWNER).write_text(json.dumps(owner | {"started": owner["started"] - 100}))
    assert not journal.owner_lives
    (journal.folder / OWNER).write_text("")
    assert not journal.owner_lives


def test_run_of_another_machine_is_left_alone_for_a_day(project: Path) -> None:
    journal = written(end=False)
    (journal.folder / OWNER).write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    assert journal.owner_lives
    old = time.time() - 25 * 3600
    os.utime(journal.folder / EVENTS, (old, old))
    assert not journal.owner_lives


def test_event_that_the_store_never_takes_does_not_keep_back_the_rest(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal.new(journals_dir())
    journal.add("start", **START)
    journal.add("metrics", values={"no@name": 1.0}, step=0)
    journal.add("metrics", values={"loss": 0.5}, step=0)
    journal.add("end", status="FINISHED")
    journal.release()
    assert sync_runs() == 1
    (run,) = runs()
    assert run.data.metrics == {"loss": 0.5}
    assert "no@name" in run.data.tags["gotorb.refused.metrics"]
    assert "refuses metrics" in caplog.text


def test_run_that_cannot_be_sent_does_not_keep_back_the_others(project: Path) -> None:
    broken = Journal.new(journals_dir())
    broken.add("start", **START)
    broken.add("file", path="gone/plot.png", folder="plots")
    broken.release()
    written()
    with pytest.raises(TrackingError, match=r"1 runs sent, 1 not .*plot.png.*`gotorb sync` again"):
        sync_runs()
    assert [journal.folder for journal in find_journals(journals_dir())] == [broken.folder]
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "RUNNING"]
