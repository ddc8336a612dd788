"""Stage ``dataset``: divide a data set without leaks and write its card."""

import sys
from pathlib import Path

from gotorb.core.params import read_params
from gotorb.dataset.versions import make_version
from gotorb.labels.soft import find_softener
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write data/dataset from the data set named on the command line."""
    params = read_params()
    used, about = params.dataset.model_dump(), "Rows divided into train, validation and test without leaks."
    with track_stage("dataset", params, used=used, about=about) as run:
        data_dir = Path("data/dataset")
        source_dir = Path(sys.argv[1])
        soften = find_softener(source_dir, params.dataset.soft_scores, params.dataset.soft_method)
        card = make_version(source_dir, data_dir, params.dataset, seed=params.seed, soften=soften)
        run.log_metrics(card)
        run.log_data(data_dir, card, context="data set")


if __name__ == "__main__":
    run_stage(main)
