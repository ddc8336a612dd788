"""Out-of-fold scores of an archive's rows by hard and by soft labels, next to other classifiers' on the same rows.

Run it after `make repro SOURCE=archive DATA=folder`, whose data set has soft labels. Each way is trained with several
seeds. With ``--eyes`` the rows that annotators agreed on are a table of their own; these labels are never learned from.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from gotorb import classifier
from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.logs import show_on_console
from gotorb.core.params import Params, read_params
from gotorb.dataset.store import read_table, write_table
from gotorb.errors import DataError, GotorbError
from gotorb.evaluation.external_classifiers import (
    PREFIX,
    compare_scores,
    format_tables,
    measure_spread,
    read_annotations,
)
from pipelines.external_classifiers import describe_labellers

SOFT = [layout.PROBABILITY_COLUMN, layout.WEIGHT_COLUMN]
Scores = Mapping[str, list[pd.Series]]


def main() -> int:
    """Write reports/<archive>_labels.json and .md."""
    parser = argparse.ArgumentParser(prog="python -m studies.archive_labels", description=__doc__)
    parser.add_argument("--archive", required=True, help="folder under sources/")
    parser.add_argument("--models", nargs="+", default=["measured", "fusion"])
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each way")
    parser.add_argument("--eyes", type=Path, help="csv with the columns candid and agreed (1 real, 0 bogus, or empty)")
    args = parser.parse_args()
    show_on_console()
    here = Path(layout.SOURCES_DIR, args.archive)
    try:
        params, table = read_params(here / layout.PARAMS_YAML), read_table(here / "data/dataset").set_index("id")
        if SOFT[0] not in table:
            raise DataError(f"{here / 'data/dataset'} has no soft labels; set dataset.soft_scores in its params.yaml")
        ways = score_ways(here / "data/dataset", params, args.models, args.seeds)
        labels = {f"labels of the archive ({params.label.archive.proxy_column})": table["label"].astype(int)}
        if args.eyes:
            labels["rows that annotators agreed on"] = read_annotations(args.eyes, table)
        tables = {name: compare(table, known, ways) for name, known in labels.items()}
    except GotorbError as error:
        print(f"studies.archive_labels: {error}", file=sys.stderr)
        return 1
    spread = {
        name: {way: measure_spread(known, [one.reindex(table.index) for one in scores]) for way, scores in ways.items()}
        for name, known in labels.items()
    }
    write_json(f"reports/{args.archive}_labels.json", {"tables": tables, "spread over seeds": spread})
    title, learned = f"Hard and soft labels of {args.archive}", describe_labellers(params)
    page = format_tables(tables, title=title, spread=spread, labellers=learned)
    write_text(f"reports/{args.archive}_labels.md", page)
    return 0


def score_ways(data_dir: Path, params: Params, models: Iterable[str], n_seeds: int) -> dict[str, list[pd.Series]]:
    """Out-of-fold scores of all rows by each model, with and without the soft labels."""
    found = {}
    with TemporaryDirectory() as folder:
        hard = Path(folder)
        layout.stamps_path(hard).symlink_to(layout.stamps_path(data_dir).resolve())
        write_table(hard, read_table(data_dir).drop(columns=SOFT))
        for model in models:
            for name, source in (("hard", hard), ("soft", data_dir)):
                found[f"{model}, {name} labels"] = [
                    classifier.score_out_of_fold(source, model, params, n_before=seed, undecided=True)
                    for seed in range(n_seeds)
                ]
    return found


def compare(table: pd.DataFrame, labels: pd.Series, ways: Scores) -> dict[str, dict[str, Any]]:
    """Table of the best-known way (the last), the first training of each way, and the other classifiers."""
    others = {name: scores[0].reindex(table.index).to_numpy(float) for name, scores in list(ways.items())[:-1]}
    others |= {name.removeprefix(PREFIX): table[name].to_numpy(float) for name in table if name.startswith(PREFIX)}
    ours = list(ways.values())[-1][0].reindex(table.index)
    return compare_scores(labels.to_numpy(int), ours.to_numpy(float), others, rows=table)


if __name__ == "__main__":
    sys.exit(main())
