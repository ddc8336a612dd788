"""Stage ``learning``: gain of choosing labels over random choice; stamps are cut smaller, to train many times."""

from pathlib import Path

from gotorb.classifier.active_learning import learning_curves
from gotorb.core.params import read_params
from gotorb.tracking.runs import track_stage
from pipelines import run_stage
from studies.adapt import adapt_dataset

REPORT = Path("reports/active_learning.json")
SIZE = 31
"""Pixels of a side: the source and its surroundings, a third of the work of 55."""
N_POOL = 6_000
"""Rows of which BALD samples the posterior in each of the rounds."""


def main() -> None:
    """Write reports/active_learning.json and a figure of the curves."""
    params = read_params()
    with track_stage("learning", params, experiment="-evaluation") as run:
        small = adapt_dataset("data/dataset", Path("data/small"), size=SIZE, layers=params.train.layers)
        report = learning_curves(
            small, out_path=REPORT, layers=params.train.layers, threads=1, n_pool=N_POOL, restart=True
        )  # one thread: the curves are the same whatever train.threads says
        run.log_json(report, "active_learning.json")


if __name__ == "__main__":
    run_stage(main)
