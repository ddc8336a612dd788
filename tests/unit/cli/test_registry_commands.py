"""Commands of registry and tracking: outside a project, as json, and MLflow's own."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gotorb import cli
from gotorb.core import layout
from tests.unit.cli.conftest import Said, shell

Call = Callable[..., Said]
OUTSIDE = {
    "models": ["models"], "promote": ["promote", "models:/gotorb/1", "--to", "production", "--reason", "x"],
    "rollback": ["rollback", "gotorb", "--reason", "x"], "lineage": ["lineage", "v1"],
    "runs": ["runs", "import", "HEAD"], "ui": ["ui"], "serve": ["serve", "models:/gotorb@production"],
    "mlflow": ["mlflow", "experiments", "search"], "sync": ["sync"], "relocate": ["tracking", "relocate"],
    "verify": ["verify"], "score": ["score", "models:/gotorb@champion", ".", "--out-path", "scores.csv"],
    "tag": ["data", "tag", "v1"],
}  # fmt: skip


@pytest.fixture
def nowhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of no project."""
    (project / layout.PARAMS_YAML).unlink()
    return project


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_a_project_a_command_says_so_and_writes_nothing(nowhere: Path, gotorb: Call, name: str) -> None:
    said = gotorb(*OUTSIDE[name])
    assert (said.code, said.out) == (1, "")
    (line,) = [line for line in said.err.splitlines() if line.startswith("gotorb: ")]
    assert str(nowhere) in line and "Traceback" not in said.err
    assert list(nowhere.iterdir()) == []


def test_doctor_outside_a_project_tells_it_of_the_store_and_writes_nothing(nowhere: Path, gotorb: Call) -> None:
    said = gotorb("doctor", "--json")
    found = {one["check"]: one for one in json.loads(said.out)}
    assert said.code == 1 and not found["tracking"]["ok"] and "no project" in found["tracking"]["text"]
    assert list(nowhere.iterdir()) == []


def test_server_can_be_asked_from_anywhere(nowhere: Path, gotorb: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    said = gotorb("models")
    assert said.code == 1 and "does not answer" in said.err


def test_doctor_as_json_says_what_its_lines_say(gotorb: Call) -> None:
    rows = json.loads(gotorb("doctor", "--json").out)
    lines = gotorb("doctor").out.splitlines()
    assert [f"{'ok   ' if row['ok'] else 'FAIL '} {row['check']}: {row['text']}" for row in rows] == lines


def test_params_as_json(gotorb: Call) -> None:
    rows = {row["name"]: row for row in json.loads(gotorb("params", "train", "--json").out)}
    assert (rows["train.epochs"]["value"], rows["train.epochs"]["default"]) == (7, 40)
    assert all(name.startswith("train.") for name in rows)
    assert set(rows["train.epochs"]) == {"name", "value", "default", "meaning", "allowed"}


def test_verify_as_json(gotorb: Call, project: Path) -> None:
    (project / "dvc.lock").write_text(
        "stages: {a: {outs: [{path: made.txt, md5: 0123456789abcdef0123456789abcdef}]}}\n"
    )
    assert json.loads(gotorb("verify", "--json").out) == []
    (project / "made.txt").write_text("other")
    said = gotorb("verify", "--json")
    (line,) = json.loads(said.out)
    assert said.code == 1 and line.startswith("made.txt ")


def test_table_has_no_colour_and_is_not_cut_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    from gotorb.cli.options import show_table

    long = "x" * 300
    show_table([{"name": long, "rich": "[bold]kept[/bold]"}, {"name": "short", "rich": "1"}])
    head, first, second = capsys.readouterr().out.splitlines()
    assert first.split() == [long, "[bold]kept[/bold]"] and second.split() == ["short", "1"] and "\x1b" not in head


def test_mlflow_works_on_the_projects_own_store(gotorb: Call, project: Path, warm_python: Path) -> None:
    said = shell("mlflow", "experiments", "create", "--experiment-name", "mine", cwd=project, python=warm_python)
    assert said.code == 0, said.err
    said = shell("mlflow", "experiments", "search", cwd=project, python=warm_python)
    assert "mine" in said.out
    assert (project / "mlruns" / "mlflow.db").exists() and not (project / "mlflow.db").exists()


def test_mlflow_gives_the_exit_code_of_mlflow(gotorb: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert cli.main(["mlflow", "runs", "list", "--experiment-id", "1"]) == 3
    assert asked[0][1:] == ["-m", "mlflow", "runs", "list", "--experiment-id", "1"]


def test_an_empty_registry_says_where_models_come_from(project: Path, gotorb: Call) -> None:
    said = gotorb("models")
    assert (said.code, said.out) == (0, "") and "`make repro`" in said.err
