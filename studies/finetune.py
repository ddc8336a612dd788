"""Gain of fine-tuning on an archive of few stamps: trained on it alone, and starting from the embedded survey.

Run it after `make repro` and `make repro SOURCE=archive DATA=folder`. The parent learns from the project's own data
set (or another one, with --parent), cut and lit like the archive's stamps; both ways then score every labelled row of
the archive by trainings that have not seen it, with the archive's own recipe.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.logs import show_on_console
from gotorb.core.params import Params, read_params
from gotorb.dataset.store import open_dataset, read_table
from gotorb.errors import DataError, GotorbError
from gotorb.evaluation.external_classifiers import Table, compare_with_external, format_tables
from studies.adapt import adapt_dataset

NETWORK = "bayesian_vgg6"
SKY = (3.0, 40.0)
"""Sky levels given to the parent's stamps, in units of their noise: those of images of a minute or less."""
PARENT = {"epochs": 12, "batch_size": 64}
CHILD = {"learning_rate": 5e-4, "epochs": 15}
"""Fewer and smaller steps than from random weights, so that what the parent knows is not lost."""

N_TRAININGS = (1, 3)
"""One training, and the mean of three: part of what few rows leave to chance is averaged away."""


def main() -> int:
    """Write reports/<archive>_finetune.json and .md."""
    parser = argparse.ArgumentParser(prog="make finetune", description=__doc__)
    parser.add_argument("--archive", required=True, help="folder under sources/")
    parser.add_argument(
        "--parent", type=Path, default=Path("data/dataset"), help="data set that the parent learns from"
    )
    args = parser.parse_args()
    show_on_console()
    here = Path(layout.SOURCES_DIR, args.archive)
    try:
        params = read_params(here / layout.PARAMS_YAML)
        data = open_dataset(here / "data/dataset")
        parent = train_parent(args.parent, here / "parent", params, size=params.train.crop or data.size)
        ways = {"trained on the archive alone": params, "fine-tuned": fine_tuning(params, parent)}
        scores = {name: score_trainings(data.data_dir, way) for name, way in ways.items()}
        tables = compare_ways(read_table(data.data_dir).set_index("id"), scores, N_TRAININGS)
    except GotorbError as error:
        print(f"make finetune: {error}", file=sys.stderr)
        return 1
    write_json(f"reports/{args.archive}_finetune.json", tables)
    write_text(f"reports/{args.archive}_finetune.md", format_tables(tables, title=f"Fine-tuning on {args.archive}"))
    return 0


def score_trainings(data_dir: Path, params: Params) -> list[pd.Series]:
    """Out-of-fold scores of as many trainings as the longest mean needs.

    Raises
    ------
    DataError
        If a class has fewer than 5 rows for each fold.
    """
    scores = [
        classifier.score_out_of_fold(data_dir, NETWORK, params, n_before=number) for number in range(max(N_TRAININGS))
    ]
    if scores[0].empty:
        raise DataError(f"{data_dir} has too few rows of a class for {params.peers.n_folds} folds; use more data")
    return scores


def compare_ways(
    rows: pd.DataFrame,
    ways: Mapping[str, Sequence[pd.Series]],
    n_trainings: Sequence[int],
) -> dict[str, Table]:
    """Tables of each set-up's out-of-fold scores, by one training and by the mean of several, next to other scores."""
    tables = {}
    for name, trained in ways.items():
        for n in n_trainings:
            shown = name if n == 1 else f"{name}, {n} trainings averaged"
            scores = sum(trained[1:n], trained[0]) / n
            tables[shown] = compare_with_external(rows, scores)
    return tables


def train_parent(source: Path, folder: Path, params: Params, *, size: int) -> Path:
    """Train a model on another survey's data set made like the archive's."""
    like = adapt_dataset(source, folder / "data", size=size, layers=params.train.layers, sky=SKY, seed=params.seed)
    recipe = params.train.model_copy(update=PARENT | {"crop": None}).model_dump(exclude={"models", "seed"})
    classifier.train(like, NETWORK, out_dir=folder, name="model", **recipe | {"seed": params.seed})
    return folder / "model"


def fine_tuning(params: Params, parent: Path) -> Params:
    """The archive's parameters with a training that begins with the parent's weights."""
    return params.model_copy(update={"train": params.train.model_copy(update=CHILD | {"init_from": str(parent)})})


if __name__ == "__main__":
    sys.exit(main())
