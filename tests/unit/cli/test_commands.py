"""Output of doctor, models, params, label and ui."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from gotorb.cli import main as gotorb_main
from gotorb.core import layout
from tests.unit.cli.conftest import Said

Call = Callable[..., Said]
UI_SECONDS = 60


def test_params_tells_names_values_and_limits(gotorb: Call) -> None:
    said = gotorb("params")
    assert said.code == 0
    lines = said.out.splitlines()
    told = dict(zip(lines[::2], lines[1::2], strict=True))
    assert told["train.epochs = 7 (default 40)"] == "    epochs at most; a whole number, at least 1"
    assert told["label.stamp_size = 55"] == "    side of a stamp [pixel], odd; a whole number, at least 15, at most 255"
    assert told["clean.new_sources = false"].endswith("; true or false")
    assert {line.split(" = ")[0] for line in lines[::2]} >= {"seed", "label.archive.columns", "peers.n_folds"}
    assert not [line for line in lines if "Ge(" in line or "None" in line or line.rstrip().endswith(";")]


def test_params_shows_only_names_that_begin_so(gotorb: Call) -> None:
    lines = gotorb("params", "clean.variable").out.splitlines()
    assert [line.split(" = ")[0] for line in lines[::2]] == [
        "clean.variables", "clean.variable_radius_arcsec", "clean.variable_action",
    ]  # fmt: skip


def test_doctor_says_ok_for_an_embedded_project(gotorb: Call) -> None:
    said = gotorb("doctor")
    assert said.code == 0
    lines = said.out.splitlines()
    assert [line.split(":")[0].split("  ")[0] for line in lines] == ["ok"] * 8
    assert "embedded survey is used" in said.out
    assert "mlruns/mlflow.db answers" in said.out


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("variable", "value", "check", "cure"),
    [
        ("GOTOPHOTO_DB_HOST", "127.0.0.1", "database", "GOTOPHOTO_DB_PORT in .env"),
        ("CATSHTM_DIR", "/nowhere", "galaxies", "CATSHTM_DIR"),
        ("GOTORB_MPC_CATALOGUE", "/nowhere.csv", "minor planets", "correct GOTORB_MPC_CATALOGUE in .env"),
        ("GOTORB_OBSERVATORY", "La Palma", "minor planets", "give three numbers"),
        ("MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "tracking", "check MLFLOW_TRACKING_URI in .env"),
    ],
)
def test_doctor_names_what_is_wrong_and_the_cure(
    gotorb: Call, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, check: str, cure: str
) -> None:
    monkeypatch.setenv("GOTOPHOTO_DB_NAME", "gotophoto")
    monkeypatch.setenv("GOTOPHOTO_DB_PORT", "1")
    monkeypatch.setenv(variable, value)
    said = gotorb("doctor")
    assert said.code == 1
    (line,) = (line for line in said.out.splitlines() if line.startswith("FAIL"))
    assert line.startswith(f"FAIL  {check}: ")
    assert cure in line


@pytest.mark.usefixtures("stored")
def test_doctor_goes_on_after_a_bad_parameter(gotorb: Call, project: Path) -> None:
    (project / layout.PARAMS_YAML).write_text("seed: -1\n")
    said = gotorb("doctor")
    assert said.code == 1
    assert "FAIL  parameters" in said.out
    assert len(said.out.splitlines()) == 8


@pytest.mark.usefixtures("stored")
def test_models_of_a_new_project_are_none(gotorb: Call) -> None:
    said = gotorb("models")
    assert (said.code, said.out) == (0, "") and "no model is registered" in said.err
    said = gotorb("models", "--json")
    assert (said.code, json.loads(said.out)) == (0, [])


@pytest.mark.usefixtures("stored")
def test_models_shows_version_alias_and_md5(gotorb: Call, project: Path) -> None:
    from mlflow import MlflowClient

    from gotorb.tracking.store import open_store

    open_store()
    client = MlflowClient()
    client.create_registered_model("gotorb")
    client.create_model_version("gotorb", str(project), tags={"gotorb.model_md5": "abc"})
    client.create_model_version("gotorb", str(project), tags={"gotorb.model_md5": "def"})
    client.set_registered_model_alias("gotorb", "champion", "2")
    head, *lines = [line.split() for line in gotorb("models").out.splitlines()]
    assert head == ["model", "aliases", "network", "test", "AUC", "date", "data", "md5"]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("models:/gotorb/1", "-", "abc"),
        ("models:/gotorb/2", "champion", "def"),
    ]
    rows = json.loads(gotorb("models", "--json").out)
    assert rows[1].items() >= {"name": "gotorb", "version": "2", "aliases": "champion", "md5": "def"}.items()
    assert set(rows[1]) == {"name", "version", "aliases", "md5", "network", "test_auc", "date", "data_digest"}


def test_label_without_a_database_is_one_line(gotorb: Call) -> None:
    said = gotorb("label", "--n-images", "1", "--provider", "pympc")
    assert said.code == 1
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("gotorb: GOTOPHOTO_DB_NAME is not set in .env")


def test_label_prints_the_folder_it_made(gotorb: Call, tiny_survey: Path, project: Path) -> None:
    from gotorb.simulate.archive import survey_environment

    with survey_environment("embedded", tiny_survey):
        said = gotorb("label", "--n-images", "1", "--provider", "pympc", "--name", "one", "--seed", "3")
    assert said.code == 0
    assert said.out == "one\n"
    assert said.err.splitlines()[-1].startswith("next: gotorb data card one")
    assert (project / "one" / layout.LABELS_CSV).exists()


def test_ui_with_a_server_names_its_address(gotorb: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example.org:5000")
    said = gotorb("ui")
    assert said.code == 1
    assert "server http://tracking.example.org:5000; open that address" in said.err


def test_ui_becomes_the_server_of_the_projects_store(
    gotorb: Call, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *words: calls.append(words))
    assert gotorb("ui", "--port", "5999").out.startswith("http://127.0.0.1:5999/#/experiments")
    ((program, words, environment),) = calls
    assert (program, words[:4]) == (sys.executable, [sys.executable, "-m", "mlflow", "server"])
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert options["--host"] == "127.0.0.1" and options["--port"] == "5999"
    assert options["--backend-store-uri"] == f"sqlite:///{project / 'mlruns' / 'mlflow.db'}"
    assert (project / "mlruns" / "mlflow.db").exists()
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


@pytest.mark.slow
def test_ui_serves_the_projects_runs(project: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gotorb", "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          start_new_session=True) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith(f"http://127.0.0.1:{port}/#/experiments")
            assert wait_for(f"http://127.0.0.1:{port}/health") == "OK"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    assert (project / "mlruns" / "mlflow.db").exists()


def wait_for(address: str) -> str:
    """Text of a page as soon as its server answers."""
    ends = time.monotonic() + UI_SECONDS
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.3)


def test_dvc_stages_find_this_python_without_an_activated_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    stage = "python -c \"import sys, pathlib; pathlib.Path('out').write_text(sys.prefix)\""
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"one": {"cmd": stage, "outs": ["out"]}}}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert gotorb_main(["dvc", "repro", "--quiet"]) == 0
    assert (tmp_path / "out").read_text() == sys.prefix
