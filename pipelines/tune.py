"""Stage ``tune``: search the hyperparameters of bayesian_vgg6."""

from pathlib import Path

from gotorb.core.params import read_params
from gotorb.dataset.card import make_card
from gotorb.hyperparameter_tuning import run_model_tuning
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

SHARED = {"layers", "batch_size", "patience", "crop", "normalise", "threads"}
"""What trials have from the section train."""


def main() -> None:
    """Write tuning/trials.csv, best.json and trials.png; every trial is a nested run."""
    params, data_dir, out_dir = read_params(), Path("data/dataset"), Path("tuning")
    options = params.tune.model_dump() | params.train.model_dump(include=SHARED) | {"seed": params.seed}
    about = "Search of the hyperparameters of bayesian_vgg6; each trial is a nested run, the best is marked."
    with track_stage("tune", params, used=options, about=about) as run:
        run.log_data(data_dir, make_card(data_dir), context="training")
        tuning = run_model_tuning(data_dir, out_dir=out_dir, on_trial=run.log_trial, **options)
        run.log_json(tuning.best, "best.json")
        run.log_best(tuning.best)
        run.log_plots([out_dir / "trials.png"])


if __name__ == "__main__":
    run_stage(main)
