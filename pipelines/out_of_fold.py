"""Stage ``out_of_fold``: scores of every row by trainings that never saw it, for the choice and the comparison."""

from pathlib import Path

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.core.params import read_params
from gotorb.tracking.runs import track_stage
from pipelines import run_stage


def main() -> None:
    """Write evaluations/out_of_fold.csv."""
    params, data_dir = read_params(), Path("data/dataset")
    used = params.peers.model_dump(include={"n_folds", "n_seeds"}) | {"models": params.judged_models}
    about = "Scores of every row by trainings that never saw it."
    with track_stage("out_of_fold", params, used=used, about=about, experiment="-evaluation"):
        scores = classifier.repeat_out_of_fold(data_dir, params.judged_models, params)
        write_csv(Path(layout.OUT_OF_FOLD_CSV), scores, float_format="%.6f")


if __name__ == "__main__":
    run_stage(main)
