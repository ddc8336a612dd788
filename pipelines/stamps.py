"""Stage ``label`` of ready-made stamps: labels by rules on the source's own columns."""

import sys
from pathlib import Path

from gotorb import import_data
from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write the labelled data set data/label from the folder named on the command line."""
    params = read_params()
    used, about = {"source": sys.argv[1], "archive": params.label.archive.model_dump()}, "Labels of ready-made stamps."
    with track_stage("label", params, used=used, about=about) as run:
        data_dir = import_data.import_stamps(sys.argv[1], params.label.archive, out_dir=Path("data"), name="label")
        run.log_data(data_dir, make_card(data_dir), context="labels")


if __name__ == "__main__":
    run_stage(main)
