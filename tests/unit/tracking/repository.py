"""A small project under git and DVC: a data set and two models, made by stages that copy them."""

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from gotorb.core import layout
from tests.unit.tracking.tiny import make_data, write_model

NETWORKS = ("bayesian_vgg6", "vgg6")
STAGES = {
    "dataset": {
        "cmd": "mkdir -p data/dataset && cp made/data/* data/dataset/", "deps": ["made/data"],
        "outs": ["data/dataset/data_labels.csv", "data/dataset/data_stamps.h5", "data/dataset/card.json"],
    },
    "train": {
        "foreach": list(NETWORKS),
        "do": {
            "cmd": "mkdir -p models/${item} && cp made/models/${item}/model.h5 models/${item}/",
            "deps": ["made/models/${item}", "data/dataset/data_stamps.h5"], "outs": ["models/${item}/model.h5"],
        },
    },
}  # fmt: skip


class Repository:
    """A repository in a folder of its own; DVC is run by this python."""

    def __init__(self, root: Path, python: Path = Path(sys.executable)) -> None:
        self.root, self.python = root, python

    @classmethod
    def new(cls, root: Path, python: Path = Path(sys.executable)) -> "Repository":
        """With a data set and models, made and committed under the tag ``v1``."""
        repository = cls(root, python)
        root.mkdir(parents=True)
        repository.git("init", "--quiet")
        repository.dvc("init", "--quiet")
        (root / layout.PARAMS_YAML).write_text(yaml.safe_dump({"seed": 1, "train": {"models": list(NETWORKS)}}))
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
        (root / ".gitignore").write_text(
            "/made\n/data\n/models\n/mlruns\n/.gotorb\n.env\n__pycache__\n.dvc/config.local\n"
        )
        repository.make(seed=5)
        repository.commit("v1")
        return repository

    def make(self, *, seed: int) -> None:
        """Make data and models, and the reports of them."""
        from gotorb.core.files import write_json
        from gotorb.dataset.card import make_card

        shutil.rmtree(self.root / "made", ignore_errors=True)
        data_dir = make_data(self.root / "made" / "data", seed=seed)
        card = make_card(data_dir)
        write_json(data_dir / layout.CARD_JSON, card)
        reports = self.root / "reports"
        reports.mkdir(exist_ok=True)
        for number, name in enumerate(NETWORKS):
            write_model(self.root / "made" / "models", name, data_dir, side=1 + 2 * number + 2 * (seed % 2))
            write_json(reports / f"{name}.json", {"auc": 0.9 + number / 100, "validation": {"auc": 0.8}})
        write_json(reports / "promotion.json", {"model": NETWORKS[seed % 2], "data_digest": card["digest"]})
        self.dvc("repro", "--quiet")

    def run(self, *command: str) -> str:
        """Run a command that must succeed, and return its output."""
        who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"] if command[0] == "git" else []
        words = [command[0], *who, *command[1:]]
        done = subprocess.run(words, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def git(self, *words: str) -> str:
        return self.run("git", *words)

    def dvc(self, *words: str) -> str:
        return self.run(str(self.python), "-m", "dvc", *words)

    def commit(self, tag: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", tag)
        self.git("tag", tag)

    def copy(self, root: Path) -> "Repository":
        """All of it in another folder: data, cache and store too."""
        shutil.copytree(self.root, root, symlinks=True)
        return Repository(root, self.python)

    def clone(self, root: Path) -> "Repository":
        """A fresh clone: no data, no store, no remote."""
        subprocess.run(["git", "clone", "--quiet", str(self.root), str(root)], check=True)
        return Repository(root, self.python)

    def lock(self, path: str) -> str:
        """md5 of an output."""
        stages = yaml.safe_load((self.root / "dvc.lock").read_text())["stages"].values()
        return next(out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path)
