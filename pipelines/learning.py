"""Stage ``learning``: what choosing labels gains over random choice; stamps are cut smaller, to train many times."""

from pathlib import Path

from gotorb.active_learning import learning_curves
from gotorb.dataset.adapt import adapt_dataset
from gotorb.params import read_params
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

SIZE = 31
"""Pixels of a side: the source and its surroundings, a third of the work of 55."""


def main() -> None:
    """Write reports/active_learning.json and the curves beside it."""
    params = read_params()
    with track_stage("learning", params, experiment="-evaluation") as run:
        small = adapt_dataset("data/dataset", Path("data/small"), size=SIZE, layers=params.train.layers)
        report = learning_curves(
            small, out_path="reports/active_learning.json", layers=params.train.layers, threads=params.train.threads
        )
        run.log_json(report, "active_learning.json")


if __name__ == "__main__":
    run_stage(main)
