"""Comparison of our scores with those of other classifiers in the same data set, row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.untrusted import check_header
from gotorb.errors import DataError
from gotorb.evaluation.comparison import compare_auc
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import rounded
from gotorb.evaluation.thresholds import error_rates, first_within

PREFIX = "peer_"
"""Prefix of the columns with scores of other classifiers."""
Table = dict[str, dict[str, Any]]
Spread = dict[str, dict[str, dict[str, float]]]
FPRS = (0.01, 0.05)
INTRODUCTION = (
    "Written by the stage `external_classifiers` of `make repro SOURCE=archive DATA=folder`. Each score is evaluated "
    "on the rows that have it, ours on the same rows. Intervals are 95 %, DeLong for AUC and Wilson for fractions, "
    "without the scatter between trainings. A score that was used for the labels (see `label.archive` in params.yaml "
    "and the description of the archive) is partly compared with itself: its row is an upper limit. Training settings "
    "that were chosen on the same archive (as for ZTF, see docs/real-input.md) make our numbers optimistic."
)
AGREED = "agreed"
"""Column of the label that annotators agree on."""
AGREEMENTS = {"1": layout.REAL, "0": layout.BOGUS, "1.0": layout.REAL, "0.0": layout.BOGUS}
HEADINGS = {
    "annotated": (
        "Rows on which annotators agree, scored out of fold",
        "Annotators labelled these rows by eye. Their labels are read for this table only, never to train or choose.",
    ),
    "held_out": (
        "Held-out rows",
        "The promoted model on the test rows, which were not used for training, early stopping or the choice of a "
        "model.",
    ),
    "out_of_fold": (
        "All labelled rows, each scored out of fold",
        "Several trainings with the recipe of the promoted model. Each row is scored by the training that saw neither "
        "the row nor any row of the same image, object or position. The table is of the first seed. More rows give "
        "narrower intervals, but these are not the scores of the registered model.",
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


def read_annotations(path: Path, rows: pd.DataFrame) -> pd.Series:
    """Read the labels that annotators agreed on.

    Parameters
    ----------
    path : Path
        csv with a column of ids, and the column agreed: 1 real, 0 bogus, else empty.
    rows : DataFrame
        Table of a data set, indexed by row id.

    Returns
    -------
    Series
        Label of each row of the data set, `layout.UNKNOWN` where annotators say nothing or disagree.

    Raises
    ------
    DataError
        If the file is not a csv, a column is missing, no id is that of a row, or a label is unknown or contradicted.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     print("candid,agreed\\n1,1\\n2,0\\n3,", file=file, flush=True)
    ...     read_annotations(Path(file.name), pd.DataFrame(index=["1", "2", "3"])).tolist()
    [1, 0, -1]
    """
    check_header(path)
    try:
        known = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a csv ({error}); write it again") from None
    ids = next((name for name in known if known[name].isin(rows.index).any()), None)
    if ids is None or AGREED not in known:
        raise DataError(
            f"{path} has no column {AGREED!r}, or none with ids of the data set (has {', '.join(known)}); correct it, "
            "or peers.annotations"
        )
    given = known.drop_duplicates([ids, AGREED]).set_index(ids)[AGREED].str.strip()
    if (odd := given[~given.isin(["", *AGREEMENTS])]).size:
        raise DataError(f"{path} has {AGREED} = {odd.iloc[0]!r} for {odd.index[0]!r}; give 1, 0 or nothing")
    if (twice := given.index[given.index.duplicated()]).size:
        raise DataError(f"{path} has two different labels of {twice[0]!r}; keep one of them")
    return given.map(AGREEMENTS).reindex(rows.index).fillna(layout.UNKNOWN).astype(int)


def compare_all(
    rows: pd.DataFrame,
    held_out: pd.Series,
    trainings: pd.DataFrame,
    *,
    network: str,
    annotated: pd.Series | None = None,
) -> tuple[dict[str, Table], Spread]:
    """Compare the promoted model with every ``peer_`` column, on annotated, out-of-fold and held-out rows.

    Parameters
    ----------
    rows : DataFrame
        Table of a data set, indexed by row id.
    held_out : Series
        Scores of the promoted model on the test rows.
    trainings : DataFrame
        Out-of-fold scores (`layout.OUT_OF_FOLD_CSV`); the tables have those of the first training.
    network : str
        Name of the promoted model.
    annotated : Series, optional
        Labels by annotators, from `read_annotations`.

    Returns
    -------
    tables : dict
        By key of `HEADINGS`, as from `compare_scores`; without one of rows in which a class is missing.
    spread : dict
        By key and model: as from `measure_spread`.

    Examples
    --------
    >>> ids = list("abcd")
    >>> rows = pd.DataFrame({"label": [0, 0, 1, 1], "peer_rb": [0.1, 0.8, 0.2, 0.9]}, index=ids)
    >>> trainings = pd.DataFrame({"id": ids, layout.SEED_COLUMN: 0, "fusion": [0.1, 0.2, 0.8, 0.9]})
    >>> tables, spread = compare_all(rows, pd.Series([0.2, 0.7], ["b", "c"]), trainings, network="fusion")
    >>> list(tables), spread["out_of_fold"]["fusion"]["auc"]
    (['out_of_fold', 'held_out'], 1.0)
    """
    labels = {"annotated": annotated, "out_of_fold": rows["label"].astype(int)}
    tables: dict[str, Table] = {}
    spread: Spread = {}
    parts = trainings.set_index("id").groupby(layout.SEED_COLUMN)
    scores = [part.drop(columns=layout.SEED_COLUMN).astype(float) for _, part in parts]
    for name, known in labels.items():
        if known is None or not scores or not {layout.REAL, layout.BOGUS} <= set(known[scores[0].index]):
            continue
        judged = rows.assign(label=known)
        tables[name] = compare_with_external(judged, scores[0][network])
        spread[name] = {model: measure_spread(judged["label"], [one[model] for one in scores]) for model in scores[0]}
    return tables | {"held_out": compare_with_external(rows, held_out)}, spread


def measure_spread(labels: pd.Series, trainings: Sequence[pd.Series]) -> dict[str, float]:
    """Spread of AUC and missed fraction over trainings that differ by their seed.

    Parameters
    ----------
    labels : Series
        Label of each row by id.
    trainings : sequence of Series
        Scores by id of each training.

    Returns
    -------
    dict
        n trainings; mean and standard deviation (n - 1) of auc and of the missed fraction at each of `FPRS`.

    Examples
    --------
    >>> labels = pd.Series([0, 1], list("ab"))
    >>> measure_spread(labels, [pd.Series([0.1, 0.9], list("ab"))] * 2)["auc"]
    1.0
    """
    tables = [compare_scores(labels[one.index].to_numpy(int), one.to_numpy(), {})["gotorb"] for one in trainings]
    found: dict[str, float] = {"n": len(tables)}
    quantities = {f"missed_at_fpr_{fpr:g}": [row[f"missed_at_fpr_{fpr:g}"]["fnr"] for row in tables] for fpr in FPRS}
    quantities["auc"] = [row["auc"] for row in tables]
    for name, values in quantities.items():
        found |= {
            name: float(np.mean(values)),
            f"{name}_std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        }
    return rounded(found)


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


def format_tables(
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]], *, title: str, spread: Spread | None = None,
    labellers: str = "",
) -> str:  # fmt: skip
    """Format tables as markdown.

    Parameters
    ----------
    tables : mapping
        Key of `HEADINGS`, or any other heading -> table of `compare_scores`.
    title : str
        Heading of the page.
    spread : dict, optional
        From `compare_all`: the spread over trainings below a table.
    labellers : str
        From `describe_labellers`.

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
    lines = [f"# {title}", "", INTRODUCTION, *(["", labellers] if labellers else [])]
    for name, table in tables.items():
        heading, text = HEADINGS.get(name, (name, HEADINGS["out_of_fold"][1]))
        lines += ["", f"## {heading}", "", text, "", *_format_table(table)]
        lines += [f"\n{_format_spread(model, found)}" for model, found in (spread or {}).get(name, {}).items()]
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


def _format_spread(model: str, found: Mapping[str, float]) -> str:
    auc = f"AUC {found['auc']:.4f} +- {found['auc_std']:.4f}"
    missed, scatter = (100 * found[f"missed_at_fpr_0.05{end}"] for end in ("", "_std"))
    told = f"{auc}, missed at 5 % false positives {missed:.1f} +- {scatter:.1f} %"
    return f"{model}, {found['n']} trainings (mean and standard deviation): {told}."


def _percent(part: Mapping[str, float]) -> str:
    return f"{100 * part['fnr']:.1f} % ({100 * part['low']:.1f} to {100 * part['high']:.1f})"


def _difference(row: Mapping[str, float]) -> str:
    return f"{row['ours_minus_theirs']:+.4f} ({row['difference_low']:+.4f} to {row['difference_high']:+.4f})"
