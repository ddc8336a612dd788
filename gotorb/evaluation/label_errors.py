"""Label errors: labels contradicted by a classifier that was not trained on them, ranked and counted.

References
----------
Northcutt, Jiang & Chuang 2021 (JAIR 70, 1373): confident learning. Blanchard, Lee & Scott 2010 (JMLR 11, 2973): the
contamination of a sample, from the part of it that looks like the contaminant. Zou & Donner 2008 (Stat. Med. 27, 1693):
intervals of sums from those of their terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gotorb.core import layout
from gotorb.core.files import write_csv
from gotorb.errors import DataError
from gotorb.evaluation.intervals import wilson_interval

LIST_COLUMNS = ("id", "label", "metalabel", "score", "doubt", "suspect")


@dataclass(frozen=True)
class LabelErrors:
    """Doubtful labels.

    Attributes
    ----------
    rows : DataFrame
        All labelled rows, the most doubtful first: the given columns, ``doubt`` (probability of the other label) and
        ``suspect`` (confidently of the other class).
    noise : DataFrame
        For each metalabel n, n_suspects, rate and its 95 % interval low, high.
    thresholds : tuple of float
        Definition of "confident": mean probability of bogus among bogus labels, and of real among real labels.
    """

    rows: pd.DataFrame
    noise: pd.DataFrame
    thresholds: tuple[float, float]


def rank_labels(rows: pd.DataFrame) -> LabelErrors:
    """Rank labelled rows by doubt and count the confident contradictions.

    A row is a suspect if its probability of the other class is above one half and at least the mean probability of that
    class among rows with that label.

    Parameters
    ----------
    rows : DataFrame
        id, label (1, 0; others are left out), metalabel, and score: probability of being real by a network that was
        not trained on the row or on rows linked to it.

    Returns
    -------
    LabelErrors
        Ranked rows, and the label noise of each metalabel.

    Raises
    ------
    DataError
        If a class is absent or a score is not finite.

    Examples
    --------
    >>> rows = pd.DataFrame({"id": list("abcd"), "label": [1, 1, 0, 0], "score": [0.9, 0.8, 0.1, 0.95]})
    >>> rank_labels(rows.assign(metalabel="")).rows["id"].tolist()[0]
    'd'
    """
    known = rows[rows["label"].isin((layout.REAL, layout.BOGUS))].reset_index(drop=True)
    labels, real = known["label"].to_numpy(int), known["score"].to_numpy(float)
    if len(set(labels.tolist())) < 2 or not np.isfinite(real).all():
        raise DataError(f"{len(known)} of {len(rows)} rows are labelled; give real and bogus rows with finite scores")
    thresholds = float(np.mean(1 - real[labels == 0])), float(np.mean(real[labels == 1]))
    doubt = np.where(labels == 1, 1 - real, real)
    bar = np.where(labels == 1, thresholds[0], thresholds[1])
    listed = known.assign(doubt=doubt, suspect=(doubt >= bar) & (doubt > 0.5))
    order = np.lexsort((known["id"].to_numpy(str), -doubt))
    return LabelErrors(listed.iloc[order].reset_index(drop=True), _noise(listed), thresholds)


MIN_REAL = 20
"""Fewest real rows whose median score is used."""


def correct_fpr(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    """Correct the false-positive rate for real sources among the rows labelled bogus.

    Rows labelled bogus that score like the upper half of the real rows are taken for real. Twice their number estimates
    all real sources among the bogus labels, which are missed as often as rows labelled real. The estimate is too low if
    these sources are fainter than the real rows, and too high if true bogus score like the upper half of the real rows.

    Parameters
    ----------
    labels, scores : ndarray
        (n,) 1 real, 0 bogus; scores of rows that were not used for training.
    threshold : float
        Score at or above which a row is called real.

    Returns
    -------
    dict
        contamination (real fraction of the bogus labels), fpr, fpr_low, fpr_high (95 %); None with fewer than
        `MIN_REAL` real rows or without bogus rows.

    Examples
    --------
    >>> labels, scores = np.repeat([1, 0], 20), np.concatenate([np.linspace(0.6, 0.99, 20), np.linspace(0.01, 0.4, 20)])
    >>> correct_fpr(labels, scores, 0.5)["fpr"]
    0.0
    """
    real, bogus = scores[labels == layout.REAL], scores[labels == layout.BOGUS]
    if len(real) < MIN_REAL or len(bogus) == 0:
        return dict.fromkeys(("contamination", "fpr", "fpr_low", "fpr_high"))
    found, top = float((real >= threshold).mean()), max(float(np.median(real)), threshold)
    upper = float((real >= top).mean())
    n, n_top = len(bogus), int((bogus >= top).sum())
    middle, above = (
        wilson_interval(count, n) or (0.0, 1.0) for count in (int((bogus >= threshold).sum()) - n_top, n_top)
    )
    between, at_top = int((bogus >= threshold).sum()) / n - n_top / n, n_top / n
    factor = found / upper - 1 if upper else 0.0
    low = np.hypot(between - middle[0], factor * (above[1] - at_top))
    high = np.hypot(middle[1] - between, factor * (at_top - above[0]))
    share = min(at_top / upper, 0.5) if upper else 0.0
    values = np.clip(between - factor * at_top + np.array([0.0, -low, high]), 0, 1) / (1 - share)
    return {"contamination": share, "fpr": float(values[0]), "fpr_low": float(values[1]), "fpr_high": float(values[2])}


def _noise(listed: pd.DataFrame) -> pd.DataFrame:
    table = []
    for metalabel, part in listed.groupby("metalabel", sort=True):
        n, hits = len(part), int(part["suspect"].sum())
        low, high = wilson_interval(hits, n) or (np.nan, np.nan)
        table.append((metalabel, n, hits, hits / n, low, high))
    return pd.DataFrame(table, columns=["metalabel", "n", "n_suspects", "rate", "low", "high"])


def write_label_errors(found: LabelErrors, path: Path) -> None:
    """Write the ranked rows as csv.

    Parameters
    ----------
    found : LabelErrors
        From `rank_labels`.
    path : Path
        File to write, with `LIST_COLUMNS`.

    Examples
    --------
    >>> import tempfile
    >>> rows = pd.DataFrame({"id": list("ab"), "label": [1, 0], "metalabel": "", "score": [0.9, 0.1]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_label_errors(rank_labels(rows), Path(folder) / "errors.csv")
    ...     len(pd.read_csv(Path(folder) / "errors.csv"))
    2
    """
    write_csv(path, found.rows[list(LIST_COLUMNS)], inert=True, float_format="%.6f")
