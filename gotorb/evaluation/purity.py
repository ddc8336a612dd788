"""How pure labels are, measured against the truth that only a simulated survey has."""

from typing import Any

import pandas as pd

from gotorb import layout
from gotorb.errors import DataError
from gotorb.evaluation.intervals import wilson_interval
from gotorb.evaluation.metrics import rounded

FROM_DETECTIONS = ("mp", "randjunk")
"""Metalabels whose rows are detections of their own; the others are made of several sources."""


def join_truth(table: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Rows of a data set that are detections, with what each really is.

    Parameters
    ----------
    table : DataFrame
        Rows with candidate_id.
    truth : DataFrame
        candidate_id, kind, is_real (1 or 0).

    Returns
    -------
    DataFrame
        The rows of metalabel mp or randjunk, or without one, with kind and is_real.

    Raises
    ------
    DataError
        If a detection is not in the truth: the two are not of one survey.
    """
    own = table[table["metalabel"].isin([*FROM_DETECTIONS, ""])]
    known = truth.assign(candidate_id=truth["candidate_id"].astype(str))[["candidate_id", "kind", "is_real"]]
    joined = own.merge(known, on="candidate_id", how="left", validate="many_to_one")
    unknown = joined["is_real"].isna()
    if unknown.any():
        raise DataError(
            f"candidate {joined['candidate_id'][unknown].iloc[0]} is not in {layout.TRUTH_CSV}; "
            "the labels are of another survey: run the label stage again"
        )
    return joined.assign(is_real=joined["is_real"].astype(int))


def measure_purity(rows: pd.DataFrame) -> dict[str, Any]:
    """Fraction of right labels for each metalabel, with 95 % Wilson intervals and what the labelled really are.

    Parameters
    ----------
    rows : DataFrame
        From `join_truth`: label, metalabel, kind, is_real.

    Returns
    -------
    dict
        For each metalabel: n, n_right, purity, low, high, kinds (counts).
    """
    purity = {}
    for name, part in rows.groupby("metalabel"):
        n, n_right = len(part), int((part["label"] == part["is_real"]).sum())
        low, high = wilson_interval(n_right, n) or (None, None)
        kinds = {kind: int(count) for kind, count in part["kind"].value_counts().sort_index().items()}
        purity[name] = {"n": n, "n_right": n_right, "purity": n_right / n, "low": low, "high": high, "kinds": kinds}
    return rounded(purity)
