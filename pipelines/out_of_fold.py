"""Stage ``out_of_fold``: scores of every row by trainings that never saw it, for the choice and the comparison."""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.core.params import Params, read_params
from gotorb.tracking.runs import track_stage
from pipelines import run_stage

N_PROCESSES = 3
"""Seeds at a time."""


def main() -> None:
    """Write evaluations/out_of_fold.csv."""
    params, data_dir = read_params(), Path("data/dataset")
    used = params.peers.model_dump(include={"n_folds", "n_seeds"}) | {"models": params.judged_models}
    about = "Scores of every row by trainings that never saw it."
    with track_stage("out_of_fold", params, used=used, about=about, experiment="-evaluation"):
        score = partial(score_seed, data_dir=data_dir, params=params)
        with ProcessPoolExecutor(N_PROCESSES, get_context("spawn")) as pool:
            scores = pd.concat(list(pool.map(score, range(params.peers.n_seeds))))
        write_csv(Path(layout.OUT_OF_FOLD_CSV), scores, float_format="%.6f")


def score_seed(seed: int, *, data_dir: Path, params: Params) -> pd.DataFrame:
    """Scores of one seed."""
    return classifier.score_models_out_of_fold(data_dir, params.judged_models, params, n_before=seed)


if __name__ == "__main__":
    run_stage(main)
