"""`make repro SOURCE=...`: a folder of its own for each source, no tracked file changed, mistakes told in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from gotorb.core import layout
from gotorb.core.params import Params
from gotorb.errors import ConfigError
from pipelines import repro

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: Path) -> Path:
    """A project's folder with its two yaml files under git; DVC is a fork of the waiting python."""
    monkeypatch.setattr(sys, "executable", str(warm_python))
    here = tmp_path / "project"
    here.mkdir()
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        (here / name).write_bytes((PROJECT / name).read_bytes())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "x"]):
        subprocess.run([*git, *command], cwd=here, check=True)
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "my ztf"
    folder.mkdir()
    return folder


def test_a_source_runs_in_a_folder_of_its_own(project: Path, data: Path) -> None:
    here = repro.make_workspace("archive", data)
    assert here == Path("sources", "my ztf")
    params = Params.model_validate(yaml.safe_load((here / "params.yaml").read_text()))
    assert (params.promote.name, params.label.source) == ("gotorb-my ztf", "archive")
    assert params.train.layers == ("science", "template", "difference")
    assert params.judged_models == params.train.models  # nothing is tuned on so few stamps
    status = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_the_stages_of_a_source_hang_together(project: Path, data: Path) -> None:
    here = repro.make_workspace("archive", data)
    stages = yaml.safe_load((here / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {
        "label", "dataset", "train", "evaluate", "out_of_fold", "promote", "external_classifiers",
    }  # fmt: skip
    assert stages["out_of_fold"]["outs"] == [layout.OUT_OF_FOLD_CSV]
    assert layout.OUT_OF_FOLD_CSV in stages["promote"]["deps"] and "outs" in stages["promote"]
    assert stages["external_classifiers"]["cmd"] == f"python -m pipelines.external_classifiers '{data}'"
    assert all(str(data) not in stages[name]["deps"] for name in ("dataset", "out_of_fold", "promote"))
    assert stages["label"]["cmd"] == f"python -m pipelines.stamps '{data}'" and str(data) in stages["label"]["deps"]
    bodies = [stage.get("do", stage) for stage in stages.values()]
    code = [dep for body in bodies for dep in body["deps"] if dep.startswith("..")]
    assert code and all((PROJECT / dep.removeprefix("../../")).exists() for dep in code)
    assert not any(dep.startswith(("data/survey", "data/synthetic")) for body in bodies for dep in body["deps"])


def test_own_survey_is_named_by_its_adapter(project: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "mysurvey.py"
    adapter.write_text("")
    here = repro.make_workspace("own", adapter)
    assert here == Path("sources", "mysurvey")
    params = Params.model_validate(yaml.safe_load((here / "params.yaml").read_text()))
    assert (params.label.source, params.label.adapter) == ("own", str(adapter))
    stages = yaml.safe_load((here / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {
        "label", "synthetic", "clean", "dataset", "train", "tune", "retrain", "evaluate", "promote",
    }  # fmt: skip
    assert str(adapter) in stages["label"]["deps"] and "data/survey" not in stages["label"]["deps"]


def test_own_survey_without_data_takes_the_adapter_of_env(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "mine.py").write_text("")
    monkeypatch.setenv("GOTORB_ADAPTER", "mine.py")
    here = repro.make_workspace("own", None)
    params = Params.model_validate(yaml.safe_load((here / "params.yaml").read_text()))
    assert (here.name, params.label.adapter) == ("mine", str(project / "mine.py"))


def test_a_second_call_changes_nothing(project: Path, data: Path) -> None:
    here = repro.make_workspace("packets", data)
    before = {path: path.stat().st_mtime_ns for path in here.glob("*.yaml")}
    assert repro.make_workspace("packets", data) == here
    assert {path: path.stat().st_mtime_ns for path in here.glob("*.yaml")} == before and len(before) == 2


def test_gotophoto_needs_no_data(project: Path) -> None:
    here = repro.make_workspace("gotophoto", None)
    params = yaml.safe_load((here / "params.yaml").read_text())
    assert (params["label"]["source"], params["promote"]["name"]) == ("gotophoto", "gotorb-gotophoto")


@pytest.mark.parametrize(
    ("source", "folder", "says"),
    [
        ("ztf", ".", "unknown SOURCE=ztf; choose one of embedded, gotophoto, own, archive, large, packets"),
        ("archive", None, "no DATA= for SOURCE=archive"),
        ("packets", "absent", "no DATA=absent for SOURCE=packets"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    source: str, folder: str | None, says: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["repro", "--source", source, *(["--data", folder] if folder else [])])
    assert repro.main() == 1
    told = capsys.readouterr().err.strip()
    assert says in told and "\n" not in told
    assert not (project / "sources").exists()


def test_a_broken_params_yaml_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "params.yaml").write_text("seed: 1\nlabels: {}\n")
    monkeypatch.setattr(sys, "argv", ["repro"])
    assert repro.main() == 1
    assert "unknown parameter 'labels'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["it's", 'a"b', "$(x)", "a:b"])
def test_a_folder_whose_name_a_shell_would_read_otherwise_is_refused(project: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="folder"):
        repro.make_workspace("archive", tmp_path / name)


def test_committed_study_is_the_one_that_the_project_makes(project: Path) -> None:
    here = repro.make_workspace("large", None)
    assert here == Path("studies/large")
    for name in ("dvc.yaml", "params.yaml"):
        assert yaml.safe_load((here / name).read_text()) == yaml.safe_load((PROJECT / here / name).read_text()), name


def test_study_learns_from_one_survey_and_is_evaluated_on_another(project: Path) -> None:
    here = repro.make_workspace("large", None)
    stages = yaml.safe_load((here / "dvc.yaml").read_text())["stages"]
    assert not {"truth", "promote", "tune", "retrain"} & set(stages)
    assert "data/other/survey" not in " ".join(stages["label"]["deps"] + stages["dataset"]["deps"])
    assert {"data/other/detections", "data/other/injected"} <= set(stages["other_fields"]["deps"])


def record_dvc(monkeypatch: pytest.MonkeyPatch, code: Callable[[list[str]], int]) -> list[list[list[str]]]:
    """Let DVC's commands end with the given exit codes; the list fills with those that ran at the same time."""
    ran: list[list[list[str]]] = []

    def run(here: Path, commands: list[list[str]]) -> int:
        ran.append(commands)
        return max(code(words) for words in commands)

    monkeypatch.setattr(repro, "_run_dvc", run)
    return ran


def test_stages_with_work_to_do_run_two_at_a_time(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_dvc(monkeypatch, lambda words: int(words[0] == "status"))
    assert repro.run_stages(project) == 0
    single = ["repro", "--single-item"]
    assert ran == [
        [["status", "--quiet"]],
        [["repro", "dataset"]],
        [[*single, "tune", "retrain", "evaluate@tuned"], [*single, "train"]],
        [[*single, "truth", "injections"], [*single, "evaluate"]],
        [["repro"]],
    ]


def test_without_work_dvc_only_confirms_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_dvc(monkeypatch, lambda words: 0)
    assert repro.run_stages(project) == 0
    assert ran == [[["status", "--quiet"]], [["repro"]]]


def test_a_stage_that_fails_ends_the_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = record_dvc(monkeypatch, lambda words: 1 if words[0] == "status" else 255 if "retrain" in words else 0)
    assert repro.run_stages(project) == 255
    assert "retrain" in ran[-1][0]


def test_a_source_without_some_stages_leaves_them_out(
    project: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = repro.make_workspace("archive", data)
    ran = record_dvc(monkeypatch, lambda words: int(words[0] == "status"))
    assert repro.run_stages(here) == 0
    models = yaml.safe_load((here / "params.yaml").read_text())["evaluate"]["models"]
    single = ["repro", "--single-item"]
    first = [[*single, "train"], [*single, "out_of_fold"]]
    assert ran[2:4] == [first, [[*single, f"evaluate@{model}"] for model in models]]


def test_lines_of_stages_that_run_together_name_their_stages(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    repro.set_up_dvc(project)
    stages = {name: {"cmd": f"echo said by {name}"} for name in ("train", "tune")}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages | {"promote": {"cmd": "exit 3"}}}))
    single = ["repro", "--single-item"]
    assert repro._run_dvc(project, [[*single, "train"], [*single, "tune", "promote"]]) != 0
    lines = capfd.readouterr().out.splitlines()
    assert {"train                  | said by train", "tune/promote           | said by tune"} <= set(lines)
