"""Stage ``out_of_fold``: scores of every row by trainings that never saw it, for the choice and the comparison."""

from functools import partial
from pathlib import Path

import pandas as pd

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.executor import Executor, Workers
from gotorb.core.files import write_csv
from gotorb.core.params import Params, read_params
from gotorb.errors import DataError
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
        with Executor(Workers(N_PROCESSES, chunk=1)) as executor:
            parts = executor.map(score, range(params.peers.n_seeds), crashed=refuse, title="out of fold", unit="seed")
        write_csv(Path(layout.OUT_OF_FOLD_CSV), pd.concat(parts), float_format="%.6f")


def score_seed(seed: int, *, data_dir: Path, params: Params) -> pd.DataFrame:
    """Scores of one seed."""
    return classifier.score_models_out_of_fold(data_dir, params.judged_models, params, n_before=seed)


def refuse(seed: int) -> pd.DataFrame:
    """End the stage: a missing seed would change the spread."""
    raise DataError(f"the process of seed {seed} died twice, perhaps out of memory; close other programs and repeat")


if __name__ == "__main__":
    run_stage(main)
