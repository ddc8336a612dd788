"""The whole story of a model: made, tagged, changed, promoted, refused, rolled back, drawn again, and had elsewhere."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from gotorb.core import layout
from tests.end_to_end.clones import MODEL, Project, change_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test makes the small project

CHANGES = {
    "label": {"extra_bogus_per_image": 6}, "train": {"epochs": 4}, "evaluate": {"models": [MODEL]},
}  # fmt: skip
LEFT_OUT = ("tune", "retrain", "truth", "injections")
"""Stages that the second version does without."""
MODELS = (MODEL, "tuned")
STAGES = ("evaluate", "train")
TAG = "dataset-v1"
FIGURE = "fnr-fpr"
GATE = ("--to", "production", "--max-ece", "1", "--max-changed", "1", "--alpha", "0.000001")
"""Models of so few epochs are not calibrated, and equal within chance."""
DAMAGE = """
from pathlib import Path
from gotorb.core.params import read_params
from gotorb.tracking.registry import load_registered, register
from gotorb.tracking.runs import md5, track_stage
from gotorb.training.model_files import write_model
model, known = load_registered("models:/gotorb@champion")
last = [layer for layer in model.layers if layer.get_weights()][-1]
kernel, bias = last.get_weights()
last.set_weights([0 * kernel, bias * 0 + 9])
Path("damaged").mkdir()
path = write_model(Path("damaged/model.h5"), model)
with track_stage("train", read_params()) as run:
    run.log_model(path, tags={})
print(register("gotorb", run.run_id, md5(path), {name: known.tags[name] for name in ("layers", "threshold")}).uri)
"""
"""Calls every row real: right for each minor planet, wrong for all random bogus."""


class Story(NamedTuple):
    """The project after two versions, its remote, what tagging the first said, and its figure as it was drawn then."""

    project: Project
    store: Path
    tagged: str
    figure: bytes
    first_auc: float


def auc(project: Project) -> float:
    return float(json.loads((project.root / "reports" / f"{MODEL}.json").read_text())["auc"])


def repro(project: Project) -> None:
    done = project.repro()
    assert done.returncode == 0, done.stdout + done.stderr


def draw(project: Project, out_dir: Path, *words: str) -> bytes:
    project.gotorb("figure", FIGURE, "--out", str(out_dir), *words)
    return (out_dir / f"{FIGURE}.csv").read_bytes()


def drop_stages(root: Path) -> None:
    """Leave stages out of dvc.yaml, and what they made out of dvc.lock."""
    for name, gone in (("dvc.yaml", LEFT_OUT), ("dvc.lock", (*LEFT_OUT, "evaluate@tuned"))):
        tree = yaml.safe_load((root / name).read_text())
        tree["stages"] = {stage: body for stage, body in tree["stages"].items() if stage not in gone}
        (root / name).write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture(scope="module")
def story(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Repro, commit, tag; other data and parameters, repro, commit."""
    folder = tmp_path_factory.mktemp("story")
    project, store = finished.copy(folder / "gotorb"), folder / "store"
    (project.root / ".env").write_text(f"DVC_REMOTE_URL={store}\n")
    tagged = project.gotorb("data", "tag", TAG).stdout
    figure, first = draw(project, folder / "then"), auc(project)
    change_params(project.root, CHANGES)
    drop_stages(project.root)
    repro(project)
    project.commit("second")
    project.gotorb("dvc", "push", "--quiet")
    return Story(project, store, tagged, figure, first)


def test_two_versions_differ_in_data_and_model(story: Story) -> None:
    locks = [
        yaml.safe_load(story.project.git("show", f"{rev}:dvc.lock"))["stages"] for rev in (TAG, "HEAD")
    ]  # fmt: skip
    for stage in ("dataset", f"train@{MODEL}"):
        old, new = ({out["path"]: out["md5"] for out in lock[stage]["outs"]} for lock in locks)
        assert old.keys() == new.keys() and not set(old.values()) & set(new.values())
    assert locks[0]["survey"] == locks[1]["survey"]
    assert auc(story.project) != story.first_auc


def test_runs_of_the_tag_are_marked_and_only_these(story: Story) -> None:
    runs = story.project.runs()
    marked = [run.info.run_name for run in runs if run.data.tags.get("gotorb.version") == TAG]
    assert {"dataset", *(f"{stage} {name}" for stage in STAGES for name in MODELS)} <= set(marked)
    assert len(set(marked)) == len(marked) and f" {len(marked)} runs are marked" in story.tagged
    assert len([run for run in runs if run.info.run_name == f"train {MODEL}"]) == 2


def test_promotion_is_refused_once_accepted_once_and_taken_back(story: Story) -> None:
    project = story.project
    second_is_better = json.loads((project.root / layout.PROMOTION_JSON).read_text())["champion"]
    worse, better = ("1", "2") if second_is_better else ("2", "1")
    project.gotorb("promote", f"models:/gotorb/{worse}", *GATE, "--reason", "the first")
    project.gotorb("promote", f"models:/gotorb/{better}", *GATE, "--reason", "better")
    made = project.run("python", "-c", DAMAGE)
    assert made.returncode == 0, made.stderr
    refused = project.gotorb("promote", made.stdout.split()[-1], *GATE, "--reason", "a try", code=1)
    lines = [line for line in refused.stdout.splitlines() if line.startswith("REFUSED")]
    assert any("metalabel randjunk: " in line for line in lines)
    assert not any("metalabel mp: " in line for line in lines)
    assert "metalabel randjunk" in refused.stderr
    told = project.gotorb("rollback", "gotorb", "--reason", "changed my mind")
    assert told.stdout.startswith(f"gotorb/{worse} ") and f"gotorb/{better}" in told.stdout
    promotions = [run for run in project.runs() if "gotorb.promotion.reason" in run.data.tags]
    assert [run.data.tags["gotorb.promotion.promoted"] for run in promotions] == ["true", "true", "false", "true"]
    assert project.git("status", "--porcelain", "--untracked-files=no") == ""


def test_figure_of_the_tag_has_the_same_numbers_as_then_and_touches_nothing(story: Story, tmp_path: Path) -> None:
    before = story.project.git("status", "--porcelain"), story.project.git("rev-parse", "HEAD")
    assert draw(story.project, tmp_path / "one", "--rev", TAG) == story.figure
    assert (story.project.git("status", "--porcelain"), story.project.git("rev-parse", "HEAD")) == before
    origin = json.loads((tmp_path / "one" / f"{FIGURE}.json").read_text())
    assert origin["registered"] == "gotorb/1"
    assert draw(story.project, tmp_path / "now") != story.figure


def test_elsewhere_the_same_metrics_without_training(story: Story, tmp_path: Path) -> None:
    root = tmp_path / "gotorb"
    subprocess.run(["git", "clone", "--quiet", str(story.project.root), str(root)], check=True)
    (root / ".env").write_text(f"DVC_REMOTE_URL={story.store}\n")
    clone = Project(root, story.project.environment | {"PYTHONPATH": str(root)})
    clone.gotorb("dvc", "pull", "--quiet", "dvc.yaml")  # studies have a dvc.yaml of their own, and were not pushed
    made = clone.gotorb("runs", "import", "--all-tags", "HEAD").stdout.splitlines()
    known = {"HEAD": (MODEL,), TAG: MODELS}
    expected = [f"{stage} {name} ({rev})" for rev, names in known.items() for name in names for stage in STAGES]
    assert sorted(made) == sorted(expected)
    done = clone.dvc("repro", "--force", "--single-item", f"evaluate@{MODEL}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert clone.git("status", "--porcelain") == ""  # the report is tracked by git, its plots by dvc.lock
    assert auc(clone) == auc(story.project)
    names = [run.info.run_name for run in clone.runs()]
    assert names.count(f"train {MODEL}") == 2 and names.count(f"evaluate {MODEL}") == 3
    assert "every file is what dvc.lock says" in clone.gotorb("verify").stdout
