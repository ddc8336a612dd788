"""Our classifier beside others whose scores came with the stamps: on the held-out rows, and on all rows in turn."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from gotorb import classifier, layout
from gotorb.dataset.split import link_groups
from gotorb.dataset.store import Dataset, open_dataset, read_table, write_table
from gotorb.errors import DataError
from gotorb.evaluation.peers import compare_peers
from gotorb.params import Params

log = logging.getLogger(__name__)
PREFIX = "peer_"
N_VALIDATION_PARTS = 6
"""One of so many parts of the rows that are not scored decides when a training stops."""
MIN_ROWS_PER_FOLD = 5
"""Fewer rows of a class in a fold tell nothing."""

Table = dict[str, dict[str, Any]]


def judge_peers(evaluations_dir: Path, data_dir: Path, promotion_path: Path, params: Params) -> dict[str, Table]:
    """Compare our scores with every ``peer_`` column, row by row.

    Parameters
    ----------
    evaluations_dir : Path
        Holds a folder with predictions for each model.
    data_dir : Path
        The divided data set.
    promotion_path : Path
        json that names the promoted model.
    params : Params
        How it was trained; ``peers.n_folds`` trainings of the same recipe give each row a score by a network that
        has not seen it, its image, object or place.

    Returns
    -------
    dict
        ``held_out`` for the promoted model on the test rows and, when there are rows enough, ``out_of_fold``;
        see `evaluation.peers.compare_peers`.
    """
    network = json.loads(promotion_path.read_text())["model"]
    predictions = pd.read_csv(evaluations_dir / network / layout.PREDICTIONS_CSV, dtype={"id": str})
    test = predictions[predictions["split"] == "test"]
    ours = {"held_out": pd.Series(test["mean"].fillna(test["score"]).to_numpy(float), index=test["id"].to_numpy(str))}
    out_of_fold = score_out_of_fold(data_dir, network, params)
    if len(out_of_fold):
        ours["out_of_fold"] = out_of_fold
    table = read_table(data_dir).set_index("id")
    return {name: _compare(table.loc[scores.index], scores, params) for name, scores in ours.items()}


def _compare(rows: pd.DataFrame, ours: pd.Series, params: Params) -> Table:
    others = {name.removeprefix(PREFIX): rows[name].to_numpy(float) for name in rows if name.startswith(PREFIX)}
    labels, rng = rows["label"].to_numpy(int), np.random.default_rng(params.seed)
    return compare_peers(labels, ours.to_numpy(), others, n_bootstrap=params.evaluate.n_bootstrap, rng=rng)


def compare_ways(
    data_dir: Path, network: str, ways: Mapping[str, Params], *, n_trainings: Sequence[int] = (1,)
) -> dict[str, Table]:
    """Compare several ways to train with every ``peer_`` column, each row scored out of fold.

    Parameters
    ----------
    data_dir : Path
        The data set.
    network : str
        Which network is trained.
    ways : mapping of str to Params
        Name of a way -> its parameters.
    n_trainings : sequence of int
        How many trainings, alike but for the seed, are averaged; a table for each way and number.

    Raises
    ------
    DataError
        If a class has fewer than 5 rows for each fold.
    """
    table, tables = read_table(data_dir).set_index("id"), {}
    for name, params in ways.items():
        trained = [score_out_of_fold(data_dir, network, params, n_before=number) for number in range(max(n_trainings))]
        if trained[0].empty:
            raise DataError(f"{data_dir} has too few rows of a class for {params.peers.n_folds} folds; use more data")
        for n in n_trainings:
            scores = sum(trained[1:n], trained[0]) / n
            shown = name if n == 1 else f"{name}, {n} trainings averaged"
            tables[shown] = _compare(table.loc[scores.index], scores, params)
    return tables


def score_out_of_fold(data_dir: Path, network: str, params: Params, *, n_before: int = 0) -> pd.Series:
    """Score every labelled row by a network trained without it and all that is linked to it.

    Parameters
    ----------
    data_dir : Path
        A data set; its own division is not used.
    network : str
        Which network of the training recipe.
    params : Params
        ``peers.n_folds``, the recipe ``train``, ``dataset.link_radius_arcsec``, ``evaluate.n_samples``, ``seed``.
    n_before : int
        Number of trainings of the same folds before this one: each has first weights and orders of its own.

    Returns
    -------
    Series
        Scores by id; empty when n_folds is 0 or a class has fewer than 5 rows for each fold.
    """
    data, n_folds = open_dataset(data_dir), params.peers.n_folds
    known = np.flatnonzero(data.labels != layout.UNKNOWN)
    rarest = min(np.sum(data.labels == label) for label in (layout.REAL, layout.BOGUS))
    if n_folds == 0 or rarest < MIN_ROWS_PER_FOLD * n_folds:
        log.info("%d rows of the rarer class are too few for %d folds; held-out rows only", rarest, n_folds)
        return pd.Series(dtype=float)
    groups = link_groups(data.table, link_radius_arcsec=params.dataset.link_radius_arcsec)
    folds = assign_folds(data.labels[known], groups[known], n_folds=n_folds, seed=params.seed)
    scores = pd.Series(np.nan, index=data.ids[known])
    for fold in range(n_folds):
        split = np.full(len(data), layout.SPLITS[0], dtype="U10")
        rest = known[folds != fold]
        inner = assign_folds(data.labels[rest], groups[rest], n_folds=N_VALIDATION_PARTS, seed=params.seed + fold)
        split[rest[inner == 0]] = layout.SPLITS[1]
        split[known[folds == fold]] = layout.SPLITS[2]
        scores.iloc[np.flatnonzero(folds == fold)] = _train_and_score(data, split, network, params, n_before)
        log.info("scored fold %d of %d", fold + 1, n_folds)
    return scores


def assign_folds(labels: np.ndarray, groups: np.ndarray, *, n_folds: int, seed: int) -> np.ndarray:
    """Fold of each row, (n,) of int: groups stay whole, classes are spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.empty(len(labels), int)
    parts = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups)
    for fold, (_, rows) in enumerate(parts):
        folds[rows] = fold
    return folds


def _train_and_score(data: Dataset, split: np.ndarray, network: str, params: Params, n_before: int) -> np.ndarray:
    """Scores of the labelled test rows by a network trained on the others."""
    options: Mapping[str, Any] = params.train.model_dump(exclude={"models"}) | {"seed": params.seed + n_before}
    rows = np.flatnonzero((split == layout.SPLITS[2]) & (data.labels != layout.UNKNOWN))
    with TemporaryDirectory() as folder:
        layout.stamps_path(folder).symlink_to(layout.stamps_path(data.data_dir).resolve())
        write_table(folder, data.table.assign(**{layout.SPLIT_COLUMN: split}))
        model, meta = classifier.train(folder, network, name="model", **options)
        return classifier.score_rows(model, meta, data, rows, n_samples=params.evaluate.n_samples, seed=params.seed)
