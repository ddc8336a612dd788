"""A journal on a disk that is full for a while, and lines that were cut: only these are lost, with a warning."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from gotorb import cli
from gotorb.errors import TrackingError
from gotorb.tracking import store
from gotorb.tracking.journal import EVENTS, Journal, find_journals
from gotorb.tracking.runs import sync_runs, track_stage, waiting_journals
from gotorb.tracking.store import journals_dir, tracking_uri
from tests.unit.tracking.tiny import make_params

START = {"experiment": "gotorb", "name": "one", "tags": {"gotorb.stage": "train"}}
N = 60


def runs() -> list[Any]:
    client = MlflowClient(tracking_uri())
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


def written(n: int = N) -> Journal:
    """A journal of a start, `n` metrics of different names and an end, that its process has left."""
    journal = Journal.new(journals_dir())
    journal.add("start", **START)
    for i in range(n):
        journal.add("metrics", values={f"m{i:02d}": float(i)}, step=0)
    journal.add("end", status="FINISHED")
    journal.release()
    return journal


def change_line(journal: Journal, number: int, change: Callable[[bytes], bytes]) -> None:
    path = journal.folder / EVENTS
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = change(lines[number])
    path.write_bytes(b"".join(lines))


CUTS = {
    "with its end": lambda line: line[: len(line) // 2] + b"\n",
    "without its end": lambda line: line[: len(line) // 2],
    "in the first letter": lambda line: b"{",
    "to nothing": lambda line: b"\n",
    "inside a letter": lambda line: '{"kind": "é'.encode()[:-1] + b"\n",
    "to another value": lambda line: b"12\n",
    "to zeros": lambda line: b"\x00" * len(line) + b"\n",
}


@pytest.mark.parametrize(
    ("how", "number"), [*((how, 49) for how in CUTS), *((how, n) for how in list(CUTS)[:2] for n in (1, N))]
)
def test_cut_line_costs_that_line_and_is_told(
    project: Path, how: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    change_line(written(), number, CUTS[how])
    assert sync_runs() == 1
    (run,) = runs()
    assert run.data.metrics == {f"m{i:02d}": float(i) for i in range(N) if i != number - 1}
    assert run.info.status == "FINISHED"
    assert run.data.tags["gotorb.lost_events"] == "1"
    assert "cut" in caplog.text
    assert find_journals(journals_dir()) == []


@pytest.mark.parametrize("how", ["with its end", "without its end"])
def test_run_whose_first_line_was_cut_is_recorded_without_its_name(project: Path, how: str) -> None:
    journal = written(3)
    change_line(journal, 0, CUTS[how])
    assert sync_runs() == 1
    (run,) = runs()
    assert (run.info.run_name, run.data.metrics) == (journal.key, {"m00": 0.0, "m01": 1.0, "m02": 2.0})
    assert run.data.tags["gotorb.lost_events"] == "1"


def test_journal_with_nothing_but_a_cut_line_makes_no_run(project: Path) -> None:
    journal = Journal.new(journals_dir())
    (journal.folder / EVENTS).write_bytes(b'{"kind": "sta')
    journal.release()
    assert sync_runs() == 1
    assert runs() == [] and find_journals(journals_dir()) == []


def test_event_behind_a_cut_one_has_a_line_of_its_own(project: Path) -> None:
    journal = Journal.new(journals_dir())
    journal.add("start", **START)
    with (journal.folder / EVENTS).open("ab") as file:
        file.write(b'{"kind": "metrics", "val')
    journal.add("metrics", values={"loss": 0.5}, step=0)
    assert [event["kind"] for event in journal.unsent()] == ["start", "cut", "metrics"]


class Disk:
    """A disk that is full when it is told so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        for name in ("add", "keep_file"):
            patch.setattr(Journal, name, self._limit(getattr(Journal, name)))

    def _limit(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **options: Any) -> Any:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*args, **options)

        return limited


def test_disk_that_is_full_for_a_while_loses_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    disk, picture = Disk(monkeypatch), tmp_path / "plot.png"
    picture.write_bytes(b"picture")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # and the server is down
    with track_stage("train", make_params()) as run:
        for epoch in range(10):
            disk.full = 3 <= epoch < 8
            run.log_epoch(epoch, {"loss": 1.0 / (epoch + 1)})
            if epoch == 5:
                run.log_plots([picture])
                run.log_json({"answer": 42}, "report.json")
    assert "No space left on device" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert sync_runs() == 1
    (seen,) = runs()
    client = MlflowClient(tracking_uri())
    history = client.get_metric_history(seen.info.run_id, "epoch/loss")
    assert [(point.step, point.value) for point in history] == [(i, 1.0 / (i + 1)) for i in range(10)]
    assert history[3].timestamp <= history[8].timestamp
    assert {item.path for item in client.list_artifacts(seen.info.run_id)} == {"plots", "report.json"}
    assert seen.info.status == "FINISHED"


def test_disk_that_stays_full_ends_the_stage_and_tells_what_is_lost(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    with track_stage("train", make_params()) as run:
        disk.full = True
        run.log_epoch(0, {"loss": 1.0})
    assert "3 events of the run are lost" in caplog.text  # the epoch, the wall time, the end
    disk.full = False
    assert [journal.folder for journal in waiting_journals()] == [run.journal.folder]
    assert sync_runs() == 1
    (seen,) = runs()
    assert seen.info.status == "KILLED"


def test_disk_full_from_the_start_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(parent: Path) -> Journal:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "new", refuse)
    with pytest.raises(TrackingError, match=r"No space left on device"), track_stage("train", make_params()):
        pytest.fail("the stage began")


def test_full_disk_in_a_command_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> list[Any]:
        raise OSError(errno.ENOSPC, "No space left on device", "mlruns")

    monkeypatch.setattr("gotorb.tracking.registry.list_models", full)
    assert cli.main(["models"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line and "mlruns" in line


ODD = ("a" * 251, "né")


@pytest.mark.parametrize("odd", ODD)
def test_metric_of_an_odd_name_costs_that_metric_alone(project: Path, odd: str) -> None:
    good = {f"m{i}": float(i) for i in range(7)}
    with track_stage("train", make_params()) as run:
        run.log_metrics(good | {odd: 1.0})
    (seen,) = runs()
    assert {name: value for name, value in seen.data.metrics.items() if name.startswith("m")} == good
    assert (odd in seen.data.metrics) != ("gotorb.refused.metrics" in seen.data.tags)


def test_parameter_and_tag_that_are_too_long_cost_themselves(project: Path) -> None:
    with track_stage("train", make_params()) as run:
        run.log_params({"short": 1, "long": "x" * 7000, "no@name": 1})
        run.set_tags({"short": 1, "n" * 300: 1})
    (seen,) = runs()
    assert seen.data.params["short"] == "1" and seen.data.tags["short"] == "1"
    assert "gotorb.refused.params" in seen.data.tags and "gotorb.refused.tags" in seen.data.tags


def test_store_whose_disk_is_full_is_one_line(project: Path) -> None:
    with pytest.raises(TrackingError, match=r"^tagged: .*disk is full"), store.translated("tagged"):
        raise RuntimeError("(sqlite3.OperationalError) database or disk is full\nmore")


def test_event_is_valid_json_on_one_line(project: Path) -> None:
    journal = written(1)
    lines = (journal.folder / EVENTS).read_bytes().split(b"\n")
    assert lines[-1] == b"" and [json.loads(line)["kind"] for line in lines[:-1]] == ["start", "metrics", "end"]
