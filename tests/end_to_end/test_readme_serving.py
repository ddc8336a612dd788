"""Lines of docs/tutorials/versions.md about serving and loading, run as written in a project after `make repro`."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from gotorb.dataset.store import open_dataset
from gotorb.tracking.mlflow_model import COLUMNS
from tests.end_to_end.clones import ROOT, Project
from tests.unit.tracking.test_recording import wait_for

pytestmark = pytest.mark.timeout(1800)  # the first to come makes the small project
PAGE = (ROOT / "docs" / "tutorials" / "versions.md").read_text(encoding="utf-8")
(SERVE,) = re.findall(r"^gotorb serve .*$", PAGE, re.MULTILINE)
(MLFLOW,) = re.findall(r"^gotorb mlflow .*$", PAGE, re.MULTILINE)
(EXPORT,) = re.findall(r"^export MLFLOW_TRACKING_URI=.*$", PAGE, re.MULTILINE)
(LOAD,) = re.findall(r"^python -c .*mlflow\.pyfunc\.load_model.*$", PAGE, re.MULTILINE)
ADDRESS = "http://127.0.0.1:5001"


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with a production model."""
    copy = finished.copy(tmp_path_factory.mktemp("served") / "gotorb")
    copy.gotorb("promote", "models:/gotorb@champion", "--to", "production", "--reason", "first", "--max-ece", "1")
    return copy


@pytest.fixture(scope="module")
def served(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    said = tmp_path_factory.mktemp("said") / "serve.log"
    with said.open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", SERVE], cwd=project.root, env=project.environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or answers())
        assert process.poll() is None, said.read_text()
        yield said.read_text()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers() -> bool:
    try:
        return requests.get(f"{ADDRESS}/ping", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def test_served_model_answers_with_calls_and_its_calibration(project: Project, served: str) -> None:
    assert served.splitlines()[0] == f"{ADDRESS}/invocations"
    (row,) = [one for one in json.loads(project.gotorb("models", "--json").stdout) if "production" in one["aliases"]]
    data = open_dataset(project.root / "data" / "dataset")
    stamps = data.read_stamps(np.arange(4), ["science", "template", "difference", "ptp"])
    answer = requests.post(f"{ADDRESS}/invocations", json={"inputs": stamps.tolist()}, timeout=120)
    assert answer.status_code == 200, answer.text
    rows = answer.json()["predictions"]
    assert len(rows) == 4 and all(tuple(one) == COLUMNS for one in rows)
    for one in rows:
        assert 0 <= one["probability"] <= 1 and one["call"] in ("real", "bogus")
        assert one["call"] == ("real" if one["mean"] >= one["threshold"] else "bogus")
        assert one["std"] >= 0 and 0 <= one["confidence"] <= 1
    wrong = requests.post(f"{ADDRESS}/invocations", json={"inputs": [[1, 2]]}, timeout=120)
    assert wrong.status_code == 400 and len(wrong.text.splitlines()) == 1
    assert row["network"] and row["test_auc"]


def test_server_listens_on_this_machine_alone(served: str) -> None:
    import psutil

    found = [one for one in psutil.net_connections("tcp") if one.laddr.port == 5001 and one.status == "LISTEN"]
    assert {one.laddr.ip for one in found} == {"127.0.0.1"}


def test_mlflows_own_commands_see_the_projects_runs(project: Project) -> None:
    done = project.run("bash", "-c", MLFLOW)
    assert done.returncode == 0, done.stderr
    assert "train tuned" in done.stdout


def test_mlflow_loads_the_model_in_another_folder(project: Project, tmp_path: Path) -> None:
    done = project.run("bash", "-c", f"{EXPORT}\ncd {tmp_path}\n{LOAD}")
    assert done.returncode == 0, done.stderr
    assert "probability" in done.stdout and "stamps" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_stray_store_is_left(project: Project, served: str) -> None:
    assert list(project.root.glob("*.db")) == []
    assert project.git("status", "--porcelain", "--untracked-files=normal") == ""
