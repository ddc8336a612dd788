"""Stage ``retrain``: train the best configuration of the tuning as long as the other networks."""

from pathlib import Path

from gotorb.core import layout
from gotorb.core.params import read_params
from gotorb.hyperparameter_tuning import read_best
from pipelines import run_stage
from pipelines.train import train_model


def main() -> None:
    """Write models/tuned/model.h5 and meta.hkl."""
    params = read_params()
    # its layers have other shapes than any other model's, so it begins with random weights
    recipe = params.train.model_dump(exclude={"models", "init_from", "freeze"})
    train_model(params, layout.TUNED, recipe | read_best(Path("tuning")))


if __name__ == "__main__":
    run_stage(main)
