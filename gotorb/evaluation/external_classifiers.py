"""Comparison of our scores with those of other classifiers in the same data set, row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.thresholds import error_rates, first_within

PREFIX = "peer_"
"""Prefix of the columns with scores of other classifiers."""
Table = dict[str, dict[str, Any]]
FPRS = (0.01, 0.05)
INTRODUCTION = (
    "Written by the stage `external_classifiers` of `make repro SOURCE=archive DATA=folder`. Each score is evaluated "
    "on the rows that have it, ours on the same rows. Intervals are 95 %, DeLong for AUC and Wilson for fractions, "
    "without the scatter between trainings. A score that was used for the labels (see `label.archive` in params.yaml "
    "and the description of the archive) is partly compared with itself: its row is an upper limit. Training settings "
    "that were chosen on the same archive (as for ZTF, see docs/real-input.md) make our numbers optimistic."
)
HEADINGS = {
    "held_out": (
        "Held-out rows",
        "The promoted model on the test rows, which were not used for training, early stopping or the choice of a "
        "model.",
    ),
    "out_of_fold": (
        "All labelled rows, each scored out of fold",
        "Several trainings with the recipe of the promoted model. Each row is scored by the training that saw neither "
        "the row nor any row of the same image, object or position. More rows give narrower intervals, but these are "
        "not the scores of the registered model.",
    ),
}


def read_promoted(evaluations_dir: Path, promotion_path: Path) -> tuple[str, pd.Series]:
    """Read the scores of the promoted model on the test rows.

    Parameters
    ----------
    evaluations_dir : Path
        Folder with the evaluation of each model.
    promotion_path : Path
        json with the name of the promoted model.

    Returns
    -------
    network : str
        Name of the model.
    scores : Series
        Scores by row id: posterior means, or plain scores for a network without dropout.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "vgg6").mkdir()
    ...     text = "id,split,mean,score\\na,test,,0.9\\nb,train,0.2,0.1\\n"
    ...     _ = (Path(folder) / "vgg6" / "predictions.csv").write_text(text)
    ...     _ = (Path(folder) / "promotion.json").write_text('{"model": "vgg6"}')
    ...     network, scores = read_promoted(Path(folder), Path(folder) / "promotion.json")
    >>> network, scores.to_dict()
    ('vgg6', {'a': 0.9})
    """
    network = json.loads(promotion_path.read_text())["model"]
    predictions = pd.read_csv(evaluations_dir / network / layout.PREDICTIONS_CSV, dtype={"id": str})
    test = predictions[predictions["split"] == "test"]
    return network, pd.Series(test["mean"].fillna(test["score"]).to_numpy(float), index=test["id"].to_numpy(str))


def compare_with_external(rows: pd.DataFrame, ours: pd.Series) -> Table:
    """Compare our scores with every ``peer_`` column, row by row.

    Parameters
    ----------
    rows : DataFrame
        Table of a data set, indexed by row id.
    ours : Series
        Our scores by row id.

    Returns
    -------
    dict
        As from `compare_scores`.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "peer_rb": [0.1, 0.8, 0.2, 0.9]}, index=list("abcd"))
    >>> compare_with_external(rows, pd.Series([0.1, 0.2, 0.8, 0.9], list("abcd")))["rb"]["ours_minus_theirs"]
    0.25
    """
    known = rows.loc[ours.index]
    others = {name.removeprefix(PREFIX): known[name].to_numpy(float) for name in known if name.startswith(PREFIX)}
    return compare_scores(known["label"].to_numpy(int), ours.to_numpy(), others, rows=known)


def compare_ways(
    rows: pd.DataFrame,
    ways: Mapping[str, Sequence[pd.Series]],
    n_trainings: Sequence[int],
) -> dict[str, Table]:
    """Compare several training set-ups with every ``peer_`` column.

    Parameters
    ----------
    rows : DataFrame
        Table of a data set, indexed by row id.
    ways : mapping of str to sequence of Series
        Name of a set-up -> out-of-fold scores of its trainings, which differ by their seed.
    n_trainings : sequence of int
        Numbers of trainings to average.

    Returns
    -------
    dict
        A table of `compare_scores` for each set-up and number of trainings.

    Examples
    --------
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "peer_rb": [0.1, 0.8, 0.2, 0.9]}, index=list("abcd"))
    >>> ours = pd.Series([0.1, 0.2, 0.8, 0.9], list("abcd"))
    >>> list(compare_ways(rows, {"from scratch": [ours, ours]}, (1, 2)))
    ['from scratch', 'from scratch, 2 trainings averaged']
    """
    tables = {}
    for name, trained in ways.items():
        for n in n_trainings:
            shown = name if n == 1 else f"{name}, {n} trainings averaged"
            scores = sum(trained[1:n], trained[0]) / n
            tables[shown] = compare_with_external(rows, scores)
    return tables


def compare_scores(
    labels: np.ndarray,
    ours: np.ndarray,
    others: Mapping[str, np.ndarray],
    *,
    rows: pd.DataFrame | None = None,
) -> Table:
    """Evaluate each score on the rows that have it, and ours on the same rows.

    Parameters
    ----------
    labels : ndarray
        (n,) 1 real, 0 bogus; other rows are left out.
    ours : ndarray
        (n,) our scores.
    others : mapping of str to ndarray
        Name -> (n,) scores of another classifier, NaN where absent.
    rows : DataFrame, optional
        (n,) image_id and object_id: rows of the same image or object are not independent.

    Returns
    -------
    dict
        For "gotorb" and each other classifier: n_real, n_bogus, auc with its 95 % interval, the missed fraction of real
        rows at fixed false-positive rates with Wilson intervals; for others our AUC minus theirs with its interval.

    Examples
    --------
    >>> labels, ours, theirs = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.1, 0.8, 0.2, 0.9])
    >>> table = compare_scores(labels, ours, {"rb": theirs})
    >>> table["gotorb"]["auc"], table["rb"]["auc"]
    (1.0, 0.75)
    """
    table = {}
    for name, theirs in {"gotorb": ours, **others}.items():
        usable = np.isin(labels, (0, 1)) & np.isfinite(theirs)
        both = compare_auc(labels[usable], theirs[usable], ours[usable], rows=None if rows is None else rows[usable])
        row: dict[str, Any] = {"n_real": int((labels[usable] == 1).sum()), "n_bogus": int((labels[usable] == 0).sum())}
        row |= {"auc": both.auc_a, "auc_low": both.auc_a_low, "auc_high": both.auc_a_high}
        row |= {f"missed_at_fpr_{fpr:g}": _missed(labels[usable], theirs[usable], fpr) for fpr in FPRS}
        if name != "gotorb":
            row["ours_minus_theirs"] = -both.difference
            row |= {"difference_low": -both.difference_high, "difference_high": -both.difference_low}
        table[name] = row
    return rounded(table)


def _missed(labels: np.ndarray, scores: np.ndarray, fpr: float) -> dict[str, Any]:
    rates = error_rates(labels, scores)
    fnr = float(rates.fnr[first_within(rates.fpr, fpr)])
    n_real = int((labels == 1).sum())
    low, high = wilson_interval(round(fnr * n_real), n_real) or (None, None)
    return {"fnr": fnr, "low": low, "high": high}


def format_tables(tables: Mapping[str, Mapping[str, Mapping[str, Any]]], *, title: str) -> str:
    """Format tables as markdown.

    Parameters
    ----------
    tables : mapping
        Key of `HEADINGS`, or any other heading -> table of `compare_scores`.
    title : str
        Heading of the page.

    Returns
    -------
    str
        Page in markdown.

    Examples
    --------
    >>> table = compare_scores(np.array([0, 1]), np.array([0.1, 0.9]), {})
    >>> format_tables({"held_out": table}, title="Scores").splitlines()[-1].split(" (")[0]
    '| gotorb | 1 | 1 | 1.0000'
    """
    lines = [f"# {title}", "", INTRODUCTION]
    for name, table in tables.items():
        heading, text = HEADINGS.get(name, (name, HEADINGS["out_of_fold"][1]))
        lines += ["", f"## {heading}", "", text, "", *_format_table(table)]
    return "\n".join(lines) + "\n"


def _format_table(table: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "| score | real | bogus | AUC | missed at 1 % false positives | missed at 5 % | ours minus theirs (AUC) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in table.items():
        missed = [_percent(row[f"missed_at_fpr_{fpr:g}"]) for fpr in FPRS]
        ahead = "" if name == "gotorb" else _difference(row)
        auc = f"{row['auc']:.4f} ({row['auc_low']:.4f} to {row['auc_high']:.4f})"
        lines.append(f"| {name} | {row['n_real']} | {row['n_bogus']} | {auc} | {missed[0]} | {missed[1]} | {ahead} |")
    return lines


def _percent(part: Mapping[str, float]) -> str:
    return f"{100 * part['fnr']:.1f} % ({100 * part['low']:.1f} to {100 * part['high']:.1f})"


def _difference(row: Mapping[str, float]) -> str:
    return f"{row['ours_minus_theirs']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
