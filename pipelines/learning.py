"""Stage ``learning``: what choosing labels gains over random choice; stamps are cut smaller, to train many times."""

import json
from pathlib import Path

from gotorb.active_learning import learning_curves
from gotorb.dataset.adapt import adapt_dataset
from gotorb.dataset.card import data_digest
from gotorb.learning_curves import RUNS_SUFFIX
from gotorb.params import read_params
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

REPORT = Path("reports/active_learning.json")
SIZE = 31
"""Pixels of a side: the source and its surroundings, a third of the work of 55."""


def main() -> None:
    """Write reports/active_learning.json and the curves beside it."""
    params = read_params()
    with track_stage("learning", params, experiment="-evaluation") as run:
        small = adapt_dataset("data/dataset", Path("data/small"), size=SIZE, layers=params.train.layers)
        forget_other_data(small)
        report = learning_curves(small, out_path=REPORT, layers=params.train.layers, threads=params.train.threads)
        run.log_json(report, "active_learning.json")


def forget_other_data(data_dir: Path) -> None:
    """Remove what an interrupted run left behind, unless it is of these data and can be gone on with."""
    kept = REPORT.with_suffix(RUNS_SUFFIX)
    if kept.exists() and json.loads(kept.read_text())["identity"]["data_digest"] != data_digest(data_dir):
        kept.unlink()


if __name__ == "__main__":
    run_stage(main)
