"""Ways to learn from bogus labels of which some are on real sources, compared out of fold.

``python -m studies.wrong_bogus DATA_SET`` writes reports/wrong_bogus.json and its table, reports/wrong_bogus.md. Minor
planets get the label bogus on purpose, in the rows learned from only: as many as make up a share of the random bogus.
Each row is then scored by forests that saw neither the row nor any row linked to it, and compared with its own label.

Two of the ways are published ones, here with forests on measured features in place of networks:

* asymmetric co-teaching: two learners, each with half of the rows, choose for one another the bogus rows that are
  probably right; real rows are all kept, since only bogus rows are contaminated;
* two stages: bogus rows that the first stage takes for real lose their labels; the second stage learns from them by the
  labels that it gives to those of which it is sure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gotorb.core import layout
from gotorb.core.files import write_json, write_text
from gotorb.core.params import DatasetParams, TrainParams
from gotorb.dataset.split import assign_folds, link_groups
from gotorb.dataset.store import Dataset, open_dataset
from gotorb.errors import DataError, GotorbError
from gotorb.evaluation.comparison import SUSPECT_PROBABILITY, compare_auc
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.thresholds import fnr_at_fpr
from gotorb.features import FeatureSet
from gotorb.training.data import measure_rows
from gotorb.training.trees import fit_trees

SHARES = (0.0, 0.05, 0.15)
"""Fractions of the random bogus that are planted minor planets."""
N_FOLDS, N_INNER, N_TREES, N_SEEDS, THREADS = 5, 3, 100, 2, 2
FPR, SURE, N_ROUNDS = 0.01, 0.9, 4
REAL_KIND, BOGUS_KIND = "mp", "randjunk"


@dataclass(frozen=True)
class Lesson:
    """Rows to learn from: features, labels, which bogus rows are in doubt, groups of linked rows, seed."""

    rows: np.ndarray
    labels: np.ndarray
    doubtful: np.ndarray
    groups: np.ndarray
    seed: int

    @cached_property
    def inside(self) -> np.ndarray:
        """Out-of-fold scores of the rows themselves."""
        folds, scores = assign_folds(self.labels, self.groups, n_folds=N_INNER, seed=self.seed), self.labels * 0.0
        for fold in range(N_INNER):
            held = folds == fold
            scores[held] = fit(self.rows[~held], self.labels[~held].astype(float), self.seed)(self.rows[held])
        return scores


Scorer = Callable[[np.ndarray], np.ndarray]


def fit(rows: np.ndarray, targets: np.ndarray, seed: int) -> Scorer:
    """Fit a forest, with equal weight of both classes."""
    real = max(targets.mean(), 1e-6)
    weights = targets / real + (1 - targets) / (1 - real)
    trees = fit_trees(rows, targets, weights, n_trees=N_TREES, seed=seed, threads=THREADS)
    return lambda other: trees.leaves(other).mean(axis=1)


def learn_as_labelled(lesson: Lesson) -> Scorer:
    """Learn the labels as they are."""
    return fit(lesson.rows, lesson.labels.astype(float), lesson.seed)


def learn_without_suspects(lesson: Lesson) -> Scorer:
    """Leave out the bogus rows that are real by their out-of-fold scores."""
    kept = ~(lesson.doubtful & (lesson.inside >= SUSPECT_PROBABILITY))
    return fit(lesson.rows[kept], lesson.labels[kept].astype(float), lesson.seed)


def learn_half_scores(lesson: Lesson) -> Scorer:
    """Learn the mean of label and out-of-fold score of the rows in doubt."""
    targets = lesson.labels.astype(float)
    targets[lesson.doubtful] = lesson.inside[lesson.doubtful] / 2
    return fit(lesson.rows, targets, lesson.seed)


def learn_in_pairs(lesson: Lesson) -> Scorer:
    """Asymmetric co-teaching of two forests; the share left out grows to that of the suspects."""
    halves = assign_folds(lesson.labels, lesson.groups, n_folds=2, seed=lesson.seed)
    kept, targets = np.ones(len(halves), bool), lesson.labels.astype(float)
    for number in range(1, N_ROUNDS + 1):
        learners = [fit(lesson.rows[kept & (halves == half)], targets[kept & (halves == half)], lesson.seed + half)
                    for half in (0, 1)]  # fmt: skip
        if number == N_ROUNDS:
            break
        scores = np.where(halves == 0, learners[1](lesson.rows), learners[0](lesson.rows))
        share = number / (N_ROUNDS - 1) * np.mean(scores[lesson.doubtful] >= 0.5)
        bar = np.quantile(scores[lesson.doubtful], 1 - share)
        kept = ~(lesson.doubtful & (scores > bar))
    return lambda other: (learners[0](other) + learners[1](other)) / 2


def learn_in_stages(lesson: Lesson) -> Scorer:
    """Two stages: suspected bogus rows lose their labels, then those with a sure score get it as label."""
    unlabelled = lesson.doubtful & (lesson.inside >= 0.5)
    targets = lesson.labels.astype(float)
    scores = fit(lesson.rows[~unlabelled], targets[~unlabelled], lesson.seed)(lesson.rows)
    sure = unlabelled & ((scores >= SURE) | (scores <= 1 - SURE))
    targets[sure] = np.round(scores[sure])
    kept = ~unlabelled | sure
    return fit(lesson.rows[kept], targets[kept], lesson.seed)


WAYS: dict[str, Callable[[Lesson], Scorer]] = {
    "labels as they are": learn_as_labelled,
    "without suspects": learn_without_suspects,
    "half label, half out-of-fold score": learn_half_scores,
    "asymmetric co-teaching": learn_in_pairs,
    "two stages": learn_in_stages,
}


def plant(data: Dataset, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Give minor planets the label bogus."""
    kinds = data.table["metalabel"].to_numpy(str)
    real, n_bogus = np.flatnonzero((kinds == REAL_KIND) & (labels == layout.REAL)), np.sum(kinds == BOGUS_KIND)
    planted = np.zeros(len(labels), bool)
    planted[rng.choice(real, min(len(real) // 2, round(share / (1 - share) * n_bogus)), replace=False)] = True
    return planted


def score_ways(
    data: Dataset, measured: np.ndarray, groups: np.ndarray, share: float, seed: int
) -> dict[str, np.ndarray]:
    """Out-of-fold scores of all rows by each way."""
    planted = plant(data, data.labels, share, np.random.default_rng(seed))
    labels = np.where(planted, layout.BOGUS, data.labels)
    doubtful = planted | (data.table["metalabel"].to_numpy(str) == BOGUS_KIND)
    folds = assign_folds(data.labels, groups, n_folds=N_FOLDS, seed=seed)
    scores = {name: np.full(len(labels), np.nan) for name in WAYS}
    for fold in range(N_FOLDS):
        held = folds == fold
        lesson = Lesson(measured[~held], labels[~held], doubtful[~held], groups[~held], seed)
        for name, learn in WAYS.items():
            scores[name][held] = learn(lesson)(measured[held])
    return scores


def compare_ways(data_dir: Path, *, n_seeds: int = N_SEEDS) -> dict[str, Any]:
    """Compare the ways at each share of planted labels."""
    data = open_dataset(data_dir)
    known = np.flatnonzero(data.labels != layout.UNKNOWN)
    if len(known) < len(data):
        raise DataError(f"{len(data) - len(known)} rows of {data_dir} have no label; give a data set without them")
    measured = measure_rows(FeatureSet(data.size, TrainParams().layers), data, known)
    groups = link_groups(data.table, link_radius_arcsec=DatasetParams().link_radius_arcsec)
    report: dict[str, Any] = {"n_real": int(data.labels.sum()), "n_bogus": int((data.labels == 0).sum())}
    report |= {"n_seeds": n_seeds, "fpr": FPR, "shares": {}}
    for share in SHARES:
        scored = [score_ways(data, measured, groups, share, seed) for seed in range(n_seeds)]
        report["shares"][f"{share:g}"] = {name: _measure(data, [one[name] for one in scored], [next(iter(one.values()))
                                          for one in scored]) for name in WAYS}  # fmt: skip
    return rounded(report)


def _measure(data: Dataset, scores: list[np.ndarray], first: list[np.ndarray]) -> dict[str, float]:
    pairs = [compare_auc(data.labels, a, b, rows=data.table) for a, b in zip(scores, first, strict=True)]
    missed = [fnr_at_fpr(data.labels, one, FPR) for one in scores]
    areas = [pair.auc_a for pair in pairs]
    found = {"auc": float(np.mean(areas)), "auc_std": float(np.std(areas))}
    found |= {"missed": float(np.mean(missed)), "missed_std": float(np.std(missed))}
    ends = ("difference", "difference_low", "difference_high")
    return {**found, **{end: float(np.mean([getattr(pair, end) for pair in pairs])) for end in ends}}


def format_ways(report: dict[str, Any]) -> str:
    """Format a report of `compare_ways` as a page of markdown."""
    lines = [
        "# Learning from bogus labels on real sources", "",
        "Written by `python -m studies.wrong_bogus`. Forests on measured features; each of the "
        f"{report['n_real']} real and {report['n_bogus']} bogus rows is scored by forests that saw neither it nor a "
        "row linked to it, and compared with its own label. Planted: minor planets with the label bogus in the rows "
        f"learned from, as a share of the random bogus. Means and standard deviations over {report['n_seeds']} seeds; "
        "the difference is that of the AUC to the first line, with its 95 % interval by image.", "",
        f"| planted | way | AUC | difference | missed at {100 * report['fpr']:g} % false positives |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for share, ways in report["shares"].items():
        for name, one in ways.items():
            change = f"{one['difference']:+.4f} ({one['difference_low']:+.4f} to {one['difference_high']:+.4f})"
            lines.append(
                f"| {100 * float(share):g} % | {name} | {one['auc']:.4f} +- {one['auc_std']:.4f} "
                f"| {'' if name == next(iter(ways)) else change} "
                f"| {100 * one['missed']:.1f} +- {100 * one['missed_std']:.1f} % |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write reports/wrong_bogus.json and reports/wrong_bogus.md."""
    parser = argparse.ArgumentParser(prog="python -m studies.wrong_bogus", description=__doc__)
    parser.add_argument("data_dir", type=Path, nargs="?", default=Path("data/dataset"), help="default: data/dataset")
    args = parser.parse_args()
    try:
        report = compare_ways(args.data_dir)
    except GotorbError as error:
        print(f"studies.wrong_bogus: {error}", file=sys.stderr)
        return 1
    write_json(Path("reports/wrong_bogus.json"), report)
    write_text(Path("reports/wrong_bogus.md"), format_ways(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
