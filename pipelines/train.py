"""Stage ``train``: train the network named on the command line."""

import sys
from pathlib import Path
from typing import Any

from gotorb.classifier import training
from gotorb.core import layout
from gotorb.core.params import Params, read_params
from gotorb.dataset.card import make_card
from gotorb.models import ON_FEATURES
from gotorb.tracking.runs import track_stage
from gotorb.tracking.trainings import log_training
from pipelines import run_stage


def main() -> None:
    """Write models/<name>/model.h5 and meta.hkl."""
    params, name = read_params(), sys.argv[1]
    train_model(params, name, params.train.model_dump(exclude={"models"}) | {"model": name})


def train_model(params: Params, name: str, options: dict[str, Any]) -> None:
    """Train and track one model."""
    data_dir, out_dir = Path("data/dataset"), Path("models")
    options = options | {"seed": params.train.seed or params.seed, "threshold_fpr": params.evaluate.threshold_fpr}
    unused = () if options["model"] in ON_FEATURES else ("n_trees", "network", "orientations", "network_weight")
    used = {name: value for name, value in options.items() if name not in unused}
    about = f"Training of {name}: the network {options['model']} on {data_dir}."
    with track_stage("train", params, name=f"train {name}", used=used, about=about) as run:
        run.log_data(data_dir, make_card(data_dir), context="training")
        _, meta = training.train(data_dir, out_dir=out_dir, name=name, on_epoch=run.log_epoch, **options)
        log_training(run, out_dir / name / layout.MODEL_H5, meta, network=name)


if __name__ == "__main__":
    run_stage(main)
